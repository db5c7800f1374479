"""What a person asks with: the form as it was filled in, checked, becomes a query.

Whatever comes from a browser is checked here: files lie in the upload folder, videos are indexed, numbers are in range.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visxp_search.api import find_video
from visxp_search.clips import format_time, parse_time
from visxp_search.decode import MediaInfo, probe
from visxp_search.errors import UsageError
from visxp_search.queries import Progress
from visxp_search.search import MODES, Query, clip_query, frame_query, moment_query, sound_query
from visxp_search.store import Store, VideoRecord
from webui.archive import Archive
from webui.narrow import EVERYWHERE, Narrow
from webui.videos import display_name
from webui.wording import whole_number

CLIP, SOUND, STILL, INDEXED = "clip", "sound", "still", "indexed"
MAX_TOP = 96
MAX_QUERY_SPAN_SECONDS = 120
"""Longest query the page computes; the command line takes longer ones."""


@dataclass(frozen=True)
class Uploads:
    """Where uploads lie, and what is taken.

    Attributes:
        folder: the only folder that files may be read from for a query.
        max_bytes: of a file.
        max_seconds: of a video or sound.
    """

    folder: Path
    max_bytes: int = 500_000_000
    max_seconds: float = 3600.0


@dataclass(frozen=True)
class Form:
    """What a person filled in; see `read_query` for what is required of it.

    Attributes:
        kind: `clip`, `sound`, `still` or `indexed`.
        file: an uploaded file, for the first three.
        video: an indexed video, for the last.
        start: as in `clips.parse_time`; empty for the beginning.
        end: as start; empty for the end.
        by: `both`, `visual` or `audio`.
        audio_weight: share of the sound, in [0, 1].
        mode: `similar` or `same`.
        cross: for a sound: look for the pictures that go with it.
        top: moments wanted.
        per_video: at most so many of one video.
        grouped: show the moments of a video together.
        weak: show also what chance gives.
        narrow: where to look.
    """

    kind: str = CLIP
    file: str | None = None
    video: str = ""
    start: str = ""
    end: str = ""
    by: str = "both"
    audio_weight: float = 0.5
    mode: str = "similar"
    cross: bool = False
    top: int = 24
    per_video: int = 3
    grouped: bool = False
    weak: bool = False
    narrow: Narrow = EVERYWHERE


def check_form(form: Form) -> None:
    """Refuse values that the page's own widgets cannot give.

    Raises:
        UsageError: If there is one.
    """
    if form.kind not in (CLIP, SOUND, STILL, INDEXED):
        raise UsageError(f"cannot ask with {form.kind!r}; choose clip, sound, still or indexed")
    if form.mode not in MODES or form.by not in ("both", "visual", "audio"):
        raise UsageError(
            f"mode {form.mode!r} by {form.by!r} is unknown; choose similar or same, by both, visual or audio"
        )
    if not 1 <= form.top <= MAX_TOP or not 1 <= form.per_video <= MAX_TOP:
        raise UsageError(f"between 1 and {MAX_TOP} moments can be asked for")
    if not 0 <= form.audio_weight <= 1:
        raise UsageError("the weight of the sound lies between 0 and 1")


def read_query(archive: Archive, form: Form, uploads: Uploads, *, progress: Progress) -> tuple[Query, str]:
    """The query that a form means, and its title.

    Args:
        archive: the index.
        form: as it was filled in.
        uploads: where its file lies.
        progress: told how far the reading and embedding of a file is; may raise to end it.

    Raises:
        VisxpError: If something is missing, unreadable or too long.
    """
    start, end = read_span(form.start, form.end)
    if form.kind == INDEXED:
        if not form.video:
            raise UsageError("choose a video of the archive first")
        record = find_video(archive.store, form.video)
        stop = min(record.seconds_expected, math.ceil(end) if end is not None else record.seconds_expected)
        return indexed_query(archive.store, record, int(start), stop, form)
    path, name = checked_upload(form.file, uploads)
    info = check_media(path, name, form.kind, uploads)
    if form.kind == STILL:
        progress("load", 0, 0)
        return frame_query(path, archive.index.embedder), name
    stop_at = info.duration_seconds if end is None else end
    if start >= max(info.duration_seconds, 1):
        raise UsageError(f"the query begins at {start:g} s, but {name} is only {info.duration_seconds:.1f} s long")
    if stop_at - start > MAX_QUERY_SPAN_SECONDS:
        raise UsageError(
            f"{stop_at - start:.0f} seconds is too long for a moment; choose at most {MAX_QUERY_SPAN_SECONDS} "
            f"with From and To"
        )
    progress("load", 0, 0)
    embedder = archive.index.embedder
    fine = form.mode == "same"
    if form.kind == SOUND:
        sound = sound_query(path, embedder, start=start, end=end, cross=form.cross, fine=fine, progress=progress)
        return sound, name
    clip = clip_query(
        path,
        embedder,
        start=start,
        end=end,
        by=form.by,
        audio_weight=form.audio_weight,
        fine=fine,
        progress=progress,
    )
    return clip, name


def read_span(start: str, end: str) -> tuple[float, float | None]:
    """Seconds of a span that a person wrote.

    Raises:
        UsageError: If a time is not understood, or the span is empty.
    """
    try:
        first = parse_time(start.strip()) if start.strip() else 0.0
        last = parse_time(end.strip()) if end.strip() else None
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    if last is not None and last <= first:
        raise UsageError(f"the query ends ({end.strip()}) before it begins ({start.strip() or '0'})")
    return first, last


def checked_upload(file: object, uploads: Uploads) -> tuple[Path, str]:
    """An uploaded file and its name; nothing outside the upload folder is read, whatever a browser sends.

    Raises:
        UsageError: If there is no file, or it is empty, too large, or somewhere else.
    """
    if not file:
        raise UsageError("choose or record something to ask with first")
    try:
        path = Path(str(file)).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as exc:
        raise UsageError("the uploaded file is gone; upload it again") from exc
    if not path.is_relative_to(uploads.folder.resolve()) or not path.is_file():
        raise UsageError("only uploaded files can be asked with")
    n_bytes = path.stat().st_size
    if n_bytes == 0:
        raise UsageError(f"{path.name} is empty (0 bytes); choose another file")
    if n_bytes > uploads.max_bytes:
        raise UsageError(
            f"{path.name} has {n_bytes / 1e6:.0f} MB; this page takes up to {uploads.max_bytes / 1e6:.0f} MB, "
            f"cut out the part you mean"
        )
    return path, path.name


def check_media(path: Path, name: str, kind: str, uploads: Uploads) -> MediaInfo:
    """What an uploaded file is, if it can be asked with in this way.

    Raises:
        VisxpError: If it is no media file, of another kind, or too long.
    """
    info = probe(path)
    if kind == STILL and info.kind != "image":
        raise UsageError(f"{name} is {_a(info.kind)}, not a picture; ask with it under {_tab_of(info.kind)}")
    if kind != STILL and info.kind == "image":
        raise UsageError(f"{name} is a picture; ask with it under Still")
    if kind == SOUND and not info.has_audio:
        raise UsageError(f"{name} has no sound; ask with it under Clip")
    if info.duration_seconds > uploads.max_seconds:
        raise UsageError(
            f"{name} is {info.duration_seconds / 60:.0f} minutes long; this page takes up to "
            f"{uploads.max_seconds / 60:.0f}, cut out the part you mean"
        )
    return info


def indexed_query(store: Store, record: VideoRecord, start: int, end: int, form: Form) -> tuple[Query, str]:
    """Ask with seconds of the archive itself.

    Raises:
        UsageError: If they are not in the video, or too many.
    """
    name = display_name(record)
    if not 0 <= start < end:
        raise UsageError(f"seconds {start} to {end} are not in {name}, which has {record.seconds_expected}")
    if end - start > MAX_QUERY_SPAN_SECONDS:
        raise UsageError(f"{end - start} seconds is too long for a moment; choose at most {MAX_QUERY_SPAN_SECONDS}")
    query = moment_query(store, record.video_id, start=start, end=end, by=form.by, audio_weight=form.audio_weight)
    return query, f"{name}, {format_time(start)} to {format_time(end)}"


def picked_span(record: VideoRecord, start: str, end: str, picked: Mapping[str, Any]) -> tuple[int, int]:
    """`[first, stop)` seconds chosen on a video's timeline: dragged (`start`, `end`), or moved by a key (`step`).

    Raises:
        UsageError: If the values are no numbers.
    """
    length = max(1, record.seconds_expected)
    if "step" in picked:
        first, last = read_span(start, end)
        step = 1 if whole_number(picked["step"], "step") > 0 else -1
        stop = math.ceil(last if last is not None else length) + step
        begin = int(first) + (0 if picked.get("end_only") else step)
    else:
        begin, stop = whole_number(picked.get("start"), "start"), whole_number(picked.get("end"), "end")
    begin = min(max(0, begin), length - 1)
    return begin, min(max(begin + 1, stop), length)


def whole_span(start: float, end: float) -> tuple[int, int]:
    """`[first, stop)` whole seconds of a moment, as many as the page asks with at most."""
    first = int(start)
    return first, max(first + 1, min(math.ceil(end), first + MAX_QUERY_SPAN_SECONDS))


def _a(kind: str) -> str:
    return {"video": "a video", "audio": "a sound", "image": "a picture"}[kind]


def _tab_of(kind: str) -> str:
    return {"video": "Clip", "audio": "Sound", "image": "Still"}[kind]
