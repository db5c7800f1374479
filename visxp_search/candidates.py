"""Which seconds of which videos are worth comparing with a query: the store's best hits, and what surrounds them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from visxp_search.background import Scale
from visxp_search.filters import matches
from visxp_search.queries import Query
from visxp_search.reader import BLOCK_SECONDS
from visxp_search.sample import Sample
from visxp_search.store import Filter, SecondPoint, Store

MAX_QUERY_ROWS = 64
"""Seconds of a query that are sent to the store; longer queries send this many, evenly spread."""
CANDIDATES = 2000
"""Hits asked of the store for a whole query and modality, shared among its seconds."""
WHOLE_VIDEO_SECONDS = 900
"""Videos up to this long are compared whole; of longer ones only the surroundings of hits."""


def find_candidates(
    store: Store,
    query: Query,
    *,
    mode: str,
    scales: Mapping[str, Scale],
    sample: Sample,
    where: Filter | None,
    n_videos: int,
) -> dict[str, list[int]]:
    """Video id -> the seconds worth comparing, for the most promising videos.

    Args:
        store: an open index.
        query: with something to ask with.
        mode: `similar` or `same`, which also asks that hits agree on where in the video the query lies.
        scales: of each of the query's vectors, what a cosine is worth.
        sample: names further videos where too few are promising, to tell what chance gives.
        where: which seconds may be found.
        n_videos: videos wanted.
    """
    votes: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    places: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    hits_at: dict[str, set[int]] = defaultdict(set)
    for name, rows in query.vectors.items():
        present = np.flatnonzero(~np.isnan(rows[:, 0]))
        if len(present) > MAX_QUERY_ROWS:
            present = present[np.linspace(0, len(present) - 1, MAX_QUERY_ROWS).round().astype(int)]
        top = max(30, CANDIDATES // max(1, len(present)))
        scale = scales[name]
        found = store.query(name, rows[present], top=top, where=where) if len(present) else []
        for row, hits in zip(present.tolist(), found, strict=True):
            for hit in hits:
                above = query.weights[name] * scale.deviation(row, hit.score)
                best = votes[hit.video_id].get((name, row), 0.0)
                votes[hit.video_id][name, row] = max(best, above)
                places[hit.video_id][hit.second - row] += max(above, 0.0)
                hits_at[hit.video_id].add(hit.second)
    if mode == "same":
        promise = {video_id: _most_votes(at, reach=1 + query.n_seconds // 20) for video_id, at in places.items()}
    else:
        promise = {video_id: sum(best.values()) for video_id, best in votes.items()}
    promising = sorted(promise, key=lambda video_id: (-promise[video_id], video_id))[:n_videos]
    chosen = {video_id: _surroundings(hits_at[video_id], reach=query.n_seconds) for video_id in promising}
    for number, video_id in enumerate(sample.video_ids):
        if len(chosen) >= n_videos:
            break
        if video_id not in chosen:  # nothing is expected of it but to tell what chance gives
            seconds = sample.seconds[sample.owners == number].tolist()
            chosen[video_id] = _surroundings(seconds[:1], reach=BLOCK_SECONDS // 2)
    return chosen


def all_videos(store: Store, where: Filter | None) -> dict[str, None]:
    """All videos that may be found, to be compared whole."""
    where = where or Filter()
    wanted = None if where.video_ids is None else set(where.video_ids)
    ids = (record.video_id for record in store.videos())
    return {v: None for v in ids if (wanted is None or v in wanted) and v not in where.not_video_ids}


def points_of(
    store: Store, query: Query, video_id: str, seconds: Sequence[int] | None, where: Filter | None
) -> list[SecondPoint]:
    """The seconds of one video that are to be compared and may be found, sorted; None takes all."""
    names = tuple(query.weights)
    if seconds is None:
        points = store.seconds_of(video_id, with_vectors=names)
    else:
        points = store.get([(video_id, second) for second in seconds], with_vectors=names)
    return [point for point in points if matches(point, where)]


def consecutive_runs(points: Sequence[SecondPoint]) -> Iterator[list[SecondPoint]]:
    """Split points sorted by second where a second is missing."""
    run: list[SecondPoint] = []
    for point in points:
        if run and point.second != run[-1].second + 1:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _surroundings(seconds: Iterable[int], *, reach: int) -> list[int]:
    """Seconds within reach of a hit, or all up to the last such second where that is not many more."""
    hits = sorted(seconds)
    low, high = max(0, hits[0] - reach), hits[-1] + reach + 1
    if high - low <= WHOLE_VIDEO_SECONDS:
        return list(range(low, high))
    return sorted({near for hit in hits for near in range(max(0, hit - reach), hit + reach + 1)})


def _most_votes(places: Mapping[int, float], *, reach: int) -> float:
    """The most votes that offsets within reach of each other have together."""
    return max(sum(places.get(near, 0.0) for near in range(at - reach, at + reach + 1)) for at in places)
