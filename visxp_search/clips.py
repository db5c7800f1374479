"""The media of one second, and all arithmetic on a video's time line.

Second `t` is the half-open interval `[t, t + 1)` of the video's own time line, whose zero is the container's start. Its
frame is the decoded picture nearest `t + 0.5`; its waveform covers `[t, t + 1)`, late starts and gaps being silence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NO_VIDEO = "no_video"
NO_AUDIO = "no_audio"
BLACK = "black"
STATIC = "static"
SILENT = "silent"
FLAGS = (NO_VIDEO, BLACK, STATIC, NO_AUDIO, SILENT)
"""Every flag a second can carry. `no_video`, `black`, `no_audio` and `silent` are the reasons for a missing vector;
`static` (the picture has not changed since the second before) is a remark: a still shown for a minute can be found."""

BLACK_MAX_LUMA = 24
"""A frame is black when 99 % of its pixels are at most this bright (0-255); broadcast black is 16."""
SILENT_MAX_PEAK = 10 ** (-60 / 20)
"""A waveform is silent when its largest absolute value is at most this: -60 dBFS."""
STATIC_MAX_DIFFERENCE = 0.5
"""A frame is static when its mean absolute difference from the one before is at most this (0-255)."""


@dataclass(frozen=True)
class Clip:
    """The media of one second of one video.

    Attributes:
        second: t >= 0; the clip covers `[t, t + 1)`.
        frame: (3, S, S) uint8 RGB picture nearest t + 0.5, or None where there is no picture.
        waveform: (sample_rate_hz,) float32 mono in [-1, 1], or None where there is no sound.
        flags: the members of `FLAGS` that hold for this second, in that order.

    Raises:
        ValueError: If a shape, a type or a flag is not as above.
    """

    second: int
    frame: npt.NDArray[np.uint8] | None
    waveform: npt.NDArray[np.float32] | None
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.second < 0:
            raise ValueError(f"second {self.second} is negative; a time line starts at 0")
        frame = self.frame
        if frame is not None and (frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[0] != 3):
            raise ValueError(f"frame is {frame.dtype} {frame.shape}; expected uint8 (3, S, S)")
        waveform = self.waveform
        if waveform is not None and (waveform.dtype != np.float32 or waveform.ndim != 1):
            raise ValueError(f"waveform is {waveform.dtype} {waveform.shape}; expected float32 (samples,)")
        unknown = set(self.flags) - set(FLAGS)
        if unknown:
            raise ValueError(f"unknown flags {sorted(unknown)}; allowed are {FLAGS}")

    @property
    def has_visual(self) -> bool:
        """Whether this second's picture is worth a vector."""
        return self.frame is not None and BLACK not in self.flags

    @property
    def has_audio(self) -> bool:
        """Whether this second's sound is worth a vector."""
        return self.waveform is not None and SILENT not in self.flags


def make_clip(
    second: int,
    *,
    frame: npt.NDArray[np.uint8] | None,
    waveform: npt.NDArray[np.float32] | None,
    previous_frame: npt.NDArray[np.uint8] | None = None,
) -> Clip:
    """Build a clip and find its flags from the media themselves.

    Args:
        second: t >= 0.
        frame: (3, S, S) uint8 RGB or None.
        waveform: (samples,) float32 in [-1, 1] or None.
        previous_frame: the frame of second t - 1, to tell a static picture; None if there is none.
    """
    flags = []
    if frame is None:
        flags.append(NO_VIDEO)
    else:
        if is_black(frame):
            flags.append(BLACK)
        if previous_frame is not None and is_static(frame, previous_frame):
            flags.append(STATIC)
    if waveform is None:
        flags.append(NO_AUDIO)
    elif is_silent(waveform):
        flags.append(SILENT)
    return Clip(second=second, frame=frame, waveform=waveform, flags=tuple(flags))


def is_black(frame: npt.NDArray[np.uint8]) -> bool:
    """Whether 99 % of the pixels of a (3, H, W) uint8 RGB frame are at most `BLACK_MAX_LUMA` bright."""
    luma = np.tensordot(np.array([0.299, 0.587, 0.114], dtype=np.float32), frame.astype(np.float32), axes=1)
    return bool(np.quantile(luma, 0.99) <= BLACK_MAX_LUMA)


def is_static(frame: npt.NDArray[np.uint8], previous_frame: npt.NDArray[np.uint8]) -> bool:
    """Whether two (3, H, W) uint8 frames are the same up to coding noise (`STATIC_MAX_DIFFERENCE`)."""
    difference = np.abs(frame.astype(np.int16) - previous_frame.astype(np.int16))
    return bool(difference.mean() <= STATIC_MAX_DIFFERENCE)


def is_silent(waveform: npt.NDArray[np.float32]) -> bool:
    """Whether no value of the waveform is louder than `SILENT_MAX_PEAK`."""
    return waveform.size == 0 or bool(np.abs(waveform).max() <= SILENT_MAX_PEAK)


def count_seconds(duration_seconds: float) -> int:
    """Number of seconds of a video: the last partial second counts when its middle is inside the video.

    A file shorter than half a second still counts as one second, so that no readable file vanishes.

    Raises:
        ValueError: If the duration is not a positive finite number.
    """
    if not (math.isfinite(duration_seconds) and duration_seconds > 0):
        raise ValueError(f"duration {duration_seconds} is not a positive number of seconds")
    # The middle t + 0.5 of the last second must lie strictly inside; 1e-6 absorbs rounding of time stamps.
    return max(1, math.ceil(duration_seconds - 0.5 - 1e-6))


def parse_time(text: str) -> float:
    """Seconds from `12.5`, `1:02.5` or `1:01:02.5`.

    Raises:
        ValueError: If the text is none of these.
    """
    parts = text.split(":")
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"time {text!r} not understood; write seconds (12.5) or [h:]mm:ss (1:02:03)")
    seconds = 0.0
    for part in parts:
        try:
            value = float(part)
        except ValueError as exc:
            raise ValueError(f"time {text!r} not understood; write seconds (12.5) or [h:]mm:ss (1:02:03)") from exc
        if value < 0 or not math.isfinite(value):
            raise ValueError(f"time {text!r} is negative or not finite")
        seconds = seconds * 60 + value
    return seconds


def format_time(seconds: float) -> str:
    """`h:mm:ss` or `m:ss`, with tenths only where they are not zero."""
    tenths = round(seconds * 10)
    whole, tenth = divmod(tenths, 10)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
    return f"{text}.{tenth}" if tenth else text


def format_span(seconds: float) -> str:
    """A length of time in the unit that people would use: `40 s`, `12 min`, `5.3 h`, `12 days`."""
    for unit, size, from_size in (("days", 86_400, 2), ("h", 3600, 1.5), ("min", 60, 2)):
        if seconds >= size * from_size:
            number = seconds / size
            return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{seconds:.0f} s"


def format_bytes(n_bytes: float) -> str:
    """A size in powers of 1000: `512 B`, `3.4 MB`, `37 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.1f} {unit}" if n_bytes < 10 and unit != "B" else f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def stack_frames(clips: Sequence[Clip]) -> npt.NDArray[np.uint8]:
    """(B, 3, S, S) uint8 of the clips that have a picture worth a vector, in order; B >= 1."""
    return np.stack([clip.frame for clip in clips if clip.frame is not None and clip.has_visual])


def stack_waveforms(clips: Sequence[Clip]) -> npt.NDArray[np.float32]:
    """(B, samples) float32 of the clips that have a sound worth a vector, in order; B >= 1."""
    return np.stack([clip.waveform for clip in clips if clip.waveform is not None and clip.has_audio])
