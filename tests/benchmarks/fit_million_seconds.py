"""How long `visxp clusters fit` takes on a large index, and how much memory: run by hand, prints one JSON document.

    PYTHONPATH=. python tests/benchmarks/fit_million_seconds.py make INDEX --seconds 1000000 --vectors visual
    PYTHONPATH=. python tests/benchmarks/fit_million_seconds.py fit INDEX --k 300

`make` fills an index with seconds of 1,000 planted kinds of unequal sizes in three levels (its time is not counted);
`fit` fits it in this process and reports, for each step, wall and CPU time, then the peak of memory (`rss` with pages
of mapped files, which the system takes back when it needs them; `own` without), and how far the sizes in the stored
payloads are from those wanted.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from visxp_search.cluster_fit import FitOptions, fit_clusters
from visxp_search.store import SecondPoint, make_payload, open_store

DIMENSIONS = 256
BATCH = 20_000
SECONDS_A_VIDEO = 3600


def make(index: Path, *, n_seconds: int, vectors: list[str]) -> None:
    """Fill an index with planted seconds."""
    random = np.random.default_rng(0)
    kinds = plant_kinds(random)
    shares = random.lognormal(0, 0.7, len(kinds))
    store = open_store(index, checkpoint="benchmark", create=dict.fromkeys(vectors, DIMENSIONS))
    for start in range(0, n_seconds, BATCH):
        chosen = random.choice(len(kinds), min(BATCH, n_seconds - start), p=shares / shares.sum())
        rows = {}
        for name in vectors:
            noise = random.normal(size=(len(chosen), DIMENSIONS)) / DIMENSIONS**0.5
            rows[name] = unit(kinds[chosen] + 0.8 * noise).astype(np.float32)
        store.upsert_seconds(
            [planted_second(start + at, {name: rows[name][at] for name in vectors}) for at in range(len(chosen))]
        )
    store.close()


def plant_kinds(random: np.random.Generator) -> np.ndarray:
    """(1000, D) directions in three levels: 10 families of 10 genera of 10 kinds."""
    levels = [random.normal(size=(count, DIMENSIONS)) / DIMENSIONS**0.5 for count in (10, 100, 1000)]
    return unit(np.repeat(levels[0], 100, axis=0) + 0.8 * np.repeat(levels[1], 10, axis=0) + 0.6 * levels[2])


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of norm 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def planted_second(number: int, vectors: dict[str, np.ndarray]) -> SecondPoint:
    """Second `number` of an archive of one-hour videos."""
    video_id, second = f"{number // SECONDS_A_VIDEO:032x}", number % SECONDS_A_VIDEO
    payload = make_payload(video_id=video_id, second=second, has_audio=True, flags=[], checkpoint="benchmark")
    return SecondPoint(video_id, second, vectors, payload)


class Steps:
    """Wall and CPU time between the steps that a fit tells of, and the peak of memory that is not of mapped files."""

    def __init__(self) -> None:
        self.name = "open"
        self.started = time.perf_counter(), time.process_time()
        self.spent: dict[str, dict[str, float]] = {}
        self.own_megabytes = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        """As a fit's `progress`."""
        status = Path("/proc/self/status").read_text().split()
        own, mapped = (int(status[status.index(key) + 1]) / 1024 for key in ("RssAnon:", "RssFile:"))
        self.own_megabytes = max(self.own_megabytes, own)
        if step != self.name:
            now = time.perf_counter(), time.process_time()
            self.spent[self.name] = {
                "wall": round(now[0] - self.started[0], 1),
                "cpu": round(now[1] - self.started[1], 1),
                "own_at_end": round(own),
                "mapped_at_end": round(mapped),
            }
            print(f"{self.name}: {self.spent[self.name]}", file=sys.stderr, flush=True)
            self.name, self.started = step, now


def fit(index: Path, *, n_clusters: int, sizes: str) -> dict[str, object]:
    """Fit and report."""
    started = time.perf_counter(), time.process_time(), os.getloadavg()[0]
    steps = Steps()
    store = open_store(index, checkpoint=None)
    steps("open", 0, 1)
    clustering = fit_clusters(
        store, FitOptions(n_clusters=n_clusters, sizes=sizes, fresh=True), progress=steps
    ).clustering
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    steps("check", 0, 1)
    found = store.facet("cluster")
    store.close()
    return {
        "seconds": sum(found.values()),
        "clusters": len(found),
        "wall": round(wall, 1),
        "cpu": round(cpu, 1),
        "cores": os.cpu_count(),
        "load_before_and_after": [round(started[2], 1), round(os.getloadavg()[0], 1)],
        "steps": steps.spent,
        "rss_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "own_megabytes": round(steps.own_megabytes),
        "size_error": clustering.fit.size_error,
        "worst_sizes_wanted_and_obtained": worst_sizes(clustering.fit.wanted, clustering.fit.obtained),
        "largest_and_smallest": [max(found.values()), min(found.values())],
    }


def worst_sizes(wanted: tuple[int, ...], obtained: tuple[int, ...]) -> list[tuple[int, int]]:
    """The five sizes that are farthest from those wanted, each with the one it should be."""
    pairs = list(zip(wanted, obtained, strict=True))
    return sorted(pairs, key=lambda pair: -abs(pair[1] - pair[0]) / pair[0])[:5]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["make", "fit"])
    parser.add_argument("index", type=Path)
    parser.add_argument("--seconds", type=int, default=1_000_000)
    parser.add_argument("--vectors", nargs="+", default=["visual"])
    parser.add_argument("--k", type=int, default=300)
    parser.add_argument("--sizes", default="natural")
    given = parser.parse_args()
    if given.what == "make":
        make(given.index, n_seconds=given.seconds, vectors=given.vectors)
    else:
        print(json.dumps(fit(given.index, n_clusters=given.k, sizes=given.sizes), indent=1))
