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

KINDS = (
    ("720p", "h264", 50, 600),
    ("720p", "h264", 250, 600),
    ("360p", "h264", 50, 60),
    ("1080p", "h264", 50, 60),
    ("720p", "hevc", 250, 60),
    ("720p", "vp9", 250, 60),
)
"""Size, codec, pictures from key frame to key frame, seconds: the start of the command weighs less the longer it is."""
BY_HAND_SECONDS = 180
N_FILES, FILE_SECONDS = 24, 15
TIMEOUT_SECONDS = 900

DECODE, ADD, BY_HAND = "ffmpeg -f null, {}", "index add, {}", "practitioner, {}"


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """All kinds of video, then many files with one and two workers."""
    kinds = KINDS[:1] if quick else KINDS
    share = budget_seconds / (len(kinds) + 2)
    rows = []
    short = render(work, size="360p", seconds=1)
    for size, codec, gop, whole in kinds:
        seconds = 20 if quick else whole
        path = render(work, size=size, codec=codec, gop=gop, seconds=seconds)
        name = f"{size} {codec} GOP {gop}"
        cases: dict[str, Callable[[], object]] = {
            DECODE.format(name): lambda path=path: decode(path),  # type: ignore[misc]
            ADD.format(name): lambda path=path: add([path], work, workers=2),  # type: ignore[misc]
            ADD.format(name) + ": start": lambda: add([short], work, workers=2),
        }
        allowed = share * (2.2 if whole > 60 else 0.6)
        rows += _rows(name, race(cases, rounds=3, budget_seconds=allowed, warm_up=False), seconds)
    rows += _beside_practitioner(work, seconds=20 if quick else BY_HAND_SECONDS, budget_seconds=share)
    files = render_many(work / "many", n_files=2 if quick else N_FILES, seconds=FILE_SECONDS)
    one, two = (f"{N_FILES} files, {workers}" for workers in ("1 worker", "2 workers"))
    times = race(
        {one: lambda: add(files, work, workers=1), two: lambda: add(files, work, workers=2)},
        rounds=3,
        budget_seconds=share,
        warm_up=False,
    )
    return rows + rows_of("index", times, unit="s", against=one)


def _beside_practitioner(work: Path, *, seconds: int, budget_seconds: float) -> list[Row]:
    name = "720p h264 GOP 50"
    path = render(work, size="720p", codec="h264", gop=50, seconds=seconds)
    command = [sys.executable, "-m", "tests.benchmarks.practitioner", str(path), str(work / "practitioner.npy")]
    by_hand, adding = BY_HAND.format(name), f"index add against it, {name}"
    cases = {by_hand: lambda: run(command), adding: lambda: add([path], work, workers=2)}
    times = race(cases, rounds=2, budget_seconds=budget_seconds, warm_up=False)
    return rows_of("index", times, unit="ms per second of video", scale=1000 / seconds, against=by_hand)


def add(paths: Sequence[Path], work: Path, *, workers: int) -> None:
    """`visxp index add` into a new index."""
    index = work / "index"
    shutil.rmtree(index, ignore_errors=True)
    visxp = [sys.executable, "-m", "visxp_search.cli", "index", "add", "--quiet"]
    run([*visxp, "--index", str(index), "--workers", str(workers), *map(str, paths)])


def run(command: Sequence[str]) -> None:
    """Run a command of this checkout; what it prints is kept for its failure."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


def _rows(name: str, times: dict[str, list[float]], seconds: int) -> list[Row]:
    """Milliseconds per second of video, whole and without the start, against decoding in the same round."""
    decoding, adding, start = (times[key.format(name)] for key in (DECODE, ADD, ADD + ": start"))
    unit, scale, limit = "ms per second of video", 1000 / seconds, DECODE.format(name)
    bare = [whole - begin for whole, begin in zip(adding, start, strict=True)]
    compared = {limit: decoding, ADD.format(name): adding, ADD.format(name) + ", without start": bare}
    rows = rows_of("index", compared, unit=unit, scale=scale, against=limit)
    return [*rows, row("index", f"start, {name}", start, unit="s")]
