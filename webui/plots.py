"""Pictures of numbers: filmstrips, similarity curves. Pure functions of arrays."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

BACKDROP = 22
"""Grey around pictures that do not fill their cell."""


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
