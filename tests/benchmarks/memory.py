"""Peak memory: proportional set size of a whole tree of processes, so that shared pages count once."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.media import render, render_many
from tests.benchmarks.race import Row, row

MINUTES = (1, 10, 60, 180)
PERIOD_SECONDS = 0.1


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """Indexing videos of growing length with two workers, many files, and one query."""
    begun = time.perf_counter()
    rows: list[Row] = []
    shortest = f"index add, one video of {MINUTES[0]} min"
    for minutes in MINUTES[:1] if quick else MINUTES:
        if rows and time.perf_counter() - begun > budget_seconds * 0.5:
            print(f"memory: {minutes} minutes and more left out, the time is up", file=sys.stderr)
            break
        path = render(work, size="180p", seconds=60 * minutes)
        peak = peak_mb(["index", "add", "--quiet", "--workers", "2", str(path)], work)
        ratio = peak / rows[0].value if rows else None
        name = f"index add, one video of {minutes} min"
        rows.append(row("memory", name, [peak], unit="MB", against=shortest, ratio=ratio))
    files = render_many(work / "many", n_files=2 if quick else 24, seconds=5)
    peak = peak_mb(["index", "add", "--quiet", "--workers", "2", *map(str, files)], work)
    rows.append(row("memory", f"index add, {len(files)} files", [peak], unit="MB"))
    query = peak_mb(["search", "clip", str(files[0]), "--json", "--include-self"], work, keep=True)
    return [*rows, row("memory", "search clip", [query], unit="MB")]


def peak_mb(arguments: Sequence[str], work: Path, *, keep: bool = False) -> float:
    """Peak of a visxp command and all its children, MB; with a new index unless it is to be kept."""
    index = work / "memory_index"
    if not keep:
        shutil.rmtree(index, ignore_errors=True)
    command = [sys.executable, "-m", "visxp_search.cli", *arguments, "--index", str(index)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        peaks = [0.0]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(PERIOD_SECONDS):
                peaks[0] = max(peaks[0], tree_mb(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}")
    return peaks[0]


def tree_mb(pid: int) -> float:
    """Proportional set size of a process and its descendants now."""
    total, pending = 0, [pid]
    while pending:
        process = Path("/proc") / str(pending.pop())
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for task in (process / "task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
    return total / 1024
