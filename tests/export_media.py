"""Videos for the export tests: a number in every picture, a tone in every second, any rate, timecode and shape."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

BITS = 12
SAMPLE_RATE_HZ = 48_000
Frame = npt.NDArray[np.uint8]


def numbered_frame(number: int, *, width: int, height: int) -> Frame:
    """A picture whose upper quarter shows a number in black and white columns, the lowest bit on the left."""
    frame = np.full((height, width, 3), 90, dtype=np.uint8)
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        frame[: height // 4, edges[bit] : edges[bit + 1]] = 255 * (number >> bit & 1)
    return frame


def read_number(frame: Frame) -> int:
    """The number in a picture of `numbered_frame`; of any size, without borders."""
    height, width = frame.shape[:2]
    centres = (np.arange(BITS) + 0.5) * width / BITS
    levels = frame[height // 10, centres.astype(int), 0]
    return int(sum(1 << bit for bit in range(BITS) if levels[bit] > 128))


def write_numbered(
    path: Path,
    *,
    rate: Fraction | int = 25,
    n_frames: int = 100,
    timecode: str = "",
    width: int = 192,
    height: int = 96,
    hz: float | None = 440.0,
    sound_late_seconds: float = 0.0,
) -> Path:
    """A video of numbered pictures; with a stereo tone of `hz` from `sound_late_seconds` on, unless that is None."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(rate), options={"preset": "ultrafast", "crf": "18"})
        video.width, video.height, video.pix_fmt, video.thread_count = width, height, "yuv420p", 1
        video.codec_context.time_base = 1 / Fraction(rate)
        if timecode:
            video.metadata["timecode"] = timecode
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="stereo") if hz is not None else None
        for index in range(n_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(index, width=width, height=height), format="rgb24")
            frame.pts, frame.time_base = index, 1 / Fraction(rate)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and hz is not None:
            late = round(sound_late_seconds * SAMPLE_RATE_HZ)
            n_samples = round(n_frames / Fraction(rate) * SAMPLE_RATE_HZ) - late
            tone = 0.5 * np.sin(2 * np.pi * hz * np.arange(n_samples) / SAMPLE_RATE_HZ)
            sound = av.AudioFrame.from_ndarray(
                np.stack([tone, tone]).astype(np.float32), format="fltp", layout="stereo"
            )
            sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE_HZ, late, Fraction(1, SAMPLE_RATE_HZ)
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    return path


def read_frames(path: Path) -> Iterator[Frame]:
    """All pictures of a video, in order."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24").astype(np.uint8)


def read_sound(path: Path) -> npt.NDArray[np.float32]:
    """(channels, n) of a file's sound."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
