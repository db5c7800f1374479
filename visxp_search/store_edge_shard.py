"""One shard of Qdrant Edge, as a `Collection`: how it is set up, written, searched and sealed.

What is read when: the engine maps its files, and where they are wide it asks the system for single pages, at some 60 us
each. Nothing of them is in memory when an index is opened, for the engine has the system forget a shard that it closes.
So whatever will be needed whole is read ahead, in a row (`_read_ahead`): at opening all but vectors and payloads,
before the first search what it scans. A million seconds are open after 0.7 s instead of 14.

Durability: a write is in the write-ahead log when the call returns, so it survives kill -9; `flush` also syncs log and
segments to the disk, so it survives a loss of power. Queries and `optimize` hold the GIL.
"""

import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from visxp_search.errors import CollectionError
from visxp_search.leaving import is_about_to_leave
from visxp_search.mapped_pages import release_mapped_pages
from visxp_search.store import HIT_KEYS
from visxp_search.store_collection import StoredPoint, Where, stored_point
from visxp_search.store_edge_files import require_space

logger = logging.getLogger(__name__)

SEALED_SECONDS = 50_000
"""Seconds after which what was written is sealed: put into a segment that also holds its vectors as int8, a quarter as
much to scan. Until then, and so in smaller archives, searches compare the vectors themselves and are exact."""

N_SEGMENTS, SEGMENT_SECONDS = 12, 250_000
"""Where there are more segments, the smallest are merged, up to this size; several are scanned in parallel."""

MOST_MOVED = 100_000
"""Seconds with new payloads after which they are sealed. The engine moves each of them out of its sealed segment into
the open one, whose payload indexes are in memory: some 1.6 kB a second."""

MOST_DELETED = 0.5
"""Share of a segment's seconds that may be deleted or moved before the rest is written anew; new payloads for all would
else write each second several times."""

RELEASED_SECONDS = 50_000
"""Seconds that are read or written one after the other, after which the pages that hold them are given back: they count
as memory of the process, and whoever goes through an archive touches each only once."""

OVERSAMPLING = 2.0
"""So many times the hits wanted are chosen by int8 vectors, of all segments together, and compared again by the vectors
themselves."""

WHOLE_BYTES = 256 * 2**20
"""Vectors of one name that take no more than this are read ahead whole before they are searched: that is a second of
reading in a row, while some thousand of them one by one, whose neighbours are then compared, take as long."""

READ_AHEAD_BYTES = 128 * 1024
"""Asked for at once: what Linux reads ahead unless it is told otherwise; of more it would read only the beginning."""

STDERR = 2
"""The file that native code writes its errors to."""

NO_GRAPH = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)


def seconds_config(dims: Mapping[str, int]) -> edge.EdgeConfig:
    """Vectors on the disk, in sealed segments also as int8, and no graphs.

    Scanning int8 vectors and comparing the best again finds what an exact search finds, whatever the filter; a graph
    would be faster beyond some million seconds, takes ten times as long to build, and misses more.
    """
    kilobytes = max(dims.values()) * 4 / 1024  # of one second's longest vector, in which the engine counts
    return edge.EdgeConfig(
        vectors=_vectors(dims),
        hnsw_config=NO_GRAPH,
        quantization_config=edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=MOST_DELETED,
            default_segment_number=N_SEGMENTS,
            indexing_threshold=max(1, int(SEALED_SECONDS / 2 * kilobytes)),
            max_segment_size=max(1, int(SEGMENT_SECONDS * kilobytes)),
        ),
    )


def ledger_config(dims: Mapping[str, int]) -> edge.EdgeConfig:
    """Payloads in the page cache, vectors on the disk: entries are listed, and never searched by vector."""
    return edge.EdgeConfig(vectors=_vectors(dims), payload_memory=edge.Memory.Cached, hnsw_config=NO_GRAPH)


def _vectors(dims: Mapping[str, int]) -> dict[str, edge.EdgeVectorParams]:
    return {
        name: edge.EdgeVectorParams(size=dim, distance=edge.Distance.Cosine, memory=edge.Memory.Cold)
        for name, dim in dims.items()
    }


def create_shard(path: Path, *, config: edge.EdgeConfig, indexes: Mapping[str, str], location: str) -> None:
    """Make an empty shard.

    Args:
        path: its directory, which is not there yet.
        config: how it is set up.
        indexes: payload key -> kind of its index.
        location: directory of the index, for messages.

    Raises:
        CollectionError: If the engine fails.
    """
    path.mkdir()
    with _engine(location):
        shard = edge.EdgeShard.create(str(path), config)
        for operation in _payload_indexes(indexes):
            shard.update(operation)
        shard.flush()
        shard.close()


def _payload_indexes(indexes: Mapping[str, str]) -> list[edge.UpdateOperation]:
    """What makes payload indexes; one that is there already, and otherwise, is replaced.

    Sealed, they are read where they are needed: built up in memory they cost most of the time of opening.
    """
    kinds = {
        "keyword": edge.KeywordIndexParams,
        "integer": edge.IntegerIndexParams,
        "bool": edge.BoolIndexParams,
    }
    return [
        edge.UpdateOperation.create_field_index(key, kinds[kind](memory=edge.Memory.Cold))
        for key, kind in indexes.items()
    ]


@contextmanager
def _engine(location: str) -> Iterator[None]:
    """Translate Edge's errors: it raises bare `Exception`, and a `PanicException` where it is damaged."""
    try:
        yield
    except BaseException as exc:
        if type(exc) is not Exception and type(exc).__name__ != "PanicException":
            raise
        if not os.path.isdir(location):
            raise CollectionError(
                f"the directory of index {location} is gone; bring its disk back and run the same command again: what "
                f"was stored is there"
            ) from exc
        raise CollectionError(
            f"the engine of index {location} failed: {exc}; if this stays so after opening it again, the index is "
            f"damaged: restore it from a backup, or index the videos again into a new --index"
        ) from exc


@contextmanager
def _kept_from_stderr() -> Iterator[None]:
    """What the engine itself writes to stderr: where it panics, its exception says enough, and the log has the rest."""
    if sys.stderr is None:  # a program without one
        yield
        return
    sys.stderr.flush()
    before = os.dup(STDERR)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(before, STDERR)
            os.close(before)
            kept.seek(0)
            if said := kept.read().decode(errors="replace").strip():
                logger.debug("the engine said: %s", said)


class EdgeCollection:
    """One Edge shard, as a `store_collection.Collection`.

    Args:
        path: directory of the shard.
        location: directory of the index, for messages.
        config: what `optimize` strives for; says how the shard is to be from now on.

    Raises:
        CollectionError: If the shard cannot be loaded.
    """

    def __init__(self, path: Path, *, location: str, config: edge.EdgeConfig):
        self._path = path
        self._location = location
        self._point_bytes = sum(5 * vector.size for vector in config.vectors.values()) + 400  # float32, int8, payload
        self._counts: dict[str, int] = {}  # nobody else can change the shard while it is open
        self._read: set[str] = set()  # vectors that were read ahead, see `_read_vectors`
        self._n_passed = 0  # seconds read or written since pages were given back
        self._is_changed = False
        self._mapping = threading.Lock()  # held by what makes and takes away mappings, and while pages are given back
        passed_over = ["vector_storage-", "wal"]  # the log of writes is large, and nearly all of it empty
        if config.payload_memory is not edge.Memory.Cached:
            passed_over.append("payload_storage")
        _read_ahead(
            file
            for file in _files([path], "*")
            if not any(part.startswith(tuple(passed_over)) for part in file.relative_to(path).parts)
        )
        left = _LEFT.pop(path, None)
        with _engine(location), _kept_from_stderr():
            if left is not None:
                left.close()
            self._shard = edge.EdgeShard.load(str(path), config)
            info = self._shard.info()
        # At most so many; where points lack vectors it is too many, and one `optimize` that has nothing to do.
        self._n_unsealed = max(0, info.points_count - info.indexed_vectors_count // len(config.vectors))

    def upsert(self, points: Sequence[StoredPoint]) -> None:
        """See `Collection.upsert`."""
        require_space(self._path.parent)
        self._update(
            edge.UpdateOperation.upsert_points(
                [
                    edge.Point(p.point_id, {name: v.tolist() for name, v in p.vectors.items()}, dict(p.payload))
                    for p in points
                ]
            )
        )
        self._n_unsealed += len(points)
        self._pass(len(points))
        if self._n_unsealed >= SEALED_SECONDS:
            self.optimize()

    def set_payload(self, point_id: str, values: Mapping[str, Any]) -> None:
        """See `Collection.set_payload`."""
        self._update(edge.UpdateOperation.set_payload([point_id], dict(values)))

    def set_payloads(self, updates: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """See `Collection.set_payloads`; the engine takes one payload a call, at some 50,000 calls a second."""
        require_space(self._path.parent)
        for point_id, values in updates:
            self.set_payload(point_id, values)
        self._n_unsealed += len(updates)
        self._pass(len(updates))
        if self._n_unsealed >= MOST_MOVED:
            self.optimize()

    def delete(self, where: Where) -> None:
        """See `Collection.delete`."""
        self._update(edge.UpdateOperation.delete_points_by_filter(_edge_filter(where)))

    def _update(self, operation: edge.UpdateOperation) -> None:
        self._counts.clear()
        self._is_changed = True
        with self._mapping, _engine(self._location):
            self._shard.update(operation)

    def search(
        self, vector: str, embeddings: npt.NDArray[np.float32], *, limit: int, where: Where
    ) -> list[list[tuple[float, Mapping[str, Any]]]]:
        """See `Collection.search`."""
        self._read_vectors(vector)
        wanted, keys = _edge_filter(where), edge.PayloadSelector.Include(list(HIT_KEYS))
        by_copies = edge.SearchParams(quantization=edge.QuantizationSearchParams(rescore=False))
        by_vectors = edge.SearchParams(exact=True)
        n_chosen = int(OVERSAMPLING * limit)
        requests = []
        for row in embeddings:
            nearest = edge.Query.Nearest(row.tolist(), using=vector)
            # Rescored by the engine, as many of each segment would be read from the disk, and most of them for nothing.
            chosen = edge.Prefetch(limit=n_chosen, query=nearest, filter=wanted, params=by_copies)
            requests.append(
                edge.QueryRequest(limit=limit, query=nearest, prefetches=[chosen], with_payload=keys, params=by_vectors)
            )
        with _engine(self._location):
            found = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [[(point.score, point.payload or {}) for point in row] for row in found]

    def scroll(
        self, where: Where, *, with_vectors: Sequence[str], limit: int, after: Any
    ) -> tuple[list[StoredPoint], Any]:
        """See `Collection.scroll`."""
        if not where.get("must"):
            for name in with_vectors:
                self._read_vectors(name, whole=True)
        records, after = self._scroll(where, payload=True, with_vectors=with_vectors, limit=limit, after=after)
        self._pass(len(records))
        return [stored_point(r.id, r.vector, r.payload) for r in records], after

    def expect_search(self, vector: str) -> None:
        """See `Collection.expect_search`."""
        self._read_vectors(vector)

    def _pass(self, n_seconds: int) -> None:
        """Say that so many seconds were read or written on the way through many; see `RELEASED_SECONDS`."""
        self._n_passed += n_seconds
        if self._n_passed >= RELEASED_SECONDS:
            self._release()

    def _release(self) -> None:
        self._n_passed = 0
        with self._mapping:
            release_mapped_pages(self._path)

    def _read_vectors(self, name: str, *, whole: bool = False) -> None:
        """Once, read ahead what a search scans: int8 copies, and vectors that have none yet; or all there is."""
        if (key := f"{name}, all" if whole else name) in self._read:
            return
        stores = list(self._path.glob(f"segments/*/vector_storage-{name}"))
        try:
            sealed = [copies.with_name("matrix.dat") for copies in _files(stores, "quantized.data")]
            _read_ahead(set(_files(stores, "*")).difference(sealed))
            if whole or sum(file.stat().st_size for file in sealed) <= WHOLE_BYTES:
                _read_ahead(sealed)
        except OSError as exc:
            raise CollectionError(f"index {self._location} cannot be read: {exc}; check the disk") from exc
        self._read.add(key)

    def scroll_payloads(
        self, where: Where, *, without: Sequence[str], limit: int, after: Any
    ) -> tuple[list[Mapping[str, Any]], Any]:
        """See `Collection.scroll_payloads`."""
        payload = edge.PayloadSelector.Exclude(list(without)) if without else True
        records, after = self._scroll(where, payload=payload, with_vectors=(), limit=limit, after=after)
        return [r.payload or {} for r in records], after

    def _scroll(
        self, where: Where, *, payload: Any, with_vectors: Sequence[str], limit: int, after: Any
    ) -> tuple[list[Any], Any]:
        request = edge.ScrollRequest(
            offset=after,
            limit=limit,
            filter=_edge_filter(where),
            with_payload=payload,
            with_vector=list(with_vectors),
        )
        with _engine(self._location):
            records, after = self._shard.scroll(request)
        return records, after

    def retrieve(self, point_ids: Sequence[str], *, with_vectors: Sequence[str] = ()) -> list[StoredPoint]:
        """See `Collection.retrieve`."""
        with _engine(self._location):
            records = self._shard.retrieve(list(point_ids), with_payload=True, with_vector=list(with_vectors))
        return [stored_point(r.id, r.vector, r.payload) for r in records]

    def count(self, where: Where) -> int:
        """See `Collection.count`; what was counted is remembered until something is written."""
        key = json.dumps(where, sort_keys=True)
        if key not in self._counts:
            with _engine(self._location):
                self._counts[key] = self._shard.count(edge.CountRequest(exact=True, filter=_edge_filter(where)))
        return self._counts[key]

    def facet(self, key: str, where: Where, *, limit: int) -> dict[Any, int]:
        """See `Collection.facet`."""
        request = edge.FacetRequest(key, limit=limit, exact=True, filter=_edge_filter(where))
        with _engine(self._location):
            return {hit.value: hit.count for hit in self._shard.facet(request).hits}

    def flush(self) -> None:
        """See `Collection.flush`; what was written is given back, as it will not soon be wanted."""
        with self._mapping, _engine(self._location):
            self._shard.flush()
        self._release()

    @contextmanager
    def bulk_load(self) -> Iterator[None]:
        """See `Collection.bulk_load`; segments are sealed as they fill, and at the end if much is not."""
        yield
        if self._n_unsealed >= SEALED_SECONDS:
            self.optimize()

    def optimize(self) -> None:
        """See `Collection.optimize`; about 5 s of processor time for 100,000 seconds.

        Segments are written anew beside the old ones, for which there must be space.
        """
        with _engine(self._location):
            n_points = min(self._shard.info().points_count, SEGMENT_SECONDS)
        require_space(self._path.parent, n_points * self._point_bytes)
        self._is_changed = True
        self._release()
        with self._mapping, _engine(self._location):
            self._shard.optimize()
            self._shard.flush()  # removes the segments that were replaced, which a kill would bring back beside the new
        self._release()
        self._n_unsealed = 0

    def renew(self, indexes: Mapping[str, str]) -> None:
        """Write every segment anew, as segments are written now, one beside the other; about 70 s a million seconds.

        Raises:
            CollectionError: If there is no space, or the engine loses a point.
        """
        before = self.count({})
        for operation in _payload_indexes(indexes):
            self._update(operation)
        self.optimize()
        if self.count({}) != before:
            raise CollectionError(f"the engine lost points of index {self._location}; restore it from a backup")

    def close(self) -> None:
        """Let go of the shard's files.

        The engine has the system forget them then, so a process that only read and is about to leave lets them be: at
        100,000 seconds the next search answers half a second sooner.
        """
        if is_about_to_leave() and not self._is_changed:
            _LEFT[self._path] = self._shard
            return
        with self._mapping, _engine(self._location):
            self._shard.close()


_LEFT: dict[Path, edge.EdgeShard] = {}
"""Shards that were not closed, as the process is about to leave."""


def _files(folders: Iterable[Path], pattern: str) -> list[Path]:
    return [file for folder in folders for file in folder.rglob(pattern) if file.is_file()]


def _read_ahead(files: Iterable[Path]) -> None:
    """Have the system read files into its cache, in a row; returns at once, and where no system can, does nothing."""
    if not hasattr(os, "posix_fadvise"):  # macOS, Windows
        return
    for file in files:
        with file.open("rb") as stream:
            for start in range(0, os.fstat(stream.fileno()).st_size, READ_AHEAD_BYTES):
                os.posix_fadvise(stream.fileno(), start, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)


def _edge_filter(where: Where) -> edge.Filter:
    return edge.Filter(
        must=[_edge_condition(condition) for condition in where.get("must", [])],
        must_not=[_edge_condition(condition) for condition in where.get("must_not", [])],
    )


def _edge_condition(condition: Mapping[str, Any]) -> edge.FieldCondition | edge.HasVectorCondition:
    if "has_vector" in condition:
        return edge.HasVectorCondition(condition["has_vector"])
    if "range" in condition:
        return edge.FieldCondition(condition["key"], range=edge.RangeFloat(**condition["range"]))
    return edge.FieldCondition(condition["key"], match=edge.MatchAny(condition["match"]["any"]))
