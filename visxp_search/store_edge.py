"""The embedded store: Qdrant Edge, Qdrant's own engine inside this process, in a directory.

    index.json        what the index says of itself; it appears last, and makes the directory an index
    NAME.json         a document kept with the index, e.g. its clusters
    seconds/          Edge shard, one point per second
    ledger/           Edge shard, one point per video; `videos/` in an index of schema 1
    backup-schemaN/   what a migration replaced (`store_edge_migrate`)
    lock              held by the one process that has the index open
    lock.owner        its pid and host, for the message that the next one gets

Reading beside a writer is impossible: Edge locks the write-ahead log of a shard when it loads it, also only to read.
Hence whoever opens an index takes the lock; several processes share an index through a Qdrant server (`store_server`).

What is read when: the engine maps its files, and where they are wide it asks the system for single pages, at some 60 us
each. Nothing of them is in memory when an index is opened, for the engine has the system forget a shard that it closes.
So whatever will be needed whole is read ahead, in a row (`_read_ahead`): at opening all but vectors and payloads,
before the first search what it scans. A million seconds are open after 0.7 s instead of 14.

Durability: a write is in the write-ahead log when the call returns, so it survives kill -9; `flush` also syncs log and
segments to the disk, so it survives a loss of power. Queries and `optimize` hold the GIL.
"""

import errno
import json
import logging
import os
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from visxp_search.errors import CollectionError, IndexInUseError, MissingIndexError
from visxp_search.mapped_pages import release_mapped_pages
from visxp_search.store import (
    HIT_KEYS,
    PAYLOAD_INDEXES,
    SCHEMA_VERSION,
    VIDEO_PAYLOAD_INDEXES,
    CollectionInfo,
    check_info,
    new_info,
)
from visxp_search.store_collection import CollectionStore, StoredPoint, Where, stored_point
from visxp_search.store_json import info_from_json, info_to_json

LOCK_TIMEOUT_SECONDS = 2.0
"""Long enough for a command that is just ending, short enough for a person."""

LEAST_FREE_BYTES = 256 * 2**20
"""Free space that a write needs. The engine writes through memory maps of sparse files: on a full disk the kernel would
end the process (SIGBUS) instead of reporting an error."""

SEALED_SECONDS = 50_000
"""Seconds after which what was written is sealed: put into a segment that also holds its vectors as int8, a quarter as
much to scan. Until then, and so in smaller archives, searches compare the vectors themselves and are exact."""

N_SEGMENTS, SEGMENT_SECONDS = 12, 250_000
"""Where there are more segments, the smallest are merged, up to this size; several are scanned in parallel."""

MOST_MOVED = 250_000
"""Seconds with new payloads after which they are sealed. The engine moves each of them out of its sealed segment into
the open one, whose payload indexes are in memory: some 1.6 kB a second."""

MOST_DELETED = 0.5
"""Share of a segment's seconds that may be deleted or moved before the rest is written anew; new payloads for all would
else write each second several times."""

RELEASED_SECONDS = 50_000
"""Seconds that are read or written one after the other, after which the pages that hold them are given back: they count
as memory of the process, and whoever goes through an archive touches each only once."""

OVERSAMPLING = 2.0
"""So many times the hits wanted are chosen by int8 vectors and compared again by the vectors themselves."""

READ_AHEAD_BYTES = 128 * 1024
"""Asked for at once: what Linux reads ahead unless it is told otherwise; of more it would read only the beginning."""

NO_GRAPH = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)

INFO, _INFO_NEW = "index.json", "index.json.new"
_SECONDS = "seconds"
LEDGERS = {1: "videos", 2: "ledger", 3: "ledger"}
"""Schema -> directory of the ledger. Since 2 its payloads are kept in the page cache, and its vectors, which nothing
compares, are not: listing 100,000 videos reads 65 MB in a row instead of 13,600 single pages, with 250 MB of memory
instead of 560."""
_LOCK, _OWNER = "lock", "lock.owner"

logger = logging.getLogger(__name__)


def open_edge_store(path: Path, *, checkpoint: str | None, create: Mapping[str, int] | None) -> CollectionStore:
    """Open the index in a directory, or create it there; see `store.open_store`.

    Raises:
        CollectionError: If there is none and none is to be created, the directory holds something else, another
            process has it open, it is damaged, or it is of another checkpoint or schema.
    """
    try:
        _require_index_or_room(path, create=create is not None)
        path.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(path)
    except OSError as exc:
        raise CollectionError(f"index {path} cannot be opened: {exc}; {_advice(exc)}") from exc
    try:
        return _open_locked(path, lock, checkpoint=checkpoint, create=create)
    except OSError as exc:
        lock.release()
        raise CollectionError(f"index {path} cannot be opened: {exc}; {_advice(exc)}") from exc
    except BaseException:
        lock.release()
        raise


def _advice(exc: OSError) -> str:
    """What to do where an index cannot be opened, which writes its lock also to read."""
    if exc.errno == errno.ENOSPC:
        return "the disk is full: free some space; what is stored is safe"
    if exc.errno == errno.EROFS:
        return "an index is locked also to read it: copy it to a disk that can be written to"
    return "check the disk, and that this is a directory you may write to"


def holds_index(path: Path) -> bool:
    """Whether an index lies in a directory, whatever its state."""
    return (path / INFO).exists()


def swap_edge_indexes(path: Path, incoming: Path, outgoing: Path) -> None:
    """Put one index in the place of another, which goes to a third place; cut short, it can be called again.

    Raises:
        CollectionError: If one of both is in use, `incoming` is no index, or something lies at `outgoing`.
    """
    if not (incoming / INFO).exists():
        raise MissingIndexError(f"there is no index at {incoming}; nothing was changed")
    is_begun = not path.exists()
    if outgoing.exists() and not is_begun:
        raise CollectionError(f"{outgoing} is there already, from an earlier swap; remove it, then try again")
    with ExitStack() as locks:
        for folder in (incoming, *(() if is_begun else (path,))):
            locks.enter_context(locked(folder))
            (folder / _OWNER).unlink()
        try:
            if not is_begun:
                path.rename(outgoing)
            incoming.rename(path)
            _sync_directory(path.parent.absolute())
        except OSError as exc:
            raise CollectionError(f"index {path} cannot be renamed: {exc}; check its folder's permissions") from exc


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of an index while something is done to its files.

    Raises:
        IndexInUseError: If another process has it open.
    """
    lock = _take_lock(path)
    try:
        yield
    finally:
        (path / _OWNER).unlink(missing_ok=True)
        lock.release()


def _open_locked(
    path: Path, lock: filelock.FileLock, *, checkpoint: str | None, create: Mapping[str, int] | None
) -> CollectionStore:
    location = str(path)
    _require_index_or_room(path, create=create is not None)  # again: only now does nobody else change it
    if create is not None and not (path / INFO).exists():
        _create(path, new_info(checkpoint, create))
    info = read_info(path)
    check_info(info, wanted_checkpoint=checkpoint, wanted_dims=create, location=location)
    if info.schema < SCHEMA_VERSION:
        logger.warning(
            "index %s has schema version %d and goes on to work; version %d answers sooner with less memory: "
            "visxp index migrate --index %s",
            *(path, info.schema, SCHEMA_VERSION, path),
        )

    seconds = open_seconds(path, info)
    try:
        videos = open_ledger(path, info)
    except BaseException:
        seconds.close()
        raise

    def let_go() -> None:
        try:
            seconds.close()
            videos.close()
        finally:
            (path / _OWNER).unlink(missing_ok=True)
            lock.release()

    return CollectionStore(
        info=info,
        location=location,
        seconds=seconds,
        videos=videos,
        documents=FileDocuments(path),
        let_go=let_go,
    )


def open_seconds(path: Path, info: CollectionInfo) -> "EdgeCollection":
    """The seconds of an index whose lock is held.

    Raises:
        CollectionError: If they cannot be loaded.
    """
    return EdgeCollection(path / _SECONDS, location=str(path), config=_seconds_config(info.dims))


def open_ledger(path: Path, info: CollectionInfo) -> "EdgeCollection":
    """The ledger of an index whose lock is held.

    Raises:
        CollectionError: If it cannot be loaded.
    """
    return EdgeCollection(path / LEDGERS[info.schema], location=str(path), config=_ledger_config(info.dims))


def _require_index_or_room(path: Path, *, create: bool) -> None:
    """Refuse a directory that is neither an index nor a place for a new one; touches nothing."""
    if path.exists() and not path.is_dir():
        raise CollectionError(f"index {path} is a file; expected a directory, or the URL of a Qdrant server")
    if (path / INFO).exists():
        return
    found = {entry.name for entry in path.iterdir()} if path.exists() else set()
    ours = {_LOCK, _OWNER}
    if _INFO_NEW in found:  # a creation that was cut short, so the shards are ours too
        ours |= {_INFO_NEW, _SECONDS, *LEDGERS.values()}
    if foreign := sorted(found - ours):
        raise CollectionError(
            f"directory {path} is not a visxp index (it has no {INFO}, but {foreign[0]!r}); nothing was changed; "
            f"pass an index, or an empty or new directory, with --index"
        )
    if not create:
        raise MissingIndexError(f"there is no index at {path}; make one with `visxp index add`, or pass --index")


def _create(path: Path, info: CollectionInfo) -> None:
    """Create an index, so that at every moment the directory says how far it came.

    `index.json.new` is there before the shards and becomes `index.json` when they are complete; a creation that was
    cut short before that holds no data, and is begun again.
    """
    require_space(path)
    _write_synced(path / _INFO_NEW, json.dumps(info_to_json(info), indent=1))
    for name, config, indexes in (
        (_SECONDS, _seconds_config(info.dims), PAYLOAD_INDEXES),
        (LEDGERS[SCHEMA_VERSION], _ledger_config(info.dims), VIDEO_PAYLOAD_INDEXES),
    ):
        shutil.rmtree(path / name, ignore_errors=True)
        _create_shard(path / name, config=config, indexes=indexes, location=str(path))
    write_info(path, info)


def _seconds_config(dims: Mapping[str, int]) -> edge.EdgeConfig:
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


def _ledger_config(dims: Mapping[str, int]) -> edge.EdgeConfig:
    """Payloads in the page cache, vectors on the disk: entries are listed, and never searched by vector."""
    return edge.EdgeConfig(vectors=_vectors(dims), payload_memory=edge.Memory.Cached, hnsw_config=NO_GRAPH)


def _vectors(dims: Mapping[str, int]) -> dict[str, edge.EdgeVectorParams]:
    return {
        name: edge.EdgeVectorParams(size=dim, distance=edge.Distance.Cosine, memory=edge.Memory.Cold)
        for name, dim in dims.items()
    }


def _create_shard(path: Path, *, config: edge.EdgeConfig, indexes: Mapping[str, str], location: str) -> None:
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


def write_info(path: Path, info: CollectionInfo) -> None:
    """Say anew, at once and durably, what an index is."""
    _write_synced(path / _INFO_NEW, json.dumps(info_to_json(info), indent=1))
    (path / _INFO_NEW).rename(path / INFO)
    _sync_directory(path)


def read_info(path: Path) -> CollectionInfo:
    """What an index says of itself.

    Raises:
        CollectionError: If it is damaged, or of a schema that is not read.
    """
    try:
        data = json.loads((path / INFO).read_text(encoding="utf-8"))
    except ValueError:
        data = None
    return info_from_json(data, location=str(path))


def _take_lock(path: Path) -> filelock.FileLock:
    lock = filelock.FileLock(path / _LOCK, timeout=LOCK_TIMEOUT_SECONDS, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout as exc:
        raise IndexInUseError(
            f"index {path} is in use by another visxp process{_owner(path)}; wait until it ends or stop it; "
            f"to use one index from several processes at once, serve it from a Qdrant server (--index http://host:6333)"
        ) from exc
    (path / _OWNER).write_text(f"pid {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    return lock


def _owner(path: Path) -> str:
    try:
        return f" ({(path / _OWNER).read_text(encoding='utf-8')})"
    except OSError:
        return ""  # it is just closing


def require_space(path: Path, n_bytes: int = 0) -> None:
    """Refuse to write so many bytes, and what the engine needs besides, where there is no space for them.

    Raises:
        CollectionError: If the disk is full, or gone.
    """
    try:
        free = shutil.disk_usage(path).free
    except OSError as exc:
        raise CollectionError(f"the disk of index {path} is gone: {exc}; bring it back") from exc
    if free < n_bytes + LEAST_FREE_BYTES:
        raise CollectionError(
            f"the disk of index {path} is full ({free // 2**20} MiB are free, writing needs "
            f"{(n_bytes + LEAST_FREE_BYTES) // 2**20}); what is stored is safe: free some space and run the same "
            f"command again"
        )


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _engine(location: str) -> Iterator[None]:
    """Translate Edge's errors: it raises bare `Exception`, and a `PanicException` where it is damaged."""
    try:
        yield
    except BaseException as exc:
        if type(exc) is not Exception and type(exc).__name__ != "PanicException":
            raise
        raise CollectionError(
            f"the engine of index {location} failed: {exc}; if this stays so after opening it again, the index is "
            f"damaged: restore it from a backup, or index the videos again into a new --index"
        ) from exc


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
        self._mapping = threading.Lock()  # held by what makes and takes away mappings, and while pages are given back
        payloads_too = config.payload_memory is edge.Memory.Cached
        _read_ahead(
            file
            for folder, _, names in os.walk(path)
            if "vector_storage-" not in folder and (payloads_too or "payload_storage" not in folder)
            for file in (Path(folder, name) for name in names)
        )
        with _engine(location):
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
        with self._mapping, _engine(self._location):
            self._shard.update(operation)

    def search(
        self, vector: str, embeddings: npt.NDArray[np.float32], *, limit: int, where: Where
    ) -> list[list[tuple[float, Mapping[str, Any]]]]:
        """See `Collection.search`."""
        self._read_vectors(vector)
        wanted, keys = _edge_filter(where), edge.PayloadSelector.Include(list(HIT_KEYS))
        rescored = edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(row.tolist(), using=vector),
                filter=wanted,
                with_payload=keys,
                params=edge.SearchParams(quantization=rescored),
            )
            for row in embeddings
        ]
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
            sealed = () if whole else [copies.with_name("matrix.dat") for copies in _files(stores, "quantized.data")]
            _read_ahead(set(_files(stores, "*")).difference(sealed))
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
        """See `Collection.flush`."""
        with self._mapping, _engine(self._location):
            self._shard.flush()

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
        """Let go of the shard's files."""
        with self._mapping, _engine(self._location):
            self._shard.close()


class FileDocuments:
    """Documents as files of an index's directory, as `store_collection.Documents`; replaced by renaming.

    Args:
        path: directory of the index.
    """

    def __init__(self, path: Path):
        self._path = path

    def read(self, name: str) -> str | None:
        """See `Documents.read`."""
        file = self._path / f"{name}.json"
        try:
            return file.read_text(encoding="utf-8") if file.exists() else None
        except (OSError, ValueError) as exc:
            raise CollectionError(f"{file} cannot be read: {exc}; restore it from a backup, or remove it") from exc

    def write(self, name: str, text: str) -> None:
        """See `Documents.write`."""
        new = self._path / f"{name}.json.new"
        try:
            _write_synced(new, text)
            new.rename(self._path / f"{name}.json")
            _sync_directory(self._path)
        except OSError as exc:
            raise CollectionError(f"{new} cannot be written: {exc}; check the disk and its permissions") from exc


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
