"""The collection's schema and the small interface behind which both stores stand.

An index is two collections: one point per *second* (named vectors `visual`, `audio`, `joint`; a point may lack any of
them) and one point per *video* (the ledger: paths, duration, seconds expected and done, status). Two stores implement
the interface: Qdrant Edge, embedded in the process (`store_edge`), and a Qdrant server through its client
(`store_server`, with `store_retries`); those files alone import Qdrant. What both do alike is `store_collection`.

The identity of points: a second's id is the UUIDv5 of (video id, second), so storing twice changes nothing.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from visxp_search.errors import CollectionError, UsageError

SCHEMA_VERSION, OLDEST_SCHEMA = 3, 1
"""What new indexes are, and the oldest that is read. Since 2 an embedded index keeps its ledger in another way
(`store_edge.LEDGERS`), since 3 vectors and payload indexes of its seconds are read where they are needed and not all at
opening; indexes on servers and in Parquet are as in 1."""
VECTORS = ("visual", "audio", "joint")

_NAMESPACE = uuid.UUID("6f1f2f0e-4a0d-5c8e-9a57-1d7a3f9b7c01")
"""Drawn once for this project; changing it would orphan every stored point."""

PENDING, DONE, FAILED = "pending", "done", "failed"
STATUSES = (PENDING, DONE, FAILED)


def hash_file(path: Path, *, on_block: Callable[[], None] = lambda: None) -> str:
    """The video id of a file: 32 hexadecimal digits of BLAKE2b over its whole content.

    Args:
        path: a regular file.
        on_block: called after each MiB, a sign of life in what may take long.

    Raises:
        OSError: If the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
            on_block()
    return digest.hexdigest()


def second_id(video_id: str, second: int) -> str:
    """The point id of one second of one video."""
    return str(uuid.uuid5(_NAMESPACE, f"{video_id}/{second}"))


def video_point_id(video_id: str) -> str:
    """The point id of one video's ledger entry."""
    return str(uuid.uuid5(_NAMESPACE, video_id))


@dataclass(frozen=True)
class CollectionInfo:
    """What an index says of itself; a store that disagrees with the caller's is refused.

    Attributes:
        checkpoint: id of the checkpoint that made the vectors.
        dims: vector name -> length, e.g. `{"visual": 256, "audio": 256, "joint": 128}`.
        schema: version that it was made with, or migrated to.
    """

    checkpoint: str
    dims: Mapping[str, int]
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True)
class ServerSettings:
    """How a Qdrant server is spoken to, and how an index is created there; one that exists keeps what it has.

    Attributes:
        shards: parts that the points are spread over; None: one for each node. Qdrant advises a multiple of the number
            of nodes, and twice it where nodes may be added.
        replicas: copies of each shard on different nodes; None: one. Two or more outlive the loss of a node.
        api_key: what the server asks for, if anything.
        ca_file: certificates (PEM) of the authority that signed the server's, instead of those that are publicly known.
    """

    shards: int | None = None
    replicas: int | None = None
    api_key: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    @classmethod
    def from_environment(cls, *, shards: int | None = None, replicas: int | None = None) -> Self:
        """Settings of the variables `VISXP_QDRANT_*`, but for those that are given.

        Raises:
            UsageError: If a number among them is none.
        """
        return cls(
            shards=shards or _count_in_environment(SHARDS_VARIABLE),
            replicas=replicas or _count_in_environment(REPLICAS_VARIABLE),
            api_key=os.environ.get(API_KEY_VARIABLE) or None,
            ca_file=os.environ.get(CA_VARIABLE) or None,
        )


API_KEY_VARIABLE = "VISXP_QDRANT_API_KEY"
CA_VARIABLE = "VISXP_QDRANT_CA"
SHARDS_VARIABLE = "VISXP_QDRANT_SHARDS"
REPLICAS_VARIABLE = "VISXP_QDRANT_REPLICAS"


def _count_in_environment(variable: str) -> int | None:
    text = os.environ.get(variable) or None
    if text is not None and not (text.isascii() and text.isdigit() and int(text)):
        raise UsageError(f"environment variable {variable} is {text!r}; expected a number from 1 on")
    return None if text is None else int(text)


@dataclass(frozen=True)
class SecondPoint:
    """One stored second.

    Attributes:
        video_id: content hash of the video.
        second: t of `[t, t + 1)`.
        vectors: name -> (D,) float32 of norm 1; a modality that is missing or worthless has no entry.
        payload: everything of `make_payload` (video_id and second included).
    """

    video_id: str
    second: int
    vectors: Mapping[str, npt.NDArray[np.float32]]
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class VideoRecord:
    """One video's entry in the ledger.

    Attributes:
        video_id: content hash.
        paths: all known absolute paths of this content, first seen first.
        status: `pending` (started or waiting), `done` or `failed`.
        kind: `video`, `audio` or `image`.
        duration_seconds: of the container's time line; 0 while unknown.
        seconds_expected: number of seconds that the whole file has.
        seconds_done: number of seconds stored.
        checkpoint: id of the checkpoint that embedded it.
        error: reason of a failure, or of seconds that are missing; empty if there is none.
        tries: how often indexing was begun.
        stats: path -> [size in bytes, mtime in ns] as last seen, to tell an unchanged file without reading it.
        facts: what is known of the media, for people (codecs, width, height, frames per second).
        vectors: mean embedding of the video per vector name, norm 1.
    """

    video_id: str
    paths: tuple[str, ...]
    status: str = PENDING
    kind: str = "video"
    duration_seconds: float = 0.0
    seconds_expected: int = 0
    seconds_done: int = 0
    checkpoint: str = ""
    error: str = ""
    tries: int = 0
    stats: Mapping[str, Sequence[int]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    vectors: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def has_seen(self, path: Path, size: int, mtime_ns: int) -> bool:
        """Whether the file at a path was of this size and time when it was read."""
        return list(self.stats.get(str(path), ())) == [size, mtime_ns]


@dataclass(frozen=True)
class Filter:
    """Which seconds a query may return; every condition given must hold.

    Attributes:
        video_ids: only these videos; None for all, an empty tuple for none.
        not_video_ids: none of these videos.
        clusters: payload `cluster` is one of these.
        clusters_visual: payload `cluster_visual` is one of these.
        clusters_audio: payload `cluster_audio` is one of these.
        not_clusters: payload `cluster` is none of these (seconds without a cluster pass).
        branch: this cluster-path element is in the payload's `path`.
        flags: each of these flags is set.
        not_flags: none of these flags is set.
        seconds: half-open interval `[start, stop)` that the second lies in.
        has_vector: the point has this named vector.
    """

    video_ids: tuple[str, ...] | None = None
    not_video_ids: tuple[str, ...] = ()
    clusters: tuple[int, ...] | None = None
    clusters_visual: tuple[int, ...] | None = None
    clusters_audio: tuple[int, ...] | None = None
    not_clusters: tuple[int, ...] = ()
    branch: str | None = None
    flags: tuple[str, ...] = ()
    not_flags: tuple[str, ...] = ()
    seconds: tuple[int, int] | None = None
    has_vector: str | None = None


@dataclass(frozen=True)
class Hit:
    """One scored second: cosine similarity in [-1, 1], rounded to 6 decimals (float32 knows no more)."""

    video_id: str
    second: int
    score: float


class Store(Protocol):
    """What every store can do.

    All methods raise `CollectionError` when the engine fails. Writes are durable on return of `flush`; opening again
    after kill -9 shows every write that was flushed and never half a point.
    """

    @property
    def info(self) -> CollectionInfo:
        """What the index says of itself."""

    @property
    def location(self) -> str:
        """Directory or URL, for messages."""

    @property
    def revision(self) -> int:
        """Grows with every change of the stored seconds through this object, not with changes of payloads alone."""

    def upsert_seconds(self, points: Sequence[SecondPoint]) -> None:
        """Store points; a point of the same id is replaced whole.

        Raises:
            ValueError: If a vector has a wrong length, a value that is not finite, or a norm other than 1 (1e-3).
        """

    def set_payload(self, video_id: str, second: int, values: Mapping[str, Any]) -> None:
        """Merge values into the payload of one second.

        Raises:
            ValueError: If values would change what identifies the second (`video_id`, `second`, `start_ms`).
            CollectionError: If the second is not stored.
        """

    def set_payloads(self, updates: Sequence[tuple[str, int, Mapping[str, Any]]]) -> None:
        """Merge values into the payloads of many seconds, given as (video id, second, values).

        Not one transaction: cut short, some are set and some are not, each of them whole.

        Raises:
            ValueError: See `set_payload`; nothing is set then.
            CollectionError: If one of the seconds is not stored; others may be set.
        """

    def read_document(self, name: str) -> dict[str, Any] | None:
        """JSON data kept with the index under this name; None if there is none."""

    def write_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep JSON data with the index, replacing that of the same name at once and durably.

        Embedded it is the file `NAME.json` beside `index.json`; on a server a point of the ledger's collection, so that
        snapshots and replicas carry it.

        Raises:
            ValueError: If the name is not one of `DOCUMENTS`.
        """

    def delete_seconds(self, video_id: str) -> None:
        """Remove all seconds of a video."""

    def expect_queries(self, vectors: Sequence[str]) -> None:
        """Queries by these vectors will follow: what they need is read from the disk while something else is done.

        Returns at once; vectors that the index does not have are passed over.
        """

    def query(
        self, vector: str, embeddings: npt.NDArray[np.float32], *, top: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """The best `top` seconds for each row of embeddings (Q, D), best first, by cosine similarity.

        Points that lack the named vector are never returned. Ties are broken by (video_id, second).

        Raises:
            ValueError: If `vector` is unknown, or the embeddings have a wrong shape, a value that is not finite or a
                row of zeros.
        """

    def seconds(
        self, where: Filter | None = None, *, with_vectors: Sequence[str] = (), page: int = 1000
    ) -> Iterator[SecondPoint]:
        """All seconds that match, streaming in the order of point ids.

        Ids are hashes, so the first n are a random sample of the archive that stays the same from query to query.
        """

    def seconds_of(self, video_id: str, *, with_vectors: Sequence[str] = ()) -> list[SecondPoint]:
        """All seconds of one video, sorted by second."""

    def get(self, keys: Sequence[tuple[str, int]], *, with_vectors: Sequence[str] = ()) -> list[SecondPoint]:
        """The points of these (video id, second), in that order; those that do not exist are left out."""

    def count(self, where: Filter | None = None) -> int:
        """Exact number of seconds that match."""

    def facet(self, key: str, where: Filter | None = None, *, limit: int = 10_000) -> dict[Any, int]:
        """Exact number of seconds for each value of an indexed payload key, the most frequent value first.

        Raises:
            ValueError: If the key is not one of `PAYLOAD_INDEXES`.
        """

    def upsert_videos(self, records: Sequence[VideoRecord]) -> None:
        """Write ledger entries; one without vectors keeps the vectors that are stored.

        So `upsert_videos([replace(store.video(id), ...)])` loses nothing.

        Raises:
            ValueError: If a status is unknown or a vector is wrong (see `upsert_seconds`).
        """

    def video(self, video_id: str) -> VideoRecord | None:
        """One ledger entry, without vectors."""

    def videos(self, status: str | None = None, *, brief: bool = False) -> Iterator[VideoRecord]:
        """All ledger entries (of one status), without vectors, streaming.

        Brief ones lack `stats` and `facts`, which is twice as fast: for looking, not for writing back.
        """

    def count_videos(self, status: str | None = None) -> int:
        """Exact number of ledger entries (of one status)."""

    def delete_video(self, video_id: str) -> None:
        """Remove a ledger entry and all its seconds."""

    def flush(self) -> None:
        """Make everything written so far durable."""

    def optimize(self) -> None:
        """Merge segments, drop deleted points and make what was written fast to search; may take long.

        Rankings of small indexes are exact, those of large ones nearly so (each store says from which size and how).
        """

    def bulk_load(self) -> AbstractContextManager[None]:
        """While it is entered much is written: an engine that builds graphs by itself waits with them until its end."""

    def close(self) -> None:
        """Flush and let go of files, locks and connections; closing twice is fine."""


def make_payload(
    *,
    video_id: str,
    second: int,
    has_audio: bool,
    flags: Sequence[str],
    checkpoint: str,
    cluster: int | None = None,
    cluster_visual: int | None = None,
    cluster_audio: int | None = None,
    path: Sequence[str] = (),
    confidence: float | None = None,
) -> dict[str, Any]:
    """The payload of one second. What is not known is left out, not stored as null.

    Args:
        video_id: content hash.
        second: t.
        has_audio: whether the second has a sound worth a vector.
        flags: members of `clips.FLAGS`.
        checkpoint: id of the checkpoint, stored as `model`.
        cluster: pseudo-label of the pair; `cluster_visual` and `cluster_audio` those of the single modalities.
        cluster_visual: see cluster.
        cluster_audio: see cluster.
        path: the cluster's path in the hierarchy, root first.
        confidence: of `cluster`, in [0, 1].
    """
    payload: dict[str, Any] = {
        "video_id": video_id,
        "second": second,
        "start_ms": second * 1000,
        "has_audio": has_audio,
        "flags": list(flags),
        "model": checkpoint,
        "path": list(path),
    }
    optional = {
        "cluster": cluster,
        "cluster_visual": cluster_visual,
        "cluster_audio": cluster_audio,
        "confidence": confidence,
    }
    payload.update({key: value for key, value in optional.items() if value is not None})
    return payload


PAYLOAD_INDEXES = {
    "video_id": "keyword",
    "second": "integer",
    "has_audio": "bool",
    "flags": "keyword",
    "cluster": "integer",
    "cluster_visual": "integer",
    "cluster_audio": "integer",
    "path": "keyword",
}
"""Payload keys of seconds that are filtered on, with their Qdrant index type."""

VIDEO_PAYLOAD_INDEXES = {"video_id": "keyword", "status": "keyword"}
"""The same for the ledger."""

HIT_KEYS = ("video_id", "second")
"""Payload keys that a hit needs."""


def mean_vectors(points: Iterable[SecondPoint]) -> dict[str, npt.NDArray[np.float32]]:
    """Vector name -> normalised mean over the seconds that have it; the vectors of a `VideoRecord`."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for point in points:
        for name, vector in point.vectors.items():
            sums[name] = sums.get(name, 0.0) + vector.astype(np.float64)
            counts[name] = counts.get(name, 0) + 1
    means = {}
    for name in sorted(sums):
        mean = sums[name] / counts[name]
        norm = float(np.linalg.norm(mean))
        if norm > 1e-6:
            means[name] = (mean / norm).astype(np.float32)
    return means


def new_info(checkpoint: str | None, create: Mapping[str, int]) -> CollectionInfo:
    """What an index that is about to be created will say of itself.

    Raises:
        ValueError: If the checkpoint is missing, or the dims are not `{name of VECTORS: positive length}`.
    """
    if checkpoint is None:
        raise ValueError("an index is created for one checkpoint; expected its id, got None")
    if not create or not set(create) <= set(VECTORS) or min(create.values()) < 1:
        raise ValueError(f"dims {dict(create)} unsupported; expected positive lengths for some of {VECTORS}")
    return CollectionInfo(checkpoint=checkpoint, dims=dict(create))


def check_info(
    found: CollectionInfo,
    *,
    wanted_checkpoint: str | None,
    location: str,
    wanted_dims: Mapping[str, int] | None = None,
) -> None:
    """Refuse an index of another schema or, if they are wanted, another checkpoint or dims, saying what to do.

    Raises:
        CollectionError: If they disagree.
    """
    if not OLDEST_SCHEMA <= found.schema <= SCHEMA_VERSION:
        raise CollectionError(
            f"index {location} has schema version {found.schema}, this program reads versions {OLDEST_SCHEMA} to "
            f"{SCHEMA_VERSION}; use the visxp release that made it, or index the videos again into a new --index"
        )
    if wanted_checkpoint is not None and found.checkpoint != wanted_checkpoint:
        raise CollectionError(
            f"index {location} was made by checkpoint {found.checkpoint}, not {wanted_checkpoint}; pass the checkpoint "
            f"that made it with --model, or embed the videos again beside it: visxp index rebuild --model NEW"
        )
    if wanted_dims is not None and dict(wanted_dims) != dict(found.dims):
        raise CollectionError(
            f"index {location} has vectors {dict(found.dims)}, the checkpoint makes {dict(wanted_dims)}; pass the "
            f"checkpoint that made the index with --model, or index the videos again into a new --index"
        )


def is_url(location: str | Path) -> bool:
    """Whether a location names a Qdrant server rather than a directory."""
    return str(location).startswith(("http://", "https://"))


def open_store(
    location: str | Path,
    *,
    checkpoint: str | None,
    create: Mapping[str, int] | None = None,
    server: ServerSettings | None = None,
) -> Store:
    """Open an index, or create it.

    Args:
        location: directory of an embedded index, or `http(s)://host:port` of a Qdrant server; a path after it
            (`http://host:6333/news`) tells indexes on one server apart.
        checkpoint: id that the index must have been made by; None accepts any (for `info`, `ls`, `rm`).
        create: vector dimensions to create the index with if it does not exist; None: it must exist.
        server: how it is spoken to and created if the location is a server's; None: as the environment says.

    Raises:
        CollectionError: If it does not exist and is not to be created, is locked by another process, is of another
            checkpoint or schema, or is not an index.
    """
    if is_url(location):
        from visxp_search.store_server import open_server_store

        return open_server_store(str(location), checkpoint=checkpoint, create=create, server=server)
    from visxp_search.store_edge import open_edge_store

    return open_edge_store(Path(location), checkpoint=checkpoint, create=create)
