"""Searching indexes of 10,000, 100,000 and 1,000,000 seconds, beside numpy's brute force: one pass over memory.

The vectors are invented: groups of seconds around common centres, as shots and subjects make them. Indexes are kept in
the work folder and used again.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.index import run
from tests.benchmarks.media import render
from tests.benchmarks.race import Row, race, row, rows_of
from visxp_search.api import open_index
from visxp_search.embed import load_embedder
from visxp_search.queries import Query
from visxp_search.search import find_moments
from visxp_search.store import DONE, Filter, SecondPoint, Store, VideoRecord, make_payload

FloatArray = npt.NDArray[np.float32]

SIZES = ((10_000, 0.1), (100_000, 0.2), (1_000_000, 0.7))
"""Seconds of an index, and its share of the time."""
MODALITIES = ("visual", "audio")
VIDEO_SECONDS = 500
N_CLUSTERS = 200
TOP = 50
N_QUERIES = 40
BLOCK = 5000


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """All sizes; the largest takes about two thirds of the time."""
    rows: list[Row] = []
    for size, share in SIZES[:1] if quick else SIZES:
        rows += _measure_size(work / f"index_{size}", size, budget_seconds=share * budget_seconds)
    return rows


def make_vectors(block: int, size: int, dims: dict[str, int]) -> dict[str, FloatArray]:
    """Name -> (size, D) of norm 1, around centres that all blocks share; the same for the same block."""
    shared, rng = np.random.default_rng(0), np.random.default_rng(block + 1)
    vectors = {}
    for name, dim in dims.items():
        centres = shared.standard_normal((1000, dim), dtype=np.float32)
        centre = np.repeat(rng.integers(0, len(centres), size // 5 + 1), 5)[:size]  # five seconds a shot
        rows = centres[centre] + 0.7 * rng.standard_normal((size, dim), dtype=np.float32)
        vectors[name] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return vectors


def blocks(size: int, dims: dict[str, int]) -> Iterator[tuple[int, dict[str, FloatArray]]]:
    """(first point, vectors) of all points, block by block."""
    for number, first in enumerate(range(0, size, BLOCK)):
        yield first, make_vectors(number, min(BLOCK, size - first), dims)


def video_of(point: int) -> str:
    """The video that the n-th point belongs to."""
    return f"{point // VIDEO_SECONDS:032x}"


def make_index(folder: Path, size: int) -> float:
    """Write an index with the shipped checkpoint's name and dims, unless it is there; seconds that it took."""
    if (folder / "complete").exists():
        return float((folder / "complete").read_text())
    begun = time.perf_counter()
    with open_index(folder, create=True) as opened:
        store, dims = opened.store, dict(opened.store.info.dims)
        for first, vectors in blocks(size, dims):
            store.upsert_seconds([_point(first + n, n, vectors, store) for n in range(len(vectors["visual"]))])
        videos = [
            VideoRecord(video_of(point), (f"/invented/{point}.mp4",), status=DONE, duration_seconds=VIDEO_SECONDS)
            for point in range(0, size, VIDEO_SECONDS)
        ]
        store.upsert_videos(videos)
    took = time.perf_counter() - begun
    (folder / "complete").write_text(str(took))
    return took


def _point(number: int, row: int, vectors: dict[str, FloatArray], store: Store) -> SecondPoint:
    video_id, second = video_of(number), number % VIDEO_SECONDS
    payload = make_payload(
        video_id=video_id,
        second=second,
        has_audio=True,
        flags=(),
        checkpoint=store.info.checkpoint,
        cluster=number // 5 % N_CLUSTERS,
    )
    return SecondPoint(video_id, second, {name: rows[row] for name, rows in vectors.items()}, payload)


def _measure_size(folder: Path, size: int, *, budget_seconds: float) -> list[Row]:
    rows = [row("search", f"{size}: seconds to write the index", [make_index(folder, size)], unit="s")]
    dims = {name: spec.length for name, spec in load_embedder().specs.items()}
    matrices = {name: np.empty((size, dims[name]), dtype=np.float32) for name in MODALITIES}
    for first, vectors in blocks(size, dims):
        for name, matrix in matrices.items():
            matrix[first : first + len(vectors[name])] = vectors[name]
    begun = time.perf_counter()
    with open_index(folder) as opened:
        rows.append(row("search", f"{size}: opening the index", [time.perf_counter() - begun], unit="s"))
        options: dict[str, Any] = {"rng": np.random.default_rng(7)}
        rows += _ask(
            opened.store, matrices, str(size), when="first asked", budget_seconds=budget_seconds / 8, **options
        )
        _read_files(folder)
        rows += _ask(opened.store, matrices, str(size), when="", budget_seconds=budget_seconds / 2, **options)
        rows.append(_recall(opened.store, matrices["visual"], f"{size}: recall@{TOP}", where=None))
        unwanted = Filter(not_video_ids=(video_of(0),))
        rows.append(_recall(opened.store, matrices["visual"], f"{size}: recall@{TOP}, not this video", where=unwanted))
    visxp = [sys.executable, "-m", "visxp_search.cli", "search"]
    moment, clip = f"{video_of(size // 2)}@7", str(render(folder.parent, size="360p", seconds=20))
    cold: dict[str, Callable[[], object]] = {
        f"{size}: command line, cold": lambda: run([*visxp, "moment", moment, "--json", "--index", str(folder)]),
        f"{size}: search clip, 5 s, cold": lambda: run([*visxp, "clip", clip, "--end", "5", "--index", str(folder)]),
    }
    times = race(cold, rounds=5, budget_seconds=30, warm_up=False)
    return rows + rows_of("search", times, unit="s")


def _read_files(folder: Path) -> None:
    """Let the system have all of an index in its cache, as it is where an index has been in use for a while: warm."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass


def _ask(
    store: Store,
    matrices: dict[str, FloatArray],
    label: str,
    *,
    when: str,
    rng: np.random.Generator,
    budget_seconds: float,
) -> list[Row]:
    """p50 and p95 of hits (picture and sound) and of whole searches, against numpy over the same rows, in turns.

    Each query is a new one. `when` is empty where the index is warm; else only what has no filter is asked.
    """
    starts = iter(rng.integers(0, len(matrices["visual"]) - 20, 100_000).tolist())
    filters: dict[str, Filter | None] = (
        {f", {when}": None}
        if when
        else {
            "": None,
            ", not this video": Filter(not_video_ids=(video_of(0),)),
            ", one cluster": Filter(clusters=(3,)),
        }
    )

    def brute(n_seconds: int) -> None:
        start = next(starts)
        for matrix in matrices.values():
            scores = matrix @ matrix[start : start + n_seconds].T
            np.argpartition(scores, -TOP, axis=0)

    def hits(n_seconds: int, where: Filter | None) -> None:
        start = next(starts)
        for name, matrix in matrices.items():
            store.query(name, matrix[start : start + n_seconds], top=TOP, where=where)

    def moments(n_seconds: int, where: Filter | None) -> None:
        start = next(starts)
        rows = {name: matrix[start : start + n_seconds] for name, matrix in matrices.items()}
        find_moments(store, Query("clip", rows, {"visual": 0.5, "audio": 0.5}), where=where)

    baseline = f"{label}: numpy brute force, 1 s"
    cases: dict[str, Callable[[], object]] = {}
    if not when:
        cases = {baseline: partial(brute, 1), f"{label}: numpy, 10 s": partial(brute, 10)}
    for words, where in filters.items():
        for n_seconds in (1, 10):
            cases[f"{label}: hits, {n_seconds} s{words}"] = partial(hits, n_seconds, where)
            cases[f"{label}: search, {n_seconds} s{words}"] = partial(moments, n_seconds, where)
    times = race(cases, rounds=N_QUERIES, budget_seconds=budget_seconds, warm_up=not when)
    rows = rows_of("search", times, unit="ms", scale=1000, against="" if when else baseline)
    slow = [
        row("search", f"{name}, p95", [1000 * float(np.quantile(values, 0.95))], unit="ms")
        for name, values in times.items()
    ]
    return rows + slow


def _recall(store: Store, matrix: FloatArray, name: str, *, where: Filter | None) -> Row:
    """Share of the exact best `TOP` that the store finds."""
    rng = np.random.default_rng(8)
    barred_ids = where.not_video_ids if where else ()
    barred = np.array(
        [video_of(number * VIDEO_SECONDS) in barred_ids for number in range(-(-len(matrix) // VIDEO_SECONDS))]
    )
    barred = np.repeat(barred, VIDEO_SECONDS)[: len(matrix)]
    shares = []
    for start in rng.integers(0, len(matrix), 10).tolist():
        query = matrix[start : start + 1] + 0.02 * rng.standard_normal((1, matrix.shape[1]), dtype=np.float32)
        scores = matrix @ query[0]
        scores[barred] = -1
        exact = np.argpartition(-scores, TOP)[:TOP]
        wanted = {(video_of(number), number % VIDEO_SECONDS) for number in exact.tolist()}
        found = {(hit.video_id, hit.second) for hit in store.query("visual", query, top=TOP, where=where)[0]}
        shares.append(len(wanted & found) / TOP)
    return replace(row("search", name, shares, unit="share"), value=statistics.mean(shares))
