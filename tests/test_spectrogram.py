"""The log-mel spectrogram against a slow reference, and its invariances."""

import numpy as np
import pytest
import torch

from visxp_search.spectrogram import POWER_FLOOR, RMS_LEVEL, LogMel, SpectrogramConfig

CONFIG = SpectrogramConfig()
RATE = CONFIG.sample_rate_hz


def _tone(hz: float) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz * torch.arange(RATE) / RATE)[None]


def _reference(waveform: np.ndarray) -> np.ndarray:
    """The same by plain numpy: frame by frame DFT and HTK mel triangles, as textbooks write them."""
    level = waveform * RMS_LEVEL / np.sqrt((waveform**2).mean())
    padded = np.pad(level, CONFIG.n_fft // 2, mode="reflect")
    window = np.zeros(CONFIG.n_fft)
    start = (CONFIG.n_fft - CONFIG.window_samples) // 2
    n = np.arange(CONFIG.window_samples)
    window[start : start + CONFIG.window_samples] = 0.5 - 0.5 * np.cos(2 * np.pi * n / CONFIG.window_samples)
    power = np.stack(
        [
            np.abs(np.fft.rfft(padded[step * CONFIG.hop_samples :][: CONFIG.n_fft] * window)) ** 2
            for step in range(CONFIG.n_steps)
        ],
        axis=1,
    )
    lowest, highest = (2595 * np.log10(1 + hz / 700) for hz in (CONFIG.min_hz, CONFIG.max_hz))
    edges = 700 * (10 ** (np.linspace(lowest, highest, CONFIG.n_mels + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(CONFIG.n_fft, 1 / RATE)
    filters = np.stack(
        [
            np.clip(np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)), 0, None)
            for low, mid, high in zip(edges, edges[1:], edges[2:], strict=False)
        ]
    )
    return np.asarray(np.log(filters @ power + POWER_FLOOR))


def test_equals_the_textbook() -> None:
    """The transform equals a plain numpy implementation to 1e-3 (float32 against float64, in the logarithm)."""
    waveform = np.random.default_rng(0).normal(size=RATE) * 0.05 + _tone(700)[0].numpy() * 0.3
    ours = LogMel(CONFIG)(torch.from_numpy(waveform[None]).float())[0].numpy()
    assert ours.shape == (CONFIG.n_mels, CONFIG.n_steps)
    np.testing.assert_allclose(ours, _reference(waveform), atol=1e-3)


@pytest.mark.parametrize("gain", [0.01, 0.3, 5.0])
def test_level_does_not_matter(gain: float) -> None:
    """A second that is louder or softer gives the same spectrogram."""
    waveform = torch.randn(1, RATE) * 0.1
    torch.testing.assert_close(LogMel(CONFIG)(waveform * gain), LogMel(CONFIG)(waveform), atol=1e-3, rtol=1e-3)


def test_a_tone_is_found_in_its_band() -> None:
    """The band with most energy rises with the tone."""
    bands = [int(LogMel(CONFIG)(_tone(hz))[0].mean(dim=1).argmax()) for hz in (200, 800, 3000, 9000)]
    assert bands == sorted(set(bands))


def test_silence_is_finite() -> None:
    """A silent second gives the floor, not infinities."""
    assert torch.allclose(LogMel(CONFIG)(torch.zeros(1, RATE)), torch.log(torch.tensor(POWER_FLOOR)))


def test_other_lengths_are_refused() -> None:
    """Only whole seconds are taken."""
    with pytest.raises(ValueError, match="one second"):
        LogMel(CONFIG)(torch.zeros(1, RATE - 1))


def test_constants_are_derived() -> None:
    """Hop, window and transform length follow from rate and steps; steps that do not divide the rate are refused."""
    assert (CONFIG.hop_samples, CONFIG.window_samples, CONFIG.n_fft) == (240, 600, 1024)
    with pytest.raises(ValueError, match="does not divide"):
        SpectrogramConfig(n_steps=101)
    with pytest.raises(ValueError, match="bands"):
        SpectrogramConfig(max_hz=13_000)


def test_holds_no_weights() -> None:
    """Nothing of the transform enters a checkpoint."""
    assert not LogMel(CONFIG).state_dict()
