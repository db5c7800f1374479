"""Reading moments off a matrix of evidence: pure functions of arrays.

The matrix is (Q, T): row q is a second of the query, column t a second of a video without gaps. A value says how far
their similarity stands above that of unrelated seconds, in deviations (`visxp_search.background`); about 0 is nothing.
A row of NaN is a second of the query that has nothing to ask with.

Two readings. *Similar*: the stretch of video in which each second of the query finds something like it, in whatever
order. *Same*: a stretch of a line t = offset + speed q along which query and video run in step. As in the comparison of
biological sequences, what counts on a line is its best local stretch, and what that is worth is told by the best
stretches of all the other lines [karlin1990].

References:
    [karlin1990] Methods for assessing the statistical significance of molecular sequence features. PNAS 87, 1990.
    [kadane] Bentley. Programming pearls: algorithm design techniques. CACM 27, 1984 (maximum sum of neighbours).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

KEEP = 0.5
"""A second belongs to a similar moment while its evidence is at least this share of the moment's typical one."""
IN_STEP = 0.6
"""A query of several seconds runs in step with a moment if its diagonal is at most this far below its best matches."""
SAME_LEVEL = 1.5
"""Evidence from which a second on a line speaks for the same recording, and below which it speaks against it."""
SAME_WORST = -2.0
"""The most that one second can speak against it, so that a changed second does not end a stretch."""
EDGE_SHARE = 0.25
"""At its ends a stretch grows over seconds that have this share of its typical evidence."""
LEAST_SHARE = 0.25
"""A further occurrence in one video is worth at least this share of the best: less is a neighbour of the same shot."""
MOST_SPEED = 0.05
"""Speed changes up to this share are followed."""
MOST_SPEEDS = 21
MOST_LINES = 48
"""Lines of one video whose speed is examined, the best ones at unchanged speed."""

_OUTSIDE = -1e6


@dataclass(frozen=True)
class Span:
    """Columns `[start, stop)` of the matrix.

    Attributes:
        start: first column; a fraction where query and video are known to be out of step by less than a second.
        stop: one after the last column.
        value: of `similar`, the mean over the query's seconds of their best evidence in the span; of `same`, the sum of
            evidence above `SAME_LEVEL` along the line.
        coverage: share of the query's seconds that the span answers.
        columns: the whole columns that it covers.
        rows: for each of `columns` the row that it matches.
        speed: columns per row.
    """

    start: float
    stop: float
    value: float
    coverage: float
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    speed: float = 1.0


def similar_spans(evidence: FloatArray, *, limit: int) -> list[Span]:
    """The best stretches of video that hold something like every second of the query, not overlapping, best first.

    A window as long as the query is slid over the video. Its value is the mean, over the query's seconds, of the best
    evidence inside it; for queries of three seconds and more the mean of the diagonal counts as much, which fixes the
    place where the same things come in the same order. A window that is not in step with the query grows and shrinks at
    both ends to where seconds stop resembling the query.

    Args:
        evidence: (Q, T).
        limit: at most so many spans.
    """
    rows = asking_rows(evidence)
    n_columns = evidence.shape[1]
    if not rows.size or not n_columns:
        return []
    asking = evidence[rows]
    length = min(len(evidence), n_columns)
    best = sliding_max(asking, length).mean(axis=0)  # (T - length + 1,)
    diagonal = _diagonal_means(evidence, rows, length)
    value = (best + diagonal) / 2 if len(evidence) >= 3 else best.copy()
    column_best = asking.max(axis=0)
    free = np.ones(n_columns, dtype=bool)
    spans: list[Span] = []
    while len(spans) < limit:
        window = int(np.argmax(value))
        if not value[window] > 0:
            break
        start, stop = window, window + length
        in_step = len(evidence) >= 3 and diagonal[window] >= best[window] - IN_STEP
        if in_step:
            along = np.array([evidence[column - window, column] for column in range(start, stop)])
            keep = np.nan_to_num(along, nan=-np.inf) >= KEEP * max(0.0, float(np.nanmedian(along)))
        else:
            typical = max(0.0, float(np.median(column_best[start:stop])))
            while start > 0 and free[start - 1] and column_best[start - 1] >= KEEP**0.5 * typical:
                start -= 1
            while stop < n_columns and free[stop] and column_best[stop] >= KEEP**0.5 * typical:
                stop += 1
            keep = column_best[start:stop] >= KEEP * typical
        first, last = np.flatnonzero(keep)[[0, -1]] if keep.any() else (0, stop - start - 1)
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
                value=float(best[window]),
                coverage=float((inside >= KEEP * inside.max()).mean()),
                columns=tuple(range(start, stop)),
                rows=tuple(matched),
            )
        )
        free[start:stop] = False
        windows = np.arange(len(value))
        value[(windows < stop) & (windows + length > start)] = -np.inf
    return sorted(spans, key=lambda span: -span.value)


def window_values(evidence: FloatArray, windows: npt.NDArray[np.int64]) -> FloatArray:
    """What `similar_spans` would give videos that are only as long as one window each.

    Args:
        evidence: (Q, T), without NaN in rows that have anything to ask with.
        windows: (n, L) columns of each window, L > 0; -1 behind the end of a short one.

    Returns:
        (n,); NaN if no row has anything to ask with.
    """
    rows = asking_rows(evidence)
    if not rows.size:
        return np.full(len(windows), np.nan, dtype=np.float32)
    padded = np.pad(evidence[rows], ((0, 0), (0, 1)), constant_values=-np.inf)
    best = padded[:, windows].max(axis=2)  # (R, T + 1) -> (R, n, L) -> (R, n)
    return np.asarray(np.ascontiguousarray(best.T).mean(axis=1), dtype=np.float32)


def same_spans(evidence: FloatArray, *, limit: int) -> list[Span]:
    """The best stretches in step with the query, not overlapping in the video, best first.

    Args:
        evidence: (Q, T).
        limit: at most so many spans.
    """
    rows = asking_rows(evidence)
    if not rows.size or not evidence.shape[1]:
        return []
    gains = gains_of(evidence)
    free = gains.copy()
    spans: list[Span] = []
    while len(spans) < limit:
        line = _best_line(free)
        if line is None:
            break
        value, offset, speed, first, last = line
        if spans and value < LEAST_SHARE * spans[0].value:
            break
        span, used = _span_on_line(evidence, rows, value, offset, speed, first, last)
        spans.append(span)
        free[:, used[0] : used[1]] = SAME_WORST
    return sorted(spans, key=lambda span: -span.value)


def line_gains(evidence: FloatArray) -> FloatArray:
    """The best local stretch of every diagonal, (Q + T - 1,); what chance makes of this query in this video.

    Entry i belongs to the offset i - Q + 1 (column less row).
    """
    gains = gains_of(evidence)
    return _line_stretches(gains, np.arange(1 - len(gains), gains.shape[1]), speed=1.0)[0]


def fit_elsewhere(evidence: FloatArray, span: Span, *, spans: Sequence[Span]) -> float:
    """How well the rows of a span fit this video out of step, as a share of how well they fit on its line.

    A video that is alike throughout fits anywhere: about 1. Compared are the mean gains of the span's rows on all
    lines that are none of the spans' own, nor next to one, and that hold at least half of the rows.

    Args:
        evidence: (Q, T).
        span: one of `spans`.
        spans: from `same_spans`.

    Returns:
        A share; 0 where no other line is long enough, or none speaks for the same recording.
    """
    gains = gains_of(evidence)
    n_rows, n_columns = gains.shape
    offsets = np.arange(1 - n_rows, n_columns)
    own = np.zeros(len(offsets), dtype=bool)
    for other in spans:
        own |= np.abs(offsets - (other.columns[0] - other.rows[0])) <= 1 + MOST_SPEED * n_rows
    rows = np.array(sorted(set(span.rows)))
    columns = offsets[~own][:, None] + rows[None]  # (n, R)
    inside = (columns >= 0) & (columns < n_columns)
    long_enough = inside.sum(axis=1) >= np.ceil(len(rows) / 2)
    if not long_enough.any() or not span.value > 0:
        return 0.0
    values = np.where(inside, gains[rows[None], np.clip(columns, 0, n_columns - 1)], 0.0)[long_enough]
    best = float((values.sum(axis=1) / inside[long_enough].sum(axis=1)).max())
    return max(0.0, best * len(rows) / span.value)


def gains_of(evidence: FloatArray) -> FloatArray:
    """What each cell speaks for (> 0) or against the same recording; rows with nothing to ask with are 0."""
    return np.asarray(np.nan_to_num(np.maximum(evidence - SAME_LEVEL, SAME_WORST), nan=0.0), dtype=np.float32)


def speeds_for(n_rows: int) -> FloatArray:
    """Speeds to try for a query of so many seconds: unchanged first, then so many that a step moves its end by 1 s."""
    steps = min(int(np.ceil(MOST_SPEED * n_rows)), MOST_SPEEDS // 2)
    both = np.linspace(-MOST_SPEED, MOST_SPEED, 2 * steps + 1) if n_rows >= 5 else np.zeros(1)
    return (1 + both[np.argsort(np.abs(both), kind="stable")]).astype(np.float32)


def refine_offset(before: float, here: float, after: float) -> float:
    """Where between whole seconds two recordings are in step, in [-0.5, 0.5].

    A query that begins between whole seconds is partly like both neighbours; the top of the parabola through the mean
    evidence one second earlier, in step and one second later tells how much.
    """
    bend = before - 2 * here + after
    if not bend < 0:
        return 0.0
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))


def sliding_max(matrix: FloatArray, length: int) -> FloatArray:
    """(Q, T) -> (Q, T - length + 1): maximum over each window of columns, by doubling, in O(Q T log length)."""
    covered = 1
    result = matrix
    while covered < length:
        step = min(covered, length - covered)
        result = np.maximum(result[:, :-step], result[:, step:])
        covered += step
    return result


def best_stretches(gains: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Largest sum of neighbouring values of each row of (n, Q) and its half-open interval [kadane]."""
    total = np.concatenate([np.zeros((len(gains), 1)), np.cumsum(gains, axis=1, dtype=np.float64)], axis=1)
    rise = total[:, 1:] - np.minimum.accumulate(total, axis=1)[:, :-1]
    stop = rise.argmax(axis=1) + 1
    outside = np.arange(total.shape[1]) >= stop[:, None]
    start = np.where(outside, np.inf, total).argmin(axis=1)
    return rise.max(axis=1).astype(np.float32), start, stop


def asking_rows(matrix: FloatArray) -> npt.NDArray[np.int64]:
    """Rows that have anything to ask with."""
    return np.flatnonzero(~np.isnan(matrix).all(axis=1)) if matrix.size else np.empty(0, dtype=np.int64)


def _best_line(gains: FloatArray) -> tuple[float, int, float, int, int] | None:
    """(sum, offset, speed, first row, last row + 1) of the best stretch of any line; None if nothing speaks for one."""
    n_rows, n_columns = gains.shape
    offsets = np.arange(1 - n_rows, n_columns)
    sums, first, last = _line_stretches(gains, offsets, speed=1.0)
    best = int(np.argmax(sums))
    if sums[best] <= 0:
        return None
    found = (float(sums[best]), int(offsets[best]), 1.0, int(first[best]), int(last[best]))
    drift = int(np.ceil(MOST_SPEED * n_rows))
    promising = np.argsort(-sums, kind="stable")[:MOST_LINES]
    near = (offsets[promising][:, None] + np.arange(-drift, drift + 1)[None]).ravel()
    near = np.unique(near[(near > -n_rows) & (near < n_columns)])
    for speed in speeds_for(n_rows)[1:].tolist():
        sums, first, last = _line_stretches(gains, near, speed=speed)
        best = int(np.argmax(sums))
        # Another speed must explain clearly more: it is one more thing that chance can choose.
        if sums[best] > found[0] + 1.0:
            found = (float(sums[best]), int(near[best]), speed, int(first[best]), int(last[best]))
    return found


def _line_stretches(
    gains: FloatArray, offsets: npt.NDArray[np.int64], *, speed: float
) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    n_rows, n_columns = gains.shape
    rows = np.arange(n_rows)
    columns = offsets[:, None] + np.rint(speed * rows).astype(np.int64)[None]  # (n, Q)
    inside = (columns >= 0) & (columns < n_columns)
    along = np.where(inside, gains[rows[None], np.clip(columns, 0, n_columns - 1)], _OUTSIDE)
    return best_stretches(along.astype(np.float32))


def _span_on_line(
    evidence: FloatArray,
    rows: npt.NDArray[np.int64],
    value: float,
    offset: int,
    speed: float,
    first: int,
    last: int,
) -> tuple[Span, tuple[int, int]]:
    """The span of rows `[first, last)` on a line, its ends grown, and the columns that it uses up."""
    n_rows, n_columns = evidence.shape

    def column_of(row: int) -> int:
        return offset + int(np.rint(speed * row))

    def cell(row: int, shift: int = 0) -> float:
        column = column_of(row) + shift
        return float(evidence[row, column]) if 0 <= column < n_columns else float("nan")

    typical = float(np.nanmedian([cell(row) for row in range(first, last)]))
    while first > 0 and column_of(first - 1) >= 0 and not cell(first - 1) < EDGE_SHARE * typical:
        first -= 1
    while last < n_rows and column_of(last) < n_columns and not cell(last) < EDGE_SHARE * typical:
        last += 1
    matched = range(first, last)
    fraction = 0.0
    sides = [[cell(row, shift) for row in matched] for shift in (-1, 0, 1)]
    complete = ~np.isnan(np.array(sides)).any(axis=0)
    if complete.any():
        fraction = refine_offset(*np.array(sides)[:, complete].mean(axis=1).tolist())
    start = offset + speed * first + fraction
    covered = {column_of(row): row for row in matched}
    answered = np.isin(rows, list(matched)).sum()
    span = Span(
        start=float(np.clip(start, 0, n_columns)),
        stop=float(np.clip(start + speed * (last - first), 0, n_columns)),
        value=value,
        coverage=float(answered / len(rows)),
        columns=tuple(covered),
        rows=tuple(covered.values()),
        speed=speed,
    )
    return span, (column_of(first), column_of(last - 1) + 1)


def _diagonal_means(matrix: FloatArray, rows: npt.NDArray[np.int64], length: int) -> FloatArray:
    """For each window start w: mean of matrix[q, w + q] over the asking rows that fall inside the window."""
    inside = rows[rows < length]
    if not inside.size:
        return np.full(matrix.shape[1] - length + 1, -1.0, dtype=np.float32)
    starts = np.arange(matrix.shape[1] - length + 1)
    return np.asarray(matrix[inside[:, None], inside[:, None] + starts[None]].mean(axis=0), dtype=np.float32)
