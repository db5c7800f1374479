"""Meets wanted sizes to the row: the last rows that balancing by steps leaves in the wrong clusters.

A row belongs to the cluster whose score and offset sum up to the most. Labels made so are the best of all that have
their sizes. To give a cluster one row more, rows are handed on along the chain of clusters that costs the least score,
from one that has too many; the labels so made are again the best of their sizes (successive shortest paths
[ahuja1993]). Offsets under which each row prefers the cluster it was given exist for such labels, and are found as far
from all borders as can be, so that rounding moves no row back.

References:
    [ahuja1993] Ahuja, Magnanti, Orlin. Network Flows, 1993, section 9.7; potentials of shortest paths, section 5.2.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Gaps = npt.NDArray[np.float64]
"""(K, K) at [j, k]: what the row that would lose least in score loses if it goes from cluster j to k."""

BLOCK = 4096
"""Rows that are looked at together."""
NOISE = 1e-12
"""Of sums of scores in float64: less is no way that is cheaper."""


def meet_sizes(
    scores: npt.NDArray[np.float32], *, wanted: Labels, offsets: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Offsets under which each cluster is the best of as many rows as wanted.

    Rows that are equal get equal labels, so where such rows would have to be parted a size stays off by some of them.
    Takes K^3 steps, and for each row that is moved K^2 and what the clusters on its way have of rows, times K.

    Args:
        scores: (n, K), as for `clusters.hard_assignment`.
        wanted: (K,) sizes; at least 1, their sum is n.
        offsets: (K,) to begin with; the nearer to what is wanted, the fewer rows are moved.

    Returns:
        (K,) of mean 0.
    """
    # In float64: labels that are rounded ones are not the best of their sizes, and chains would have no end.
    labels = np.concatenate(
        [(part + offsets).argmax(axis=1) for part in np.split(scores, range(0, len(scores), BLOCK))]
    )
    gaps = np.full((len(wanted), len(wanted)), np.inf)
    rows = np.full(gaps.shape, -1)  # (K, K) whose each gap is
    changed = set(range(len(wanted)))
    while True:
        for cluster in changed:
            _measure(scores, labels, cluster, gaps=gaps, rows=rows)
        too_many = np.bincount(labels, minlength=len(wanted)) - wanted
        if not too_many.any():
            break
        path = _cheapest_path(gaps, sources=too_many > 0, targets=too_many < 0)
        for start, stop in pairwise(path):
            labels[rows[start, stop]] = stop
        changed = set(path)
    return _central_offsets(gaps)


def _measure(scores: npt.NDArray[np.float32], labels: Labels, cluster: int, *, gaps: Gaps, rows: Labels) -> None:
    """Set the gaps from one cluster to all, and the rows that they are of, in place."""
    own = np.flatnonzero(labels == cluster)
    gaps[cluster] = np.inf
    if len(own):
        losses = scores[own, cluster, None].astype(np.float64) - scores[own]  # (m, K)
        least = losses.argmin(axis=0)
        gaps[cluster] = losses[least, np.arange(len(gaps))]
        rows[cluster] = own[least]
    gaps[cluster, cluster] = 0


def _cheapest_path(gaps: Gaps, *, sources: npt.NDArray[np.bool_], targets: npt.NDArray[np.bool_]) -> list[int]:
    """Clusters from one of the sources to one of the targets, both (K,) bool, by Bellman and Ford's method."""
    costs = np.where(sources, 0.0, np.inf)
    before = np.full(len(costs), -1)
    for _ in range(len(costs)):
        through = costs[:, None] + gaps  # (K, K) from, to
        best = through.argmin(axis=0)
        cheaper = through[best, np.arange(len(costs))] < costs - NOISE
        if not cheaper.any():
            break
        costs = np.where(cheaper, through[best, np.arange(len(costs))], costs)
        before = np.where(cheaper, best, before)
    path = [int(np.where(targets, costs, np.inf).argmin())]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return path[::-1]


def _central_offsets(gaps: Gaps) -> npt.NDArray[np.float64]:
    """(K,) offsets u with u_k - u_j <= gap_jk for all j and k, and equal only where it must be.

    The shortest ways from one cluster to all are such offsets, with equality along them; the mean over all clusters to
    begin at is between its own bounds.
    """
    ways = gaps.copy()
    for middle in range(len(ways)):
        np.minimum(ways, ways[:, middle, None] + ways[middle], out=ways)
    offsets = ways.mean(axis=0)
    return np.asarray(offsets - offsets.mean())
