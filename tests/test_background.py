"""What a similarity means in an archive: tails, scales and what is common."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visxp_search.background import (
    COMMON_SHARE,
    LARGEST,
    SMALLEST,
    common_shares,
    common_weights,
    expected_above,
    fisher,
    fit_scale,
    fit_tail,
    nearest_cosines,
    resemblance_threshold,
)


@pytest.mark.parametrize("law", ["normal", "exponential", "cosine"])
def test_chance_is_calibrated(law: str) -> None:
    """Where a tail says that n of 200,000 unrelated places score as high, between a third and ten times as few do."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        if law == "normal":
            values = rng.normal(2, 3, n)
        elif law == "exponential":
            values = rng.exponential(1.5, n)
        else:
            vectors = rng.standard_normal((n, 64))
            values = vectors[:, 0] / np.linalg.norm(vectors, axis=1)
        return values.astype(np.float32)

    tail = fit_tail(draw(2000))
    assert tail is not None
    archive = draw(200_000)
    for expected in (2000, 200, 20):
        level = np.sort(archive)[-expected]
        said = len(archive) * tail.chance(float(level))
        assert expected / 3 <= said <= expected * 10  # too cautious by up to ten times in the far tail


def test_a_few_related_values_do_not_bend_the_tail() -> None:
    """With 4 % of the sample related to the query, chance of a high score stays within ten times what it was."""
    rng = np.random.default_rng(1)
    clean = rng.normal(0, 1, 1000).astype(np.float32)
    mixed = clean.copy()
    mixed[:40] = rng.normal(9, 1, 40)
    before, after = fit_tail(clean), fit_tail(mixed)
    assert before is not None and after is not None
    assert after.chance(6.0) < 1e-3
    assert after.chance(3.0) < 10 * before.chance(3.0)


@given(st.lists(st.floats(-10, 10, width=32), min_size=20, max_size=80))
@settings(deadline=None)
def test_chance_falls_with_the_score(values: list[float]) -> None:
    """Chance is a probability and never rises with the score; percentiles are those of the sample."""
    tail = fit_tail(np.array(values, dtype=np.float32))
    assert tail is not None
    chances = [tail.chance(level) for level in np.linspace(tail.median + 0.01, 30, 50)]
    assert all(0 <= chance <= 0.5 for chance in chances)
    assert all(a >= b for a, b in pairwise(chances))
    assert tail.percentile(11) == 100
    assert tail.percentile(-11) == 0


def test_small_samples_say_nothing() -> None:
    """Below twenty values nothing is said about chance."""
    assert fit_tail(np.arange(19, dtype=np.float32)) is None


def test_modalities_become_comparable() -> None:
    """Pictures that are all alike and sounds that differ get the same scale: what stands out alike counts alike."""
    rng = np.random.default_rng(2)
    close = np.clip(rng.normal(0.9, 0.01, (1, 500)), -1, 1).astype(np.float32)
    wide = rng.normal(0.0, 0.2, (1, 500)).astype(np.float32)
    for cosines in (close, wide):
        high = np.quantile(cosines, 0.99, axis=1, keepdims=True).astype(np.float32)
        assert fit_scale(cosines).standardise(high)[0, 0] == pytest.approx(2.3, abs=0.8)


def test_standardising_keeps_order_and_gaps() -> None:
    """Missing vectors stay missing, order is kept, and nothing exceeds the bounds."""
    cosines = np.array([[-1, -0.2, 0.1, np.nan, 0.7, 0.99, 1.0]], dtype=np.float32)
    sample = np.random.default_rng(3).normal(0, 0.2, (1, 100)).astype(np.float32)
    standard = fit_scale(sample).standardise(cosines)[0]
    assert np.isnan(standard[3])
    there = standard[~np.isnan(standard)]
    assert (np.diff(there) >= 0).all()
    assert there.min() >= SMALLEST and there.max() <= LARGEST


def test_fisher_is_artanh_and_finite() -> None:
    """Fisher's scale equals artanh inside and stays finite at 1."""
    values = np.array([-0.5, 0.0, 0.9], dtype=np.float32)
    np.testing.assert_allclose(fisher(values), np.arctanh(values), rtol=1e-6)
    assert np.isfinite(fisher(np.array([1.0, -1.0]))).all()


def test_common_seconds_are_found_and_weigh_less() -> None:
    """A look that stands in a tenth of the archive is common and weighs less; one that stands once does not."""
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((400, 16))
    vectors[::10] = vectors[0] + 0.01 * rng.standard_normal((40, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    owners = np.arange(400) // 4
    threshold = resemblance_threshold(vectors, owners)
    shares = common_shares(vectors[:2], vectors, among=np.ones(len(vectors), dtype=bool), threshold=threshold)
    assert shares[0] == pytest.approx(0.1, abs=0.02)
    assert shares[1] < COMMON_SHARE
    weights = common_weights(shares)
    assert weights[0] < 0.75
    assert weights[1] == 1


def test_best_values_tell_what_chance_gives() -> None:
    """Of 300 best values that are mere chance, at most 2 % pass for expected 0.01 times; a lone copy passes clearly."""
    rng = np.random.default_rng(5)
    passed = 0
    for _ in range(300):
        bests = rng.exponential(2.0, (60, 40)).max(axis=1).astype(np.float32)
        value = expected_above(float(bests.max()), np.sort(bests)[:-1])
        assert value is not None
        passed += value <= 0.01
    assert passed <= 6
    lone = expected_above(60.0, rng.exponential(2.0, 60).astype(np.float32))
    assert lone is not None and lone < 1e-4


def test_many_copies_do_not_pass_for_chance() -> None:
    """Thirty copies among sixty places are all recognised, the unrelated rest is not."""
    rng = np.random.default_rng(6)
    copies, others = rng.normal(50, 3, 30), rng.exponential(2.0, 30)
    bests = np.concatenate([copies, others]).astype(np.float32)
    for place, best in enumerate(bests):
        chance = expected_above(float(best), np.delete(bests, place))
        assert chance is not None
        assert (chance < 1e-3) == (place < 30)


def test_lookalikes_are_no_copies() -> None:
    """Among forty lookalikes the best one is chance, though all stand far above the rest."""
    rng = np.random.default_rng(7)
    bests = np.concatenate([rng.normal(20, 2, 40), rng.exponential(2.0, 40)]).astype(np.float32)
    best = int(bests.argmax())
    chance = expected_above(float(bests[best]), np.delete(bests, best))
    assert chance is not None and chance > 0.01


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
@settings(deadline=None)
def test_weights_fall_with_commonness(shares: list[float]) -> None:
    """Weights lie in (0, 1] and never rise with the share."""
    weights = common_weights(np.sort(np.array(shares, dtype=np.float32)))
    assert (weights > 0).all() and (weights <= 1).all()
    assert (np.diff(weights) <= 1e-6).all()


def test_neighbours_are_sought_in_other_videos() -> None:
    """The nearest neighbour of a second is never one of its own video, and one video alone has none."""
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2]]
    np.testing.assert_allclose(nearest_cosines(vectors, np.array([0, 0, 1, 1, 2])), np.zeros(5))
    assert len(nearest_cosines(vectors, np.zeros(5, dtype=np.int64))) == 0
