"""Reads media files: the one place that talks to PyAV and Pillow.

`probe` says what a file is, `read_timing` how editors count its frames, `decode_clips` streams its seconds,
`decode_waveform` gives a stretch of sound, `decode_image` one picture. Every error of a library becomes a `DecodeError`
here, and nothing is written to stderr.

Clips are read in two passes. Pass 1 only demuxes, so it knows the time of every frame and, by `frame_plan`, which
packets the wanted frames need. Pass 2 decodes those alone. Wherever a wanted frame does not come out, or anything goes
wrong, everything is decoded in order instead (`method="sequential"`, the slow and obvious reference): same bits, more
time. Only where packets are lost and nothing notices may the two differ, in pictures that refer to the lost ones.

Pictures are not deinterlaced. Sound is decoded from the file's beginning, unless a seek is asked for, as coders carry
state (noise generators, resampling phase) that makes sound after a seek differ in its last bits.
"""

import logging
import math
import os
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.TiffImagePlugin
import PIL.WebPImagePlugin  # with that of TIFF: else Pillow loads its forty formats to know that a file is of none
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from visxp_search.clips import Clip, count_seconds, make_clip
from visxp_search.decode_file import (
    MICROSECONDS,
    Damage,
    DecodeLimits,
    MediaStream,
    check_file,
    choose_streams,
    find_missing_decoders,
    find_rate,
    find_zero,
    open_media,
    prepare_decoder,
    time_base_of,
)
from visxp_search.decode_pictures import (
    Picture,
    PlanFailedError,
    decode_in_order,
    decode_pictures,
    find_shown_size,
    resize,
)
from visxp_search.decode_scan import Scan, scan_packets
from visxp_search.decode_sound import Waveform, decode_sound
from visxp_search.decode_timing import (
    MediaTiming,
    find_exact_rate,
    find_square_size,
    find_start_seconds,
    find_start_timecode,
)
from visxp_search.errors import DecodeError
from visxp_search.frame_plan import NO_FRAME, PacketTable, choose_frames, has_reliable_times, pick_frames
from visxp_search.sound_line import SoundLine

__all__ = [
    "ClipReader",
    "DecodeLimits",
    "MediaInfo",
    "MediaTiming",
    "decode_clips",
    "decode_image",
    "decode_waveform",
    "find_missing_decoders",
    "probe",
    "read_timing",
]

log = logging.getLogger(__name__)

Method = Literal["two_pass", "sequential"]

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
EXIF_ORIENTATION = 0x0112
STORES_DURATION = {"mov", "matroska", "avi", "flv", "asf", "flac", "wav", "w64", "aiff", "caf", "mxf"}
"""Containers whose duration is written down; elsewhere it is estimated, and no proof that something is missing."""
SKIPS_WELL = {
    *("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9", "av1"),
    *("mjpeg", "prores", "dnxhd", "dvvideo"),
}
"""Codecs whose decoders are known to give the same frames when packets that they do not need are left out."""
DURATION_TOLERANCE_SECONDS = 0.25
"""Coders pad the last packet; within this the container's duration is right and the packets' is not."""
MIN_MISSING_SECONDS = 1.0
SEEK_SECONDS = 1.0
"""After a seek coders need some sound to be right again."""


@dataclass(frozen=True)
class MediaInfo:
    """What a file says of itself; the container is believed, so a truncated file has its old duration.

    Attributes:
        kind: "video" has pictures in time, "audio" only sound, "image" is a still (one second, one frame).
        container: ffmpeg's or Pillow's name of the format.
        duration_seconds: from the container's start to its end; 0 for images.
        n_seconds: how many clips that makes.
        width: pixels, after rotation; 0 without pictures.
        height: pixels, after rotation; 0 without pictures.
        frames_per_second: on average; 0 where unknown.
        video_codec: empty without pictures.
        audio_codec: empty without sound.
    """

    kind: Literal["video", "audio", "image"]
    container: str
    duration_seconds: float
    n_seconds: int
    width: int = 0
    height: int = 0
    frames_per_second: float = 0.0
    video_codec: str = ""
    audio_codec: str = ""

    @property
    def has_video(self) -> bool:
        """Whether there are pictures, moving or not."""
        return bool(self.video_codec)

    @property
    def has_audio(self) -> bool:
        """Whether there is sound."""
        return bool(self.audio_codec)

    @property
    def facts(self) -> dict[str, Any]:
        """What people and players want to know of it, as the ledger keeps it."""
        return {
            "container": self.container,
            "video_codec": self.video_codec,
            "audio_codec": self.audio_codec,
            "width": self.width,
            "height": self.height,
            "frames_per_second": self.frames_per_second,
        }


def probe(path: str | os.PathLike[str], *, limits: DecodeLimits | None = None) -> MediaInfo:
    """Say what a media file is, from its header and first picture.

    Args:
        path: a regular file.
        limits: defaults to `DecodeLimits()`.

    Raises:
        DecodeError: If it is not a readable media file with picture or sound, or breaks the limits.
    """
    path, limits = Path(path), limits or DecodeLimits()
    n_bytes = check_file(path)
    image_info = _probe_image(path, limits)
    if image_info is not None:
        return image_info
    with open_media(path, limits) as container:
        video, audio = choose_streams(container, path)
        if video is not None:
            limits.check_picture(video.codec_context.width, video.codec_context.height, path=path)
            prepare_decoder(video, limits)
        duration = _find_duration(container, [stream for stream in (video, audio) if stream is not None])
        width, height = find_shown_size(container, video, limits) if video else (0, 0)
        info = MediaInfo(
            kind="video" if video else "audio",
            container=container.format.name,
            duration_seconds=duration,
            n_seconds=0,
            width=width,
            height=height,
            frames_per_second=find_rate(video) if video else 0.0,
            video_codec=video.codec_context.codec.canonical_name if video else "",
            audio_codec=audio.codec_context.codec.canonical_name if audio else "",
        )
    if duration <= 0:  # not written down: streamed Matroska, raw elementary streams
        duration = scan_packets(path, limits, stop_second=None, damage=Damage()).end_seconds
    limits.check_seconds(duration, path=path, n_bytes=n_bytes)
    return replace(info, duration_seconds=duration, n_seconds=count_seconds(duration))


def read_timing(path: str | os.PathLike[str], *, limits: DecodeLimits | None = None) -> MediaTiming:
    """Say at what rate, from which timecode on and in which shape a file is to be cut.

    Raises:
        DecodeError: If it is not a readable media file with picture or sound, or breaks the limits.
    """
    path, limits = Path(path), limits or DecodeLimits()
    info = probe(path, limits=limits)
    if info.kind == "image":
        return MediaTiming("image", 0.0, width=info.width, height=info.height)
    with open_media(path, limits) as container:
        video, audio = choose_streams(container, path)
        width, height = find_square_size(video, info.width, info.height) if video else (0, 0)
        return MediaTiming(
            kind=info.kind,
            duration_seconds=info.duration_seconds,
            rate=find_exact_rate(video) if video else None,
            start_timecode=find_start_timecode(container, video),
            width=width,
            height=height,
            picture_start_seconds=find_start_seconds(container, video) if video else 0.0,
            sound_start_seconds=find_start_seconds(container, audio) if audio else None,
            n_channels=audio.channels if audio else 0,
        )


def decode_clips(
    path: str | os.PathLike[str],
    *,
    frame_size: int,
    sample_rate_hz: int,
    start_second: int = 0,
    stop_second: int | None = None,
    per_second: int = 1,
    limits: DecodeLimits | None = None,
    method: Method = "two_pass",
    threads: int = 1,
) -> "ClipReader":
    """Stream the seconds `[start_second, stop_second)` of a file, second by second, with flat memory.

    The frame of a second is the one nearest its middle, by the rule of `frame_plan`; its waveform covers the second,
    late starts and gaps being silence. A second without any frame, or without any sample, has None there. Time zero is
    the container's start. Seconds that a truncated file no longer has do not come out; `ClipReader.complaint` says so.

    Args:
        path: a video, audio or image file.
        frame_size: pixels; frames are (3, frame_size, frame_size), whatever the picture's shape.
        sample_rate_hz: of the waveforms.
        start_second: the clips are the same bits as when reading from 0.
        stop_second: first second not to read; None for the end.
        per_second: with more than 1 so many clips begin in each second, all whose middle lies inside the interval: they
            overlap, the first may begin before `start_second`, and every `per_second`-th is a whole second of the file.
        limits: defaults to `DecodeLimits()`.
        method: "two_pass" or the slow reference "sequential"; both give the same bits.
        threads: that decode the pictures of an undamaged file; they change no bit either.

    Raises:
        DecodeError: At once, if the file cannot be read or breaks the limits.
        ValueError: If an argument is out of range.
    """
    if min(frame_size, sample_rate_hz, per_second, threads) < 1:
        raise ValueError(
            f"frame_size {frame_size}, sample_rate_hz {sample_rate_hz}, per_second {per_second} and threads {threads} "
            "must be positive"
        )
    if start_second < 0 or (stop_second is not None and stop_second < start_second):
        raise ValueError(f"seconds [{start_second}, {stop_second}) are not an interval from 0 on")
    if method not in ("two_pass", "sequential"):
        raise ValueError(f"method {method!r} unknown; use 'two_pass' or 'sequential'")
    return ClipReader(
        Path(path),
        frame_size=frame_size,
        sample_rate_hz=sample_rate_hz,
        start_second=start_second,
        stop_second=stop_second,
        per_second=per_second,
        limits=limits or DecodeLimits(),
        method=method,
        threads=threads,
    )


def decode_waveform(
    path: str | os.PathLike[str],
    *,
    sample_rate_hz: int,
    start_seconds: float = 0.0,
    stop_seconds: float | None = None,
    seek: bool = False,
    limits: DecodeLimits | None = None,
) -> Waveform:
    """Sound of `[start_seconds, stop_seconds)` in one piece, mono; silence where there is none, cut at the sound's end.

    `seek` begins to decode shortly before the start, which is quick in long files; it may lie some milliseconds off.

    Returns:
        (n,) float32 in [-1, 1].

    Raises:
        DecodeError: If the file cannot be read or has no sound.
    """
    path, limits = Path(path), limits or DecodeLimits()
    if not probe(path, limits=limits).has_audio:
        raise DecodeError(f"{path}: has no sound; give a file with an audio track")
    n_bytes = check_file(path)
    start = round(start_seconds * sample_rate_hz)
    stop = None if stop_seconds is None else round(stop_seconds * sample_rate_hz)
    line = SoundLine(sample_rate_hz=sample_rate_hz)
    pieces: list[Waveform] = []
    n_samples = 0
    begin = max(0.0, start_seconds - SEEK_SECONDS) if seek else 0.0
    for second, waveform in decode_sound(path, limits, line, Damage(), start_seconds=begin):
        first = second * sample_rate_hz
        if stop is not None and first >= stop:
            break
        limits.check_seconds(second, path=path, n_bytes=n_bytes)
        if first + sample_rate_hz <= start:
            continue
        gap = first - start - n_samples
        piece = waveform if gap >= 0 else waveform[-gap:]
        pieces += [np.zeros(max(0, gap), dtype=np.float32), piece]
        n_samples += max(0, gap) + len(piece)
    whole = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
    end = line.end if stop is None else min(stop, line.end)
    return whole[: max(0, end - start)]


def decode_image(path: str | os.PathLike[str], *, frame_size: int, limits: DecodeLimits | None = None) -> Picture:
    """One picture, upright by its EXIF orientation, resized like the frames of videos; of animations the first.

    Returns:
        (3, frame_size, frame_size) uint8 RGB.

    Raises:
        DecodeError: If it is not a readable image or has too many pixels.
    """
    path, limits = Path(path), limits or DecodeLimits()
    check_file(path)
    with _open_image(path, limits) as image:
        if image is None:
            raise DecodeError(f"{path}: not an image; allowed are {', '.join(IMAGE_FORMATS)}")
        upright = PIL.ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
            upright = PIL.Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        pixels = np.asarray(upright.convert("RGB"))
    frame = resize(VideoFrame.from_ndarray(pixels, format="rgb24"), frame_size, VideoReformatter())
    if frame is None:
        raise DecodeError(f"{path}: picture of {pixels.shape[1]} x {pixels.shape[0]} could not be resized")
    return frame


class ClipReader(Iterator[Clip]):
    """Iterates over the clips of a file; made by `decode_clips`. Closing it early frees the file.

    Attributes:
        info: what the file says of itself.
        n_seconds: seconds that are really there, unless `stop_second` kept the reader from finding out.
        start_second: first second that comes out.
        stop_second: first second that does not come out.
    """

    def __init__(
        self,
        path: Path,
        *,
        frame_size: int,
        sample_rate_hz: int,
        start_second: int,
        stop_second: int | None,
        per_second: int,
        limits: DecodeLimits,
        method: Method,
        threads: int,
    ) -> None:
        self.info = probe(path, limits=limits)
        self._path, self._limits, self._method, self._threads = path, limits, method, threads
        self._frame_size, self._sample_rate_hz, self._per_second = frame_size, sample_rate_hz, per_second
        self._damage = Damage()
        self._missing = ""
        if self.info.kind == "image":
            self.n_seconds = 1
        else:
            self._scanned = scan_packets(path, limits, stop_second=stop_second, damage=self._damage)
            self._missing = _find_missing(self._scanned, self.info)
            end = _find_end(self._scanned, self.info)
            self.n_seconds = count_seconds(end)
        self.start_second = start_second
        self.stop_second = self.n_seconds if stop_second is None else min(stop_second, self.n_seconds)
        # Clips in the order of their begin, counted in parts of a second.
        self._first = start_second * per_second - (per_second - 1) // 2
        self._stop = self.stop_second
        if per_second > 1 and self.info.kind != "image":
            inside = end if stop_second is None else min(end, stop_second)
            whole = (self.stop_second - 1) * per_second + 1
            self._stop = max(whole, math.ceil((inside - 0.5) * per_second - 1e-6))
        self._clips = self._read_clips()

    def __next__(self) -> Clip:
        return next(self._clips)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and close the file."""
        self._clips.close()

    @property
    def complaint(self) -> str:
        """What was wrong with the file, as far as it has been read; empty if nothing was."""
        parts = [self._missing, self._damage.describe()]
        return "; ".join(part for part in parts if part)

    def _read_clips(self) -> Generator[Clip]:
        if self.start_second >= self.stop_second:
            return
        if self.info.kind == "image":
            picture = decode_image(self._path, frame_size=self._frame_size, limits=self._limits)
            yield make_clip(0, frame=picture, waveform=None)
            return
        # One second earlier, because whether a picture is static depends on the one before.
        first = self._first - self._per_second
        frames = self._read_frames(first)
        sounds = _Sounds(self._read_waveforms(), sample_rate_hz=self._sample_rate_hz, per_second=self._per_second)
        previous: deque[Picture | None] = deque(maxlen=self._per_second)
        for part in range(first, self._stop):
            frame = next(frames)
            if part >= self._first:
                yield make_clip(
                    max(0, part // self._per_second),
                    frame=frame,
                    waveform=sounds.at(part),
                    previous_frame=previous[0] if len(previous) == self._per_second else None,
                )
            previous.append(frame)

    def _read_waveforms(self) -> Iterator[tuple[int, Waveform]]:
        if self.info.has_audio:
            line = SoundLine(sample_rate_hz=self._sample_rate_hz)
            yield from decode_sound(self._path, self._limits, line, self._damage)

    def _read_frames(self, first: int) -> Iterator[Picture | None]:
        """Yield the picture, or None, of every clip from `first` on."""
        part = first
        table = self._scanned.table
        if table is None:
            yield from (None for _ in range(first, self._stop))
            return
        if self._method == "two_pass":
            try:
                for picture in self._decode_planned(table, first):
                    yield picture
                    part += 1
                return
            except PlanFailedError as exc:
                second = part // self._per_second
                log.info("%s: from second %d on every frame is decoded: %s", self._path, second, exc)
        yield from self._decode_everything(table, part)

    def _decode_everything(self, table: PacketTable, first: int) -> Iterator[Picture | None]:
        """Each phase decodes for itself, so that no more than a frame of each is held."""
        start, before = divmod(first, self._per_second)
        phases = [
            pick_frames(
                _later(decode_in_order(self._path, self._limits, self._damage if delay == 0 else Damage()), -delay),
                time_base=table.time_base,
                display_end=table.display_end - delay,
                start_second=start,
                stop_second=-(-self._stop // self._per_second),
            )
            for delay in self._delays(table)
        ]
        parts = (frame for together in zip(*phases, strict=True) for _, frame in together)
        reformatter = VideoReformatter()
        shown: VideoFrame | None = None
        picture: Picture | None = None
        for frame in islice(parts, before, before + self._stop - first):
            if frame is not shown:  # a frame on display for many seconds is resized once
                shown, picture = frame, None if frame is None else resize(frame, self._frame_size, reformatter)
                self._damage.n_pictures += frame is not None and picture is None
            yield picture

    def _decode_planned(self, table: PacketTable, first: int) -> Iterator[Picture | None]:
        if self.info.video_codec not in SKIPS_WELL:
            raise PlanFailedError(f"codec {self.info.video_codec} is not known to skip well")
        if self._damage.n_packets or self._damage.n_reads:
            raise PlanFailedError("it is damaged, so that what seems not to matter may do")
        if self._scanned.n_untimed or not has_reliable_times(table):
            raise PlanFailedError("its time stamps are missing or out of order")
        start, before = divmod(first, self._per_second)
        stop = -(-self._stop // self._per_second)
        phases = [choose_frames(table, start_second=start, stop_second=stop, delay=d) for d in self._delays(table)]
        wanted = np.stack(phases, axis=1).ravel()[before : before + self._stop - first]
        ticks = np.unique(wanted[wanted != NO_FRAME])
        pictures = decode_pictures(
            self._path, self._limits, table, ticks, frame_size=self._frame_size, threads=self._threads
        )
        tick, picture = NO_FRAME, None
        for wanted_tick in wanted.tolist():
            if wanted_tick not in (NO_FRAME, tick):
                tick, picture = next(pictures)
                self._damage.n_pictures += picture is None
            yield picture if wanted_tick != NO_FRAME else None

    def _delays(self, table: PacketTable) -> list[int]:
        """By how many ticks the seconds of each phase begin later than whole ones."""
        return [round(Fraction(phase, self._per_second) / table.time_base) for phase in range(self._per_second)]


def _later(timed_frames: Iterator[tuple[int, VideoFrame]], ticks: int) -> Iterator[tuple[int, VideoFrame]]:
    return ((tick + ticks, frame) for tick, frame in timed_frames)


class _Sounds:
    """The waveforms of clips that begin at parts of a second, from those of whole seconds in their order.

    Args:
        seconds: (second, waveform), with none for seconds without sound.
        sample_rate_hz: of the waveforms.
        per_second: clips that begin in each second.
    """

    def __init__(self, seconds: Iterator[tuple[int, Waveform]], *, sample_rate_hz: int, per_second: int) -> None:
        self._seconds, self._sample_rate_hz, self._per_second = seconds, sample_rate_hz, per_second
        self._known: dict[int, Waveform] = {}
        self._read_to = -1

    def at(self, part: int) -> Waveform | None:
        """The waveform of a clip, None without any sound; parts are asked for in rising order."""
        second, phase = divmod(part, self._per_second)
        self._known = {known: waveform for known, waveform in self._known.items() if known >= second}
        while self._read_to < second + (phase > 0):
            self._read_to, waveform = next(self._seconds, (second + 1, None))
            if waveform is not None and self._read_to >= second:
                self._known[self._read_to] = waveform
        if phase == 0:
            return self._known.get(second)
        here, after = self._known.get(second), self._known.get(second + 1)
        if here is None and after is None:
            return None
        n_before = self._sample_rate_hz * phase // self._per_second
        silence = np.zeros(self._sample_rate_hz, dtype=np.float32)
        here, after = (silence if sound is None else sound for sound in (here, after))
        return np.concatenate([here[n_before:], after[:n_before]])


def _find_end(scan: Scan, info: MediaInfo) -> float:
    """Seconds until the end of what is really there."""
    is_padding = abs(scan.end_seconds - info.duration_seconds) < DURATION_TOLERANCE_SECONDS
    return info.duration_seconds if is_padding else scan.end_seconds


def _find_missing(scan: Scan, info: MediaInfo) -> str:
    """Say how much is missing at the end of a file; empty if nothing is."""
    stores_duration = not STORES_DURATION.isdisjoint(info.container.split(","))
    # Some containers count their duration from their start, some from zero.
    missing = info.duration_seconds - scan.end_seconds - scan.start_seconds
    n_there = count_seconds(_find_end(scan, info))
    if scan.is_whole and stores_duration and missing > MIN_MISSING_SECONDS and n_there < info.n_seconds:
        return f"truncated: {n_there} of {info.n_seconds} seconds could be read"
    return ""


def _find_duration(container: InputContainer, streams: list[MediaStream]) -> float:
    """Seconds from the container's start to its end, by its header; 0 where that does not say."""
    if "mov" in container.format.name:  # counts the time before its first stream starts, too
        ends = [
            (stream.start_time or 0) + stream.duration - find_zero(container, stream) if stream.duration else None
            for stream in streams
        ]
        known = [
            float(end * time_base_of(stream)) for end, stream in zip(ends, streams, strict=True) if end is not None
        ]
        if len(known) == len(streams):
            return max(known)
    return max(0.0, (container.duration or 0) / MICROSECONDS)


@contextmanager
def _open_image(path: Path, limits: DecodeLimits) -> Iterator[PIL.Image.Image | None]:
    """Open an image, or None if it is no image; errors while it is open become DecodeErrors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata and of many pixels, for which there are limits
        try:
            image = PIL.Image.open(path, formats=IMAGE_FORMATS)
        except PIL.UnidentifiedImageError:
            yield None
            return
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as exc:
            raise DecodeError(f"{path}: cannot be read as an image ({exc}); is it complete?") from exc
        with image:
            limits.check_picture(image.width, image.height, path=path)
            try:
                yield image
            except (OSError, ValueError, SyntaxError) as exc:
                raise DecodeError(f"{path}: cannot be read as an image ({exc}); is it complete?") from exc


def _probe_image(path: Path, limits: DecodeLimits) -> MediaInfo | None:
    with _open_image(path, limits) as image:
        if image is None:
            return None
        width, height = image.size
        if image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8):  # a quarter turn
            width, height = height, width
        name = str(image.format).lower()
        return MediaInfo("image", name, 0.0, 1, width, height, video_codec=name)
