"""Indexing against decoding: `visxp index add` beside `ffmpeg -f null` of a file and beside a practitioner's loop.

Whole commands are timed, start included; `start` is an add of a file of one second, so that what a second of video
costs can be told apart from it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.media import decode, render, render_many
from tests.benchmarks.race import Row, race, row, rows_of

SECONDS = 120
KINDS = (
    ("360p", "h264", 50),
    ("720p", "h264", 50),
    ("720p", "h264", 250),
    ("1080p", "h264", 50),
    ("720p", "hevc", 250),
    ("720p", "vp9", 250),
)

DECODE, ADD, BY_HAND = "ffmpeg -f null, {}", "index add, {}", "practitioner, {}"


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """All kinds of video, then many files with one and two workers."""
    seconds = 20 if quick else SECONDS
    kinds = KINDS[1:2] if quick else KINDS
    share = budget_seconds / (len(kinds) + 2)
    rows = []
    short = render(work, size="360p", seconds=1)
    for size, codec, gop in kinds:
        path = render(work, size=size, codec=codec, gop=gop, seconds=seconds)
        name = f"{size} {codec} GOP {gop}"
        cases: dict[str, Callable[[], object]] = {
            DECODE.format(name): lambda path=path: decode(path),  # type: ignore[misc]
            ADD.format(name): lambda path=path: add([path], work, workers=2),  # type: ignore[misc]
            ADD.format(name) + ": start": lambda: add([short], work, workers=2),
        }
        if size == "720p" and codec == "h264":
            out = work / "practitioner.npy"
            command = [sys.executable, "-m", "tests.benchmarks.practitioner", str(path), str(out)]
            cases[BY_HAND.format(name)] = lambda command=command: run(command)  # type: ignore[misc]
        rows += _rows(name, race(cases, rounds=3, budget_seconds=share, warm_up=False), seconds)
    files = render_many(work / "many", n_files=4 if quick else 24, seconds=5)
    cases = {
        "many files, 1 worker": lambda: add(files, work, workers=1),
        "many files, 2 workers": lambda: add(files, work, workers=2),
    }
    times = race(cases, rounds=3, budget_seconds=2 * share, warm_up=False)
    return rows + rows_of("index", times, unit="s", against="many files, 1 worker")


def add(paths: Sequence[Path], work: Path, *, workers: int) -> None:
    """`visxp index add` into a new index."""
    index = work / "index"
    shutil.rmtree(index, ignore_errors=True)
    visxp = [sys.executable, "-m", "visxp_search.cli", "index", "add", "--quiet"]
    run([*visxp, "--index", str(index), "--workers", str(workers), *map(str, paths)])


def run(command: Sequence[str]) -> None:
    """Run a command of this checkout; what it prints is kept for its failure."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


def _rows(name: str, times: dict[str, list[float]], seconds: int) -> list[Row]:
    """Milliseconds per second of video, whole and without the start, against decoding in the same round."""
    decoding, adding, start = (times[key.format(name)] for key in (DECODE, ADD, ADD + ": start"))
    unit, scale, limit = "ms per second of video", 1000 / seconds, DECODE.format(name)
    bare = [whole - begin for whole, begin in zip(adding, start, strict=True)]
    compared = {limit: decoding, ADD.format(name): adding, ADD.format(name) + ", without start": bare}
    rows = rows_of("index", compared, unit=unit, scale=scale, against=limit)
    rows.append(row("index", f"start, {name}", start, unit="s"))
    by_hand = BY_HAND.format(name)
    if by_hand in times:
        pair = {by_hand: times[by_hand], f"index add against it, {name}": adding}
        rows += rows_of("index", pair, unit=unit, scale=scale, against=by_hand)
    return rows
