"""A sound as a picture for people: the loudness of frequencies in time. Pure functions of arrays."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

FFT_SIZE = 512
DYNAMIC_RANGE_DB = 70.0
# From near black through blue and orange to pale yellow; brightness rises all the way, so it reads in grey too.
_PALETTE = np.array([[12, 14, 22], [38, 48, 92], [122, 58, 110], [222, 104, 64], [250, 220, 160]], dtype=np.float32)


def draw_spectrogram(waveform: FloatArray, *, width: int, height: int) -> Picture:
    """(height, width, 3) picture of the loudness of frequencies in time, low ones at the bottom.

    Args:
        waveform: (n,) in [-1, 1]; an empty one is silence.
        width: columns, spread evenly over the waveform.
        height: rows, from 0 Hz to half the sample rate on a scale that gives low frequencies more room.
    """
    padded = np.pad(waveform, (FFT_SIZE // 2, FFT_SIZE // 2 + 1))
    starts = np.linspace(0, max(0, len(waveform) - 1), width).astype(int)
    frames = padded[starts[:, None] + np.arange(FFT_SIZE)] * np.hanning(FFT_SIZE).astype(np.float32)  # (W, F)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2  # (W, F) -> (W, F / 2 + 1)
    rows = ((np.linspace(1, 0, height) ** 2) * (FFT_SIZE // 2)).astype(int)
    decibels = 10 * np.log10(power[:, rows].T + 1e-10)  # (height, W)
    top = max(float(decibels.max()), -20.0)  # near silence stays dark
    return paint(np.clip((decibels - top) / DYNAMIC_RANGE_DB + 1, 0, 1))


def paint(values: npt.NDArray[np.floating]) -> Picture:
    """Values in [0, 1] of any shape -> (..., 3) colours."""
    place = np.asarray(values) * (len(_PALETTE) - 1)
    low = np.clip(place.astype(int), 0, len(_PALETTE) - 2)
    share = (place - low)[..., None]
    return np.asarray(_PALETTE[low] * (1 - share) + _PALETTE[low + 1] * share, dtype=np.uint8)
