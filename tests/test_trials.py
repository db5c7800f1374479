"""Degradations of the known-item trials."""

from fractions import Fraction

import numpy as np
import pytest

from visxp_search.trials import (
    DEGRADATIONS,
    LOW_BIT_RATE,
    SAMPLE_RATE_HZ,
    Excerpt,
    add_noise,
    change_speed,
    crop,
    encode_low,
    mirror,
)


def make_excerpt() -> Excerpt:
    """One second of random pictures and a tone."""
    rng = np.random.default_rng(0)
    times = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    return Excerpt(
        frames=rng.integers(0, 256, (10, 60, 80, 3)).astype(np.uint8),
        frames_per_second=Fraction(10),
        waveform=(0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32),
    )


@pytest.mark.parametrize("name", list(DEGRADATIONS))
@pytest.mark.parametrize("seed", [0, 1])
def test_degraded_excerpts_can_be_written(name: str, seed: int) -> None:
    """Every degradation keeps types, even sides and the range of values, and leaves its input as it was."""
    excerpt = make_excerpt()
    before = excerpt.frames.copy()
    worse = DEGRADATIONS[name](excerpt, seed)
    assert worse.frames.dtype == np.uint8 and worse.frames.shape[0] == 10
    assert worse.frames.shape[1] % 2 == worse.frames.shape[2] % 2 == 0
    assert worse.waveform is not None and worse.waveform.dtype == np.float32
    assert np.abs(worse.waveform).max() <= 1
    np.testing.assert_array_equal(excerpt.frames, before)


def test_each_does_what_it_says() -> None:
    """Crop leaves 80 %, mirror undoes itself, noise is 10 dB below, speed changes the length by 4 %."""
    excerpt = make_excerpt()
    assert excerpt.waveform is not None
    assert crop(excerpt, 0).frames.shape[1:3] == (48, 64)
    np.testing.assert_array_equal(mirror(mirror(excerpt, 0), 0).frames, excerpt.frames)
    noisy = add_noise(excerpt, 0).waveform
    assert noisy is not None
    ratio = np.square(noisy - excerpt.waveform).mean() / np.square(excerpt.waveform).mean()
    assert 10 * np.log10(ratio) == pytest.approx(-10, abs=0.3)
    faster = change_speed(excerpt, 0)
    assert faster.waveform is not None
    assert len(faster.waveform) / SAMPLE_RATE_HZ == pytest.approx(1 / 1.04, abs=0.001)
    assert faster.frames_per_second == Fraction(104, 10)
    assert encode_low(excerpt, 0).bit_rate == LOW_BIT_RATE
