"""Whether two pieces of media are one recording, told from samples and pixels: a judge that knows no embeddings.

Both measures are normalised cross-correlations at the best shift. What is re-encoded, levelled, noisy or cropped a
little correlates with its original; two takes of one scene, however alike they look and sound, do not.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

SAME_RECORDING = 0.5
"""Correlation from which two pieces are one recording; different ones stay near 0, re-encoded ones near 1."""
MIN_OVERLAP = 0.5
"""Least share of the shorter piece that is compared."""
SILENCE = 1e-8
"""Mean square below which there is nothing to compare."""


def sound_correlation(first: FloatArray, second: FloatArray) -> float | None:
    """Largest absolute correlation of two waveforms over all shifts, in [0, 1].

    Args:
        first: (n,) at the same sample rate as `second`.
        second: (m,).

    Returns:
        None if one of them is silent.
    """
    from scipy.signal import correlate

    long, short = sorted((first.astype(np.float64), second.astype(np.float64)), key=len, reverse=True)
    if min(len(short), len(long)) == 0 or min(np.square(short).mean(), np.square(long).mean()) < SILENCE:
        return None
    products = correlate(long, short, mode="full", method="fft")  # entry i: short begins at i - len(short) + 1
    starts = np.arange(len(products)) - len(short) + 1
    first_in_long, last_in_long = np.maximum(starts, 0), np.minimum(starts + len(short), len(long))
    overlap = last_in_long - first_in_long
    energy_long = _energy(long, first_in_long, last_in_long)
    energy_short = _energy(short, first_in_long - starts, last_in_long - starts)
    valid = (overlap >= MIN_OVERLAP * len(short)) & (np.minimum(energy_long, energy_short) > SILENCE * overlap)
    if not valid.any():
        return None
    return float((np.abs(products[valid]) / np.sqrt(energy_long[valid] * energy_short[valid])).max())


def motion_correlation(first: FloatArray, second: FloatArray) -> float | None:
    """Largest correlation over all shifts of what changes from picture to picture, in [-1, 1].

    What stands still is left out by taking differences: two talkers before one wall share the wall, not their motion.

    Args:
        first: (n, h, w) grey pictures at the same rate as `second`.
        second: (m, h, w).

    Returns:
        None if in one of them nothing moves.
    """
    long, short = sorted((np.diff(first, axis=0), np.diff(second, axis=0)), key=len, reverse=True)
    long, short = long.reshape(len(long), -1), short.reshape(len(short), -1)
    least = max(1, int(np.ceil(MIN_OVERLAP * len(short))))
    best: float | None = None
    for start in range(least - len(short), len(long) - least + 1):
        low, high = max(start, 0), min(start + len(short), len(long))
        one, other = long[low:high], short[low - start : high - start]
        size = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))
        if size > SILENCE * one.size:
            value = float((one * other).sum()) / size
            best = value if best is None else max(best, value)
    return best


def _energy(
    values: npt.NDArray[np.float64], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Sums of squares over `[first, last)`."""
    total = np.concatenate([[0.0], np.cumsum(np.square(values))])
    return np.asarray(total[last] - total[first])
