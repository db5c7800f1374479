"""The command line: what it prints, where, and how it ends."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer

from tests.conftest import RATE, make_film, write_film
from visxp_search.api import open_index
from visxp_search.cli import app, main
from visxp_search.render import write_audio, write_image, write_video

Run = tuple[int, str, str]
Visxp = Callable[..., Run]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Path:
    """An index of the small films, by the shipped checkpoint."""
    folder = tmp_path_factory.mktemp("cli") / "index"
    with open_index(folder, create=True) as opened:
        opened.add([films])
    return folder


@pytest.fixture
def visxp(capfd: pytest.CaptureFixture[str], index: Path) -> Visxp:
    """Runs a command line against the index: (exit code, stdout, stderr)."""

    def run(*arguments: object, on_index: bool = True) -> Run:
        words = [str(argument) for argument in arguments]
        words += ["--index", str(index)] if on_index else []
        code = main(words)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def _commands(group: typer.Typer, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command below a group."""
    for command in group.registered_commands:
        yield (*prefix, str(command.name))
    for sub in group.registered_groups:
        assert sub.typer_instance is not None
        yield from _commands(sub.typer_instance, (*prefix, str(sub.name)))


@pytest.mark.parametrize("command", list(_commands(app)), ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """The help of each command says what it does and shows a command line."""
    assert main([*command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "Example" in printed
    assert f"visxp {' '.join(command)}" in re.sub(r"\s+", " ", printed)


def test_clip_search_finds_its_source(visxp: Visxp, films: Path) -> None:
    """Asking with a span of an indexed video finds that span first, and the JSON has what the design says."""
    code, out, _ = visxp("search", "clip", films / "long.mp4", "--start", "10", "--end", "16", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["query"]["kind"] == "clip"
    assert found["query"]["by"] == "both"
    assert found["query"]["seconds"] == 6
    assert found["indexed"] == {"videos": 4, "seconds": 55, "complete": True}
    assert found["took_ms"] > 0
    first = found["moments"][0]
    assert Path(first["path"]).name == "long.mp4"
    assert (first["start"], first["end"]) == pytest.approx((10, 16), abs=0.1)
    assert first["score"] > 0.99
    assert {"video_id", "percentile", "visual", "audio", "coverage", "offset"} <= set(first)
    assert [second["second"] for second in first["seconds"]] == list(range(10, 16))
    assert set(first["seconds"][0]) >= {"second", "visual", "audio", "cluster"}


PLAIN = [("visual", "similar"), ("audio", "similar"), ("audio", "same"), ("both", "similar"), ("both", "same")]


@pytest.mark.parametrize(("by", "mode"), PLAIN)
def test_each_modality_and_mode_finds_a_moment(visxp: Visxp, films: Path, by: str, mode: str) -> None:
    """By picture, by sound and by both, in both modes, an indexed span is found first where it is.

    Each second of the film is one still picture, which cannot tell cuts between its seconds apart; `same` by picture
    is asked for in a film that moves.
    """
    arguments = ("search", "clip", films / "long.mp4", "--start", "20", "--end", "25", "--by", by, "--mode", mode)
    code, out, _ = visxp(*arguments, "--json")
    assert code == 0
    first = json.loads(out)["moments"][0]
    assert Path(first["path"]).name == "long.mp4"
    assert (first["start"], first["end"]) == pytest.approx((20, 25), abs=0.1)


def test_pictures_that_move_are_placed_by_picture_alone(visxp: Visxp, tmp_path: Path) -> None:
    """Where each picture changes into the next, `same` finds a span by picture where it is."""
    stills = make_film(1, 41)[0][::10]
    frames = [
        (before * (1 - share) + after * share).astype(np.uint8)
        for before, after in pairwise(stills)
        for share in np.arange(10) / 10
    ]
    write_video(tmp_path / "moving.mp4", frames=frames, frames_per_second=10)
    place = ("--index", tmp_path / "index")
    assert visxp("index", "add", tmp_path / "moving.mp4", *place, on_index=False)[0] == 0
    span = ("--start", "20", "--end", "25", "--by", "visual", "--mode", "same", "--json")
    code, out, _ = visxp("search", "clip", tmp_path / "moving.mp4", *span, *place, on_index=False)
    first = json.loads(out)["moments"][0]
    assert (code, Path(first["path"]).name) == (0, "moving.mp4")
    assert (first["start"], first["end"]) == pytest.approx((20, 25), abs=0.1)


def test_sound_search_finds_sounds(visxp: Visxp, tmp_path: Path) -> None:
    """The sound of part of a film, in another format, finds that part."""
    waveform = make_film(1, 40)[1][8 * RATE : 12 * RATE]
    write_audio(tmp_path / "query.flac", waveform=waveform * 0.5, sample_rate_hz=RATE)
    code, out, _ = visxp("search", "sound", tmp_path / "query.flac", "--json")
    first = json.loads(out)["moments"][0]
    assert (code, Path(first["path"]).name, first["start"]) == (0, "long.mp4", 8.0)


def test_sound_can_ask_for_pictures(visxp: Visxp, films: Path) -> None:
    """--cross asks in the joint space and answers with moments."""
    code, out, _ = visxp("search", "sound", films / "sub" / "sound.wav", "--cross", "--json")
    assert (code, json.loads(out)["query"]["cross"]) == (0, True)


def test_frame_search_finds_its_second(visxp: Visxp, tmp_path: Path) -> None:
    """A picture file finds the second that shows it."""
    write_image(tmp_path / "still.png", frame=make_film(1, 40)[0][250])
    code, out, _ = visxp("search", "frame", tmp_path / "still.png", "--json")
    first = json.loads(out)["moments"][0]
    assert (code, Path(first["path"]).name) == (0, "long.mp4")
    assert first["start"] <= 25 < first["end"]


def test_moment_search_needs_no_file(visxp: Visxp) -> None:
    """An indexed moment finds itself, and with --exclude-self other videos only."""
    code, out, _ = visxp("search", "moment", "long.mp4@5-9", "--json")
    first = json.loads(out)["moments"][0]
    assert (code, first["start"], first["end"]) == (0, 5.0, 9.0)
    code, out, _ = visxp("search", "moment", "long.mp4@5-9", "--exclude-self", "--json")
    assert all(Path(moment["path"]).name != "long.mp4" for moment in json.loads(out)["moments"])


def test_a_whole_indexed_file_does_not_find_itself(visxp: Visxp, films: Path) -> None:
    """Asked with a whole file that is indexed, other files are found, which is said; --include-self turns it off."""
    _, out, err = visxp("search", "clip", films / "short.mp4", "--json")
    assert all(Path(moment["path"]).name != "short.mp4" for moment in json.loads(out)["moments"])
    assert "--include-self" in err
    _, out, _ = visxp("search", "clip", films / "short.mp4", "--include-self", "--json")
    assert Path(json.loads(out)["moments"][0]["path"]).name == "short.mp4"


def test_a_query_without_sound_is_answered_with_the_reason(visxp: Visxp, films: Path) -> None:
    """Asked by sound with a video that has none, nothing is found and both forms of output say why."""
    code, out, _ = visxp("search", "sound", films / "mute.mp4", "--json")
    answer = json.loads(out)
    assert (code, answer["moments"]) == (0, [])
    assert "no sound" in json.dumps(answer)
    code, out, err = visxp("search", "sound", films / "mute.mp4")
    assert code == 0
    assert "no sound" in out + err


def test_tables_for_people(visxp: Visxp, films: Path) -> None:
    """Without --json moments, videos and facts are readable tables on stdout."""
    _, out, err = visxp("search", "clip", films / "long.mp4", "--start", "0:10", "--end", "0:16")
    assert "long.mp4" in out
    assert "0:10" in out
    assert "searched 55 seconds" in err
    _, out, _ = visxp("index", "ls")
    assert "40 of 40" in out
    _, out, _ = visxp("index", "info")
    assert "55 of 55" in out


def test_index_facts_as_json(visxp: Visxp) -> None:
    """Ls and info print one JSON document."""
    _, out, _ = visxp("index", "ls", "--json")
    assert {video["kind"] for video in json.loads(out)} == {"video", "audio"}
    _, out, _ = visxp("index", "info", "--json")
    facts = json.loads(out)
    assert (facts["seconds"], facts["videos"]) == (55, {"done": 4})
    assert facts["flags"]["no_audio"] == 4


def test_add_reports_and_exits_with_what_failed(visxp: Visxp, index_folder: Path, tmp_path: Path) -> None:
    """Adding a good and a bad file exits 1, names the bad one once, also if quiet, and a removed video is gone."""
    write_film(tmp_path / "good.mp4", seed=3, n_seconds=2)
    (tmp_path / "bad.mp4").write_text("no film")
    where = ("--index", index_folder)
    command = ("index", "add", tmp_path, *where)
    code, out, _ = visxp(*command, "--json", on_index=False)
    report = json.loads(out)
    assert (code, report["indexed"], len(report["failures"])) == (1, 1, 1)
    code, out, err = visxp(*command, on_index=False)
    assert (code, out) == (1, "")
    assert err.count("bad.mp4") == 1
    assert "a new one is made" not in err
    assert "1 were done already" in err
    code, out, err = visxp(*command, tmp_path / "gone.mp4", "-q", on_index=False)
    assert (code, out, err.count("\n")) == (1, "", 2)
    assert "failed" in err and "bad.mp4: " in err
    assert f"{tmp_path / 'gone.mp4'}: there is no such file or folder" in err
    assert visxp("index", "ls", *where, on_index=False)[1].count("bad.mp4") == 1
    assert visxp("index", "rm", "good.mp4", *where, on_index=False)[0] == 0
    _, out, _ = visxp("index", "ls", "--json", *where, on_index=False)
    assert [Path(video["paths"][0]).name for video in json.loads(out)] == ["bad.mp4"]


def test_embed_writes_the_arrays_of_the_contract(visxp: Visxp, films: Path, tmp_path: Path) -> None:
    """`visxp embed` writes arrays of one length with the fixed names; images have a picture row, sounds sound rows."""
    write_image(tmp_path / "still.jpg", frame=make_film(1, 1)[0][0])
    files = (films / "short.mp4", films / "sub" / "sound.wav", tmp_path / "still.jpg", tmp_path / "none.mp4")
    code, _, err = visxp("embed", *files, "--out", tmp_path / "x.npz", on_index=False)
    assert code == 1
    assert "none.mp4" in err
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {
            *("path", "second", "visual", "audio", "joint_visual", "joint_audio", "has_visual", "has_audio")
        }
        assert {len(arrays[name]) for name in arrays} == {5 + 6 + 1}
        assert arrays["second"].dtype == np.int32
        assert arrays["visual"].dtype == arrays["joint_audio"].dtype == np.float32
        assert arrays["has_visual"].tolist() == [True] * 5 + [False] * 6 + [True]
        assert arrays["has_audio"].tolist() == [True] * 11 + [False]
        assert np.isnan(arrays["visual"][5:11]).all()
        np.testing.assert_allclose(np.linalg.norm(arrays["audio"][:11], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["search", "clip", "none.mp4"], 3, "none.mp4"),
        (["search", "clip", "{film}", "--start", "900"], 2, "no seconds from 900"),
        (["search", "clip", "{film}", "--start", "9", "--end", "3"], 2, "not after"),
        (["search", "clip", "{film}", "--start", "soon"], 2, "not understood"),
        (["search", "clip", "{film}", "--by", "smell"], 2, "choose both, visual or audio"),
        (["search", "clip", "{film}", "--mode", "odd"], 2, "choose similar or same"),
        (["search", "clip", "{film}", "--audio-weight", "3"], 2, "outside 0 to 1"),
        (["search", "clip", "{film}", "--exclude", "nobody"], 2, "no indexed video"),
        (["search", "moment", "long.mp4"], 2, "VIDEO@S"),
        (["search", "moment", "long.mp4@500"], 2, "not indexed"),
        (["search", "moment", "nobody@5"], 2, "no indexed video"),
        (["index", "nonsense"], 2, "nonsense"),
        (["embed", "{film}", "--out", "x.txt"], 2, ".npz"),
    ],
)
def test_mistakes_are_one_line(visxp: Visxp, films: Path, words: list[str], code: int, message: str) -> None:
    """Wrong use exits 2, unusable input 3, each with one line on stderr and, with --json, one JSON error."""
    known = {"{film}": str(films / "long.mp4"), "{mute}": str(films / "mute.mp4")}
    arguments = [known.get(word, word) for word in words]
    own = {"on_index": words[0] != "embed" and words[1] != "nonsense"}
    found, out, err = visxp(*arguments, **own)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    found, _, err = visxp(*arguments, "--json", **own)
    assert (found, set(json.loads(err)["error"])) == (code, {"type", "message"})


def test_an_index_of_another_checkpoint_is_refused(
    index: Path, capsys: pytest.CaptureFixture[str], films: Path, tiny_checkpoint: Path
) -> None:
    """Searching with another checkpoint than the index was made by is an error that says what to do."""
    model = ["--model", str(tiny_checkpoint)]
    assert main(["search", "clip", str(films / "short.mp4"), "--index", str(index), *model]) == 3
    assert "pass the checkpoint that made it with --model" in capsys.readouterr().err


def test_a_missing_index_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reading from an index that does not exist makes none and says how to."""
    assert main(["index", "info", "--index", str(tmp_path / "none")]) == 3
    assert "visxp index add" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_new_index_is_announced(visxp: Visxp, tmp_path: Path) -> None:
    """The first `add` says where it makes an index, before anything else, in case its disk is not mounted."""
    (tmp_path / "archive").mkdir()
    said = [visxp("index", "add", tmp_path / "archive", "--index", tmp_path / "new", on_index=False)[2] for _ in "12"]
    assert f"there is no index at {tmp_path / 'new'} yet: a new one is made" in said[0].splitlines()[0]
    assert "a new one is made" not in said[1]


def test_a_wrong_path_makes_no_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing of what is named exists, no index is made and one line says so."""
    assert main(["index", "add", str(tmp_path / "typo"), "--index", str(tmp_path / "new")]) == 2
    assert f"{tmp_path / 'typo'}: there is no such file or folder; no index was made" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("library", ["gradio", "uvicorn"])
def test_a_library_of_an_extra_is_named_when_it_is_missing(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: str
) -> None:
    """Without what the page stands on, `visxp ui` says in one line how to get it."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("gradio", "webui")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["ui", "--index", str(index), "--port", "0"]) == 3
    error = capsys.readouterr().err
    assert "pip install -c requirements.lock -e '.[web]'" in error
    assert len(error.strip().splitlines()) == 1


def test_a_reader_that_leaves_is_no_error(index: Path) -> None:
    """With stdout closed by its reader, as by `| head`, the command ends without a word (Typer exits 1)."""
    command = [sys.executable, "-m", "visxp_search.cli", "index", "ls", "--json", "--index", str(index)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (1, "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the version."""
    from visxp_search import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
