"""Whether two sounds run in step: one recording, however re-encoded, levelled, noisy or played at another speed.

Compared is how the levels of some bands of the spectrum rise and fall, at the best shift and speed. Other takes of one
text by one voice pause alike, but their syllables do not fall on each other. Pure functions of arrays.

References:
    [haitsma2002] A highly robust audio fingerprinting system. ISMIR 2002 (changes of band energies identify a sound).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

STEPS_PER_SECOND = 50
N_BANDS = 16
BAND_EDGES_HZ = np.geomspace(150.0, 3600.0, N_BANDS + 1)
WINDOW_SECONDS = 0.064
DYNAMIC_DB = 50.0
"""Levels further below the loudest are silence."""
SMOOTHING_STEPS = 20
"""What changes more slowly than this is level and colour, and says nothing about the recording."""
LEAST_CHANGE_DB = 0.5
"""Root mean square change below which there is nothing to compare."""
SPEEDS = np.linspace(0.95, 1.05, 21)
LEAST_OVERLAP = 0.8
MIN_SECONDS = 2.0
"""Shorter sounds are in step with many."""
IN_STEP = 0.74
"""Correlation from which sounds of three seconds are in step, and less with the root of their length up to
`FULL_SECONDS`: chance correlations fall with it. Of 700 degraded excerpts of one archive two were below (0.68 and 0.70,
with 10 dB of noise, a low bit rate and another speed at once); of some thousand moments that look and sound like them,
but are other recordings, none was above (0.72)."""
REFERENCE_SECONDS, FULL_SECONDS = 3.0, 6.0


@dataclass(frozen=True)
class SoundStep:
    """How two sounds fit best.

    Attributes:
        correlation: in [-1, 1].
        start: time of the second sound at which the first one begins, seconds.
        speed: seconds of the second per second of the first.
        seconds: length of the first.
    """

    correlation: float
    start: float
    speed: float
    seconds: float

    @property
    def is_in_step(self) -> bool:
        """Whether they are one recording."""
        return bool(self.correlation * np.sqrt(min(self.seconds, FULL_SECONDS) / REFERENCE_SECONDS) >= IN_STEP)


def band_levels(waveform: FloatArray, *, sample_rate_hz: int) -> FloatArray:
    """Levels of the bands of a sound, `STEPS_PER_SECOND`.

    Args:
        waveform: (n,) mono.
        sample_rate_hz: a multiple of `STEPS_PER_SECOND` above 7200.

    Returns:
        (steps, N_BANDS) float32 decibels, of all windows that lie in the sound.
    """
    hop, length = sample_rate_hz // STEPS_PER_SECOND, round(WINDOW_SECONDS * sample_rate_hz)
    if len(waveform) < length:
        return np.zeros((0, N_BANDS), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(waveform, length)[::hop]
    powers = np.square(np.abs(np.fft.rfft(windows * np.hanning(length), axis=1))) / length
    edges = np.searchsorted(np.fft.rfftfreq(length, 1 / sample_rate_hz), BAND_EDGES_HZ).tolist()
    energies = np.stack([powers[:, low:high].sum(axis=1) for low, high in pairwise(edges)], axis=1)
    levels = 10 * np.log10(energies + 1e-12)
    return np.asarray(np.maximum(levels, levels.max() - DYNAMIC_DB), dtype=np.float32)


def sound_step(first: FloatArray, second: FloatArray, *, begins_at: float = 0.0) -> SoundStep | None:
    """How the first of two sounds fits best into the second.

    Args:
        first: (n, B) from `band_levels`.
        second: (m, B).
        begins_at: time of the beginning of the second, seconds.

    Returns:
        None if one is shorter than `MIN_SECONDS`, or does not change where they overlap.
    """
    if min(len(first), len(second)) < MIN_SECONDS * STEPS_PER_SECOND:
        return None
    changes = _changes(second)
    found = []
    for speed in SPEEDS.tolist():
        correlation, shift = _best_shift(_changes(_stretched(first, speed)), changes)
        start = begins_at + shift / STEPS_PER_SECOND
        found.append(SoundStep(correlation, start, speed, len(first) / STEPS_PER_SECOND))
    best = max(found, key=lambda step: step.correlation)
    return best if best.correlation > -1 else None


def _changes(levels: FloatArray) -> FloatArray:
    """(n, B) levels less their mean over the time around."""
    padded = np.pad(levels.astype(np.float64), ((SMOOTHING_STEPS // 2 + 1, SMOOTHING_STEPS // 2), (0, 0)), mode="edge")
    total = np.cumsum(padded, axis=0)
    means = (total[SMOOTHING_STEPS + 1 :] - total[: -SMOOTHING_STEPS - 1]) / (SMOOTHING_STEPS + 1)
    return np.asarray(levels - means, dtype=np.float32)


def _stretched(levels: FloatArray, speed: float) -> FloatArray:
    """(n, B) -> (n speed, B)."""
    places = np.minimum(np.arange(int(len(levels) * speed)) / speed, len(levels) - 1)
    before = np.minimum(places.astype(np.int64), len(levels) - 2)
    share = (places - before)[:, None]
    return np.asarray(levels[before] * (1 - share) + levels[before + 1] * share, dtype=np.float32)


def _best_shift(first: FloatArray, second: FloatArray) -> tuple[float, int]:
    """Largest normalised correlation of (n, B) with (m, B), and the row of the second at which the first begins."""
    n, m = len(first), len(second)
    size = 1 << (n + m - 1).bit_length()
    spectrum = (np.fft.rfft(first[::-1], size, axis=0) * np.fft.rfft(second, size, axis=0)).sum(axis=1)
    products = np.fft.irfft(spectrum, size)[: n + m - 1]
    starts = np.arange(n + m - 1) - n + 1
    low, high = np.maximum(starts, 0), np.minimum(starts + n, m)
    sizes = []
    for side, first_row, last_row in ((first, low - starts, high - starts), (second, low, high)):
        total = np.concatenate([[0.0], np.cumsum(np.square(side).sum(axis=1), dtype=np.float64)])
        sizes.append(total[last_row] - total[first_row])
    silent = LEAST_CHANGE_DB**2 * first.shape[1] * (high - low)
    valid = (high - low >= LEAST_OVERLAP * min(n, m)) & (np.minimum(*sizes) >= silent)
    correlations = np.where(valid, products / np.sqrt(np.maximum(sizes[0] * sizes[1], 1e-9)), -1.0)
    best = int(correlations.argmax())
    return float(correlations[best]), int(starts[best])
