"""Single pictures for people to look at: upright, in their own shape, found by seeking instead of reading on.

A part of `decode.py`. What encoders see comes from `decode_clips`, which is exact; a still may lie a frame beside it
where a container's index is poor.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from visxp_search.decode import decode_image, probe
from visxp_search.decode_file import Damage, DecodeLimits, decode_packets, find_zero, open_pictures, read_packets
from visxp_search.decode_pictures import Picture, turn
from visxp_search.errors import DecodeError

MAX_FRAMES_AFTER_SEEK = 1500
"""So many frames are decoded to get from the keyframe before a second to its middle: a minute of PAL."""


def decode_stills(
    path: str | os.PathLike[str],
    *,
    seconds: Sequence[int],
    width: int,
    height: int,
    limits: DecodeLimits | None = None,
) -> Iterator[Picture | None]:
    """Yield a picture of the middle of each second, as large as fits into a box.

    Args:
        path: a video or image file; an image gives the same picture for every second.
        seconds: in any order, each >= 0.
        width: of the box, pixels.
        height: of the box, pixels.
        limits: defaults to `DecodeLimits()`.

    Yields:
        (3, H, W) uint8 RGB with H <= height and W <= width, in square pixels; None where nothing is shown.

    Raises:
        DecodeError: If the file cannot be read or has no picture.
        ValueError: If the box is empty or a second negative.
    """
    path, limits = Path(path), limits or DecodeLimits()
    if width < 1 or height < 1 or any(second < 0 for second in seconds):
        raise ValueError(f"box {width} x {height} and seconds {list(seconds)} must not be empty or negative")
    info = probe(path, limits=limits)
    if not info.has_video:
        raise DecodeError(f"{path}: has no picture; give a video or an image")
    if info.kind == "image":
        square = decode_image(path, frame_size=max(width, height), limits=limits)
        shape = fit_box(info.width, info.height, box=(width, height))
        pixels = np.ascontiguousarray(square.transpose(1, 2, 0))
        picture = _scale(VideoFrame.from_ndarray(pixels, format="rgb24"), shape, VideoReformatter())
        yield from (picture for _ in seconds)
        return
    reformatter = VideoReformatter()
    with open_pictures(path, limits) as (container, video):
        zero = find_zero(container, video)
        aspect = float(video.sample_aspect_ratio or 1) or 1.0
        for second in seconds:
            ticks = round((second + 0.5) / video.time_base) + zero if video.time_base else zero
            try:
                container.seek(ticks, stream=video, backward=True)
            except FFmpegError as exc:
                raise DecodeError(
                    f"{path}: cannot be sought in ({exc.strerror}); copy it into a new container"
                ) from exc
            video.codec_context.flush_buffers()
            frame = _frame_at(
                decode_packets(
                    video.codec_context.decode,
                    read_packets(container, video, limits=limits),
                    on_error=Damage().count_picture,
                ),
                ticks,
            )
            yield None if frame is None else _upright(frame, aspect, (width, height), reformatter)


def fit_box(width: float, height: float, *, box: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the largest picture of this shape that fits into a box, at least 1 x 1 pixels."""
    scale = min(box[0] / width, box[1] / height)
    return max(1, min(box[0], round(width * scale))), max(1, min(box[1], round(height * scale)))


def _frame_at(frames: Iterator[VideoFrame], ticks: int) -> VideoFrame | None:
    """The first frame at or after a time, else the last one before it."""
    last: VideoFrame | None = None
    for number, frame in enumerate(frames):
        last = frame
        if (frame.pts is not None and frame.pts >= ticks) or number >= MAX_FRAMES_AFTER_SEEK:
            break
    return last


def _upright(frame: VideoFrame, aspect: float, box: tuple[int, int], reformatter: VideoReformatter) -> Picture | None:
    """A frame in square pixels, turned as its display matrix says, fitted into a box; None if that fails."""
    turned = turn(np.zeros((1, 2, 3), dtype=np.uint8), frame)
    is_quarter = turned.shape[1:] == (3, 2)
    stored_box = (box[1], box[0]) if is_quarter else box
    picture = _scale(frame, fit_box(frame.width * aspect, frame.height, box=stored_box), reformatter)
    return None if picture is None else np.ascontiguousarray(turn(picture, frame))


def _scale(frame: VideoFrame, shape: tuple[int, int], reformatter: VideoReformatter) -> Picture | None:
    try:
        scaled = reformatter.reformat(
            frame, width=shape[0], height=shape[1], format="rgb24", interpolation=Interpolation.AREA, threads=1
        )
    except (FFmpegError, ValueError):
        return None
    return np.ascontiguousarray(scaled.to_ndarray().transpose(2, 0, 1))
