"""Sizes of clusters met to the row."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from visxp_search.cluster_exact import meet_sizes


def draw_scores(n_rows: int, n_clusters: int, seed: int) -> npt.NDArray[np.float32]:
    """Scores that favour some clusters, (n, K)."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n_rows, n_clusters)) + rng.normal(size=n_clusters)).astype(np.float32)


def draw_sizes(n_rows: int, n_clusters: int, seed: int) -> npt.NDArray[np.int64]:
    """Unequal sizes >= 1, (K,)."""
    shares = np.random.default_rng(seed).dirichlet(np.ones(n_clusters))
    sizes = 1 + np.floor(shares * (n_rows - n_clusters)).astype(np.int64)
    sizes[0] += n_rows - sizes.sum()
    return sizes


@given(n_rows=st.integers(12, 150), n_clusters=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), warm=st.booleans())
def test_sizes_are_met_to_the_row_at_the_least_cost(n_rows: int, n_clusters: int, seed: int, warm: bool) -> None:
    """Wherever it begins, each cluster gets the rows wanted, and no division of these sizes has a better sum."""
    scores, wanted = draw_scores(n_rows, n_clusters, seed), draw_sizes(n_rows, n_clusters, seed)
    start = np.random.default_rng(seed).normal(size=n_clusters) if warm else np.zeros(n_clusters)
    offsets = meet_sizes(scores, wanted=wanted, offsets=start)
    labels = (scores + offsets.astype(np.float32)).argmax(axis=1)
    assert np.bincount(labels, minlength=n_clusters).tolist() == wanted.tolist()
    assert abs(offsets.mean()) < 1e-9
    places = np.repeat(np.arange(n_clusters), wanted)
    best = scores[:, places].astype(np.float64)
    at, chosen = linear_sum_assignment(-best)
    assert scores[np.arange(n_rows), labels].sum(dtype=np.float64) == pytest.approx(best[at, chosen].sum(), abs=1e-4)


def test_rows_keep_away_from_borders() -> None:
    """No row is nearer to another cluster than half of what the closest two could have been parted by."""
    scores = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 4.0], [0.0, 5.0]], dtype=np.float32)
    offsets = meet_sizes(scores, wanted=np.array([2, 2]), offsets=np.zeros(2))
    assert offsets.tolist() == [1.5, -1.5]


def test_equal_rows_stay_together() -> None:
    """Where equal rows would have to be parted it ends, and the size is off by them alone."""
    scores = np.concatenate([np.zeros((6, 2)), np.array([[3.0, 0.0], [0.0, 3.0]])]).astype(np.float32)
    offsets = meet_sizes(scores, wanted=np.array([4, 4]), offsets=np.zeros(2))
    labels = (scores + offsets.astype(np.float32)).argmax(axis=1)
    assert labels[-2:].tolist() == [0, 1]
    assert len(set(labels[:6].tolist())) == 1
