"""What both stores do alike: every method of `Store`, on top of two collections of one engine.

An engine brings a `Collection`, which is a dozen plain operations; `store_edge` and `store_server` each have one.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from visxp_search.errors import CollectionError
from visxp_search.store import (
    PAYLOAD_INDEXES,
    STATUSES,
    CollectionInfo,
    Filter,
    Hit,
    SecondPoint,
    VideoRecord,
    second_id,
    video_point_id,
)
from visxp_search.store_checks import (
    IDENTITY_KEYS,
    check_document_name,
    check_points,
    check_query,
    check_vector_name,
    check_vectors,
)
from visxp_search.store_json import BULKY_VIDEO_KEYS, conditions, video_payload, video_record

T = TypeVar("T")

UPSERT_BATCH = 256
"""Points per write: at 3 x 512-d about 8 MB of JSON, below the 32 MB that a Qdrant server accepts."""

PAYLOAD_BATCH = 1000
"""Payloads per write."""

MOST_TIES = 10_000
"""A group of equal scores that is cut off by `top` is put in order up to this size."""

LEAST_SPARE = 50
"""So many hits more than wanted are asked for, at first, where some will be left out."""

MOST_LEFT_OUT = 20_000
"""Unwanted videos with more seconds than this, together, are filtered out by the engine."""

Where = Mapping[str, list[dict[str, Any]]]
"""A filter in the form of `store_json.conditions`."""


@dataclass(frozen=True)
class StoredPoint:
    """One point as an engine sees it.

    Attributes:
        point_id: UUID, as text or as the engine has it (whose ids may be integers too; ours never are).
        vectors: name -> (D,) float32 of norm 1; only those that were asked for and are there.
        payload: JSON data.
    """

    point_id: str | uuid.UUID | int
    vectors: Mapping[str, npt.NDArray[np.float32]]
    payload: Mapping[str, Any]


def stored_point(point_id: object, vectors: object, payload: Mapping[str, Any] | None) -> StoredPoint:
    """A point from what either engine answers; it may have no vectors (None) or be asked for none ({})."""
    named = vectors if isinstance(vectors, dict) else {}
    return StoredPoint(
        str(point_id), {name: np.asarray(vector, dtype=np.float32) for name, vector in named.items()}, payload or {}
    )


class Collection(Protocol):
    """The operations of one engine on one collection; all raise `CollectionError` when the engine fails."""

    def upsert(self, points: Sequence[StoredPoint]) -> None:
        """Store points, replacing those of the same id whole."""

    def set_payload(self, point_id: str, values: Mapping[str, Any]) -> None:
        """Merge values into the payload of a point that exists."""

    def set_payloads(self, updates: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Merge values into the payloads of points that exist, given as (point id, values)."""

    def delete(self, where: Where) -> None:
        """Remove all points that match."""

    def search(
        self, vector: str, embeddings: npt.NDArray[np.float32], *, limit: int, where: Where
    ) -> list[list[tuple[float, Mapping[str, Any]]]]:
        """(score, `HIT_KEYS` of the payload) of the best `limit` points for each row of (Q, D), best first."""

    def expect_search(self, vector: str) -> None:
        """See `Store.expect_queries`, of one vector."""

    def scroll(
        self, where: Where, *, with_vectors: Sequence[str], limit: int, after: Any
    ) -> tuple[list[StoredPoint], Any]:
        """One page of the points that match, and the `after` of the next page; None starts and ends."""

    def scroll_payloads(
        self, where: Where, *, without: Sequence[str], limit: int, after: Any
    ) -> tuple[list[Mapping[str, Any]], Any]:
        """The same of payloads alone, without these keys: nothing else is made of the entries of a long ledger."""

    def retrieve(self, point_ids: Sequence[str], *, with_vectors: Sequence[str] = ()) -> list[StoredPoint]:
        """Those of the points that exist."""

    def count(self, where: Where) -> int:
        """Exact number of points that match."""

    def facet(self, key: str, where: Where, *, limit: int) -> dict[Any, int]:
        """Exact number of points for each of the `limit` most frequent values of an indexed key."""

    def flush(self) -> None:
        """Make all writes durable."""

    def optimize(self) -> None:
        """Do what makes queries fast."""

    def bulk_load(self) -> AbstractContextManager[None]:
        """See `Store.bulk_load`."""


class Documents(Protocol):
    """Where an engine keeps the documents of an index, as text."""

    def read(self, name: str) -> str | None:
        """The text of this name; None if there is none."""

    def write(self, name: str, text: str) -> None:
        """Replace the text of this name, at once and durably."""


class CollectionStore:
    """A `Store` over two collections of one engine.

    Args:
        info: what the index says of itself.
        location: directory or URL, for messages.
        seconds: collection of one point per second.
        videos: collection of one point per video, the ledger.
        documents: where JSON documents are kept.
        let_go: frees what the index holds (shards, lock, connections); called once.
    """

    def __init__(
        self,
        *,
        info: CollectionInfo,
        location: str,
        seconds: Collection,
        videos: Collection,
        documents: Documents,
        let_go: Callable[[], None],
    ):
        self._info = info
        self._location = location
        self._seconds = seconds
        self._videos = videos
        self._documents = documents
        self._let_go = let_go
        self._closed = False
        self._revision = 0

    @property
    def info(self) -> CollectionInfo:
        """See `Store.info`."""
        return self._info

    @property
    def location(self) -> str:
        """See `Store.location`."""
        return self._location

    @property
    def revision(self) -> int:
        """See `Store.revision`."""
        return self._revision

    def upsert_seconds(self, points: Sequence[SecondPoint]) -> None:
        """See `Store.upsert_seconds`."""
        check_points(points, self._info.dims)
        stored = [StoredPoint(second_id(p.video_id, p.second), p.vectors, p.payload) for p in points]
        _upsert(self._seconds, stored)
        self._revision += 1

    def set_payload(self, video_id: str, second: int, values: Mapping[str, Any]) -> None:
        """See `Store.set_payload`."""
        _check_values(values)
        point_id = second_id(video_id, second)
        try:
            self._seconds.set_payload(point_id, values)
        except CollectionError as exc:
            if self._seconds.retrieve([point_id]):
                raise
            raise CollectionError(
                f"second {second} of video {video_id} is not stored in index {self._location}; index the video first"
            ) from exc

    def set_payloads(self, updates: Sequence[tuple[str, int, Mapping[str, Any]]]) -> None:
        """See `Store.set_payloads`."""
        for _, _, values in updates:
            _check_values(values)
        named = [(second_id(video_id, second), values) for video_id, second, values in updates]
        for start in range(0, len(named), PAYLOAD_BATCH):
            batch = named[start : start + PAYLOAD_BATCH]
            try:
                self._seconds.set_payloads(batch)
            except CollectionError as exc:
                stored = {point.point_id for point in self._seconds.retrieve([point_id for point_id, _ in batch])}
                missing = [
                    updates[start + row][:2] for row, (point_id, _) in enumerate(batch) if point_id not in stored
                ]
                if not missing:
                    raise
                video_id, second = missing[0]
                raise CollectionError(
                    f"second {second} of video {video_id} is not stored in index {self._location} (nor are "
                    f"{len(missing) - 1} others of the batch); index the video first"
                ) from exc

    def read_document(self, name: str) -> dict[str, Any] | None:
        """See `Store.read_document`."""
        check_document_name(name)
        text = self._documents.read(name)
        if text is None:
            return None
        try:
            document = json.loads(text)
        except ValueError as exc:
            raise CollectionError(
                f"document {name!r} of index {self._location} is damaged ({exc}); restore it from a "
                f"backup, or remove it"
            ) from exc
        return dict(document)

    def write_document(self, name: str, document: Mapping[str, Any]) -> None:
        """See `Store.write_document`."""
        check_document_name(name)
        self._documents.write(name, json.dumps(document))

    def delete_seconds(self, video_id: str) -> None:
        """See `Store.delete_seconds`."""
        self._seconds.delete(_of_video(video_id))
        self._revision += 1

    def expect_queries(self, vectors: Sequence[str]) -> None:
        """See `Store.expect_queries`."""
        for name in set(vectors) & set(self._info.dims):
            self._seconds.expect_search(name)

    def query(
        self, vector: str, embeddings: npt.NDArray[np.float32], *, top: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See `Store.query`."""
        check_vector_name(vector, self._info.dims)
        check_query(embeddings, dim=self._info.dims[vector])
        unwanted, wanted, n_unwanted = self._leave_out_later(where)
        hits: list[list[Hit]] = [[] for _ in embeddings]
        open_rows = list(range(len(embeddings))) if top > 0 else []
        limit = top + 1 + min(n_unwanted, max(top // 2, LEAST_SPARE))
        while open_rows:
            found = self._seconds.search(vector, embeddings[open_rows], limit=limit, where=wanted)
            for row, scored in zip(open_rows, found, strict=True):
                hits[row] = [hit for hit in map(_hit, scored) if hit.video_id not in unwanted]
            # Equal scores on both sides of the cut: only with all of them at hand is their order ours to decide.
            open_rows = [
                row
                for row, scored in zip(open_rows, found, strict=True)
                if len(scored) == limit and (len(hits[row]) < top or _hit(scored[-1]).score == hits[row][top - 1].score)
            ]
            most = top + n_unwanted + MOST_TIES
            if limit >= most:
                break
            limit = min(2 * limit, most)
        return [sorted(row, key=lambda hit: (-hit.score, hit.video_id, hit.second))[:top] for row in hits]

    def _leave_out_later(self, where: Filter | None) -> tuple[frozenset[str], Where, int]:
        """Videos to leave out of what the engine finds, the filter it is given, and how many seconds those have.

        To test every second of an archive for the video it is of costs an engine more than to compare it; that a few
        videos are unwanted is therefore left to us.
        """
        if where is None or not where.not_video_ids or where.video_ids is not None:
            return frozenset(), self._conditions(where), 0
        n_unwanted = self.count(replace(where, not_video_ids=(), video_ids=where.not_video_ids))
        if n_unwanted > MOST_LEFT_OUT:
            return frozenset(), self._conditions(where), 0
        return frozenset(where.not_video_ids), self._conditions(replace(where, not_video_ids=())), n_unwanted

    def seconds(
        self, where: Filter | None = None, *, with_vectors: Sequence[str] = (), page: int = 1000
    ) -> Iterator[SecondPoint]:
        """See `Store.seconds`."""
        for name in with_vectors:
            check_vector_name(name, self._info.dims)
        wanted = self._conditions(where)
        fetch = partial(self._seconds.scroll, wanted, with_vectors=with_vectors, limit=page)
        return map(_second_point, _pages(fetch))

    def seconds_of(self, video_id: str, *, with_vectors: Sequence[str] = ()) -> list[SecondPoint]:
        """See `Store.seconds_of`."""
        found = self.seconds(Filter(video_ids=(video_id,)), with_vectors=with_vectors)
        return sorted(found, key=lambda point: point.second)

    def get(self, keys: Sequence[tuple[str, int]], *, with_vectors: Sequence[str] = ()) -> list[SecondPoint]:
        """See `Store.get`."""
        for name in with_vectors:
            check_vector_name(name, self._info.dims)
        point_ids = [second_id(video_id, second) for video_id, second in keys]
        found = {point.point_id: point for point in self._seconds.retrieve(point_ids, with_vectors=with_vectors)}
        return [_second_point(found[point_id]) for point_id in point_ids if point_id in found]

    def count(self, where: Filter | None = None) -> int:
        """See `Store.count`."""
        if where is not None and where.not_video_ids and where.video_ids is None:
            # The difference of two counts by index, where one by comparison would look at every second.
            allowed = replace(where, not_video_ids=())
            return self.count(allowed) - self.count(replace(allowed, video_ids=where.not_video_ids))
        return self._seconds.count(self._conditions(where))

    def facet(self, key: str, where: Filter | None = None, *, limit: int = 10_000) -> dict[Any, int]:
        """See `Store.facet`."""
        if key not in PAYLOAD_INDEXES:
            raise ValueError(f"payload key {key!r} is not indexed; expected one of {sorted(PAYLOAD_INDEXES)}")
        counts = self._seconds.facet(key, self._conditions(where), limit=limit)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def upsert_videos(self, records: Sequence[VideoRecord]) -> None:
        """See `Store.upsert_videos`."""
        for record in records:
            if record.status not in STATUSES:
                raise ValueError(f"status {record.status!r} of video {record.video_id} unknown; expected {STATUSES}")
            check_vectors(record.vectors, self._info.dims, owner=f"video {record.video_id}")
        bare = [video_point_id(record.video_id) for record in records if not record.vectors]
        kept = {p.point_id: p.vectors for p in self._videos.retrieve(bare, with_vectors=tuple(self._info.dims))}
        stored = [
            StoredPoint(point_id, record.vectors or kept.get(point_id, {}), video_payload(record))
            for record in records
            for point_id in [video_point_id(record.video_id)]
        ]
        _upsert(self._videos, stored)

    def video(self, video_id: str) -> VideoRecord | None:
        """See `Store.video`."""
        found = self._videos.retrieve([video_point_id(video_id)])
        return video_record(found[0].payload) if found else None

    def videos(self, status: str | None = None, *, brief: bool = False) -> Iterator[VideoRecord]:
        """See `Store.videos`."""
        without = BULKY_VIDEO_KEYS if brief else ()
        fetch = partial(self._videos.scroll_payloads, _with_status(status), without=without, limit=4096)
        return map(video_record, _pages(fetch))

    def count_videos(self, status: str | None = None) -> int:
        """See `Store.count_videos`."""
        return self._videos.count(_with_status(status))

    def delete_video(self, video_id: str) -> None:
        """See `Store.delete_video`."""
        self.delete_seconds(video_id)  # the ledger last: what is cut short is still known, and can be done again
        self._videos.delete(_of_video(video_id))

    def flush(self) -> None:
        """See `Store.flush`."""
        self._seconds.flush()  # before the ledger, which must not promise seconds that are lost
        self._videos.flush()

    def optimize(self) -> None:
        """See `Store.optimize`."""
        self._seconds.optimize()
        self._videos.optimize()

    def bulk_load(self) -> AbstractContextManager[None]:
        """See `Store.bulk_load`."""
        return self._seconds.bulk_load()

    def close(self) -> None:
        """See `Store.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
        finally:
            self._let_go()

    def _conditions(self, where: Filter | None) -> Where:
        if where is not None and where.has_vector is not None:
            check_vector_name(where.has_vector, self._info.dims)
        return conditions(where)


def _check_values(values: Mapping[str, Any]) -> None:
    if fixed := [key for key in IDENTITY_KEYS if key in values]:
        raise ValueError(f"payload keys {fixed} identify a second and cannot be set; expected other keys")


def _of_video(video_id: str) -> Where:
    return conditions(Filter(video_ids=(video_id,)))


def _with_status(status: str | None) -> Where:
    # A status is always asked for: the server keeps its description of the index beside the ledger.
    any_of = list(STATUSES) if status is None else [status]
    return {"must": [{"key": "status", "match": {"any": any_of}}]}


def _second_point(point: StoredPoint) -> SecondPoint:
    return SecondPoint(point.payload["video_id"], point.payload["second"], point.vectors, point.payload)


def _hit(scored: tuple[float, Mapping[str, Any]]) -> Hit:
    score, payload = scored
    return Hit(payload["video_id"], payload["second"], round(score, 6))


def _upsert(collection: Collection, points: Sequence[StoredPoint]) -> None:
    for start in range(0, len(points), UPSERT_BATCH):
        collection.upsert(points[start : start + UPSERT_BATCH])


def _pages(fetch: Callable[..., tuple[list[T], Any]]) -> Iterator[T]:
    after = None
    while True:
        found, after = fetch(after=after)
        yield from found
        if after is None:
            return
