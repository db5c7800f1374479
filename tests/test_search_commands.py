"""The searching commands: options, tables, JSON, saved searches."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.qdrant_loopback import LOCAL_MODE
from tests.search_archive import make_videos, open_archive
from visxp_search import cli
from visxp_search.api import Index
from visxp_search.commands import search
from visxp_search.errors import UsageError

pytestmark = LOCAL_MODE


@pytest.fixture(autouse=True)
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Commands open a made-up archive in which video02 repeats five seconds of video01."""
    videos = make_videos(0, n_videos=10, n_seconds=20)
    for name in ("visual", "audio"):
        videos["video02"][name][12:17] = videos["video01"][name][3:8]
    with open_archive(videos) as store:
        index = nullcontext(Index(store, embedder=None))  # type: ignore[arg-type]
        monkeypatch.setattr(search, "open_searchable", lambda *_: index)
        monkeypatch.setattr(search, "open_bare_store", lambda *_: nullcontext(store))
        monkeypatch.chdir(tmp_path)
        yield


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `visxp search ...`."""
    code = cli.main(["search", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints the moments, each with its chance and both timelines."""
    code, out, _ = run(capsys, "moment", "video01.mp4@3-8", "--mode", "same", "--exclude-self", "--json")
    moments = json.loads(out)["moments"]
    assert code == 0
    assert [(m["video_id"], round(m["start"]), round(m["end"])) for m in moments] == [("video02", 12, 17)]
    assert [s["query_second"] for s in moments[0]["seconds"]] == [0, 1, 2, 3, 4]
    assert moments[0]["chance"] < 0.01


def test_explain_shows_both_timelines(capsys: pytest.CaptureFixture[str]) -> None:
    """`--explain` prints each second of the query beside that of the video, and what carried it."""
    code, out, _ = run(capsys, "moment", "video01.mp4@3-8", "--mode", "same", "--hide", "video01.mp4", "--explain")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert any(line[:2] == ["0:03", "0:12"] for line in lines)
    assert "carried by" in out


def test_a_search_is_saved_run_and_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    """`--save`, `run`, `run --new`, `saved` and `--forget` work together."""
    run(capsys, "moment", "video01.mp4@3-8", "--mode", "same", "--save", "ad", "--path", "video0*")
    _, out, _ = run(capsys, "run", "ad", "--json")
    assert {moment["video_id"] for moment in json.loads(out)["moments"]} == {"video01", "video02"}
    _, out, _ = run(capsys, "run", "ad", "--new", "--json")
    assert json.loads(out)["moments"] == [] and "nothing new" in json.loads(out)["reason"]
    _, out, _ = run(capsys, "saved", "--json")
    assert [(s["name"], s["options"]["paths"]) for s in json.loads(out)] == [("ad", ["video0*"])]
    run(capsys, "saved", "--forget", "ad")
    code, _, err = run(capsys, "run", "ad")
    assert code == 2 and "no saved search is named 'ad'" in err


def test_no_answer_is_said_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """A search that finds nothing exits 0, prints nothing on stdout and says why on stderr."""
    code, out, err = run(capsys, "moment", "video05.mp4@3-8", "--mode", "same", "--exclude-self")
    assert (code, out) == (0, "")
    assert "nothing like this here" in err


def test_exhaustive_tells_its_yield(capsys: pytest.CaptureFixture[str]) -> None:
    """`--exhaustive` reports on stderr how many moments each further part of the archive brought."""
    code, out, err = run(capsys, "moment", "video01.mp4@3-8", "--mode", "same", "--exhaustive", "--json")
    assert code == 0
    document = json.loads(out)
    assert f"compared 10 of 10 videos: {len(document['moments'])} moments" in err
    assert document["yield"][-1] == {"videos": 10, "moments": len(document["moments"])}
    assert [moment["video_id"] for moment in document["moments"][:2]] == ["video01", "video02"]


@pytest.mark.parametrize("command", ["clip", "sound", "frame", "moment"])
def test_all_searching_commands_have_all_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every searching command knows filters, examples, explanation and saving."""
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    for option in ("--not-cluster", "--modified-since", "--unlike", "--then", "--max-chance", "--explain", "--save"):
        assert option in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("moment", "video01.mp4"), "write VIDEO@S"),
        (("moment", "video01.mp4@8-3"), "ends before it begins"),
        (("moment", "video01.mp4@3", "--mode", "alike"), "--mode alike"),
        (("moment", "video01.mp4@3", "--flag", "dark"), "flag 'dark'"),
        (("moment", "video01.mp4@3", "--after", "5", "--before", "2"), "--before 2"),
        (
            (
                "moment",
                "none.mp4@3",
            ),
            "no indexed video",
        ),
        (("evaluate",), "give either JUDGED.csv or --trials"),
    ],
)
def test_wrong_use_is_one_clear_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option exits 2 with one line that says what to write."""
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_moments_are_parsed() -> None:
    """VIDEO@S is one second, VIDEO@S-E several; a name may hold an @."""
    assert search.parse_moment("a@b.mp4@1:10-1:16") == ("a@b.mp4", 70, 76)
    assert search.parse_moment("a.mp4@5") == ("a.mp4", 5, 6)
    with pytest.raises(UsageError, match="VIDEO@S"):
        search.parse_moment("a.mp4")
