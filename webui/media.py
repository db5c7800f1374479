"""The media that the page shows: indexed files, filmstrips, spectrograms, and proxies of what browsers cannot play.

Nothing is found by path: a browser gives a video id, the ledger gives the path, and the file there must still be, after
resolving links, the very file that was indexed.
"""

import stat
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visxp_search.decode import decode_waveform
from visxp_search.decode_stills import decode_stills
from visxp_search.errors import VisxpError
from visxp_search.sound_picture import draw_spectrogram
from visxp_search.store import VideoRecord
from webui.beside import UPLOAD
from webui.cache import FileCache
from webui.plots import Picture, fill_cell, spread_seconds

CELL = (320, 180)
"""Width and height of the large picture of a sheet."""
N_SMALL = 5
SHEET_HEIGHT = CELL[1] + 36
"""A sheet is the large picture with a strip of small ones below it."""
STRIP_CELL = (120, 68)
STRIP_CELLS = 10
SOUND_SIZE = (900, 96)
SOUND_RATE_HZ = 16_000
MAX_PICTURE_SECONDS = 4 * 3600
"""Longest span drawn in one picture of its sound; longer ones are refused."""
PROXY_LEAD_SECONDS = 5
PROXY_SECONDS = 40
PROXY_HEIGHT = 360
PROXY_TIMEOUT_SECONDS = 300

PLAYABLE = {
    "video/mp4": (
        ("mov", "mp4"),
        ("h264", "av1", "libdav1d", "vp9", "libvpx-vp9"),
        ("aac", "mp3", "mp3float", "opus", "libopus", ""),
    ),
    "video/webm": (
        ("webm", "matroska"),
        ("vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d"),
        ("opus", "libopus", "vorbis", ""),
    ),
    "audio/mp4": (("mov", "mp4", "m4a"), ("",), ("aac",)),
    "audio/mpeg": (("mp3",), ("",), ("mp3", "mp3float")),
    "audio/flac": (("flac",), ("",), ("flac",)),
    "audio/wav": (("wav",), ("",), ("pcm_s16le", "pcm_u8", "pcm_f32le", "pcm_s24le")),
    "audio/ogg": (("ogg",), ("",), ("opus", "libopus", "vorbis")),
}
"""Content type -> containers, picture codecs and sound codecs that today's browsers play."""


SAVED_TYPES = {".mp4": "video/mp4", ".zip": "application/zip"}
"""Suffix -> content type of an export; anything else is sent as bytes, since it is for saving."""


class NotServedError(VisxpError):
    """There is no such file to serve, or it is not what was indexed."""


@dataclass(frozen=True)
class Served:
    """A file that may be sent to a browser as this content type."""

    path: Path
    content_type: str


class Media:
    """Everything under `/media/`.

    Args:
        find: the entry of a video id, or of an upload's, or None.
        cache: holds what is made here.
        passing: holds what is made of uploads, until the page ends.
        max_jobs: pictures and proxies made at a time.
    """

    def __init__(
        self,
        find: Callable[[str], VideoRecord | None],
        cache: FileCache,
        *,
        passing: FileCache | None = None,
        max_jobs: int = 2,
    ) -> None:
        self._find = find
        self._cache = cache
        self._passing = passing or cache
        self._jobs = threading.BoundedSemaphore(max_jobs)

    def original(self, video_id: str) -> Served:
        """The indexed file, to be played as it is.

        Raises:
            NotServedError: If it is not there, was changed, or is nothing a browser plays.
        """
        record = self._record(video_id)
        content_type = playable_type(record.facts)
        if content_type is None:
            raise NotServedError("browsers cannot play this file as it is; ask for its proxy")
        return Served(checked_path(record), content_type)

    def proxy(self, video_id: str, start: int) -> Served:
        """`PROXY_SECONDS` of a video from `start` on, as a small MP4 (or M4A) that every browser plays.

        Raises:
            NotServedError: As for `original`, or if ffmpeg cannot convert it.
        """
        record = self._record(video_id)
        _check_span(record, start, start + 1)
        path = checked_path(record)
        has_picture = record.kind != "audio"
        suffix = ".mp4" if has_picture else ".m4a"

        def make(part: Path) -> None:
            with self._jobs:
                write_proxy(path, part, start=start, has_picture=has_picture)

        made = self._cache_of(video_id).fetch(f"proxy/{video_id}/{start}", suffix, make)
        return Served(made, "video/mp4" if has_picture else "audio/mp4")

    def sheet(self, video_id: str, start: int, end: int) -> Served:
        """The card of a moment: its middle large, `N_SMALL` pictures of it small; sound alone as spectrogram."""
        record = self._record(video_id)
        _check_span(record, start, end)
        return self._picture(
            video_id, f"sheet/{start}/{end}", lambda: draw_sheet(checked_path(record), record.kind, start, end)
        )

    def still(self, video_id: str, second: int) -> Served:
        """One second's picture; of sound alone the spectrogram."""
        record = self._record(video_id)
        _check_span(record, second, second + 1)
        return self._picture(video_id, f"still/{second}", lambda: draw_still(checked_path(record), record.kind, second))

    def strip(self, video_id: str, start: int, end: int) -> Served:
        """`STRIP_CELLS` pictures of a span side by side; sound alone as spectrogram."""
        record = self._record(video_id)
        _check_span(record, start, end)
        return self._picture(
            video_id, f"strip/{start}/{end}", lambda: draw_strip(checked_path(record), record.kind, start, end)
        )

    def sound(self, video_id: str, start: int, end: int) -> Served:
        """The spectrogram of a span; a video without sound has none."""
        record = self._record(video_id)
        _check_span(record, start, end)
        return self._picture(
            video_id, f"sound/{start}/{end}", lambda: draw_sound(checked_path(record), start, end, size=SOUND_SIZE)
        )

    def _record(self, video_id: str) -> VideoRecord:
        record = self._find(video_id)
        if record is None:
            raise NotServedError("no indexed video has this id")
        return record

    def _cache_of(self, video_id: str) -> FileCache:
        return self._passing if video_id.startswith(UPLOAD) else self._cache

    def _picture(self, video_id: str, what: str, draw: Callable[[], Picture]) -> Served:
        def make(part: Path) -> None:
            with self._jobs:
                Image.fromarray(draw()).save(part, format="JPEG", quality=82)

        return Served(self._cache_of(video_id).fetch(f"{video_id}/{what}", ".jpg", make), "image/jpeg")


def checked_path(record: VideoRecord) -> Path:
    """Where a video lies now: the first of its paths that still holds the file that was indexed.

    Links are resolved first. Size and modification time must be those of the ledger, so that neither a link laid later
    nor a file put in its place is served.

    Raises:
        NotServedError: If none does.
    """
    for path in record.paths:
        try:
            resolved = Path(path).resolve(strict=True)
            status = resolved.stat()
        except (OSError, RuntimeError):
            continue
        if stat.S_ISREG(status.st_mode) and [status.st_size, status.st_mtime_ns] == list(record.stats.get(path, ())):
            return resolved
    raise NotServedError("the file of this video was moved or changed since it was indexed; add it again")


def playable_type(facts: Mapping[str, Any]) -> str | None:
    """The content type under which a browser plays a file with these facts, or None if it needs a proxy."""
    containers = set(str(facts.get("container", "")).split(","))
    picture, sound = str(facts.get("video_codec", "")), str(facts.get("audio_codec", ""))
    for content_type, (allowed, pictures, sounds) in PLAYABLE.items():
        if containers & set(allowed) and picture in pictures and sound in sounds:
            return content_type
    return None


def proxy_start(second: float) -> int:
    """Where the proxy that shows a second begins; seconds near each other share one."""
    return max(0, int(second - PROXY_LEAD_SECONDS) // 10 * 10)


def write_proxy(source: Path, target: Path, *, start: int, has_picture: bool) -> None:
    """Convert a stretch of a media file with moviepy's ffmpeg.

    Raises:
        NotServedError: If it cannot be converted, or takes too long.
    """
    from moviepy.config import FFMPEG_BINARY

    pictures = ["-map", "0:v:0", "-vf", f"yadif=deint=interlaced,scale=-2:'min({PROXY_HEIGHT},ih)',format=yuv420p"]
    pictures += ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "26"]
    command = [
        *(FFMPEG_BINARY, "-nostdin", "-v", "error", "-y", "-threads", "2"),
        *("-protocol_whitelist", "file", "-ss", str(start), "-t", str(PROXY_SECONDS), "-i", f"file:{source}"),
        *(pictures if has_picture else ["-vn"]),
        *("-map", "0:a:0?", "-c:a", "aac", "-b:a", "96k", "-ac", "2"),
        *("-map_metadata", "-1", "-movflags", "+faststart", "-f", "mp4", f"file:{target}"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROXY_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as exc:
        raise NotServedError(
            "converting this stretch for the browser took too long; copy the file to watch it"
        ) from exc
    if done.returncode or not target.exists() or not target.stat().st_size:
        raise NotServedError("this file cannot be converted for the browser; its copy on the server may be damaged")


def draw_sheet(path: Path, kind: str, start: int, end: int) -> Picture:
    """(SHEET_HEIGHT, CELL[0], 3): see `Media.sheet`."""
    if kind == "audio":
        return draw_sound(path, start, end, size=(CELL[0], SHEET_HEIGHT))
    seconds = spread_seconds(start, end, count=N_SMALL)
    stills = _stills(path, seconds, size=CELL)
    large = fill_cell(stills[seconds[N_SMALL // 2]], width=CELL[0], height=CELL[1])
    width = CELL[0] // N_SMALL
    small = [
        fill_cell(
            _shrink(stills[second], width=width, height=SHEET_HEIGHT - CELL[1]),
            width=width,
            height=SHEET_HEIGHT - CELL[1],
        )
        for second in seconds
    ]
    return np.concatenate([large, np.concatenate(small, axis=1)])


def draw_still(path: Path, kind: str, second: int) -> Picture:
    """(CELL[1], CELL[0], 3): see `Media.still`."""
    if kind == "audio":
        return draw_sound(path, second, second + 1, size=CELL)
    return fill_cell(_stills(path, [second], size=CELL)[second], width=CELL[0], height=CELL[1])


def draw_strip(path: Path, kind: str, start: int, end: int) -> Picture:
    """(STRIP_CELL[1], STRIP_CELLS * STRIP_CELL[0], 3): see `Media.strip`."""
    if kind == "audio":
        return draw_sound(path, start, end, size=(STRIP_CELLS * STRIP_CELL[0], STRIP_CELL[1]))
    seconds = spread_seconds(start, end, count=STRIP_CELLS)
    stills = _stills(path, seconds, size=STRIP_CELL)
    return np.concatenate(
        [fill_cell(stills[second], width=STRIP_CELL[0], height=STRIP_CELL[1]) for second in seconds], axis=1
    )


def draw_sound(path: Path, start: int, end: int, *, size: tuple[int, int]) -> Picture:
    """(size[1], size[0], 3) spectrogram of a span; what the file does not cover is silence."""
    waveform = decode_waveform(path, sample_rate_hz=SOUND_RATE_HZ, start_seconds=start, stop_seconds=end)
    missing = (end - start) * SOUND_RATE_HZ - len(waveform)
    return draw_spectrogram(np.pad(waveform, (0, max(0, missing))), width=size[0], height=size[1])


def _stills(path: Path, seconds: list[int], *, size: tuple[int, int]) -> dict[int, Picture | None]:
    """Second -> (H, W, 3) picture, each second decoded once."""
    wanted = sorted(set(seconds))
    found = decode_stills(path, seconds=wanted, width=size[0], height=size[1])
    return {
        second: None if picture is None else np.ascontiguousarray(picture.transpose(1, 2, 0))
        for second, picture in zip(wanted, found, strict=True)
    }


def _shrink(picture: Picture | None, *, width: int, height: int) -> Picture | None:
    if picture is None:
        return None
    image = Image.fromarray(picture)
    image.thumbnail((width, height))
    return np.asarray(image)


def _check_span(record: VideoRecord, start: int, end: int) -> None:
    """Refuse a span that is not in the video.

    Raises:
        NotServedError: If it is empty, too long to draw, or beyond the video's end.
    """
    if not 0 <= start < end <= max(record.seconds_expected, 1) or end - start > MAX_PICTURE_SECONDS:
        raise NotServedError(f"seconds {start} to {end} are not in this video of {record.seconds_expected} seconds")
