"""Sequences: moments of two queries that follow each other in one video ("A, then B within n seconds")."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from visxp_search.errors import UsageError
from visxp_search.queries import Query
from visxp_search.results import Moment, Results

POOL = 200
"""Moments of each query that are paired."""
POOL_PER_VIDEO = 20
OVERLAP_SECONDS = 1.0
"""B may begin this much before A ends: both ends are known to about half a second."""


def find_sequences(
    find: Callable[..., Results], first: Query, second: Query, *, within: float, top: int, per_video: int
) -> Results:
    """Moments of A that are followed by one of B.

    Args:
        find: `search.find_moments` with everything but the query, `top` and `per_video`.
        first: A.
        second: B.
        within: seconds between the end of A and the begin of B at most.
        top: sequences wanted.
        per_video: at most so many of one video.

    Raises:
        UsageError: If `within` is negative.
    """
    if within < 0:
        raise UsageError(f"--within {within:g} is negative; give the seconds that may lie between A and B")
    found_a = find(first, top=POOL, per_video=POOL_PER_VIDEO)
    found_b = find(second, top=POOL, per_video=POOL_PER_VIDEO)
    pairs = pair_moments(
        found_a.moments, found_b.moments, within=within, n_places=found_a.n_seconds, per_video=per_video
    )
    reason = ""
    if not pairs:
        reason = (
            f"nothing like this here: {len(found_a.moments)} moments answer A and {len(found_b.moments)} answer B, "
            f"none of B within {within:g} s after one of A"
        )
        reason = next((empty for empty in (first.why_empty, second.why_empty) if empty), reason)
    origin = {**first.origin, "then": {**second.origin, "within": within}}
    return replace(
        found_a,
        query=replace(first, origin=origin),
        moments=tuple(pairs[:top]),
        took_ms=found_a.took_ms + found_b.took_ms,
        reason=reason,
        yields=(),
    )


def pair_moments(
    first: Sequence[Moment], second: Sequence[Moment], *, within: float, n_places: int, per_video: int
) -> list[Moment]:
    """Each moment of A with the best of B that follows it, the least likely by chance first.

    A sequence reaches from the start of A to the end of B; B itself is its `then`. By chance, as many are expected as
    of A, times the probability that one of B's lies in the time allowed: its expected number in the archive, spread
    over the archive's seconds.
    """
    pairs = []
    for a in first:
        followers = [
            b
            for b in second
            if b.video_id == a.video_id and b.start >= a.start and -OVERLAP_SECONDS <= b.start - a.end <= within
        ]
        followers = [b for b in followers if b.end > a.end]
        if not followers:
            continue
        b = max(followers, key=lambda moment: moment.value)
        chance = None
        if a.chance is not None and b.chance is not None:
            chance = a.chance * min(1.0, b.chance * (within + OVERLAP_SECONDS) / max(n_places, 1))
        pairs.append(
            replace(a, end=b.end, score=(a.score + b.score) / 2, value=(a.value + b.value) / 2, chance=chance, then=b)
        )
    chosen: list[Moment] = []
    for pair in sorted(pairs, key=lambda moment: -moment.value):
        if sum(moment.video_id == pair.video_id for moment in chosen) < per_video:
            chosen.append(pair)
    return chosen
