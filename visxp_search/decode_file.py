"""Opens media files with limits against hostile ones, and reads and decodes their packets one after the other.

A part of `decode.py`, whose users need nothing of this file but `DecodeLimits`.
"""

from __future__ import annotations  # av.packet.Packet is generic for type checkers only

import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

import av
from av.audio.stream import AudioStream
from av.codec.context import ThreadType
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from visxp_search.errors import DecodeError

CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "mxf", "gxf", "dv", "rm", "nut", "ivf"),
    *("ogg", "flac", "mp3", "wav", "w64", "aiff", "caf", "au", "aac", "ac3", "eac3", "amr", "wv"),
)
"""ffmpeg's names of the containers that are opened; none of them refers to other files, as concat, hls and sdp do."""
COMMON_CODECS = (
    *("h264", "hevc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "prores", "dnxhd", "dvvideo"),
    *("wmv3", "vc1", "ffv1", "theora", "aac", "mp3", "mp2", "ac3", "opus", "vorbis", "flac", "alac", "pcm_s16le"),
)
"""What archives are made of, by ffmpeg's names."""
MAX_READ_ERRORS = 100
MICROSECONDS = 1_000_000

MediaStream: TypeAlias = VideoStream | AudioStream
AnyStream = TypeVar("AnyStream", bound=Stream)
AnyFrame = TypeVar("AnyFrame")


def _tell_nobody() -> None:
    """What happens at each packet if nobody wants to know."""


@dataclass(frozen=True)
class DecodeLimits:
    """What a file may ask of us; hostile and broken files ask for more.

    Attributes:
        max_pixels: width x height of a picture.
        max_seconds: length of any file.
        free_seconds: length that is believed of a file of any size; beyond it
        min_bytes_per_second: every second must be paid for with so many bytes of the file.
        max_sample_rate_hz: of the file's sound.
        on_packet: called for each packet that is read, a sign of life in what may take long.
    """

    max_pixels: int = 8192 * 8192
    max_seconds: float = 48 * 3600
    free_seconds: float = 600
    min_bytes_per_second: float = 1
    max_sample_rate_hz: int = 768_000
    on_packet: Callable[[], None] = _tell_nobody

    def check_seconds(self, seconds: float, *, path: Path, n_bytes: int) -> None:
        """Raise DecodeError if a file of this size may not be this long."""
        allowed = min(self.max_seconds, self.free_seconds + n_bytes / self.min_bytes_per_second)
        if not seconds <= allowed:
            raise DecodeError(
                f"{path}: {seconds:.0f} seconds in a file of {n_bytes} bytes; allowed are {allowed:.0f} seconds; "
                "if its time stamps are right, copy it into a new container with fewer gaps or raise DecodeLimits"
            )

    def check_picture(self, width: int, height: int, *, path: Path) -> None:
        """Raise DecodeError if a picture is too large."""
        if width * height > self.max_pixels:
            raise DecodeError(
                f"{path}: picture of {width} x {height} = {width * height} pixels; allowed are {self.max_pixels}; "
                "make it smaller or raise DecodeLimits"
            )


@dataclass
class Damage:
    """Counts what had to be left out of one file."""

    n_packets: int = 0
    n_reads: int = 0
    n_pictures: int = 0
    n_sounds: int = 0

    def count_picture(self) -> None:
        """One more picture is lost."""
        self.n_pictures += 1

    def count_sound(self) -> None:
        """One more packet of sound is lost."""
        self.n_sounds += 1

    def describe(self) -> str:
        """One line for a person; empty if nothing was left out."""
        counts = {
            "damaged packets": self.n_packets,
            "read errors": self.n_reads,
            "pictures that could not be decoded": self.n_pictures,
            "packets of sound that could not be decoded": self.n_sounds,
        }
        return "; ".join(f"{what}: {count}" for what, count in counts.items() if count)


def find_missing_decoders() -> list[str]:
    """Those of `COMMON_CODECS` that this build of ffmpeg cannot decode."""
    return [name for name in COMMON_CODECS if name not in av.codecs_available]


def check_file(path: Path) -> int:
    """Size in bytes of a regular, readable file that is not empty; raises DecodeError for anything else."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError(f"{path}: not a regular file; give a media file")
        with path.open("rb"):
            pass
    except OSError as exc:
        raise DecodeError(f"{path}: {exc.strerror}; give a media file that exists and may be read") from exc
    except ValueError as exc:  # a null character in the path
        raise DecodeError(f"{str(path)!r}: {exc}; give the path of a media file") from exc
    if status.st_size == 0:
        raise DecodeError(f"{path}: 0 bytes; a media file has some; fetch it again")
    return status.st_size


@contextmanager
def open_media(path: Path, limits: DecodeLimits) -> Iterator[InputContainer]:
    """Open a container that cannot make us read other files; errors while it is open become DecodeErrors."""
    options = {
        "format_whitelist": ",".join(CONTAINERS),
        "protocol_whitelist": "file",
        "max_pixels": str(limits.max_pixels),
    }
    try:
        # "file:" keeps names like "http:x.mp4" or "concat:a|b" from being taken for protocols.
        with av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace") as container:
            yield container
    except (FFmpegError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, FFmpegError) else exc
        raise DecodeError(
            f"{path}: cannot be read as media ({reason}); is it complete, and really a video or a sound? "
            f"{len(CONTAINERS)} containers are known, playlists are none of them"
        ) from exc


@contextmanager
def open_pictures(path: Path, limits: DecodeLimits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a container to decode its picture stream, which it has, in the calling thread."""
    with open_media(path, limits) as container:
        video, _ = choose_streams(container, path)
        assert video is not None
        prepare_decoder(video, limits)
        yield container, video


@contextmanager
def open_sound(path: Path, limits: DecodeLimits) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a container to decode its sound stream, which it has, in the calling thread."""
    with open_media(path, limits) as container:
        _, audio = choose_streams(container, path)
        assert audio is not None
        prepare_decoder(audio, limits)
        yield container, audio


def choose_streams(container: InputContainer, path: Path) -> tuple[VideoStream | None, AudioStream | None]:
    """The main picture and sound streams that can be decoded; cover art is no picture stream.

    Raises:
        DecodeError: If there is neither.
    """
    videos = [s for s in container.streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
    audios = [s for s in container.streams.audio if s.codec_context]
    if not videos and not audios:
        raise DecodeError(f"{path}: no picture and no sound that can be decoded; give a video or audio file")

    def is_other(stream: MediaStream) -> bool:
        return not stream.disposition & Disposition.default

    # The first default stream, else the first stream.
    return min(videos, key=is_other, default=None), min(audios, key=is_other, default=None)


def prepare_decoder(stream: MediaStream, limits: DecodeLimits) -> None:
    """Let a stream be decoded in the calling thread, within the limits even if its pictures grow."""
    codec = stream.codec_context
    codec.thread_count = 1
    codec.thread_type = ThreadType.NONE
    codec.options = {"max_pixels": str(limits.max_pixels)}


def read_packets(
    container: InputContainer, *streams: AnyStream, limits: DecodeLimits, damage: Damage | None = None
) -> Iterator[Packet[AnyStream]]:
    """Yield the packets of some streams that have a content and are not damaged; read on after errors."""
    for _ in range(MAX_READ_ERRORS):
        try:
            for packet in container.demux(*streams):
                limits.on_packet()
                if packet.is_corrupt:
                    if damage:
                        damage.n_packets += 1
                elif packet.size:  # an empty packet would tell the decoder that the stream is over
                    yield cast("Packet[AnyStream]", packet)
            return
        except IndexError:  # PyAV stumbles, but only at the end, over streams that begin in the middle of a file
            return
        except FFmpegError:
            if damage:
                damage.n_reads += 1


def decode_packets(
    decode: Callable[[Packet[AnyStream] | None], list[AnyFrame]],
    packets: Iterable[Packet[AnyStream]],
    *,
    on_error: Callable[[], None],
) -> Iterator[AnyFrame]:
    """Decode packets in order and empty the decoder at the end; report what cannot be decoded and go on."""
    for packet in chain(packets, [None]):
        try:
            frames = decode(packet)
        except FFmpegError:
            on_error()
            continue
        yield from frames


def time_base_of(stream: MediaStream) -> Fraction:
    """Seconds per tick."""
    return stream.time_base or Fraction(1, MICROSECONDS)


def find_zero(container: InputContainer, stream: MediaStream) -> int:
    """The container's start in ticks of a stream."""
    return round(Fraction(start_of(container), MICROSECONDS) / time_base_of(stream))


def start_of(container: InputContainer) -> int:
    """The container's start in microseconds; what lies before 0 only primes the decoders and is never shown."""
    return max(0, container.start_time or 0)


def ticks_per_frame(video: VideoStream) -> int:
    """Ticks that a frame lasts on average; 0 where unknown."""
    rate = find_rate(video)
    return round(1 / rate / time_base_of(video)) if rate else 0


def find_rate(video: VideoStream) -> float:
    """Frames per second on average; 0 where unknown."""
    rate = video.average_rate or video.guessed_rate
    return float(rate) if rate else 0.0
