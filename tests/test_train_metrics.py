"""Tests of the measures: each against brute force on small random embeddings."""

import numpy as np
import pytest

from training import metrics

SEEDS = range(3)


def draw(seed: int, n: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of norm 1, labels of three kinds, groups of two rows."""
    random = np.random.default_rng(seed)
    embeddings = random.standard_normal((n, 6)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = random.choice(["a", "b", "c"], n)
    return embeddings, labels, np.array([f"g{row // 2}" for row in range(n)])


def rank_others(embeddings: np.ndarray, groups: np.ndarray, row: int) -> list[int]:
    """Rows of other groups, most similar first, one by one."""
    others = [other for other in range(len(embeddings)) if groups[other] != groups[row]]
    return sorted(others, key=lambda other: -float(embeddings[row] @ embeddings[other]))


@pytest.mark.parametrize("seed", SEEDS)
def test_label_retrieval_matches_brute_force(seed: int) -> None:
    """R@k asks whether one of the first k carries the label; mAP averages the precision at each relevant rank."""
    embeddings, labels, groups = draw(seed)
    scores = metrics.label_retrieval(embeddings, labels, groups)
    for row in range(len(labels)):
        relevant = [labels[other] == labels[row] for other in rank_others(embeddings, groups, row)]
        precisions = [sum(relevant[: rank + 1]) / (rank + 1) for rank, hit in enumerate(relevant) if hit]
        assert scores["mAP"][row] == pytest.approx(np.mean(precisions))
        for k in (1, 5, 10):
            assert scores[f"R@{k}"][row] == any(relevant[:k])


def test_a_label_that_nothing_else_carries_has_no_score() -> None:
    """A row without any relevant row is left out, not counted as lost."""
    embeddings, labels, groups = draw(0)
    labels = np.array(["z", *labels[1:]])
    scores = metrics.label_retrieval(embeddings, labels, groups)
    assert np.isnan(scores["mAP"][0])
    assert np.isfinite(scores["mAP"][1:]).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbour_overlap_matches_brute_force(seed: int) -> None:
    """Neighbour overlap is the mean share of common rows among the k nearest by both embeddings."""
    embeddings, _, groups = draw(seed)
    reference = draw(seed + 100)[0]
    slow = [
        len(set(rank_others(embeddings, groups, row)[:5]) & set(rank_others(reference, groups, row)[:5])) / 5
        for row in range(len(groups))
    ]
    assert metrics.overlap_scores(embeddings, reference, groups, k=5).mean() == pytest.approx(np.mean(slow))
    assert (metrics.overlap_scores(embeddings, embeddings, groups, k=5) == 1).all()


def test_paired_ranks_have_their_bounds_and_their_chance() -> None:
    """Equal embeddings are always first; unrelated ones among the first k at chance, k of the number of groups."""
    random = np.random.default_rng(0)
    embeddings = random.standard_normal((400, 64)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    groups = np.array([f"g{row % 40}" for row in range(400)])
    assert (metrics.paired_ranks(embeddings, embeddings, groups) == 1).all()
    unrelated = random.permutation(embeddings)
    found = metrics.paired_ranks(embeddings, unrelated, groups) <= 10
    assert found.mean() == pytest.approx(10 / 40, abs=0.08)
