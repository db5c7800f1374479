"""Tests of augmentation: shapes, ranges, determinism, and that it changes what it should and nothing else."""

import torch

from training.augment import augment_frames, augment_spectrograms, augment_waveforms, mix_waveforms


def generator(seed: int) -> torch.Generator:
    """A seeded source of randomness."""
    return torch.Generator().manual_seed(seed)


def test_frames_keep_shape_and_range_and_follow_the_seed() -> None:
    """Augmented frames are (B, 3, size, size) in [0, 255]; equal seeds give equal frames, others give others."""
    frames = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8, generator=generator(0))
    first = augment_frames(frames, size=32, generator=generator(1))
    assert first.shape == (6, 3, 32, 32)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 255
    assert torch.equal(first, augment_frames(frames, size=32, generator=generator(1)))
    assert not torch.equal(first, augment_frames(frames, size=32, generator=generator(2)))


def test_waveforms_keep_shape_stay_finite_and_some_stay_clean() -> None:
    """Augmented waveforms have their shape and finite values; some rows stay as they were, most change; silence too."""
    waveforms = torch.randn(64, 2400, generator=generator(0)) * 0.1
    waveforms[0] = 0
    changed = augment_waveforms(waveforms, generator=generator(1))
    assert changed.shape == waveforms.shape
    assert changed.isfinite().all()
    same = (changed == waveforms).all(dim=1)
    assert 0.15 < same.float().mean() < 0.55
    assert torch.equal(changed, augment_waveforms(waveforms, generator=generator(1)))


def test_noise_is_at_most_minus_five_decibels() -> None:
    """What is added to a dry waveform is at least 5 dB below it."""
    waveforms = torch.randn(64, 2400, generator=generator(0)) * 0.1
    added = augment_waveforms(waveforms, generator=generator(1)) - waveforms
    level = (added.square().mean(dim=1) / waveforms.square().mean(dim=1)).sqrt()
    noise_only = level[level > 0].sort().values[: len(level) // 4]  # rooms add more
    assert noise_only.max() <= 10 ** (-5 / 20) + 0.01


def test_mixing_takes_shares_of_level_normalised_sounds() -> None:
    """A share of 1 gives the one sound at unit level, a share of 0 the other."""
    a, b = torch.randn(2, 100, generator=generator(0)), 9 * torch.randn(2, 100, generator=generator(1))
    mixed = mix_waveforms(a, b, torch.tensor([1.0, 0.0]))
    assert torch.allclose(mixed[0], a[0] / a[0].square().mean().sqrt(), atol=1e-5)
    assert torch.allclose(mixed[1], b[1] / b[1].square().mean().sqrt(), atol=1e-5)


def test_spectrograms_keep_shape_and_input() -> None:
    """Augmented spectrograms have their shape, finite values, follow the seed, and leave their input alone."""
    spectrograms = torch.randn(8, 64, 100, generator=generator(0))
    before = spectrograms.clone()
    changed = augment_spectrograms(spectrograms, generator=generator(1))
    assert changed.shape == spectrograms.shape
    assert changed.isfinite().all()
    assert torch.equal(spectrograms, before)
    assert torch.equal(changed, augment_spectrograms(spectrograms, generator=generator(1)))
