"""The demo from end to end, with the shipped checkpoint."""

import json
from pathlib import Path

import pytest

from visxp_search.cli import main
from visxp_search.demo.archive import DemoFile, DemoTruth, Span
from visxp_search.demo.run import kind_of
from visxp_search.search import Moment


@pytest.mark.slow
def test_the_demo_finds_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind asked for by clip and by sound comes first, and the exit code says so."""
    code = main(["demo", "--folder", str(tmp_path), "--json"])
    outcome = json.loads(capsys.readouterr().out)
    assert (code, outcome["wrong"], len(outcome["answers"])) == (0, 0, 14)


def test_a_moment_shows_the_kind_of_its_largest_part() -> None:
    """Of two kinds in a moment the longer one counts."""
    file = DemoFile(Path("/a.mp4"), 16.0, (Span("rain", 0.0, 8.0), Span("drums", 8.0, 16.0)))
    moment = Moment("id", "/a.mp4", 6.0, 11.0, 0.9, 99.0, 0.9, 0.9, 1.0, 6.0, ())
    assert kind_of(moment, DemoTruth(files=(file,))) == "drums"
