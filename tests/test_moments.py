"""The maths of moments, against slow and obvious references."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from visxp_search.moments import (
    SAME_LEVEL,
    best_stretches,
    fit_elsewhere,
    gains_of,
    line_gains,
    movement_in_step,
    refine_offset,
    same_spans,
    similar_spans,
    sliding_max,
    speeds_for,
    window_values,
)

FloatArray = npt.NDArray[np.float32]
brief = settings(deadline=None, max_examples=40)
small = st.floats(-5, 5, width=32)
matrices = st.tuples(st.integers(1, 6), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=small)
)


def make_evidence(
    n_rows: int, n_columns: int, *, offset: float, speed: float = 1.0, level: float = 6.0, seed: int = 0
) -> FloatArray:
    """Noise with a line of high evidence, spread on both neighbours where it runs between columns."""
    evidence = np.random.default_rng(seed).normal(0, 1, (n_rows, n_columns)).astype(np.float32)
    for row in range(n_rows):
        position = offset + speed * row
        low = int(np.floor(position))
        for column in (low, low + 1):
            if 0 <= column < n_columns:
                evidence[row, column] += level * (1 - abs(position - column))
    return evidence


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=small))
@brief
def test_best_stretches_equal_trying_all(gains: FloatArray) -> None:
    """The best stretch of each row has the sum that trying all intervals finds, and its interval has that sum."""
    sums, starts, stops = best_stretches(gains)
    for row, total, start, stop in zip(gains, sums, starts, stops, strict=True):
        intervals = itertools.combinations(range(len(row) + 1), 2)
        assert total == pytest.approx(max(row[i:j].sum(dtype=np.float64) for i, j in intervals), abs=1e-4)
        assert start < stop
        assert row[start:stop].sum(dtype=np.float64) == pytest.approx(total, abs=1e-4)


@given(matrices, st.integers(1, 12))
@brief
def test_sliding_max_equals_the_slow_way(matrix: FloatArray, length: int) -> None:
    """Doubling gives the maximum over each window."""
    length = min(length, matrix.shape[1])
    expected = [matrix[:, start : start + length].max(axis=1) for start in range(matrix.shape[1] - length + 1)]
    np.testing.assert_array_equal(sliding_max(matrix, length), np.stack(expected, axis=1))


@given(matrices)
@brief
def test_line_gains_equal_walking_each_diagonal(evidence: FloatArray) -> None:
    """The gain of every diagonal is that of its best stretch, found by trying all."""
    gains = gains_of(evidence)
    expected = []
    for offset in range(1 - len(gains), gains.shape[1]):
        diagonal = np.diagonal(gains, offset)
        intervals = itertools.combinations(range(len(diagonal) + 1), 2)
        expected.append(max(diagonal[i:j].sum(dtype=np.float64) for i, j in intervals))
    np.testing.assert_allclose(line_gains(evidence), expected, atol=1e-3)


@given(matrices, st.integers(1, 4))
@brief
def test_spans_lie_inside_and_apart(evidence: FloatArray, limit: int) -> None:
    """Spans are not empty, lie inside the video, use different columns, and each column has a row of the query."""
    for spans in (similar_spans(evidence.copy(), limit=limit), same_spans(evidence, limit=limit)):
        assert len(spans) <= limit
        for span in spans:
            assert 0 <= span.start < span.stop <= evidence.shape[1]
            assert len(span.rows) == len(span.columns) > 0
            assert all(0 <= row < len(evidence) for row in span.rows)
            assert 0 < span.coverage <= 1
        assert [span.value for span in spans] == sorted((span.value for span in spans), reverse=True)


@given(st.integers(4, 12), st.integers(0, 20), st.integers(0, 1000))
@brief
def test_same_finds_a_line(n_rows: int, offset: int, seed: int) -> None:
    """A line in noise is found where it is, within half a second at either end."""
    evidence = make_evidence(n_rows, 40, offset=offset, seed=seed)
    best = same_spans(evidence, limit=3)[0]
    assert best.start == pytest.approx(offset, abs=0.5)
    assert best.stop == pytest.approx(offset + n_rows, abs=0.5)


@pytest.mark.parametrize("fraction", [-0.4, -0.2, 0.0, 0.2, 0.4])
def test_same_tells_where_between_seconds_a_query_begins(fraction: float) -> None:
    """A query that begins between whole seconds is placed within 0.2 s."""
    evidence = make_evidence(8, 40, offset=11 + fraction, level=9.0)
    assert same_spans(evidence, limit=1)[0].start == pytest.approx(11 + fraction, abs=0.2)


@given(matrices, st.integers(2, 4))
@brief
def test_overlapping_rows_are_lines_of_every_phase(evidence: FloatArray, steps: int) -> None:
    """With rows that overlap a line is as good as in its best phase, and its span names the phase and its rows."""
    n_rows = -(-len(evidence) // steps)
    expected = np.full(n_rows + evidence.shape[1] - 1, -np.inf)
    for phase in (evidence[number::steps] for number in range(min(steps, len(evidence)))):
        late = n_rows - len(phase)
        expected[late:] = np.maximum(expected[late:], line_gains(phase))
    np.testing.assert_allclose(line_gains(evidence, steps=steps), expected, atol=1e-3)
    spans = same_spans(evidence, limit=3, steps=steps)
    assert (max(expected) > 0) == bool(spans)
    for span in spans:
        assert all(0 <= row < len(evidence[span.phase :: steps]) for row in span.rows)
    if spans:
        alone = same_spans(evidence[spans[0].phase :: steps], limit=1)
        assert spans[0].value == pytest.approx(alone[0].value, abs=1e-4)


@pytest.mark.parametrize("begin", [11.0, 11.1, 11.3, 11.5, 11.7])
def test_same_places_a_finely_cut_query_within_a_tenth(begin: float) -> None:
    """A query that is cut four times a second is placed within 0.1 s, in the phase nearest to whole seconds."""
    rows = [make_evidence(1, 40, offset=begin + row / 4, level=60.0, seed=row)[0] for row in range(26)]
    span = same_spans(np.stack(rows), limit=1, steps=4)[0]
    assert span.start - (span.rows[0] + span.phase / 4) == pytest.approx(begin, abs=0.1)


def test_movement_tells_copies_from_takes() -> None:
    """A copy changes as its original does, however it was degraded; another take of the scene does not."""
    rng = np.random.default_rng(5)
    scene = rng.normal(0, 1, 64)
    original, take = ((scene + rng.normal(0, 0.3, (6, 64))).astype(np.float32) for _ in range(2))
    degraded = (0.6 * original + rng.normal(0, 1, 64) + rng.normal(0, 0.1, (6, 64))).astype(np.float32)
    still = np.repeat(original[:1], 6, axis=0)
    assert (movement_in_step(original, degraded) or 0) > 0.8
    assert abs(movement_in_step(original, take) or 1) < 0.3
    assert movement_in_step(original, still) is None
    assert movement_in_step(original[:1], degraded[:1]) is None
    holes = np.where(np.arange(6)[:, None] == 2, np.float32(np.nan), degraded)
    assert (movement_in_step(original, holes) or 0) > 0.8


@pytest.mark.parametrize("speed", [0.95, 0.97, 1.0, 1.03, 1.05])
@pytest.mark.parametrize("n_rows", [10, 40])
def test_same_follows_speed(speed: float, n_rows: int) -> None:
    """Speed changes of up to 5 % are followed to the end of the query."""
    best = same_spans(make_evidence(n_rows, 80, offset=13, speed=speed), limit=1)[0]
    assert best.start == pytest.approx(13, abs=1)
    assert best.stop == pytest.approx(13 + speed * n_rows, abs=1)


def test_same_survives_outliers_and_leaves_other_material_out() -> None:
    """A second that was talked over does not end a moment; the seconds of the query that are not in the video do."""
    evidence = make_evidence(20, 60, offset=10)
    evidence[:5] = evidence[15:] = np.random.default_rng(1).normal(0, 0.2, (5, 60))
    evidence[10] = -5.0
    best = same_spans(evidence, limit=1)[0]
    assert best.start == pytest.approx(15, abs=1)
    assert best.stop == pytest.approx(25, abs=1)
    assert best.coverage == pytest.approx(0.5, abs=0.1)


def test_same_finds_each_occurrence() -> None:
    """Two occurrences in one video are two moments."""
    evidence = make_evidence(5, 60, offset=10) + make_evidence(5, 60, offset=40, seed=1)
    starts = sorted(span.start for span in same_spans(evidence, limit=2))
    assert starts == [pytest.approx(10, abs=0.5), pytest.approx(40, abs=0.5)]


def test_rows_with_nothing_to_ask_are_bridged() -> None:
    """Silent or black seconds inside the query do not end a moment, and do not count as answered."""
    evidence = make_evidence(8, 30, offset=10)
    evidence[3:5] = np.nan
    best = same_spans(evidence, limit=1)[0]
    assert best.start == pytest.approx(10, abs=0.5)
    assert best.stop == pytest.approx(18, abs=0.5)
    assert best.coverage == 1.0


def test_nothing_to_ask_finds_nothing() -> None:
    """A query of NaN, or a video of no seconds, has no spans."""
    for evidence in (np.full((3, 5), np.nan, dtype=np.float32), np.zeros((3, 0), dtype=np.float32)):
        assert same_spans(evidence, limit=3) == []
        assert similar_spans(evidence, limit=3) == []


def test_similar_places_a_query_that_is_in_the_video() -> None:
    """Where the query really is in the video its start and end are right in `similar`, too."""
    best = similar_spans(make_evidence(6, 50, offset=20), limit=2)[0]
    assert (best.start, best.stop) == (20, 26)


def test_similar_joins_what_is_alike_in_any_order() -> None:
    """A stretch that is like one second of the query becomes one run with its whole length."""
    evidence = np.full((1, 30), -0.5, dtype=np.float32)
    evidence[0, 8:15] = [3.0, 4.0, 3.5, 3.6, 4.2, 3.8, 3.3]
    best = similar_spans(evidence, limit=1)[0]
    assert (best.start, best.stop) == (8, 15)


@given(matrices)
@brief
def test_window_values_are_means_of_the_best(evidence: FloatArray) -> None:
    """A window is worth the mean over the query's seconds of their best evidence in it; -1 is no column of it."""
    n_columns = evidence.shape[1]
    windows = np.array([[*range(n_columns), -1], [n_columns - 1, *[-1] * n_columns]])
    expected = [np.mean([max(row) for row in evidence.tolist()]), evidence[:, -1].mean()]
    assert window_values(evidence, windows).tolist() == pytest.approx(expected, abs=1e-4)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3))
@brief
def test_offsets_are_refined_within_half_a_second(before: float, here: float, after: float) -> None:
    """The refined offset stays within half a second, leans to the better side, and is 0 without a peak."""
    offset = refine_offset(before, here, after)
    assert -0.5 <= offset <= 0.5
    if before - 2 * here + after >= 0:
        assert offset == 0
    else:
        assert offset * (after - before) >= 0


def test_speeds_are_enough_for_the_length() -> None:
    """Unchanged speed comes first, all are within 5 %, and a step moves the end of a query by a second at most."""
    for n_rows in (1, 5, 20, 100, 200):
        speeds = speeds_for(n_rows)
        assert speeds[0] == 1
        assert np.abs(speeds - 1).max() <= 0.0501
        if n_rows >= 5:
            assert np.diff(np.sort(speeds)).max() * n_rows <= 1.01


def test_a_lookalike_fits_as_well_out_of_step() -> None:
    """Where a video is alike throughout another offset fits nearly as well; where it shows the query none does."""
    noise = np.random.default_rng(3).normal(0, 1, (6, 40)).astype(np.float32)
    for evidence, low, high in ((noise + 8, 0.9, 1.2), (make_evidence(6, 40, offset=12, level=9.0), -0.01, 0.6)):
        spans = same_spans(evidence, limit=1)
        assert low <= fit_elsewhere(evidence, spans[0], spans=spans) <= high


def test_a_second_occurrence_is_not_out_of_step() -> None:
    """A video that shows the query twice shows it in step both times; lines of less than half the query say nothing."""
    twice = make_evidence(6, 40, offset=3, level=9.0)
    twice[:, 20:26] = make_evidence(6, 6, offset=0, level=9.0, seed=4)
    spans = same_spans(twice, limit=3)
    assert fit_elsewhere(twice, spans[0], spans=spans) < 0.6
    short = np.full((3, 3), 9.0, dtype=np.float32)
    assert fit_elsewhere(short, same_spans(short, limit=1)[0], spans=same_spans(short, limit=1)) == 0.0


def test_gains_are_bounded_below() -> None:
    """No second speaks more strongly against a moment than the bound, and NaN speaks neither way."""
    gains = gains_of(np.array([[-50.0, SAME_LEVEL, np.nan, 9.0]], dtype=np.float32))
    np.testing.assert_allclose(gains, [[-2.0, 0.0, 0.0, 9.0 - SAME_LEVEL]])
