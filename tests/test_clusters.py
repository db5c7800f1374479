"""The assignment to clusters of wanted sizes, against a slow and obvious reference."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visxp_search.clusters import (
    assign_pseudo_labels,
    balance_labels,
    confirmed_bits,
    find_offsets,
    gaussian_sizes,
    hard_assignment,
    mutual_information,
    near_scores,
    sinkhorn_plan,
    soft_assignment,
    spread_prototypes,
    uniform_sizes,
    update_prototypes,
    whole_sizes,
)


def plain_sinkhorn(
    log_probs: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], sharpness: float, n_iterations: int = 5_000
) -> npt.NDArray[np.float64]:
    """Sinkhorn-Knopp as in the papers: scale rows and columns of P^sharpness in turn, in float64."""
    n_rows = len(log_probs)
    kernel = np.exp(sharpness * (log_probs - log_probs.max(axis=1, keepdims=True)))
    rows, columns = np.ones(n_rows), np.ones(len(sizes))
    for _ in range(n_iterations):
        columns = n_rows * sizes / (kernel.T @ rows)
        rows = 1 / (kernel @ columns)
    return np.asarray(rows[:, None] * kernel * columns[None])


def random_log_probs(n_rows: int, n_clusters: int, seed: int, *, skew: float = 1.0) -> torch.Tensor:
    """Log-probabilities that favour some clusters."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n_rows, n_clusters, generator=generator, dtype=torch.float64)
    return torch.log_softmax(logits + skew * torch.randn(n_clusters, generator=generator, dtype=torch.float64), dim=1)


@settings(max_examples=25, deadline=None)
@given(
    n_rows=st.integers(5, 60),
    n_clusters=st.integers(1, 6),
    sharpness=st.floats(0.2, 4),
    seed=st.integers(0, 2**31),
)
def test_the_plan_is_that_of_plain_sinkhorn(n_rows: int, n_clusters: int, sharpness: float, seed: int) -> None:
    """Offsets and softmax give the same matrix as alternating scaling of rows and columns."""
    log_probs = random_log_probs(n_rows, n_clusters, seed)
    sizes = gaussian_sizes(n_clusters, spread=0.5, seed=seed)
    plan = sinkhorn_plan(log_probs, cluster_sizes=sizes, sharpness=sharpness, tolerance=1e-10, max_iterations=20_000)
    np.testing.assert_allclose(plan.numpy(), plain_sinkhorn(log_probs.numpy(), sizes.numpy(), sharpness), atol=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "steep"])
def test_labels_have_the_wanted_sizes(kind: str) -> None:
    """Each cluster has its own wanted share within 2 %, big ones big (not inverted), whatever the scores favour."""
    n_clusters = 20
    sizes = {
        "uniform": uniform_sizes(n_clusters),
        "gaussian": gaussian_sizes(n_clusters, spread=0.3),
        "steep": torch.arange(1, n_clusters + 1).double() / torch.arange(1, n_clusters + 1).sum(),
    }[kind]
    log_probs = random_log_probs(20_000, n_clusters, 3, skew=2).float()
    before = log_probs.clone()
    labels = assign_pseudo_labels(log_probs, cluster_sizes=sizes, sharpness=5)
    shares = torch.bincount(labels, minlength=n_clusters).double() / len(labels)
    assert float((shares / sizes - 1).abs().max()) <= 0.02 + 1e-9
    assert torch.equal(log_probs, before)


def test_blocks_give_the_same_offsets_as_the_whole() -> None:
    """Cutting the rows into blocks of any size changes nothing but rounding."""
    log_probs = random_log_probs(1000, 8, 1)
    sizes = gaussian_sizes(8)
    whole = find_offsets(lambda: [log_probs], cluster_sizes=sizes, sharpness=3)
    blocks = find_offsets(lambda: torch.split(log_probs, 77), cluster_sizes=sizes, sharpness=3)
    torch.testing.assert_close(whole, blocks, atol=1e-12, rtol=0)
    hard = balance_labels(lambda: torch.split(log_probs, 77), cluster_sizes=sizes, sharpness=3)
    torch.testing.assert_close(
        hard, balance_labels(lambda: [log_probs], cluster_sizes=sizes, sharpness=3), atol=1e-12, rtol=0
    )


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1, 1e6), seed=st.integers(0, 2**31))
def test_extreme_scores_stay_finite(scale: float, seed: int) -> None:
    """Scores of any size give finite offsets, rows that sum to 1 and no NaN."""
    scores = (random_log_probs(30, 4, seed) * scale).float()
    plan = sinkhorn_plan(scores, cluster_sizes=uniform_sizes(4), sharpness=10, max_iterations=50)
    assert bool(torch.isfinite(plan).all())
    torch.testing.assert_close(plan.sum(dim=1), torch.ones(30))
    assert assign_pseudo_labels(scores, cluster_sizes=uniform_sizes(4), sharpness=10).max() < 4


def test_a_constant_on_a_row_changes_nothing() -> None:
    """Unnormalised scores and log-probabilities give the same plan."""
    log_probs = random_log_probs(50, 5, 2)
    shifted = log_probs + torch.arange(50).double()[:, None]
    sizes = uniform_sizes(5)
    torch.testing.assert_close(
        sinkhorn_plan(log_probs, cluster_sizes=sizes, sharpness=2),
        sinkhorn_plan(shifted, cluster_sizes=sizes, sharpness=2),
    )


def test_equal_rows_get_equal_labels() -> None:
    """The same second twice is never in two clusters."""
    log_probs = random_log_probs(200, 6, 5).repeat_interleave(3, dim=0)
    labels = assign_pseudo_labels(log_probs, cluster_sizes=uniform_sizes(6), sharpness=5).reshape(200, 3)
    assert bool((labels == labels[:, :1]).all())


def test_frozen_offsets_assign_new_rows_like_old_ones() -> None:
    """A row alone gets the label it has among all: nothing is refitted."""
    log_probs = random_log_probs(500, 6, 6)
    offsets = balance_labels(lambda: [log_probs], cluster_sizes=uniform_sizes(6), sharpness=5)
    labels = hard_assignment(log_probs, offsets=offsets)
    for row in (0, 17, 499):
        assert hard_assignment(log_probs[row : row + 1], offsets=offsets) == labels[row]
    assert torch.equal(soft_assignment(log_probs, offsets=offsets, sharpness=9).argmax(dim=1), labels)


def test_wrong_arguments_are_refused() -> None:
    """Shapes, shares, sharpness and values are checked, and the message says what was expected."""
    scores = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="sum to 1"):
        sinkhorn_plan(scores, cluster_sizes=torch.ones(3), sharpness=1)
    with pytest.raises(ValueError, match="sharpness 0"):
        sinkhorn_plan(scores, cluster_sizes=uniform_sizes(3), sharpness=0)
    with pytest.raises(ValueError, match=r"expected \(B, 2\)"):
        sinkhorn_plan(scores, cluster_sizes=uniform_sizes(2), sharpness=1)
    with pytest.raises(ValueError, match="not finite"):
        sinkhorn_plan(scores / 0, cluster_sizes=uniform_sizes(3), sharpness=1)
    with pytest.raises(ValueError, match="no rows"):
        find_offsets(lambda: [], cluster_sizes=uniform_sizes(3), sharpness=1)
    with pytest.raises(ValueError, match="ask for fewer"):
        spread_prototypes(scores, 5, seed=0)


def test_prototypes_are_spherical_means() -> None:
    """A prototype is the normalised sum of its members; one without members stays."""
    embeddings = torch.nn.functional.normalize(torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    plan = torch.zeros(10, 3)
    plan[:5, 0], plan[5:, 1] = 1, 1
    old = torch.eye(3, 4)
    new = update_prototypes(embeddings, plan, prototypes=old)
    torch.testing.assert_close(new[0], torch.nn.functional.normalize(embeddings[:5].sum(dim=0), dim=0))
    assert torch.equal(new[2], old[2])


def test_first_prototypes_lie_in_different_groups() -> None:
    """Of well separated groups, each gives one of the first prototypes."""
    groups = torch.eye(6).repeat_interleave(50, dim=0)
    chosen = spread_prototypes(groups, 6, seed=1)
    assert sorted(chosen.argmax(dim=1).tolist()) == list(range(6))
    given = torch.eye(6)[[4, 2]]
    chosen = spread_prototypes(groups, 6, first=given, seed=1)
    assert torch.equal(chosen[:2], given)
    assert sorted(chosen.argmax(dim=1).tolist()) == list(range(6))


def test_confirmed_bits_are_those_shared_beyond_chance() -> None:
    """Equal labels of four kinds share two bits, however they are called; unrelated ones none, finer ones no more."""
    labels = torch.arange(4).repeat(500)
    alone = torch.arange(2000)
    assert confirmed_bits(labels, 3 - labels, stretches=alone) == pytest.approx(2, abs=0.02)
    generator = torch.Generator().manual_seed(0)
    other = torch.randint(40, (2000,), generator=generator)
    assert confirmed_bits(labels, other, stretches=alone) == pytest.approx(0, abs=0.02)
    assert 1.7 < confirmed_bits(labels, 4 * other + labels, stretches=alone) < 2


def test_rows_of_one_stretch_confirm_nothing() -> None:
    """What two labellings share only because rows of one stretch belong together in both is taken for chance."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(8, (100,), generator=generator).repeat_interleave(20) for _ in range(2))
    together = confirmed_bits(first, second, stretches=torch.arange(100).repeat_interleave(20))
    alone = confirmed_bits(first, second, stretches=torch.arange(2000))
    assert alone - together > 0.2


@settings(max_examples=50, deadline=None)
@given(n_clusters=st.integers(1, 9), extra=st.integers(0, 500), seed=st.integers(0, 2**31))
def test_whole_sizes_add_up(n_clusters: int, extra: int, seed: int) -> None:
    """Rounded sizes sum to the rows, are at least one, and are off by less than one where no share is tiny."""
    shares = gaussian_sizes(n_clusters, spread=0.8, seed=seed)
    n_rows = n_clusters + extra
    sizes = whole_sizes(shares, n_rows=n_rows)
    assert int(sizes.sum()) == n_rows
    assert int(sizes.min()) >= 1
    if float(shares.min()) * n_rows >= 1:
        assert float((sizes - shares * n_rows).abs().max()) < 1


@pytest.mark.parametrize("n_near", [6, 30])
def test_few_near_clusters_balance_as_well_as_all(n_near: int) -> None:
    """Offsets found on the best few clusters of a row give all rows the wanted sizes; with all, nearly those of all."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(6000, 8, generator=generator), dim=1)
    scores = rows @ torch.nn.functional.normalize(torch.randn(30, 8, generator=generator), dim=1).T
    sizes, start = uniform_sizes(30), torch.zeros(30, dtype=torch.float64)
    near = near_scores(scores, offsets=start, n_near=n_near)
    options = {"cluster_sizes": sizes, "sharpness": 40, "start": start, "tolerance": 0.02}
    offsets = balance_labels(lambda: [near], **options)  # type: ignore[arg-type]
    counts = torch.bincount(hard_assignment(scores, offsets=offsets), minlength=30)
    assert float((counts / 200 - 1).abs().max()) <= (0.02 if n_near == 30 else 0.04)
    if n_near == 30:
        assert torch.allclose(offsets, balance_labels(lambda: [scores], **options), atol=2e-3)  # type: ignore[arg-type]


def test_mutual_information_is_that_of_scikit_learn() -> None:
    """The measure agrees with the reference, whatever labels are called, and is 1 for the same division."""
    from sklearn.metrics import normalized_mutual_info_score

    random = np.random.default_rng(0)
    first, second = random.integers(0, 7, 500), random.integers(0, 5, 500)
    second[:300] = first[:300] % 5
    measured = mutual_information(torch.from_numpy(first), torch.from_numpy(second))
    assert measured == pytest.approx(normalized_mutual_info_score(first, second))
    assert mutual_information(torch.from_numpy(first), torch.from_numpy(9 - first)) == pytest.approx(1)
    assert mutual_information(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)) == 1
