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

STANDS_STILL = 0.01
"""Root mean square deviation from their mean below which embeddings change by no more than coding noise."""

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
        phase: of `rows` among those that `same_spans` was given; 0 where there is one phase.
    """

    start: float
    stop: float
    value: float
    coverage: float
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    speed: float = 1.0
    phase: int = 0


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


def same_spans(evidence: FloatArray, *, limit: int, steps: int = 1) -> list[Span]:
    """The best stretches in step with the query, not overlapping in the video, best first.

    A query that begins between whole seconds of the video is fully like it in one of its phases only.

    Args:
        evidence: (F, T). With steps > 1 its rows are seconds that overlap, and every `steps`-th belongs to one phase.
        limit: at most so many spans.
        steps: rows that begin in each second of the query.
    """
    if not evidence.shape[1] or not asking_rows(evidence).size:
        return []
    free = [gains_of(phase) for phase in phases_of(evidence, steps)]
    spans: list[Span] = []
    while len(spans) < limit:
        lines = [_best_line(gains) for gains in free]
        values = [0.0 if line is None else line.value for line in lines]
        phase = int(np.argmax(values))
        line = lines[phase]
        if line is None or (spans and line.value < LEAST_SHARE * spans[0].value):
            break
        span, (first, stop) = _span_on_line(evidence, line, phase=phase, steps=steps)
        spans.append(span)
        for gains in free:
            gains[:, first:stop] = SAME_WORST
    return sorted(spans, key=lambda span: -span.value)


def phases_of(matrix: FloatArray, steps: int) -> list[FloatArray]:
    """The rows of each phase of (F, T)."""
    return [matrix[phase::steps] for phase in range(min(steps, len(matrix)))]


def line_gains(evidence: FloatArray, *, steps: int = 1) -> FloatArray:
    """The best local stretch of every diagonal, (Q + T - 1,); what chance makes of this query in this video.

    Entry i belongs to the offset i - Q + 1 (column less row), in its best phase.

    Args:
        evidence: (F, T), Q of whose rows belong to the longest phase.
        steps: as for `same_spans`.
    """
    offsets = np.arange(1 - -(-len(evidence) // steps), evidence.shape[1])
    lines = [_line_stretches(gains_of(phase), offsets, speed=1.0)[0] for phase in phases_of(evidence, steps)]
    return np.asarray(np.max(lines, axis=0), dtype=np.float32)


def fit_elsewhere(evidence: FloatArray, span: Span, *, spans: Sequence[Span], steps: int = 1) -> float:
    """How well the rows of a span fit this video out of step, as a share of how well they fit on its line.

    A video that is alike throughout fits anywhere: about 1. Compared are the mean gains of the span's rows on all
    lines that are none of the spans' own, nor next to one, and that hold at least half of the rows.

    Args:
        evidence: (F, T).
        span: one of `spans`.
        spans: from `same_spans`.
        steps: as for `same_spans`; the best phase counts.

    Returns:
        A share; 0 where no other line is long enough, or none speaks for the same recording.
    """
    n_rows, n_columns = -(-len(evidence) // steps), evidence.shape[1]
    offsets = np.arange(1 - n_rows, n_columns)
    own = np.zeros(len(offsets), dtype=bool)
    for other in spans:
        own |= np.abs(offsets - (other.columns[0] - other.rows[0])) <= 1 + MOST_SPEED * n_rows
    rows = np.array(sorted(set(span.rows)))
    columns = offsets[~own][:, None] + rows[None]  # (n, R)
    inside = (columns >= 0) & (columns < n_columns)
    best = 0.0
    for phase in phases_of(evidence, steps):
        there = inside & (rows < len(phase))[None]
        counts = there.sum(axis=1)
        long_enough = counts >= np.ceil(len(rows) / 2)
        if long_enough.any():
            gains = gains_of(phase)[np.minimum(rows, len(phase) - 1)[None], np.clip(columns, 0, n_columns - 1)]
            means = np.where(there, gains, 0.0).sum(axis=1)[long_enough] / counts[long_enough]
            best = max(best, float(means.max()))
    return best * len(rows) / span.value if span.value > 0 else 0.0


def movement_in_step(rows: FloatArray, columns: FloatArray) -> float | None:
    """Whether two runs of embeddings change alike from second to second: the correlation of what sets each apart.

    Two takes of one scene are alike in what they show throughout, and that is subtracted here; a copy, however it was
    degraded, also changes when the original does.

    Args:
        rows: (n, D), NaN where there is none.
        columns: (n, D), the same seconds of the other side.

    Returns:
        In [-1, 1]; None where less than two seconds can be compared, or one side stands still.
    """
    there = ~(np.isnan(rows).any(axis=1) | np.isnan(columns).any(axis=1))
    if there.sum() < 2:
        return None
    first, second = (side[there] - side[there].mean(axis=0) for side in (rows, columns))
    sizes = np.sqrt(np.square(first).sum()), np.sqrt(np.square(second).sum())
    if min(sizes) < STANDS_STILL * np.sqrt(there.sum()):
        return None
    return float((first * second).sum() / (sizes[0] * sizes[1]))


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


@dataclass(frozen=True)
class _Line:
    """The best stretch of a line: rows `[first, last)`, row q on column offset + speed q."""

    value: float
    offset: int
    speed: float
    first: int
    last: int

    def column_of(self, row: int) -> int:
        return self.offset + int(np.rint(self.speed * row))


def _best_line(gains: FloatArray) -> _Line | None:
    """The best stretch of any line of (Q, T); None if nothing speaks for one."""
    n_rows, n_columns = gains.shape
    offsets = np.arange(1 - n_rows, n_columns)
    sums, first, last = _line_stretches(gains, offsets, speed=1.0)
    best = int(np.argmax(sums))
    if sums[best] <= 0:
        return None
    found = _Line(float(sums[best]), int(offsets[best]), 1.0, int(first[best]), int(last[best]))
    drift = int(np.ceil(MOST_SPEED * n_rows))
    promising = np.argsort(-sums, kind="stable")[:MOST_LINES]
    near = (offsets[promising][:, None] + np.arange(-drift, drift + 1)[None]).ravel()
    near = np.unique(near[(near > -n_rows) & (near < n_columns)])
    for speed in speeds_for(n_rows)[1:].tolist():
        sums, first, last = _line_stretches(gains, near, speed=speed)
        best = int(np.argmax(sums))
        # Another speed must explain clearly more: it is one more thing that chance can choose.
        if sums[best] > found.value + 1.0:
            found = _Line(float(sums[best]), int(near[best]), speed, int(first[best]), int(last[best]))
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


def _span_on_line(evidence: FloatArray, line: _Line, *, phase: int, steps: int) -> tuple[Span, tuple[int, int]]:
    """The span of a line in a phase, its ends grown, and the columns that it uses up."""
    n_fine, n_columns = evidence.shape
    n_rows = len(evidence[phase::steps])

    def cell(row: int, shift: int = 0) -> float:
        """`shift` of the smallest steps there are later in the video."""
        fine, column = steps * row + phase, line.column_of(row)
        fine, column = (fine, column + shift) if steps == 1 else (fine - shift, column)
        return float(evidence[fine, column]) if 0 <= column < n_columns and 0 <= fine < n_fine else float("nan")

    first, last = line.first, line.last
    typical = float(np.nanmedian([cell(row) for row in range(first, last)]))
    while first > 0 and line.column_of(first - 1) >= 0 and not cell(first - 1) < EDGE_SHARE * typical:
        first -= 1
    while last < n_rows and line.column_of(last) < n_columns and not cell(last) < EDGE_SHARE * typical:
        last += 1
    matched = range(first, last)
    fraction = 0.0
    sides = np.array([[cell(row, shift) for row in matched] for shift in (-1, 0, 1)])
    complete = ~np.isnan(sides).any(axis=0)
    if complete.any():
        fraction = refine_offset(*sides[:, complete].mean(axis=1).tolist()) / steps
    start = line.offset + line.speed * first + fraction
    covered = {line.column_of(row): row for row in matched}
    asking = asking_rows(evidence[phase::steps])
    span = Span(
        start=float(np.clip(start, 0, n_columns)),
        stop=float(np.clip(start + line.speed * (last - first), 0, n_columns)),
        value=line.value,
        coverage=float(np.isin(asking, list(matched)).sum() / len(asking)),
        columns=tuple(covered),
        rows=tuple(covered.values()),
        speed=line.speed,
        phase=phase,
    )
    return span, (line.column_of(first), line.column_of(last - 1) + 1)


def _diagonal_means(matrix: FloatArray, rows: npt.NDArray[np.int64], length: int) -> FloatArray:
    """For each window start w: mean of matrix[q, w + q] over the asking rows that fall inside the window."""
    inside = rows[rows < length]
    if not inside.size:
        return np.full(matrix.shape[1] - length + 1, -1.0, dtype=np.float32)
    starts = np.arange(matrix.shape[1] - length + 1)
    return np.asarray(matrix[inside[:, None], inside[:, None] + starts[None]].mean(axis=0), dtype=np.float32)
