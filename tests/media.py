"""Makes the media of the tests: every frame carries its own index, every second of sound its own tone.

A frame's index stands in the picture as vertical bars, the lower half inverted, so that a test reads which frame came
out and sees whether it is upright. Files are tiny and made by PyAV; nothing is downloaded.
"""

from __future__ import annotations  # av.packet.Packet is generic for type checkers only

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

N_BITS = 12
SAMPLE_RATE_HZ = 24_000
X264 = {"preset": "ultrafast", "crf": "18", "threads": "1"}
TICKS_PER_SECOND = 90_000


@dataclass(frozen=True)
class Pictures:
    """A picture stream: frame `i` is shown at `times[i]` seconds and carries index `i`.

    `size` is (width, height) as coded; `rotation` and `mirrored` say how the pixels lie in the file, to be put upright.
    """

    times: Sequence[float | Fraction]
    codec: str = "libx264"
    params: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (128, 96)
    rate: Fraction | int = 25
    rotation: int = 0
    mirrored: bool = False
    brightness: Sequence[int] | None = None


@dataclass(frozen=True)
class Sound:
    """A sound stream of pieces (start in seconds, samples at `rate_hz`), with nothing between them."""

    pieces: Sequence[tuple[float, npt.NDArray[np.float32]]]
    codec: str = "aac"
    rate_hz: int = SAMPLE_RATE_HZ
    format: str = "fltp"


def constant_rate(n_frames: int, rate: Fraction | float | int, *, start: float = 0) -> list[Fraction]:
    """Times of frames at a constant rate."""
    return [Fraction(start) + Fraction(index) / Fraction(rate) for index in range(n_frames)]


def draw_index(index: int, *, size: tuple[int, int] = (128, 96)) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 picture of a frame index below 4096."""
    width, height = size
    bits = [1, *((index >> bit) & 1 for bit in range(N_BITS)), 0]
    columns = np.arange(width) * len(bits) // width
    row = np.where(np.array(bits)[columns] == 1, 235, 20).astype(np.uint8)
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[: height // 2] = row[None, :, None]
    picture[height // 2 :] = 255 - row[None, :, None]
    return picture


def read_index(frame: npt.NDArray[np.uint8]) -> int:
    """The index in a (3, S, S) frame; fails if the picture is not upright and clear."""
    size = frame.shape[1]
    n_bars = N_BITS + 2
    centres = ((np.arange(n_bars) + 0.5) * size / n_bars).astype(int)
    grey = frame.astype(np.float64).mean(axis=0)
    upper = grey[size // 8 : size * 3 // 8][:, centres].mean(axis=0) > 128
    lower = grey[size * 5 // 8 : size * 7 // 8][:, centres].mean(axis=0) > 128
    assert np.all(upper != lower) and upper[0] and not upper[-1], "the picture is not upright or not one of ours"
    return sum(int(bit) << position for position, bit in enumerate(upper[1:-1]))


def make_tones(n_seconds: float, *, rate_hz: int = SAMPLE_RATE_HZ, first_second: int = 0) -> npt.NDArray[np.float32]:
    """Second `t` sounds with `tone_of(t)`."""
    times = np.arange(round(n_seconds * rate_hz)) / rate_hz
    frequencies = np.array([tone_of(first_second + int(time)) for time in times])
    return (0.3 * np.sin(2 * np.pi * frequencies * times)).astype(np.float32)


def tone_of(second: int) -> float:
    """Frequency in Hz of a second's tone."""
    return 400.0 + 100.0 * (second % 20)


def loudest_frequency(waveform: npt.NDArray[np.float32], *, rate_hz: int = SAMPLE_RATE_HZ) -> float:
    """Frequency in Hz of the strongest part of the middle of a waveform."""
    middle = waveform[len(waveform) // 4 : -len(waveform) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    return float(np.argmax(spectrum) * rate_hz / len(middle))


def make_click(n_seconds: float, at: Iterable[float], *, rate_hz: int = SAMPLE_RATE_HZ) -> npt.NDArray[np.float32]:
    """Silence with loud short clicks at the given times."""
    samples = np.zeros(round(n_seconds * rate_hz), dtype=np.float32)
    for time in at:
        first = round(time * rate_hz)
        samples[first : first + 24] = 0.9
    return samples


def make_babble(n_seconds: float, *, seed: int, rate_hz: int = 8000) -> npt.NDArray[np.float32]:
    """Notes and pauses of random pitch and length, like a voice: (n,) samples that no other seed's run in step with."""
    rng = np.random.default_rng(seed)
    times, knots = np.arange(round(n_seconds * rate_hz)) / rate_hz, np.arange(0, n_seconds + 1, 0.1)
    phase = 2 * np.pi * np.cumsum(np.interp(times, knots, rng.uniform(200, 1500, len(knots)))) / rate_hz
    loud = np.interp(times, knots, rng.uniform(0, 1, len(knots)) ** 2)
    noise = 0.003 * rng.standard_normal(len(times))
    return (0.3 * loud * (np.sin(phase) + 0.5 * np.sin(2 * phase)) + noise).astype(np.float32)


def write_media(
    path: Path,
    pictures: Pictures | None = None,
    sound: Sound | None = None,
    *,
    options: Mapping[str, str] | None = None,
    format: str | None = None,
) -> Path:
    """Encode and mux one file."""
    with av.open(str(path), mode="w", format=format, options=dict(options or {})) as container:
        packets: list[Packet[Any]] = []
        streams = [
            *([add_pictures(container, pictures)] if pictures else []),
            *([add_sound(container, sound)] if sound else []),
        ]
        for stream in streams:  # only now, as the header is written with the first packet
            packets += list(stream)
        packets.sort(key=lambda packet: float((packet.dts or 0) * packet.time_base))
        for packet in packets:
            container.mux(packet)
    return path


def add_pictures(container: OutputContainer, pictures: Pictures) -> Iterable[Packet[Any]]:
    """Add a picture stream; iterate to encode it."""
    options = {**(X264 if pictures.codec == "libx264" else {}), **pictures.options}
    if pictures.codec == "libx264" and pictures.params:
        options["x264-params"] = pictures.params
    if pictures.codec == "libx265":
        options["x265-params"] = f"log-level=none:pools=none:frame-threads=1:{pictures.params}"
    rate = Fraction(pictures.rate)
    stream = container.add_stream(pictures.codec, rate=rate, options=options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = pictures.size
    stream.pix_fmt = "yuvj420p" if pictures.codec == "mjpeg" else "yuv420p"
    is_constant = all((Fraction(time) * rate).denominator == 1 for time in pictures.times)
    time_base = 1 / rate if is_constant else Fraction(1, TICKS_PER_SECOND)
    stream.time_base = stream.codec_context.time_base = time_base
    if pictures.rotation or pictures.mirrored:
        stream.set_display_rotation(pictures.rotation, hflip=pictures.mirrored)
    quarter_turns = pictures.rotation // 90
    upright_size = pictures.size if quarter_turns % 2 == 0 else pictures.size[::-1]

    def encode() -> Iterable[Packet[Any]]:
        for index, time in enumerate(pictures.times):
            pixels = draw_index(index, size=upright_size)
            if pictures.mirrored:  # shown: turned counter-clockwise, then mirrored; so stored the other way round
                pixels = pixels[:, ::-1]
            pixels = np.ascontiguousarray(np.rot90(pixels, -quarter_turns))
            if pictures.brightness is not None:
                pixels = np.full_like(pixels, pictures.brightness[index])
            frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = round(Fraction(time) / time_base), time_base
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return encode()


def add_sound(container: OutputContainer, sound: Sound) -> Iterable[Packet[Any]]:
    """Add a sound stream; iterate to encode it."""
    stream = container.add_stream(sound.codec, rate=sound.rate_hz, layout="mono")
    assert isinstance(stream, AudioStream)
    n_samples = 1024 if sound.codec != "libopus" else 480

    def encode() -> Iterable[Packet[Any]]:
        for start, samples in sound.pieces:
            for first in range(0, len(samples), n_samples):
                part = samples[first : first + n_samples][None]
                if not sound.format.startswith("flt"):
                    part = np.round(part * 32767).astype(np.int16)
                frame = AudioFrame.from_ndarray(part, format=sound.format, layout="mono")
                frame.sample_rate = sound.rate_hz
                frame.pts, frame.time_base = round(start * sound.rate_hz) + first, Fraction(1, sound.rate_hz)
                yield from stream.encode(frame)
        yield from stream.encode(None)

    return encode()


def truncate(path: Path, share: float) -> Path:
    """Cut a file down to a share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
