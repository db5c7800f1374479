"""The embedded engine alone on 100,000 seconds: exact, by int8 vectors, and by a graph (HNSW)."""

import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import qdrant_edge as edge

from tests.benchmarks.race import Row, race, row, rows_of
from tests.benchmarks.search import BLOCK, N_QUERIES, TOP, FloatArray, make_index, make_vectors
from visxp_search.embed import load_embedder

SIZE = 100_000


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """All ways; the graph is built in a copy of the index's shard, and how long that takes is a row."""
    size = SIZE // 10 if quick else SIZE
    index, folder = work / f"index_{size}", work / "graph"
    make_index(index, size)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(index / "seconds", folder)
    dims = {name: spec.length for name, spec in load_embedder().specs.items()}
    graph = edge.EdgeConfig(
        vectors={name: edge.EdgeVectorParams(size=dim, distance=edge.Distance.Cosine) for name, dim in dims.items()},
        hnsw_config=edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000),
        quantization_config=edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=10_000),
    )
    ways = {
        "exact": edge.SearchParams(exact=True, quantization=edge.QuantizationSearchParams(ignore=True)),
        "int8, compared again by the engine": edge.SearchParams(
            quantization=edge.QuantizationSearchParams(rescore=True, oversampling=2.0)
        ),
    }
    queries = make_vectors(0, BLOCK, dims)["visual"][::97]
    queries = queries + 0.02 * np.random.default_rng(9).standard_normal(queries.shape, dtype=np.float32)
    label = str(size)
    shard = edge.EdgeShard.load(str(folder))
    rows, exact = _race_ways(shard, ways, queries, label, budget_seconds=budget_seconds / 3)
    shard.close()
    begun = time.perf_counter()
    shard = edge.EdgeShard.load(str(folder), graph)
    shard.optimize()
    rows.append(row("engine", f"{label}: building graphs", [time.perf_counter() - begun], unit="s"))
    by_graph = {
        "graph, ef 128": edge.SearchParams(
            hnsw_ef=128, quantization=ways["int8, compared again by the engine"].quantization
        )
    }
    rows += _race_ways(shard, by_graph, queries, label, budget_seconds=budget_seconds / 3, exact=exact)[0]
    shard.close()
    return rows


def _race_ways(
    shard: edge.EdgeShard,
    ways: dict[str, edge.SearchParams],
    queries: FloatArray,
    label: str,
    *,
    budget_seconds: float,
    exact: Sequence[set[object]] | None = None,
) -> tuple[list[Row], Sequence[set[object]]]:
    """Times and recall of each way; `exact` is what the first way finds unless given."""

    def ask(query: FloatArray, way: edge.SearchParams) -> set[object]:
        nearest = edge.Query.Nearest(query.tolist(), using="visual")
        return {point.id for point in shard.query(edge.QueryRequest(limit=TOP, query=nearest, params=way))}

    turn = itertools.cycle(queries)
    cases: dict[str, Callable[[], object]] = {
        f"{label}: {name}": lambda way=way: ask(next(turn), way)  # type: ignore[misc]
        for name, way in ways.items()
    }
    times = race(cases, rounds=N_QUERIES, budget_seconds=budget_seconds)
    rows = rows_of("engine", times, unit="ms", scale=1000)
    found = {name: [ask(query, way) for query in queries] for name, way in ways.items()}
    exact = exact or found[next(iter(ways))]
    for name, answers in found.items():
        shares = [len(a & b) / TOP for a, b in zip(answers, exact, strict=True)]
        recall = row("engine", f"{label}: {name}, recall@{TOP}", shares, unit="share")
        rows.append(replace(recall, value=statistics.mean(shares)))
    return rows, exact
