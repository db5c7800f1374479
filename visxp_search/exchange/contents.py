"""All that an index consists of, in the order in which it is carried elsewhere: the one enumeration of an index.

Parquet files and other indexes get it from here, and are stored from here. Storing is idempotent by the ids of points,
and writes only what is not there already, so that what was cut short goes on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from visxp_search.cluster_store import DOCUMENT as CLUSTERS_DOCUMENT
from visxp_search.cluster_store import apply_clustering, label_points, read_clustering, require_clustering
from visxp_search.errors import ExchangeError
from visxp_search.store import CollectionInfo, SecondPoint, Store, VideoRecord, mean_vectors

BATCH, VIDEO_BATCH = 1024, 64

VECTOR_TOLERANCE = 1e-6
"""Largest difference of a component that storing makes: engines scale float32 vectors to norm 1 once more."""

Item = TypeVar("Item")

Progress = Callable[[str, int, int], None]
"""Called with (what, number done, number in all)."""


@dataclass(frozen=True)
class Contents:
    """What an index holds, streaming; the iterators are read once.

    Attributes:
        origin: where it comes from, for messages.
        info: what the index says of itself.
        n_seconds: number of seconds.
        n_videos: number of ledger entries.
        seconds: batches of seconds with all their vectors.
        videos: batches of ledger entries, without vectors: their means follow from the seconds.
        clusters: the document of the archive's clusters, if it has any.
    """

    origin: str
    info: CollectionInfo
    n_seconds: int
    n_videos: int
    seconds: Iterable[Sequence[SecondPoint]]
    videos: Iterable[Sequence[VideoRecord]]
    clusters: Mapping[str, Any] | None


def contents_of(store: Store, *, batch: int = BATCH) -> Contents:
    """All that an index holds."""
    return Contents(
        origin=f"index {store.location}",
        info=store.info,
        n_seconds=store.count(),
        n_videos=store.count_videos(),
        seconds=batches(store.seconds(with_vectors=tuple(store.info.dims)), batch),
        videos=batches(store.videos(), batch),
        clusters=store.read_document(CLUSTERS_DOCUMENT),
    )


def store_contents(
    store: Store, contents: Contents, *, what: str, progress: Progress, means_from: Store | None = None
) -> tuple[int, int]:
    """Put contents into an index; what is there already, to the last value, is not written again.

    Seconds come before the videos that promise them. An index that has clusters keeps them, and labels what comes in.

    Args:
        store: index of the same checkpoint.
        contents: read once.
        what: is done, for the progress: "import".
        progress: told how far it is.
        means_from: index to read seconds from for the mean vectors of videos, the nearer one; default `store`.

    Returns:
        Numbers of seconds and videos.

    Raises:
        ExchangeError: If the index is of another checkpoint, or contents are damaged.
        CollectionError: If the index fails.
    """
    info = contents.info
    if (info.checkpoint, dict(info.dims)) != (store.info.checkpoint, dict(store.info.dims)):
        raise ExchangeError(
            f"{contents.origin} is of checkpoint {info.checkpoint}, index {store.location} of "
            f"{store.info.checkpoint}; {what} into a new index"
        )
    own, was_empty = read_clustering(store), store.count() == 0
    written: set[str] = set()
    n_seconds = n_videos = 0
    with store.bulk_load():
        for points in contents.seconds:
            labelled = label_points(points, own)
            new = labelled if was_empty else missing_points(store, labelled)
            try:
                store.upsert_seconds(new)
            except ValueError as exc:
                raise ExchangeError(f"{contents.origin}: {exc}") from exc
            written |= {point.video_id for point in new}
            n_seconds += len(points)
            progress(f"{what} seconds", n_seconds, max(contents.n_seconds, n_seconds))
    store.flush()
    for records in contents.videos:
        new_records = [r for r in records if r.video_id in written or store.video(r.video_id) != r]
        store.upsert_videos([_with_means(means_from or store, record) for record in new_records])
        n_videos += len(records)
        progress(f"{what} videos", n_videos, max(contents.n_videos, n_videos))
    store.flush()
    if own is None and contents.clusters is not None:
        store.write_document(CLUSTERS_DOCUMENT, contents.clusters)
        if not was_empty:  # what was there before has no label of these clusters yet
            apply_clustering(store, require_clustering(store))
    return n_seconds, n_videos


def missing_points(store: Store, points: Sequence[SecondPoint]) -> list[SecondPoint]:
    """Those of the points that an index lacks, or has with other values."""
    keys = [(point.video_id, point.second) for point in points]
    found = {(p.video_id, p.second): p for p in store.get(keys, with_vectors=tuple(store.info.dims))}
    return [point for key, point in zip(keys, points, strict=True) if not _is_same(point, found.get(key))]


def _is_same(point: SecondPoint, other: SecondPoint | None) -> bool:
    return (
        other is not None
        and dict(point.payload) == dict(other.payload)
        and point.vectors.keys() == other.vectors.keys()
        and all(np.allclose(v, other.vectors[n], rtol=0, atol=VECTOR_TOLERANCE) for n, v in point.vectors.items())
    )


def _with_means(store: Store, record: VideoRecord) -> VideoRecord:
    points = store.seconds_of(record.video_id, with_vectors=tuple(store.info.dims))
    return replace(record, vectors=mean_vectors(points))


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
