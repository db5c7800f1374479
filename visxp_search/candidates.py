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
WHOLE_SECONDS = 4000
"""Videos are compared whole, from the first to the last hit, where that is not more than so many seconds in all; else
only the best places of each."""
PLACES = 3
"""Places of a video that are compared at least, if it is among the best."""


def find_candidates(
    store: Store,
    query: Query,
    *,
    mode: str,
    scales: Mapping[str, Scale],
    sample: Sample,
    where: Filter | None,
    n_videos: int,
    n_answers: int,
    per_video: int,
) -> tuple[dict[str, Sequence[int]], bool]:
    """Video id -> the seconds worth comparing, for the most promising videos; and whether these are the whole videos.

    Args:
        store: an open index.
        query: with something to ask with.
        mode: `similar` or `same`, which also asks that hits agree on where in the video the query lies.
        scales: of each of the query's vectors, what a cosine is worth.
        sample: names further videos where too few are promising, to tell what chance gives.
        where: which seconds may be found.
        n_videos: videos wanted.
        n_answers: so many of them may hold answers; of the others the best place is enough to tell what chance gives.
        per_video: moments wanted of one video.
    """
    votes: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    places: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    strengths: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for name, rows in query.vectors.items():
        present = np.flatnonzero(~np.isnan(rows[:, 0]))
        if len(present) > MAX_QUERY_ROWS:
            present = present[np.linspace(0, len(present) - 1, MAX_QUERY_ROWS).round().astype(int)]
        top = max(30, CANDIDATES // max(1, len(present)))
        scale = scales[name]
        found = store.query(name, rows[present], top=top, where=where) if len(present) else []
        for row, hits in zip(present.tolist(), found, strict=True):
            deviations = scale.deviations(row, np.array([hit.score for hit in hits], dtype=np.float32)).tolist()
            for hit, deviation in zip(hits, deviations, strict=True):
                above = query.weights[name] * deviation
                best = votes[hit.video_id].get((name, row), 0.0)
                votes[hit.video_id][name, row] = max(best, above)
                places[hit.video_id][hit.second - row] += max(above, 0.0)
                strengths[hit.video_id][hit.second] += max(above, 0.0)
    if mode == "same":
        promise = {video_id: _most_votes(at, reach=1 + query.n_seconds // 20) for video_id, at in places.items()}
    else:
        promise = {video_id: sum(best.values()) for video_id, best in votes.items()}
    promising = sorted(promise, key=lambda video_id: (-promise[video_id], video_id))[:n_videos]
    chosen: dict[str, Sequence[int]] = {
        video_id: _extent(strengths[video_id], length=query.n_seconds) for video_id in promising
    }
    is_whole = sum(map(len, chosen.values())) <= WHOLE_SECONDS
    if not is_whole:
        for rank, video_id in enumerate(promising):
            n_places = max(PLACES, per_video) if rank < n_answers else 1
            chosen[video_id] = _best_places(strengths[video_id], length=query.n_seconds, n_places=n_places)
    for number, video_id in enumerate(sample.video_ids):
        if len(chosen) >= n_videos:
            break
        if video_id not in chosen:  # nothing is expected of it but to tell what chance gives
            first = int(sample.seconds[sample.owners == number][0])
            chosen[video_id] = range(max(0, first - BLOCK_SECONDS // 2), first + BLOCK_SECONDS // 2 + 1)
    return chosen, is_whole


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


def _extent(hits: Iterable[int], *, length: int) -> range:
    """From the first hit to the last, and as much as the query is long on both sides."""
    seconds = sorted(hits)
    return range(max(0, seconds[0] - length), seconds[-1] + length + 1)


def _best_places(strengths: Mapping[int, float], *, length: int, n_places: int) -> list[int]:
    """Seconds of the windows that hold the strongest hits.

    Args:
        strengths: second of each hit -> what it is worth.
        length: of the query and of a window; as much is read on both sides of it.
        n_places: windows wanted.
    """
    hits = np.array(sorted(strengths))
    total = np.concatenate([[0.0], np.cumsum([strengths[hit] for hit in hits.tolist()])])
    inside = total[np.searchsorted(hits, hits + length)] - total[:-1]  # of the hits in the window that begins with each
    near: set[int] = set()
    for start in hits[np.argsort(-inside, kind="stable")].tolist():
        if start not in near:
            near.update(range(max(0, start - length), start + 2 * length))
            n_places -= 1
            if not n_places:
                break
    return sorted(near)


def _most_votes(places: Mapping[int, float], *, reach: int) -> float:
    """The most votes that offsets within reach of each other have together."""
    return max(sum(places.get(near, 0.0) for near in range(at - reach, at + reach + 1)) for at in places)
