"""Tests of placing sound on the time line."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from visxp_search.sound_line import SoundLine, Waveform


def place(runs: list[tuple[int, list[float]]], *, rate: int = 4) -> dict[int, list[float]]:
    """Seconds that come out after all runs were added."""
    line = SoundLine(sample_rate_hz=rate)
    out: list[tuple[int, Waveform]] = []
    for position, samples in runs:
        out += line.add(position, np.array(samples, dtype=np.float32))
    out += line.finish()
    assert [second for second, _ in out] == sorted({second for second, _ in out})
    return {second: waveform.tolist() for second, waveform in out}


def test_gap_is_silence_and_untouched_seconds_do_not_come_out() -> None:
    """Within a second a gap is zeros; a second without any sample is left out."""
    assert place([(2, [1, 1]), (13, [2])]) == {0: [0, 0, 1, 1], 3: [0, 2, 0, 0]}


def test_earlier_sound_stays_where_runs_overlap() -> None:
    """An overlapping run only adds what comes after the run before."""
    assert place([(0, [1, 1, 1]), (1, [2, 2, 2])]) == {0: [1, 1, 1, 2]}


def test_sound_before_the_start_is_dropped() -> None:
    """Samples at negative positions do not shift those after zero."""
    assert place([(-2, [1, 2, 3, 4])]) == {0: [3, 4, 0, 0]}


@given(st.lists(st.tuples(st.integers(-5, 40), st.integers(1, 15)), max_size=8))
def test_placing_agrees_with_one_long_array(runs: list[tuple[int, int]]) -> None:
    """Second by second it is what writing into one long array from left to right gives."""
    line, is_heard, end = np.zeros(80), np.zeros(80, dtype=bool), 0
    for value, (position, n_samples) in enumerate(runs, start=1):
        first, last = max(position, end), max(position + n_samples, end)
        line[first:last], is_heard[first:last] = value, True
        end = last
    expected = {s: line[4 * s : 4 * s + 4].tolist() for s in range(20) if is_heard[4 * s : 4 * s + 4].any()}
    assert place([(position, [float(v)] * n) for v, (position, n) in enumerate(runs, start=1)]) == expected
