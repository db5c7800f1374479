"""Pictures of numbers: filmstrips, spectrograms, similarity curves. Pure functions of arrays."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

BACKDROP = 22
"""Grey around pictures that do not fill their cell."""
FFT_SIZE = 512
DYNAMIC_RANGE_DB = 70.0
# From near black through blue and orange to pale yellow; brightness rises all the way, so it reads in grey too.
_PALETTE = np.array([[12, 14, 22], [38, 48, 92], [122, 58, 110], [222, 104, 64], [250, 220, 160]], dtype=np.float32)


def fill_cell(picture: Picture | None, *, width: int, height: int) -> Picture:
    """(H, W, 3) picture centred in a cell of (height, width, 3); None gives an empty cell."""
    cell = np.full((height, width, 3), BACKDROP, dtype=np.uint8)
    if picture is not None:
        rows, columns = picture.shape[:2]
        top, left = (height - rows) // 2, (width - columns) // 2
        cell[top : top + rows, left : left + columns] = picture
    return cell


def spread_seconds(start: int, end: int, *, count: int) -> list[int]:
    """`count` seconds, the middles of equal parts of `[start, end)`, ascending; short spans repeat some.

    Raises:
        ValueError: If the span is empty.
    """
    if end <= start:
        raise ValueError(f"seconds [{start}, {end}) are empty")
    return [min(end - 1, int(start + (end - start) * (index + 0.5) / count)) for index in range(count)]


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


def curve_paths(seconds: Sequence[int], values: FloatArray, *, start: int, end: int) -> str:
    """An SVG path of one value a second, in a box of `end - start` by 1 with high values on top.

    A gap (NaN, or a second that is not there) breaks the line; a lone second is a short dash.

    Args:
        seconds: (T,) ascending.
        values: (T,) similarities; those below 0 lie on the floor.
        start: left edge of the box, a second.
        end: its right edge.
    """
    parts: list[str] = []
    previous: int | None = None
    for second, value in zip(seconds, values, strict=True):
        if not start <= second < end or np.isnan(value):
            continue
        x, y = second - start + 0.5, 1 - float(np.clip(value, 0, 1))
        if previous == second - 1:
            parts.append(f"L{x:g} {y:.3f}")
        else:
            parts.append(f"M{x - 0.4:.1f} {y:.3f}L{x:g} {y:.3f}")
        previous = second
    return "".join(parts)
