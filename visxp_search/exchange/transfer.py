"""One index copied into another, embedded or on a server in either place, and the copy checked.

The check compares the number of seconds of every video, the ledger, and payloads and vectors of a random sample.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from visxp_search.cluster_store import label_points, read_clustering
from visxp_search.errors import ExchangeError
from visxp_search.exchange.contents import (
    BATCH,
    VECTOR_TOLERANCE,
    Progress,
    batches,
    contents_of,
    missing_points,
    store_contents,
)
from visxp_search.store import Filter, SecondPoint, Store

SAMPLE = 1000
"""Seconds whose payloads and vectors are compared at the end."""

Key = tuple[str, int]


@dataclass(frozen=True)
class Copied:
    """What was copied and compared: numbers of seconds, videos, and seconds of the sample."""

    seconds: int
    videos: int
    sampled: int


def copy_index(source: Store, target: Store, *, what: str, progress: Progress, seed: int = 0) -> Copied:
    """Put all that an index holds into another one of the same checkpoint; called again it goes on.

    What the target holds of other videos stays, and so do its own clusters, if it has any.

    Args:
        source: is only read.
        target: is written.
        what: "push" (the source lies nearer) or "pull" (the target does).
        progress: told how far it is.
        seed: of the sample.

    Raises:
        ExchangeError: If the target is of another checkpoint, or the copy differs from the source.
        CollectionError: If one of both fails.
    """
    contents = contents_of(source)
    sample = _Sample(SAMPLE, seed=seed)
    watched = replace(contents, seconds=sample.watch(contents.seconds))
    near = source if what == "push" else target
    n_seconds, n_videos = store_contents(target, watched, what=what, progress=progress, means_from=near)
    _require_same(source, target, sample.keys, what=what, progress=progress)
    return Copied(n_seconds, n_videos, len(sample.keys))


def _require_same(source: Store, target: Store, keys: Sequence[Key], *, what: str, progress: Progress) -> None:
    """Compare the counts of all videos, the ledger, and the seconds of a sample."""
    again = f"if nobody else writes to one of them, run visxp index {what} again"
    copied = {record.video_id: record for record in target.videos(brief=True)}
    records = list(source.videos(brief=True))
    for done, record in enumerate(records, start=1):
        where = Filter(video_ids=(record.video_id,))
        count, there = source.count(where), target.count(where)
        if there != count:
            raise ExchangeError(
                f"video {record.video_id} has {count} seconds in index {source.location} and {there} in "
                f"{target.location}; remove it there (visxp index rm {record.video_id}), then run visxp index {what} "
                f"again"
            )
        if copied.get(record.video_id) != record:
            raise ExchangeError(
                f"the entry of video {record.video_id} in index {target.location} is not that of {source.location}; "
                f"{again}"
            )
        progress("check videos", done, len(records))
    if len(copied) == len(records) and source.count() != target.count():
        raise ExchangeError(
            f"index {source.location} holds {source.count()} seconds, {target.location} {target.count()}, some of no "
            f"video; visxp index verify --repair says which"
        )
    own = read_clustering(target)
    for some in batches(keys, BATCH):
        points = label_points(source.get(some, with_vectors=tuple(source.info.dims)), own)
        if other := missing_points(target, points):
            raise ExchangeError(
                f"{len(other)} of {len(points)} sampled seconds in index {target.location} are not those of "
                f"{source.location} (payload, or vectors by more than {VECTOR_TOLERANCE:g}), e.g. second "
                f"{other[0].second} of video {other[0].video_id}; {again}"
            )


class _Sample:
    """Keys of a random sample of the seconds that stream by (a reservoir).

    Args:
        size: of the sample.
        seed: of the choice.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.keys: list[Key] = []
        self._size = size
        self._random = random.Random(seed)

    def watch(self, stream: Iterable[Sequence[SecondPoint]]) -> Iterator[Sequence[SecondPoint]]:
        """The same batches; each of their seconds is as likely to be in the sample as any other."""
        seen = 0
        for points in stream:
            for point in points:
                key, place = (point.video_id, point.second), self._random.randint(0, seen)
                seen += 1
                if len(self.keys) < self._size:
                    self.keys.append(key)
                elif place < self._size:
                    self.keys[place] = key
            yield points
