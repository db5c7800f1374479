"""`visxp doctor`: what is here, what is wrong, what is needed."""

import json
import shutil
from pathlib import Path

import pytest

from indexer.estimate import render_sample
from tests.conftest import write_film
from visxp_search.api import open_index
from visxp_search.capacity import LARGEST_EMBEDDED, plan_capacity
from visxp_search.cli import main
from visxp_search.commands.doctor import parse_hours
from visxp_search.decode import probe
from visxp_search.doctor import BAD, GOOD, WARNING, examine
from visxp_search.errors import UsageError

DIMS = {"visual": 256, "audio": 256, "joint": 128}


def test_a_machine_without_an_index_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Versions, codecs, model, memory and disk are said; that there is no index yet is no illness, and none is made."""
    assert main(["doctor", "--index", str(tmp_path / "none")]) == 0
    printed = capsys.readouterr().out
    for word in ("visxp", "Python", "torch", "qdrant-edge-py", "codecs", "model", "memory", "disk", "visxp index add"):
        assert word in printed
    assert not (tmp_path / "none").exists()


def test_an_index_that_is_not_well_is_said(index_folder: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Failures, unfinished videos and another checkpoint are warnings with what to do about them."""
    write_film(tmp_path / "good.mp4", seed=1, n_seconds=2)
    (tmp_path / "bad.mp4").write_text("no film")
    with open_index(index_folder, model=tiny_checkpoint, create=True) as index:
        index.add([tmp_path])
    checks = {check.name: check for check in examine(str(index_folder), model=str(tiny_checkpoint))[0]}
    assert (checks["index"].state, checks["failures"].state) == (GOOD, WARNING)
    assert "checkpoint" not in checks
    assert "index ls --status failed" in checks["failures"].advice
    checks = {check.name: check for check in examine(str(index_folder))[0]}
    assert "visxp index rebuild" in checks["checkpoint"].advice


def test_a_damaged_index_makes_it_exit_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What nothing works without is bad: exit code 3, and --json says it too."""
    (tmp_path / "index.json").write_text("{")
    assert main(["doctor", "--json", "--index", str(tmp_path)]) == 3
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["index"]["state"] == BAD
    assert "damaged" in checks["index"]["found"]


def test_a_disk_that_is_nearly_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little space is a warning before it is an error."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**8))
    states = {check.name: check.state for check in examine(str(tmp_path / "none"))[0]}
    assert states["disk"] == WARNING


def test_a_model_that_is_missing_is_bad(tmp_path: Path) -> None:
    """Without encoders nothing works; the rest is looked at all the same."""
    checks, embedder = examine(str(tmp_path / "none"), model=str(tmp_path / "no" / "model"))
    assert embedder is None
    assert {check.name: check.state for check in checks}["model"] == BAD


def test_ten_thousand_hours() -> None:
    """36 million points: float32 and int8 vectors on the disk, int8 with Qdrant's margin in a server's memory."""
    plan = plan_capacity(10_000, DIMS, wall_per_second=0.02, memory_bytes=64 * 10**9, disk_free=10**12)
    assert plan.points == 36_000_000
    assert plan.days == pytest.approx(36e6 * 0.02 / 86_400)
    assert plan.embedded.disk_bytes == 36_000_000 * (640 * 5 + 400)
    assert plan.served.disk_bytes == 36_000_000 * (640 * 5 + 400 + 3 * 141)
    assert plan.served.memory_bytes == 36_000_000 * (1.5 * 640 + 410)
    assert plan.served.memory_bytes < plan.embedded.memory_bytes
    assert "serve it from Qdrant" in plan.advice


@pytest.mark.parametrize(
    ("hours", "memory", "disk", "advice"),
    [
        (100, 64 * 10**9, 10**12, "embedded index will do"),
        (LARGEST_EMBEDDED / 3600 + 1, 640 * 10**9, 10**12, "one by one"),
        (500, 10**9, 10**12, "half of this machine's memory"),
        (500, 64 * 10**9, 10**9, "does not fit on this disk"),
    ],
)
def test_when_to_leave_the_embedded_index(hours: float, memory: int, disk: int, advice: str) -> None:
    """Each reason against an embedded index is named."""
    plan = plan_capacity(hours, DIMS, wall_per_second=None, memory_bytes=memory, disk_free=disk)
    assert advice in plan.advice
    assert plan.days is None


@pytest.mark.parametrize(("text", "hours"), [("10000h", 10_000), ("12.5", 12.5), ("400d", 9600), (" 3 h ", 3)])
def test_hours_as_people_write_them(text: str, hours: float) -> None:
    """Hours with and without unit, and days."""
    assert parse_hours(text) == hours


@pytest.mark.parametrize("text", ["", "0h", "much", "-3h", "10m"])
def test_hours_that_are_none(text: str) -> None:
    """Anything else is wrong use."""
    with pytest.raises(UsageError, match="10000h"):
        parse_hours(text)
    with pytest.raises(ValueError, match="more than 0"):
        plan_capacity(0, DIMS, wall_per_second=None, memory_bytes=1, disk_free=1)


def test_the_plan_is_measured_on_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With files of the archive the rate is theirs, and the plan is in the JSON document."""
    film = write_film(tmp_path / "film.mp4", seed=1, n_seconds=3)
    command = ["doctor", "--plan", "100h", "--sample", str(film), "--json", "--index", str(tmp_path / "none")]
    assert main(command) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["points"] == 360_000
    assert 0 < plan["days"] < 100


@pytest.mark.slow
def test_without_a_sample_a_film_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The film has pictures and sound of the length it should; the plan says what it was measured on."""
    info = probe(render_sample(tmp_path))
    assert (info.n_seconds, info.width, info.has_audio) == (48, 640, True)
    assert main(["doctor", "--plan", "10000h", "--index", str(tmp_path / "none")]) == 0
    printed = capsys.readouterr().out
    assert "36,000,000 seconds" in printed
    assert "measured on a film made for it" in printed
