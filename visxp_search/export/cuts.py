"""Moments as frames of their files: the file is looked at, and seconds become frame numbers and timecodes.

Frames are counted on the container's time line, frame k being on display from k / rate on. A timecode belongs to the
first picture. A file without one counts from 00:00:00:00, at 29.97 and 59.94 frames per second with drop-frame, which
keeps in step with the clock.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from opentimelineio.opentime import RationalTime, from_timecode, to_timecode

from visxp_search.decode import MediaTiming, read_timing
from visxp_search.errors import DecodeError
from visxp_search.export.results import FoundMoment

NTSC_RATES = (Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001))
TIMECODE_RATES = (*NTSC_RATES, *(Fraction(rate) for rate in (24, 25, 30, 48, 50, 60)))
"""Frame rates that SMPTE timecode counts."""
DROP_RATES = NTSC_RATES[1:]
SNAP = Fraction(2, 10_000)
"""A rate this close to one of `TIMECODE_RATES`, as a share, was meant to be it: containers write 29.97 and 23.98."""
MAX_RATE = 300
SOUND_RATE = Fraction(25)
"""Frames per second with which sound without pictures is counted."""

Failure = tuple[FoundMoment, str]
"""A moment that could not be exported (as wished), and why."""


@dataclass(frozen=True)
class Source:
    """A media file that moments are cut from.

    Attributes:
        path: the file.
        timing: what it says of itself.
        rate: frames per second by its time stamps.
        timecode_rate: the rate at which an editor counts them; None where timecode cannot.
        is_drop: whether its timecode drops numbers.
        start_frame: number of its first picture, by its timecode.
        n_frames: on the container's time line.
        first_picture: frame on the container's time line at which the pictures begin.
    """

    path: Path
    timing: MediaTiming
    rate: Fraction
    timecode_rate: Fraction | None
    is_drop: bool
    start_frame: int
    n_frames: int
    first_picture: int

    @property
    def has_pictures(self) -> bool:
        """Whether it is more than sound."""
        return self.timing.kind == "video"

    @property
    def has_sound(self) -> bool:
        """Whether it has a sound track."""
        return self.timing.sound_start_seconds is not None

    def number(self, frame: int) -> int:
        """The number, by timecode, of a frame of the container's time line; never before the first picture."""
        return self.start_frame + max(0, frame - self.first_picture)

    def timecode(self, frame: int) -> str:
        """What a frame's timecode reads; at other rates its time, h:mm:ss.mmm."""
        if self.timecode_rate is not None:
            return write_timecode(self.number(frame), rate=self.timecode_rate, is_drop=self.is_drop)
        milliseconds = round(1000 * frame / self.rate)
        seconds, millisecond = divmod(milliseconds, 1000)
        minutes, second = divmod(seconds, 60)
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{millisecond:03d}"


@dataclass(frozen=True)
class Cut:
    """Frames `[first, stop)` of the container's time line, of which a moment consists."""

    moment: FoundMoment
    source: Source
    first: int
    stop: int

    @property
    def n_frames(self) -> int:
        """At least 1."""
        return self.stop - self.first


def read_cuts(moments: Iterable[FoundMoment]) -> tuple[list[Cut], list[Failure]]:
    """Look at the files of moments, each once, and turn the moments into frames.

    Returns:
        The cuts in the order of the moments; and the moments whose file is missing, cannot be read or is too short.
    """
    sources: dict[Path, Source | str] = {}
    cuts: list[Cut] = []
    failures: list[Failure] = []
    for moment in moments:
        if moment.path not in sources:
            try:
                sources[moment.path] = read_source(moment.path)
            except DecodeError as exc:
                sources[moment.path] = str(exc)
        source = sources[moment.path]
        if isinstance(source, str):
            failures.append((moment, source))
            continue
        first = round(moment.start * source.rate)
        stop = min(source.n_frames, max(first + 1, round(moment.end * source.rate)))
        if first < stop:
            cuts.append(Cut(moment, source, first, stop))
        else:
            length = source.timing.duration_seconds
            failures.append((moment, f"{moment.path}: is {length:.2f} s long and has no second {moment.start:g}"))
    return cuts, failures


def read_source(path: Path) -> Source:
    """Look at a media file.

    Raises:
        DecodeError: If it cannot be read, is a still picture, or its rate or timecode makes no sense.
    """
    timing = read_timing(path)
    if timing.kind == "image":
        raise DecodeError(f"{path}: is a still picture and has no time to cut; choose --to csv or json")
    rate = timing.rate if timing.kind == "video" else SOUND_RATE
    if rate is None:
        raise DecodeError(f"{path}: has no frame rate; copy it into a new container with time stamps")
    if not 0 < rate <= MAX_RATE:
        raise DecodeError(f"{path}: {float(rate):g} frames per second; allowed are rates up to {MAX_RATE}")
    timecode_rate = find_timecode_rate(rate)
    timecode = timing.start_timecode if timing.kind == "video" else ""
    return Source(
        path=path,
        timing=timing,
        rate=rate,
        timecode_rate=timecode_rate,
        is_drop=timecode_rate in DROP_RATES and (";" in timecode or not timecode),
        start_frame=read_timecode(timecode, rate=timecode_rate, path=path) if timecode else 0,
        # Sound is often a little longer than the pictures, up to a packet of 21 ms.
        n_frames=max(1, math.floor(Fraction(timing.duration_seconds) * rate + Fraction(1, 4))),
        first_picture=round(timing.picture_start_seconds * rate),
    )


def find_timecode_rate(rate: Fraction) -> Fraction | None:
    """The timecode rate that is meant by a rate, if it is near one."""
    nearest = min(TIMECODE_RATES, key=lambda known: abs(known - rate))
    return nearest if abs(nearest - rate) <= SNAP * rate else None


def read_timecode(timecode: str, *, rate: Fraction | None, path: Path) -> int:
    """The frame number that a timecode stands for.

    Raises:
        DecodeError: If the timecode cannot be one at this rate.
    """
    if rate is None:
        raise DecodeError(f"{path}: starts at timecode {timecode} but its frame rate is none that timecode counts")
    try:
        return int(from_timecode(timecode, float(rate)).to_frames())
    except ValueError as exc:
        raise DecodeError(f"{path}: start timecode {timecode!r} is none at {float(rate):g} frames per second") from exc


def write_timecode(number: int, *, rate: Fraction, is_drop: bool) -> str:
    """`hh:mm:ss:ff` of a frame number, `hh:mm:ss;ff` if drop-frame."""
    return str(to_timecode(RationalTime(number, float(rate)), float(rate), is_drop))
