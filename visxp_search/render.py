"""Writing media: the one file that encodes video and sound (PyAV); pictures go through Pillow.

Every function writes under a hidden temporary name in the same folder and renames at the end, so that a reader never
meets half a file, and gives the same bytes for the same input on the same library versions (one thread, no dates).
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import OutputContainer
from PIL import Image

from visxp_search.errors import UsageError

Frame = npt.NDArray[np.uint8]
Waveform = npt.NDArray[np.float32]

AUDIO_CODECS = {
    ".wav": "pcm_s16le",
    ".flac": "flac",
    ".m4a": "aac",
    ".mp3": "libmp3lame",
    ".ogg": "libopus",
    ".opus": "libopus",
    ".mka": "libopus",
}
"""Codec of a sound file by its suffix."""

DEFAULT_OPTIONS = {"preset": "veryfast", "crf": "23"}
"""Options of `libx264`; other codecs start from none."""


def write_video(
    path: Path,
    *,
    frames: Iterable[Frame],
    frames_per_second: int | Fraction = 25,
    waveform: Waveform | None = None,
    sample_rate_hz: int = 44_100,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    bit_rate: int | None = None,
    audio_codec: str = "aac",
    audio_bit_rate: int = 96_000,
) -> None:
    """Write pictures, and a sound that starts with the first of them, as one video file.

    Args:
        path: the file to write or replace; its suffix chooses the container.
        frames: one or more (H, W, 3) uint8 RGB pictures of one even size; taken one at a time.
        frames_per_second: the constant frame rate.
        waveform: (n,) float32 mono in [-1, 1], or None for a video without a sound track; may be shorter or longer than
            the pictures.
        sample_rate_hz: the rate of the waveform.
        codec: FFmpeg's name of the video encoder.
        options: options of the video encoder; None takes `DEFAULT_OPTIONS` for `libx264` and nothing for others.
        bit_rate: of the pictures, in bit/s; None leaves it to the options.
        audio_codec: FFmpeg's name of the audio encoder.
        audio_bit_rate: of the sound, in bit/s.

    Raises:
        ValueError: If a shape, a type or the number of frames is not as above.
        UsageError: If the codec is unknown or the container, codec, rate and options do not go together.
        OSError: If the file cannot be written.
    """
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("no frames; a video needs at least one")
    _check_frame(first, shape=first.shape)
    if first.shape[0] % 2 or first.shape[1] % 2:
        raise ValueError(f"frames are {first.shape[1]}x{first.shape[0]}; 4:2:0 video needs an even width and height")
    if waveform is not None:
        _check_waveform(waveform)
    if options is None:
        options = DEFAULT_OPTIONS if codec == "libx264" else {}
    with _open_container(path) as container:
        video = container.add_stream(codec, rate=frames_per_second, options=dict(options))
        if not isinstance(video, av.VideoStream):
            raise UsageError(f"codec {codec!r} is not a video codec; libx264 is one")
        video.height, video.width = first.shape[:2]
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        video.codec_context.time_base = 1 / Fraction(frames_per_second)
        if bit_rate is not None:
            video.bit_rate = bit_rate
        sound = None if waveform is None else _add_sound(container, audio_codec, sample_rate_hz, audio_bit_rate)
        sample = 0
        for index, picture in enumerate(chain([first], pictures)):
            _check_frame(picture, shape=first.shape)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, 1 / Fraction(frames_per_second)
            container.mux(video.encode(frame))
            # About a second of sound at a time keeps both tracks side by side in the file.
            end = int((index + 1) * sample_rate_hz / frames_per_second)
            if sound is not None and waveform is not None and end - sample >= sample_rate_hz:
                _encode_sound(container, sound, waveform[sample:end], start_sample=sample)
                sample = end
        container.mux(video.encode(None))
        if sound is not None and waveform is not None:
            _encode_sound(container, sound, waveform[sample:], start_sample=sample)
            container.mux(sound.encode(None))


def write_audio(
    path: Path,
    *,
    waveform: Waveform,
    sample_rate_hz: int,
    codec: str | None = None,
    bit_rate: int = 96_000,
) -> None:
    """Write a sound file.

    Args:
        path: the file to write or replace; its suffix chooses the container.
        waveform: (n,) float32 mono in [-1, 1].
        sample_rate_hz: the rate of the waveform.
        codec: FFmpeg's name of the encoder; None takes the one of `AUDIO_CODECS`.
        bit_rate: in bit/s, for codecs that lose something.

    Raises:
        ValueError: If a shape or a type is not as above.
        UsageError: If the suffix or the codec is unknown, or the codec does not take this rate.
        OSError: If the file cannot be written.
    """
    _check_waveform(waveform)
    if codec is None:
        codec = AUDIO_CODECS.get(path.suffix.lower())
    if codec is None:
        raise UsageError(f"suffix {path.suffix!r} unknown; choose one of {', '.join(AUDIO_CODECS)} or name a codec")
    with _open_container(path) as container:
        sound = _add_sound(container, codec, sample_rate_hz, bit_rate)
        _encode_sound(container, sound, waveform, start_sample=0)
        container.mux(sound.encode(None))


def write_image(path: Path, *, frame: Frame) -> None:
    """Write one (H, W, 3) uint8 RGB picture; the suffix chooses the format (`.png`, `.jpg`, ...).

    Raises:
        ValueError: If the frame's shape or type is not as above.
        UsageError: If the suffix is unknown.
        OSError: If the file cannot be written.
    """
    _check_frame(frame, shape=frame.shape)
    if path.suffix.lower() not in Image.registered_extensions():
        raise UsageError(f"suffix {path.suffix!r} unknown; take .png or .jpg")
    with _temporary_name(path) as temporary:
        Image.fromarray(frame).save(temporary)


def degrade_frames(frames: Iterable[Frame], *, seed: int, noise: float = 8.0, crop: float = 0.06) -> Iterator[Frame]:
    """Make pictures as a bad copy has them: cropped, blurred by scaling, darker and noisy.

    Args:
        frames: (H, W, 3) uint8 RGB pictures.
        seed: of the noise.
        noise: its standard deviation in grey levels (0-255).
        crop: the share of width and height cut off on each side, in [0, 0.5).

    Yields:
        Pictures of the same size.
    """
    rng = np.random.default_rng(seed)
    for frame in frames:
        height, width = frame.shape[:2]
        box = (crop * width, crop * height, (1 - crop) * width, (1 - crop) * height)
        small = Image.fromarray(frame).resize((width // 2, height // 2), Image.Resampling.BILINEAR, box=box)
        copy = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
        copy = 0.85 * copy + rng.normal(0, noise, (height, width, 1)).astype(np.float32)
        yield np.clip(copy, 0, 255).astype(np.uint8)


def degrade_waveform(waveform: Waveform, *, seed: int, noise_db: float = -20.0, gain_db: float = -6.0) -> Waveform:
    """Make a sound as a bad copy has it: quieter and with white noise.

    Args:
        waveform: (n,) float32 mono; not modified.
        seed: of the noise.
        noise_db: the noise's power relative to the sound's.
        gain_db: applied to the sum.

    Returns:
        (n,) float32 in [-1, 1].
    """
    noise = np.random.default_rng(seed).standard_normal(len(waveform)).astype(np.float32)
    power = float(np.sqrt(np.mean(np.square(waveform)))) if len(waveform) else 0.0
    noisy = (waveform + noise * np.float32(power * 10 ** (noise_db / 20))) * np.float32(10 ** (gain_db / 20))
    return np.clip(noisy, -1, 1).astype(np.float32)


def _check_frame(frame: Frame, *, shape: tuple[int, ...]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frame is {frame.dtype} {frame.shape}; expected uint8 (H, W, 3)")
    if frame.shape != shape:
        raise ValueError(f"frame is {frame.shape} but the first was {shape}; all must have one size")


def _check_waveform(waveform: Waveform) -> None:
    if waveform.dtype != np.float32 or waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"waveform is {waveform.dtype} {waveform.shape}; expected float32 (n,) with n >= 1")
    if not np.isfinite(waveform).all():
        raise ValueError("waveform holds values that are not finite; expected [-1, 1]")


def _add_sound(container: OutputContainer, codec: str, sample_rate_hz: int, bit_rate: int) -> AudioStream:
    sound = container.add_stream(codec, rate=sample_rate_hz, layout="mono")
    if not isinstance(sound, AudioStream):
        raise UsageError(f"codec {codec!r} is not an audio codec; aac is one")
    sound.bit_rate = bit_rate
    sound.codec_context.thread_count = 1
    return sound


def _encode_sound(container: OutputContainer, sound: AudioStream, waveform: Waveform, *, start_sample: int) -> None:
    if not len(waveform):
        return
    frame = av.AudioFrame.from_ndarray(np.clip(waveform, -1, 1)[None], format="fltp", layout="mono")  # (n,) -> (1, n)
    frame.sample_rate = sound.codec_context.sample_rate
    frame.pts, frame.time_base = start_sample, Fraction(1, frame.sample_rate)
    container.mux(sound.encode(frame))


@contextmanager
def _open_container(path: Path) -> Iterator[OutputContainer]:
    """An output that appears under `path` when the block ends well; FFmpeg's complaints become ours."""
    with _temporary_name(path) as temporary:
        try:
            with av.open(str(temporary), "w", options={"fflags": "+bitexact"}) as container:
                yield container
        except (av.FFmpegError, av.codec.codec.UnknownCodecError) as exc:
            if isinstance(exc, OSError) and not isinstance(exc, ValueError):
                raise
            raise UsageError(
                f"{path.name} cannot be written ({exc}); check container, codec, rate and options"
            ) from exc


@contextmanager
def _temporary_name(path: Path) -> Iterator[Path]:
    """A hidden name beside `path`, renamed to it when the block ends well and removed when it does not."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
