"""Finds what an editor needs to know of a file: frame rate, source timecode, shape of a pixel, where its streams begin.

A part of `decode.py`, whose users call `decode.read_timing`.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from av.container import InputContainer
from av.video.stream import VideoStream

from visxp_search.decode_file import MediaStream, find_zero, time_base_of


@dataclass(frozen=True)
class MediaTiming:
    """A file's time line as editors count it.

    Attributes:
        kind: "video", "audio" or "image", as in `MediaInfo`.
        duration_seconds: from the container's start to its end; 0 for images.
        rate: frames per second, exact (30000/1001, not 29.97); None without moving pictures.
        start_timecode: timecode of the first frame as the file has it (`10:00:00:00`, with `;` if drop-frame); empty if
            it has none.
        width: of the picture as it is to be shown, pixels being square; 0 without pictures.
        height: see width.
        picture_start_seconds: when the pictures begin, from the container's start; 0 without pictures.
        sound_start_seconds: when the sound begins; None without sound.
        n_channels: of the sound; 0 without.
    """

    kind: Literal["video", "audio", "image"]
    duration_seconds: float
    rate: Fraction | None = None
    start_timecode: str = ""
    width: int = 0
    height: int = 0
    picture_start_seconds: float = 0.0
    sound_start_seconds: float | None = None
    n_channels: int = 0


def find_exact_rate(video: VideoStream) -> Fraction | None:
    """Frames per second; for a variable rate the one at which ffmpeg makes it constant."""
    return video.guessed_rate or video.average_rate or None


def find_start_timecode(container: InputContainer, video: VideoStream | None) -> str:
    """The timecode tag of the picture stream, the container (MXF) or any other stream (QuickTime's timecode track)."""
    tagged = [container.metadata, *(stream.metadata for stream in container.streams)]
    if video is not None:
        tagged.insert(0, video.metadata)
    found = (value.strip() for tags in tagged for key, value in tags.items() if key.lower() == "timecode")
    return next((timecode for timecode in found if timecode), "")


def find_square_size(video: VideoStream, width: int, height: int) -> tuple[int, int]:
    """The size in square pixels of a picture of width x height, which may have been turned."""
    aspect = video.sample_aspect_ratio or Fraction(1)
    if aspect <= 0:
        return width, height
    is_turned = (width, height) == (video.codec_context.height, video.codec_context.width) and width != height
    return (width, round(height * aspect)) if is_turned else (round(width * aspect), height)


def find_start_seconds(container: InputContainer, stream: MediaStream) -> float:
    """When a stream begins, from the container's start; never negative."""
    ticks = (stream.start_time or 0) - find_zero(container, stream) if stream.start_time is not None else 0
    return max(0.0, float(ticks * time_base_of(stream)))
