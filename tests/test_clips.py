"""Time-line arithmetic and the flags of a second."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visxp_search.clips import (
    Clip,
    count_seconds,
    format_time,
    make_clip,
    parse_time,
    stack_frames,
    stack_waveforms,
)

GREY = np.full((3, 8, 8), 128, dtype=np.uint8)
TONE = np.sin(np.arange(100, dtype=np.float32))


@pytest.mark.parametrize(
    ("duration", "seconds"), [(0.04, 1), (1.0, 1), (1.5, 1), (1.52, 2), (10.0, 10), (10.49, 10), (10.6, 11)]
)
def test_last_partial_second_counts_when_its_middle_is_inside(duration: float, seconds: int) -> None:
    """A second counts if its middle lies before the end; the first always does."""
    assert count_seconds(duration) == seconds


@given(st.floats(0.01, 1e6))
def test_every_counted_second_has_its_middle_inside(duration: float) -> None:
    """All counted seconds but the first have their middle inside, and the next one has not."""
    n = count_seconds(duration)
    assert n == 1 or (n - 1) + 0.5 < duration
    assert n + 0.5 >= duration - 1e-5


@pytest.mark.parametrize("duration", [0.0, -1.0, math.inf, math.nan])
def test_impossible_durations_are_refused(duration: float) -> None:
    """Durations that are not positive and finite raise."""
    with pytest.raises(ValueError, match="not a positive number"):
        count_seconds(duration)


@given(st.integers(0, 10**6))
def test_times_survive_printing(tenths: int) -> None:
    """A time that is printed and parsed again is the same to the tenth."""
    assert parse_time(format_time(tenths / 10)) == pytest.approx(tenths / 10)


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "-3", "nan", "1:-2"])
def test_times_that_make_no_sense_are_refused(text: str) -> None:
    """Text that is no time raises and says how to write one."""
    with pytest.raises(ValueError, match="time"):
        parse_time(text)


def test_flags_tell_why_a_vector_is_missing() -> None:
    """Black, silent and missing media are flagged and have no vector; the rest has."""
    black = make_clip(0, frame=np.full((3, 8, 8), 16, np.uint8), waveform=np.zeros(100, np.float32))
    assert black.flags == ("black", "silent")
    assert (black.has_visual, black.has_audio) == (False, False)
    nothing = make_clip(1, frame=None, waveform=None)
    assert nothing.flags == ("no_video", "no_audio")
    plain = make_clip(2, frame=GREY, waveform=TONE)
    assert plain.flags == ()
    assert (plain.has_visual, plain.has_audio) == (True, True)


def test_a_picture_that_stands_still_is_remarked_and_kept() -> None:
    """A static second carries the flag and still has a vector."""
    clip = make_clip(3, frame=GREY, waveform=TONE, previous_frame=GREY)
    assert clip.flags == ("static",)
    assert clip.has_visual


def test_a_title_on_black_is_not_black() -> None:
    """A dark picture with something bright on 2 % of it is not black."""
    frame = np.zeros((3, 50, 50), np.uint8)
    frame[:, :1, :50] = 255
    assert make_clip(0, frame=frame, waveform=None).has_visual


def test_clips_check_what_they_hold() -> None:
    """Wrong types, shapes, seconds and flags are refused when a clip is built."""
    with pytest.raises(ValueError, match="frame"):
        Clip(0, GREY[0], None)
    with pytest.raises(ValueError, match="waveform"):
        Clip(0, None, TONE[None])
    with pytest.raises(ValueError, match="negative"):
        Clip(-1, None, None)
    with pytest.raises(ValueError, match="unknown flags"):
        Clip(0, None, None, ("odd",))


def test_stacks_leave_out_what_is_missing() -> None:
    """Stacking takes the clips that have the modality, in order."""
    clips = [make_clip(0, frame=GREY, waveform=None), make_clip(1, frame=None, waveform=TONE)]
    assert stack_frames(clips).shape == (1, 3, 8, 8)
    assert stack_waveforms(clips).shape == (1, 100)
