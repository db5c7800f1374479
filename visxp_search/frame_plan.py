"""Which frame stands for which second, and which packets must be decoded to get it: pure functions, no media library.

The rule: the frame of second `t` is the one whose time stamp lies in `[t, t + 1)` nearest to `t + 0.5` (of two equally
near the earlier). If no time stamp lies in the second, it is the frame still on display when the second begins: a frame
is on display until the next frame's time stamp, the last one until the end of its own duration. Otherwise the second
has no frame: before the first frame, and once the last one has ended.

Times are integer ticks of the stream's time base, counted from the container's start.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Frame = TypeVar("Frame")

NO_FRAME = int(np.iinfo(np.int64).min)
"""Stands for a time stamp where a second has no frame."""
MAX_REORDER = 32
"""No codec shows a frame more than 16 frames from where it is decoded; time stamps that do are not to be trusted."""

RUN_FRAMES = 8
"""Wanted frames that are decoded in one go, at least."""

SKIP, REFERENCE, DECODE = 0, 1, 2
"""What pass 2 does with a packet: not decode it; decode it only if other frames refer to it; decode and show it."""


@dataclass(frozen=True)
class PacketTable:
    """What pass 1 knows of the packets of one picture stream, in decode order.

    Attributes:
        pts: (n,) int64 ticks since the container's start.
        is_keyframe: (n,) bool; decoding can begin there.
        is_shown: (n,) bool; False for what an edit list hides.
        time_base: seconds per tick.
        display_end: tick at which the frame with the greatest time stamp is no longer on display.

    Raises:
        ValueError: If the arrays differ in length.
    """

    pts: npt.NDArray[np.int64]
    is_keyframe: npt.NDArray[np.bool_]
    is_shown: npt.NDArray[np.bool_]
    time_base: Fraction
    display_end: int

    def __post_init__(self) -> None:
        if not len(self.pts) == len(self.is_keyframe) == len(self.is_shown):
            raise ValueError(
                f"{len(self.pts)} pts, {len(self.is_keyframe)} keyframes, {len(self.is_shown)} shown differ"
            )


@dataclass(frozen=True)
class PacketPlan:
    """What pass 2 does with each packet.

    Attributes:
        action: (n,) uint8 of `SKIP`, `REFERENCE`, `DECODE`.
        is_restart: (n,) bool; before this keyframe packets were left out, so the decoder is emptied first.
    """

    action: npt.NDArray[np.uint8]
    is_restart: npt.NDArray[np.bool_]


def has_reliable_times(table: PacketTable) -> bool:
    """Whether frames will come out of a decoder in the order of their time stamps, each with its own."""
    order = np.argsort(table.pts, kind="stable")
    sorted_pts = table.pts[order]
    is_unique = bool(np.all(sorted_pts[1:] > sorted_pts[:-1]))
    displacement = np.abs(order - np.arange(len(order))).max(initial=0)
    is_exact = int(np.abs(table.pts).max(initial=0)) * table.time_base.numerator < 2**61
    return is_unique and is_exact and int(displacement) <= MAX_REORDER


def choose_frames(table: PacketTable, *, start_second: int, stop_second: int, delay: int = 0) -> npt.NDArray[np.int64]:
    """Time stamp of the frame of each second in `[start_second, stop_second)`.

    Args:
        table: the packets.
        start_second: the first.
        stop_second: one after the last.
        delay: ticks by which every second begins later.

    Returns:
        (stop_second - start_second,) int64 ticks, `NO_FRAME` where there is none.
    """
    pts = np.sort(table.pts[table.is_shown])
    seconds = np.arange(start_second, stop_second, dtype=np.int64)
    if len(pts) == 0:
        return np.full(len(seconds), NO_FRAME, dtype=np.int64)
    # Exact: all times are integers in units of 1 / denominator seconds.
    unit = table.time_base.denominator
    times = (pts - delay) * table.time_base.numerator
    display_end = (table.display_end - delay) * table.time_base.numerator

    first_inside = np.searchsorted(times, seconds * unit)
    first_after = np.searchsorted(times, (seconds + 1) * unit)
    later = np.searchsorted(2 * times, (2 * seconds + 1) * unit)  # first frame not before the middle
    earlier = later - 1

    def distance(index: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        is_inside = (index >= first_inside) & (index < first_after)
        nearest = np.abs(2 * times[np.clip(index, 0, len(times) - 1)] - (2 * seconds + 1) * unit)
        return np.where(is_inside, nearest, np.iinfo(np.int64).max)

    chosen = np.where(distance(earlier) <= distance(later), earlier, later)
    held = first_inside - 1
    is_empty = first_inside == first_after
    chosen = np.where(is_empty, held, chosen)
    has_ended = (first_inside == len(times)) & (display_end <= seconds * unit)
    return np.where(is_empty & ((held < 0) | has_ended), NO_FRAME, pts[np.clip(chosen, 0, len(pts) - 1)])


def split_wanted(table: PacketTable, wanted: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Cut wanted ticks where a new group of pictures begins, so that each run can be decoded by itself.

    Args:
        table: the packets.
        wanted: (n,) ascending ticks.

    Returns:
        Consecutive parts of `wanted`, each of at least `RUN_FRAMES` ticks but for the last.
    """
    keyframes = np.sort(table.pts[table.is_keyframe])
    group = np.searchsorted(keyframes, wanted, side="right")
    cuts = [0]
    for index in (np.flatnonzero(np.diff(group)) + 1).tolist():
        if index - cuts[-1] >= RUN_FRAMES:
            cuts.append(index)
    return np.split(wanted, cuts[1:])


def pick_frames(
    timed_frames: Iterable[tuple[int, Frame]],
    *,
    time_base: Fraction,
    display_end: int,
    start_second: int,
    stop_second: int,
) -> Iterator[tuple[int, Frame | None]]:
    """The same choice as `choose_frames`, made slowly and obviously from frames as they come.

    Args:
        timed_frames: (tick, frame) in the order of their ticks.
        time_base: seconds per tick.
        display_end: tick at which the last frame is no longer on display.
        start_second: first second to yield.
        stop_second: first second not to yield.

    Yields:
        (second, frame or None) for every second in `[start_second, stop_second)`.
    """
    frames = iter(timed_frames)
    upcoming = next(frames, None)
    held: Frame | None = None
    for second in range(start_second, stop_second):
        middle = second + Fraction(1, 2)
        nearest: Frame | None = None
        nearest_distance = Fraction(1)
        while upcoming is not None and upcoming[0] * time_base < second + 1:
            time = upcoming[0] * time_base
            if time >= second and abs(time - middle) < nearest_distance:
                nearest, nearest_distance = upcoming[1], abs(time - middle)
            held = upcoming[1]
            upcoming = next(frames, None)
        is_on_display = upcoming is not None or display_end * time_base > second
        if nearest is not None:
            yield second, nearest
        else:
            yield second, held if is_on_display else None


def plan_packets(table: PacketTable, *, is_wanted: npt.NDArray[np.bool_]) -> PacketPlan:
    """Find the packets that the wanted frames need.

    Each group of pictures (GOP) is decoded from its keyframe to its last wanted frame. A leading picture (decoded after
    a keyframe, shown before it) may refer to the GOP before: if one is wanted, that GOP is decoded to its end; if not,
    and the GOP before was not decoded to its end, the leading pictures are left out.

    Args:
        table: the packets, n of them.
        is_wanted: (n,) bool.
    """
    n_packets = len(table.pts)
    if n_packets == 0:
        return PacketPlan(action=np.zeros(0, dtype=np.uint8), is_restart=np.zeros(0, dtype=np.bool_))
    is_start = table.is_keyframe.copy()
    is_start[0] = True  # a recording may begin in the middle of a GOP
    starts = np.flatnonzero(is_start)
    stops = np.append(starts[1:], n_packets)
    gop = np.cumsum(is_start) - 1  # (n,) which GOP a packet belongs to
    index = np.arange(n_packets)

    is_leading = table.pts < table.pts[starts][gop]
    wants_leading = np.logical_or.reduceat(is_leading & is_wanted, starts)
    last_wanted = np.maximum.reduceat(np.where(is_wanted, index, -1), starts)
    is_needed_whole = np.append(wants_leading[1:], False)
    decode_stops = np.where(is_needed_whole, stops, np.maximum(last_wanted + 1, starts))
    follows_on = np.append(True, decode_stops[:-1] == stops[:-1])

    is_used = (index < decode_stops[gop]) & ~(is_leading & ~follows_on[gop])
    action = np.where(is_used, np.where(is_wanted, DECODE, REFERENCE), SKIP).astype(np.uint8)
    is_restart = np.zeros(n_packets, dtype=np.bool_)
    is_restart[starts[~follows_on & (decode_stops > starts)]] = True
    return PacketPlan(action=action, is_restart=is_restart)
