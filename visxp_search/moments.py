"""Reading moments off a similarity matrix: pure functions of arrays.

The matrix is (Q, T): row q is a second of the query, column t a second of a video without gaps, a value their cosine
similarity. A row of NaN is a second of the query that has nothing to ask with.

Two readings. *Similar*: the stretch of video in which each second of the query finds something like it, in whatever
order. *Same*: the stretch of a diagonal, where query and video run in step.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

KEEP = 0.7
"""A second belongs to a moment while its similarity is at least this share of the moment's typical one."""
IN_STEP = 0.05
"""A query of several seconds runs in step with a moment if its diagonal is at most this far below its best matches."""
SAME_MIN = 0.6
"""Similarity from which seconds on a diagonal speak for the same recording, and below which they speak against it."""


@dataclass(frozen=True)
class Span:
    """Columns `[start, stop)` of the matrix.

    Attributes:
        start: first column.
        stop: one after the last column.
        score: mean over the query's seconds of their best similarity in the span; in `same` those that lie outside the
            span count as 0.
        coverage: share of the query's seconds that the span answers.
        rows: for each column the row that it matches.
    """

    start: int
    stop: int
    score: float
    coverage: float
    rows: tuple[int, ...]


def similar_spans(matrix: FloatArray, *, limit: int) -> list[Span]:
    """The best stretches of video that hold something like every second of the query, not overlapping, best first.

    A window as long as the query is slid over the video. Its value is the mean, over the query's seconds, of the best
    similarity inside it; for queries of three seconds and more the mean of the diagonal counts as much, which fixes the
    place where the same things come in the same order. A window that is not in step with the query grows and shrinks at
    both ends to where seconds stop resembling the query.

    Args:
        matrix: (Q, T).
        limit: at most so many spans.
    """
    rows = _asking_rows(matrix)
    n_columns = matrix.shape[1]
    if not rows.size or not n_columns:
        return []
    asking = matrix[rows]
    length = min(len(matrix), n_columns)
    best = sliding_max(asking, length).mean(axis=0)  # (T - length + 1,)
    diagonal = _diagonal_means(matrix, rows, length)
    value = (best + diagonal) / 2 if len(matrix) >= 3 else best.copy()
    column_best = asking.max(axis=0)
    free = np.ones(n_columns, dtype=bool)
    spans: list[Span] = []
    while len(spans) < limit:
        window = int(np.argmax(value))
        if not value[window] > 0:
            break
        start, stop = window, window + length
        in_step = len(matrix) >= 3 and diagonal[window] >= best[window] - IN_STEP
        if in_step:
            along = np.array([matrix[column - window, column] for column in range(start, stop)])
            keep = np.nan_to_num(along, nan=-1) >= KEEP * np.nanmedian(along)
        else:
            typical = float(np.median(column_best[start:stop]))
            while start > 0 and free[start - 1] and column_best[start - 1] >= KEEP**0.5 * typical:
                start -= 1
            while stop < n_columns and free[stop] and column_best[stop] >= KEEP**0.5 * typical:
                stop += 1
            keep = column_best[start:stop] >= KEEP * typical
        first, last = np.flatnonzero(keep)[[0, -1]]
        start, stop = start + int(first), start + int(last) + 1
        if in_step:
            matched = range(start - window, stop - window)
        else:
            matched = rows[asking[:, start:stop].argmax(axis=0)].tolist()
        inside = asking[:, start:stop].max(axis=1)
        spans.append(
            Span(
                start=start,
                stop=stop,
                score=float(inside.mean()),
                coverage=float((inside >= KEEP * inside.max()).mean()),
                rows=tuple(matched),
            )
        )
        free[start:stop] = False
        overlaps = np.arange(len(value))
        value[(overlaps < stop) & (overlaps + length > start)] = -np.inf
    return sorted(spans, key=lambda span: -span.score)


def same_spans(matrix: FloatArray, *, limit: int) -> list[Span]:
    """The best stretches in step with the query, not overlapping, best first.

    On each diagonal the stretch with the largest sum of (similarity - `SAME_MIN`) is taken, so a few seconds that were
    changed do not end it and unlike seconds do.

    Args:
        matrix: (Q, T).
        limit: at most so many spans.
    """
    rows = _asking_rows(matrix)
    n_rows, n_columns = matrix.shape
    if not rows.size or not n_columns:
        return []
    gains = np.nan_to_num(matrix - SAME_MIN, nan=0.0)
    spans: list[Span] = []
    while len(spans) < limit:
        stretches = [(*_best_stretch(np.diagonal(gains, offset)), offset) for offset in range(1 - n_rows, n_columns)]
        gain, first, last, offset = max(stretches, key=lambda stretch: (stretch[0], -stretch[3]))
        if gain <= 0:
            break
        start = first + max(offset, 0)
        stop = last + max(offset, 0)
        matched = tuple(range(start - offset, stop - offset))
        along = np.array([matrix[row, row + offset] for row in matched])
        asked = ~np.isnan(along)
        spans.append(
            Span(
                start=start,
                stop=stop,
                score=float(along[asked].sum() / len(rows)),
                coverage=float(asked.sum() / len(rows)),
                rows=matched,
            )
        )
        gains[:, start:stop] = -1.0
    return sorted(spans, key=lambda span: -span.score)


def sliding_max(matrix: FloatArray, length: int) -> FloatArray:
    """(Q, T) -> (Q, T - length + 1): maximum over each window of columns, by doubling, in O(Q T log length)."""
    covered = 1
    result = matrix
    while covered < length:
        step = min(covered, length - covered)
        result = np.maximum(result[:, :-step], result[:, step:])
        covered += step
    return result


def _best_stretch(gains: FloatArray) -> tuple[float, int, int]:
    """Largest sum of neighbouring values and its half-open interval (Kadane's algorithm)."""
    total = np.concatenate([[0.0], np.cumsum(gains, dtype=np.float64)])
    lowest = np.minimum.accumulate(total)[:-1]
    stop = int(np.argmax(total[1:] - lowest)) + 1
    start = int(np.argmin(total[:stop]))
    return float(total[stop] - total[start]), start, stop


def _asking_rows(matrix: FloatArray) -> npt.NDArray[np.int64]:
    return np.flatnonzero(~np.isnan(matrix).all(axis=1)) if matrix.size else np.empty(0, dtype=np.int64)


def _diagonal_means(matrix: FloatArray, rows: npt.NDArray[np.int64], length: int) -> FloatArray:
    """For each window start w: mean of matrix[q, w + q] over the asking rows that fall inside the window."""
    inside = rows[rows < length]
    if not inside.size:
        return np.full(matrix.shape[1] - length + 1, -1.0, dtype=np.float32)
    starts = np.arange(matrix.shape[1] - length + 1)
    return np.asarray(matrix[inside[:, None], inside[:, None] + starts[None]].mean(axis=0), dtype=np.float32)
