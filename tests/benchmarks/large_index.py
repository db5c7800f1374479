"""How an embedded index of very many seconds, or a ledger of very many videos, behaves; run by hand.

    python -m tests.benchmarks.large_index seconds FOLDER --number 1000000
    python -m tests.benchmarks.large_index ledger FOLDER --number 100000

The first fills an index with random vectors and measures `info`, queries with and without filters, and memory. The
second makes that many tiny files and a ledger that knows them (nothing is decoded), and measures planning and `ls`.
What was filled once is kept in FOLDER and measured again.
"""

import argparse
import hashlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from indexer.plan import make_plan
from visxp_search.store import DONE, Filter, SecondPoint, Store, VideoRecord, make_payload, open_store

DIMS = {"visual": 256, "audio": 256, "joint": 128}
SECONDS_A_VIDEO = 1000
N_QUERIES = 40
FLUSH_EVERY = 20
Result = TypeVar("Result")


def main() -> None:
    """Parse, fill what is not there, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("seconds", "ledger"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, required=True)
    arguments = parser.parse_args()
    index = arguments.folder / f"{arguments.what}{arguments.number}.index"
    if arguments.what == "seconds":
        measure_seconds(index, arguments.number)
    else:
        measure_ledger(index, arguments.folder / f"archive{arguments.number}", arguments.number)


def measure_seconds(index: Path, number: int) -> None:
    """Fill an index with so many seconds and query it."""
    with closing(open_store(index, checkpoint="benchmark", create=DIMS)) as store:
        n_stored = store.count()
        if n_stored < number:
            timed(f"fill {number - n_stored} seconds", lambda: fill_seconds(store, n_stored, number))
        timed("optimize", store.optimize)
    run_command("info", index)
    store = timed("open", lambda: open_store(index, checkpoint=None))
    with closing(store):
        generator = np.random.default_rng(1)
        filters = {
            "no filter": None,
            "not this video": Filter(not_video_ids=(video_id(3),)),
            "cluster 7": Filter(clusters=(7,)),
            "ten videos": Filter(video_ids=tuple(video_id(n) for n in range(10))),
        }
        for name, where in filters.items():
            times = []
            cores = time.process_time()
            for _ in range(N_QUERIES):
                query = unit_rows(generator, 1, DIMS["visual"])
                started = time.perf_counter()
                store.query("visual", query, top=50, where=where)
                times.append(1000 * (time.perf_counter() - started))
            cores = 1000 * (time.process_time() - cores) / N_QUERIES
            p50, p95 = np.quantile(times, (0.5, 0.95))
            print(f"query, {name}: p50 {p50:.0f} ms, p95 {p95:.0f} ms, {cores:.0f} ms of processor time", flush=True)
        print_memory()


def fill_seconds(store: Store, start: int, number: int) -> None:
    """Store random seconds, a video of 1000 at a time, and their ledger entries."""
    for video in range(start // SECONDS_A_VIDEO, -(-number // SECONDS_A_VIDEO)):
        store.upsert_seconds(list(make_video(video)))
        record = VideoRecord(
            video_id(video),
            (f"/archive/{video}.mp4",),
            status=DONE,
            seconds_expected=SECONDS_A_VIDEO,
            seconds_done=SECONDS_A_VIDEO,
        )
        store.upsert_videos([record])
        if video % FLUSH_EVERY == 0:  # as `index add` does; the engine's log grows until then
            store.flush()


def make_video(video: int) -> Iterator[SecondPoint]:
    """The seconds of one video."""
    generator = np.random.default_rng(video)
    vectors = {name: unit_rows(generator, SECONDS_A_VIDEO, dim) for name, dim in DIMS.items()}
    for second in range(SECONDS_A_VIDEO):
        payload = make_payload(
            video_id=video_id(video),
            second=second,
            has_audio=True,
            flags=[],
            checkpoint="benchmark",
            cluster=second % 100,
        )
        yield SecondPoint(video_id(video), second, {name: rows[second] for name, rows in vectors.items()}, payload)


def measure_ledger(index: Path, archive: Path, number: int) -> None:
    """Make files and a ledger that knows them, plan, list."""
    if not archive.exists():
        timed(f"make {number} files", lambda: make_files(archive, number))
    with closing(open_store(index, checkpoint="benchmark", create=DIMS)) as store:
        if store.count_videos() < number:
            timed("fill the ledger", lambda: fill_ledger(store, archive))
    run_command("ls", index)
    run_command("info", index)
    store = open_store(index, checkpoint=None)
    with closing(store):
        plan = timed("read the ledger and plan", lambda: make_plan([archive], store.videos()))
        print(f"{plan.n_done} done, {len(plan.files)} to do")
        new = timed("plan with an empty ledger", lambda: make_plan([archive], []))
        print(f"{new.n_done} done, {len(new.files)} to do")
        print_memory()


def make_files(archive: Path, number: int) -> None:
    """Tiny files of different content, a thousand in a folder."""
    for name in range(number):
        path = archive / f"tape{name // 1000:03d}" / f"video{name:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(name).encode())


def fill_ledger(store: Store, archive: Path) -> None:
    """An entry for each file, as if it were indexed."""
    generator = np.random.default_rng(0)
    records = []
    for file in make_plan([archive], []).files:
        path = str(file.path)
        digest = hashlib.blake2b(file.path.read_bytes(), digest_size=16).hexdigest()
        vectors = {name: unit_rows(generator, 1, dim)[0] for name, dim in DIMS.items()}
        record = VideoRecord(
            digest,
            (path,),
            status=DONE,
            duration_seconds=10.0,
            seconds_expected=10,
            seconds_done=10,
            stats={path: [file.size, file.mtime_ns]},
            vectors=vectors,
        )
        records.append(record)
    for start in range(0, len(records), 1000):
        store.upsert_videos(records[start : start + 1000])


def run_command(command: str, index: Path) -> None:
    """Measure `visxp index COMMAND` as a person would wait for it."""
    words = [sys.executable, "-m", "visxp_search.cli", "index", command, "--index", str(index)]
    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    print(f"visxp index {command}: {time.perf_counter() - started:.2f} s, {cores:.2f} s of processor time")


def timed(what: str, act: Callable[[], Result]) -> Result:
    """Do something and say how long it took."""
    started, cores = time.perf_counter(), time.process_time()
    result = act()
    taken, cores = time.perf_counter() - started, time.process_time() - cores
    print(f"{what}: {taken:.2f} s, {cores:.2f} s of processor time", flush=True)
    return result


def print_memory() -> None:
    """The most memory that this process had."""
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB resident at most")


def video_id(number: int) -> str:
    """The id of a made-up video."""
    return f"{number:032x}"


def unit_rows(generator: np.random.Generator, n_rows: int, dim: int) -> npt.NDArray[np.float32]:
    """(n_rows, dim) random rows of norm 1."""
    rows = generator.standard_normal((n_rows, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


if __name__ == "__main__":
    main()
