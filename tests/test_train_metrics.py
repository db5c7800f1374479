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
def test_nearest_neighbour_accuracy_matches_brute_force(seed: int) -> None:
    """1-NN accuracy counts rows whose most similar row of another group carries their label."""
    embeddings, labels, groups = draw(seed)
    slow = np.mean([labels[rank_others(embeddings, groups, row)[0]] == labels[row] for row in range(len(labels))])
    assert metrics.nearest_neighbour_accuracy(embeddings, labels, groups) == pytest.approx(slow)


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_average_precision_matches_brute_force(seed: int) -> None:
    """MAP averages, over rows, the precision at each relevant rank among rows of other groups."""
    embeddings, labels, groups = draw(seed)
    slow = []
    for row in range(len(labels)):
        relevant = [labels[other] == labels[row] for other in rank_others(embeddings, groups, row)]
        precisions = [sum(relevant[: rank + 1]) / (rank + 1) for rank, hit in enumerate(relevant) if hit]
        if precisions:
            slow.append(np.mean(precisions))
    assert metrics.mean_average_precision(embeddings, labels, groups) == pytest.approx(np.mean(slow))


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbour_overlap_matches_brute_force(seed: int) -> None:
    """Neighbour overlap is the mean share of common rows among the k nearest by both embeddings."""
    embeddings, _, groups = draw(seed)
    reference = draw(seed + 100)[0]
    slow = [
        len(set(rank_others(embeddings, groups, row)[:5]) & set(rank_others(reference, groups, row)[:5])) / 5
        for row in range(len(groups))
    ]
    assert metrics.neighbour_overlap(embeddings, reference, groups, k=5) == pytest.approx(np.mean(slow))
    assert metrics.neighbour_overlap(embeddings, embeddings, groups, k=5) == 1


def test_paired_recall_has_its_bounds_and_its_chance() -> None:
    """Equal embeddings are always found; unrelated ones at chance, k of the number of groups."""
    random = np.random.default_rng(0)
    embeddings = random.standard_normal((400, 64)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    groups = np.array([f"g{row % 40}" for row in range(400)])
    assert metrics.paired_recall(embeddings, embeddings, groups, k=1) == 1
    unrelated = random.permutation(embeddings)
    assert metrics.paired_recall(embeddings, unrelated, groups, k=10) == pytest.approx(10 / 40, abs=0.08)


def test_measures_of_nothing_are_nan() -> None:
    """Without any row there is no number, and no exception."""
    empty, words = np.zeros((0, 4), np.float32), np.zeros(0, np.str_)
    assert np.isnan(metrics.nearest_neighbour_accuracy(empty, words, words))
    assert np.isnan(metrics.mean_average_precision(empty, words, words))
    assert np.isnan(metrics.neighbour_overlap(empty, empty, words))
    assert np.isnan(metrics.paired_recall(empty, empty, words, k=1))
