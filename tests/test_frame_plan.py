"""Tests of the choice of frames and packets: pure functions."""

from fractions import Fraction
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visxp_search.frame_plan import (
    DECODE,
    NO_FRAME,
    REFERENCE,
    RUN_FRAMES,
    SKIP,
    PacketTable,
    choose_frames,
    has_reliable_times,
    pick_frames,
    plan_packets,
    split_wanted,
)

N_SECONDS = 12


def make_table(
    pts: list[int], *, keyframes: list[int] | None = None, time_base: Fraction = Fraction(1, 10), last: int = 1
) -> PacketTable:
    """A table of shown packets; `keyframes` are indices, by default only the first."""
    is_keyframe = np.zeros(len(pts), dtype=np.bool_)
    is_keyframe[keyframes if keyframes is not None else [0] if pts else []] = True
    return PacketTable(
        pts=np.array(pts, dtype=np.int64),
        is_keyframe=is_keyframe,
        is_shown=np.ones(len(pts), dtype=np.bool_),
        time_base=time_base,
        display_end=(max(pts) if pts else 0) + last,
    )


def actions(table: PacketTable, wanted: list[int]) -> list[int]:
    """What is done with each packet when frames of these ticks are wanted."""
    return [int(action) for action in plan_packets(table, is_wanted=np.isin(table.pts, wanted)).action]


@given(wanted=st.sets(st.integers(0, 199)).map(sorted), keyframes=st.sets(st.integers(0, 199)).map(sorted))
def test_wanted_frames_are_split_between_groups_only(wanted: list[int], keyframes: list[int]) -> None:
    """The runs are the wanted ticks in order, none shares a GOP with another, and all but the last are long enough."""
    table = make_table(list(range(200)), keyframes=keyframes)
    runs = [run.tolist() for run in split_wanted(table, np.array(wanted, dtype=np.int64))]
    assert list(chain.from_iterable(runs)) == wanted
    assert all(len(run) >= RUN_FRAMES for run in runs[:-1])
    for one, following in pairwise(runs):
        assert any(one[-1] < keyframe <= following[0] for keyframe in keyframes)


@given(
    pts=st.lists(st.integers(-30, 150), unique=True, max_size=40).map(sorted),
    denominator=st.integers(1, 30),
    last=st.integers(0, 60),
    start=st.integers(0, 5),
)
def test_choose_frames_agrees_with_slow_rule(pts: list[int], denominator: int, last: int, start: int) -> None:
    """The vectorised choice is that of the slow, obvious one for any time stamps."""
    table = make_table(pts, time_base=Fraction(1, denominator), last=last)
    fast = choose_frames(table, start_second=start, stop_second=N_SECONDS)
    slow = pick_frames(
        [(tick, tick) for tick in pts],
        time_base=table.time_base,
        display_end=table.display_end,
        start_second=start,
        stop_second=N_SECONDS,
    )
    assert [None if tick == NO_FRAME else tick for tick in fast.tolist()] == [tick for _, tick in slow]


@pytest.mark.parametrize(
    ("pts", "last", "expected"),
    [
        pytest.param([0, 4, 6, 9], 1, [4], id="of two equally near frames the earlier"),
        pytest.param([0, 30], 10, [0, 0, 0, 30], id="a frame stays on display until the next"),
        pytest.param([0, 29], 1, [0, 0, 29, None], id="a frame in the second beats the one on display"),
        pytest.param([0], 25, [0, 0, 0, None], id="the last frame stays for its duration"),
        pytest.param([0], 20, [0, 0, None, None], id="a display that ends with the second does not reach the next"),
        pytest.param([19], 1, [None, 19, None], id="before the first frame there is none"),
        pytest.param([], 1, [None, None], id="no frames"),
        pytest.param([-5, 40], 1, [-5, -5], id="a frame from before the start may be on display"),
    ],
)
def test_choose_frames_policy(pts: list[int], last: int, expected: list[int | None]) -> None:
    """The policy of the docstring, case by case, in tenths of a second."""
    chosen = choose_frames(make_table(pts, last=last), start_second=0, stop_second=len(expected))
    assert [None if tick == NO_FRAME else tick for tick in chosen.tolist()] == expected


def test_hidden_packets_are_not_chosen() -> None:
    """A packet that an edit list hides is never the frame of a second."""
    table = make_table([0, 5, 10])
    hidden = PacketTable(table.pts, table.is_keyframe, np.array([True, False, True]), table.time_base, 11)
    assert choose_frames(hidden, start_second=0, stop_second=2).tolist() == [0, 10]


def test_plan_skips_tail_of_gop() -> None:
    """A GOP is decoded up to its last wanted frame, and a GOP without one not at all."""
    table = make_table([0, 1, 2, 3, 4, 5, 6, 7, 8], keyframes=[0, 3, 6])
    plan = plan_packets(table, is_wanted=np.isin(table.pts, [1, 7]))
    assert plan.action.tolist() == [REFERENCE, DECODE, SKIP, SKIP, SKIP, SKIP, REFERENCE, DECODE, SKIP]
    assert np.flatnonzero(plan.is_restart).tolist() == [6]


def test_plan_decodes_gop_before_wanted_leading_picture() -> None:
    """A wanted leading picture of an open GOP needs the whole GOP before."""
    table = make_table([0, 1, 2, 5, 3, 4, 6], keyframes=[0, 3])
    assert actions(table, [4]) == [REFERENCE] * 5 + [DECODE, SKIP]


def test_plan_leaves_out_leading_pictures_after_jump() -> None:
    """After packets were left out, leading pictures of the next keyframe would lack their reference."""
    table = make_table([0, 1, 2, 5, 3, 4, 6], keyframes=[0, 3])
    assert actions(table, [0, 6]) == [DECODE, SKIP, SKIP, REFERENCE, SKIP, SKIP, DECODE]


@given(data=st.data(), gop_sizes=st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_plan_gives_every_wanted_frame_its_references(data: st.DataObject, gop_sizes: list[int]) -> None:
    """Every decoded packet finds decoded all that it may refer to: its GOP so far, for leading ones the GOP before."""
    starts = np.cumsum([0, *gop_sizes[:-1]]).tolist()
    pts: list[int] = []
    for start, size in zip(starts, gop_sizes, strict=True):
        n_leading = data.draw(st.integers(0, size - 1)) if start else 0
        pts += [start + n_leading, *range(start, start + n_leading), *range(start + n_leading + 1, start + size)]
    wanted = data.draw(st.sets(st.sampled_from(pts)))
    table = make_table(pts, keyframes=starts)
    plan = plan_packets(table, is_wanted=np.isin(table.pts, sorted(wanted)))
    is_used = plan.action != SKIP
    gop = np.cumsum(table.is_keyframe) - 1
    assert {pts[index] for index in np.flatnonzero(plan.action == DECODE)} == wanted
    for index in np.flatnonzero(is_used).tolist():
        start = starts[gop[index]]
        is_leading = pts[index] < pts[start]
        needed = [other for other in range(start, index) if is_leading or pts[other] >= pts[start]]
        if is_leading:
            needed += range(starts[gop[index] - 1], start)
        before = [other for other in needed if pts[other] >= pts[starts[gop[other]]]]
        assert all(is_used[other] for other in before)
    for index in np.flatnonzero(table.is_keyframe & is_used).tolist():
        gop_before = range(starts[gop[index] - 1], index) if index else range(0)
        is_whole = all(is_used[other] for other in gop_before if pts[other] >= pts[gop_before[0]])
        assert plan.is_restart[index] or is_whole


@pytest.mark.parametrize(
    ("pts", "is_reliable"),
    [([0, 3, 1, 2, 4], True), ([0, 1, 1, 2], False), ([*range(100, 200), *range(100)], False), ([], True)],
)
def test_has_reliable_times(pts: list[int], is_reliable: bool) -> None:
    """Reordering within a GOP is trusted, equal stamps and jumps back are not."""
    assert has_reliable_times(make_table(pts)) is is_reliable


def test_packet_table_checks_lengths() -> None:
    """A table whose columns differ in length cannot be made."""
    with pytest.raises(ValueError, match="differ"):
        PacketTable(np.zeros(2, np.int64), np.zeros(1, np.bool_), np.zeros(2, np.bool_), Fraction(1), 1)
