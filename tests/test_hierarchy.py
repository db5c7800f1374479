"""The hyperbolic hierarchy: its geometry, its measures, and that it finds a planted tree."""

import itertools
import time

import geoopt
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage

from visxp_search.hierarchy import (
    Merges,
    Schedule,
    cluster_hierarchy,
    dasgupta_cost,
    decode_tree,
    dendrogram_purity,
    embed_leaves,
    lca_depth,
    widen_tree,
)


def plant_tree(
    n_leaves: int, *, noise: float, seed: int = 0
) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.int64]]]:
    """Embeddings (K, 64) of a tree of 5 x 4 x n groups of very unequal sizes, and the labels at its three levels."""
    rng = np.random.default_rng(seed)
    n_low = max(2, n_leaves // 160)
    tops = 0.6 * rng.normal(size=(5, 1, 1, 64))
    groups = tops + 0.6 * rng.normal(size=(5, 4, 1, 64)) + 0.6 * rng.normal(size=(5, 4, n_low, 64))
    groups = groups.reshape(-1, 64)
    shares = rng.pareto(1.5, len(groups)) + 0.5
    drawn = rng.choice(len(groups), n_leaves - len(groups), p=shares / shares.sum())
    labels = np.concatenate([np.arange(len(groups)), drawn])
    points = groups[labels] + noise * rng.normal(size=(n_leaves, 64))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32), [labels, labels // n_low, labels // (4 * n_low)]


def average_linkage(points: npt.NDArray[np.float32]) -> Merges:
    """The usual agglomerative tree by mean cosine distance."""
    merges: Merges = linkage(points.astype(np.float64), "average", metric="cosine")[:, :2].astype(np.int64)
    return merges


@settings(max_examples=50, deadline=None)
@given(angle=st.floats(0.01, 3.1), radius=st.floats(0.5, 6))
def test_depth_is_that_of_the_geodesic_in_the_ball(angle: float, radius: float) -> None:
    """The closed form equals geoopt's distance from the origin to the middle of the geodesic between two leaves."""
    ball = geoopt.PoincareBallExact()
    length = np.tanh(radius / 2)
    a = torch.tensor([length, 0.0], dtype=torch.float64)
    b = length * torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float64)
    middle = ball.geodesic(torch.tensor(0.5, dtype=torch.float64), a, b)
    depth = lca_depth(torch.tensor(np.cos(angle), dtype=torch.float64), radius=radius)
    assert float(depth) == pytest.approx(float(ball.dist0(middle)), abs=2e-4)


def test_dasgupta_cost_counts_leaves_below_the_common_ancestor() -> None:
    """The cost of a tree of four leaves is that summed by hand over its six pairs."""
    similarities = np.arange(16.0).reshape(4, 4)
    similarities = similarities + similarities.T
    merges = np.array([[0, 2], [4, 1], [5, 3]])
    below = {(0, 2): 2, (0, 1): 3, (1, 2): 3, (0, 3): 4, (1, 3): 4, (2, 3): 4}
    assert dasgupta_cost(merges, similarities) == sum(n * similarities[pair] for pair, n in below.items())


def test_purity_is_the_mean_over_pairs() -> None:
    """Dendrogram purity equals the definition, pair by pair; it is 1 where labels are subtrees."""
    merges = np.array([[0, 1], [2, 3], [5, 6], [7, 4]])
    labels = np.array([0, 1, 0, 1, 0])
    subtrees = {5: {0, 1}, 6: {2, 3}, 7: {0, 1, 2, 3}, 8: {0, 1, 2, 3, 4}}
    purities = []
    for a, b in itertools.combinations(range(5), 2):
        if labels[a] == labels[b]:
            below = min((s for s in subtrees.values() if {a, b} <= s), key=len)
            purities.append(np.mean([labels[leaf] == labels[a] for leaf in below]))
    assert dendrogram_purity(merges, labels) == pytest.approx(np.mean(purities))
    assert dendrogram_purity(merges, np.array([0, 0, 1, 1, 2])) == 1
    assert np.isnan(dendrogram_purity(merges, np.arange(5)))


def test_a_planted_tree_is_found() -> None:
    """With noise and unequal sizes the purity of each level is at least 0.9 and that of average linkage."""
    points, levels = plant_tree(300, noise=0.9)
    merges, depths = cluster_hierarchy(torch.from_numpy(points))
    usual = average_linkage(points)
    for labels in levels:
        purity = dendrogram_purity(merges, labels)
        assert purity >= 0.9
        assert purity >= dendrogram_purity(usual, labels) - 0.002
    similarities = (points.astype(np.float64) @ points.T + 1) / 2
    assert dasgupta_cost(merges, similarities) <= 1.005 * dasgupta_cost(usual, similarities)
    assert (np.diff(depths) <= 1e-9).all()


@pytest.mark.slow
def test_planted_trees_are_found_as_well_as_by_average_linkage() -> None:
    """Over trees of more and less noise the mean purity of no level is lower by more than chance tells: two errors."""
    gains = []
    for noise, seed in itertools.product((0.8, 0.9, 1.0), range(4)):
        points, levels = plant_tree(300, noise=noise, seed=seed)
        trees = [cluster_hierarchy(torch.from_numpy(points))[0], average_linkage(points)]
        purity, usual = (np.array([dendrogram_purity(tree, labels) for labels in levels]) for tree in trees)
        gains.append(purity - usual)
    errors = np.std(gains, axis=0, ddof=1) / len(gains) ** 0.5
    assert (np.mean(gains, axis=0) >= -2 * errors).all(), np.mean(gains, axis=0)


@pytest.mark.parametrize("n_leaves", [2, 3, 4, 9, 60])
def test_a_tree_is_complete_and_narrow(n_leaves: int) -> None:
    """Each leaf is below the root exactly once, and each node has 2 to 6 children."""
    points, _ = plant_tree(60, noise=0.7)
    merges, depths = cluster_hierarchy(torch.from_numpy(points[:n_leaves]), schedule=Schedule(steps=20))
    wide = widen_tree(merges, depths)
    assert all(2 <= len(children) <= 6 for children in wide.values())
    seen = sorted(child for children in wide.values() for child in children)
    assert seen == sorted([*range(n_leaves), *(node for node in wide if node != 2 * n_leaves - 2)])


def test_the_same_seed_gives_the_same_tree() -> None:
    """Nothing but the embeddings and the seed decides."""
    points, _ = plant_tree(60, noise=0.7)
    trees = [cluster_hierarchy(torch.from_numpy(points), seed=3, schedule=Schedule(steps=20)) for _ in range(2)]
    assert (trees[0][0] == trees[1][0]).all()
    leaves = embed_leaves(torch.from_numpy(points), schedule=Schedule(steps=5))
    torch.testing.assert_close(leaves.norm(dim=1), torch.ones(60))


def test_equal_embeddings_do_no_harm() -> None:
    """Prototypes that coincide give a finite tree in which they are together."""
    points = torch.eye(4).repeat_interleave(3, dim=0)
    merges, depths = decode_tree(embed_leaves(points, schedule=Schedule(steps=10)))
    assert np.isfinite(depths).all()
    assert dendrogram_purity(merges, np.repeat(np.arange(4), 3)) == 1


@pytest.mark.slow
def test_cost_grows_gently() -> None:
    """1000 leaves take less than three minutes, and time grows no faster than K^1.2."""
    took: dict[int, float] = {}

    for n_leaves in (300, 1000):
        points = torch.from_numpy(plant_tree(n_leaves, noise=0.7)[0])
        started = time.perf_counter()
        cluster_hierarchy(points)
        took[n_leaves] = time.perf_counter() - started
    assert took[1000] < 180
    assert np.log(took[1000] / took[300]) / np.log(1000 / 300) <= 1.2
