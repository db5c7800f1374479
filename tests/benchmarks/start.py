"""How long it takes until something is there: help, and a first query from cold."""

import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.index import add, run
from tests.benchmarks.media import render
from tests.benchmarks.race import Row, race, rows_of


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """Whole commands against an interpreter that does nothing."""
    path = render(work, size="360p", seconds=20)
    add([path], work, workers=1)
    visxp = [sys.executable, "-m", "visxp_search.cli"]
    index = ["--index", str(work / "index")]
    nothing = "python -c pass"
    cases: dict[str, Callable[[], object]] = {
        nothing: lambda: run([sys.executable, "-c", "pass"]),
        "visxp --help": lambda: run([*visxp, "--help"]),
        "visxp index ls": lambda: run([*visxp, "index", "ls", *index]),
        "visxp search clip, 5 s": lambda: run([*visxp, "search", "clip", str(path), "--end", "5", *index]),
    }
    times = race(cases, rounds=3 if quick else 9, budget_seconds=budget_seconds)
    return rows_of("start", times, unit="s", against=nothing)
