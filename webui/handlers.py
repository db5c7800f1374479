"""What the page does, as plain functions from inputs to outputs; nothing here knows of Gradio.

Whatever comes from a browser is checked here: files lie in the upload folder, videos are indexed, numbers are in range.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visxp_search.api import find_video
from visxp_search.clips import format_time, parse_time
from visxp_search.decode import MediaInfo, probe
from visxp_search.errors import UsageError
from visxp_search.search import (
    MODES,
    Moment,
    Query,
    Results,
    clip_query,
    find_moments,
    frame_query,
    moment_query,
    results_to_json,
    sound_query,
)
from visxp_search.store import Filter, Store, VideoRecord
from visxp_search.trace import Curve, trace_video
from webui.adding import Adder
from webui.archive import Archive

CLIP, SOUND, STILL, INDEXED = "clip", "sound", "still", "indexed"
PAGE_SIZE = 12
MAX_TOP = 96
MAX_HIDDEN = 500
TRACE_SECONDS = 150
"""Seconds of video shown around a moment, on each side."""
MAX_QUERY_SPAN_SECONDS = 120
"""Longest query the page computes; the command line takes longer ones."""

_FOLDERS = re.compile(r"(?:/[^\s/:;,'\"()]+)+/")


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


@dataclass(frozen=True)
class Found:
    """A search and how it is being looked at; lives on the server, one per visitor.

    Attributes:
        query: what was asked.
        results: what was found.
        form: with which options.
        names: video id -> what people are shown instead of a path.
        title: what was asked, in words.
        hidden: videos that are left out.
        page: first page is 0.
        chosen: number of the moment being watched, or None.
    """

    query: Query
    results: Results
    form: Form
    names: Mapping[str, str]
    title: str
    hidden: tuple[str, ...] = ()
    page: int = 0
    chosen: int | None = None

    @property
    def moments(self) -> tuple[Moment, ...]:
        """All moments, in the order in which they are shown."""
        if not self.form.grouped:
            return self.results.moments
        order = list(dict.fromkeys(moment.video_id for moment in self.results.moments))
        return tuple(sorted(self.results.moments, key=lambda moment: order.index(moment.video_id)))

    @property
    def n_pages(self) -> int:
        """At least 1."""
        return max(1, math.ceil(len(self.results.moments) / PAGE_SIZE))

    def moment(self, number: object) -> Moment:
        """The moment with this number, counted from 0.

        Raises:
            UsageError: If there is none.
        """
        index = whole_number(number, "moment")
        if not 0 <= index < len(self.moments):
            raise UsageError("this moment is no longer among the results; search again")
        return self.moments[index]


@dataclass(frozen=True)
class Watched:
    """A moment to be played, with all that is shown beside it.

    Attributes:
        record: the video.
        name: what people are shown.
        start: of the moment, seconds.
        end: exclusive.
        curve: similarity along the surroundings; None where there is no query.
        around: `[first, stop)` of the surroundings, seconds.
        moment: what the search says of it, if it comes from one.
        query_offset: time in the video less the time in the query's own file, in step; None where that means nothing.
    """

    record: VideoRecord
    name: str
    start: float
    end: float
    curve: Curve | None
    around: tuple[int, int]
    moment: Moment | None = None
    query_offset: float | None = None


def find(archive: Archive, form: Form, uploads: Uploads) -> Found:
    """Ask with what the form says.

    Raises:
        VisxpError: If the form cannot be answered; the words are for a person.
    """
    check_form(form)
    query, title = read_query(archive, form, uploads)
    return search(archive, query, form, title=title)


def search(archive: Archive, query: Query, form: Form, *, title: str, hidden: Sequence[str] = ()) -> Found:
    """Find the moments that answer a query, leaving out hidden videos."""
    results = find_moments(
        archive.store,
        query,
        mode=form.mode,
        top=form.top,
        per_video=form.per_video,
        where=Filter(not_video_ids=tuple(hidden)),
    )
    names = {video_id: name_of(archive.store, video_id) for video_id in {m.video_id for m in results.moments}}
    return Found(query, results, form, names, title, tuple(hidden))


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


def read_query(archive: Archive, form: Form, uploads: Uploads) -> tuple[Query, str]:
    """The query that a form means, and its title.

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
        return frame_query(path, archive.index.embedder), name
    stop_at = info.duration_seconds if end is None else end
    if start >= max(info.duration_seconds, 1):
        raise UsageError(f"the query begins at {start:g} s, but {name} is only {info.duration_seconds:.1f} s long")
    if stop_at - start > MAX_QUERY_SPAN_SECONDS:
        raise UsageError(
            f"{stop_at - start:.0f} seconds is too long for a moment; choose at most {MAX_QUERY_SPAN_SECONDS} "
            f"with From and To"
        )
    embedder = archive.index.embedder
    if form.kind == SOUND:
        return sound_query(path, embedder, start=start, end=end, cross=form.cross), name
    return clip_query(path, embedder, start=start, end=end, by=form.by, audio_weight=form.audio_weight), name


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


def more_like(archive: Archive, form: Form, video_id: str, start: float, end: float) -> Found:
    """Search for more like an indexed moment, with the options of the form."""
    record = _record(archive.store, video_id)
    options = replace(form, kind=INDEXED, video=video_id, start=str(start), end=str(end), cross=False)
    stop = min(math.ceil(end), int(start) + MAX_QUERY_SPAN_SECONDS)
    query, title = indexed_query(archive.store, record, int(start), stop, options)
    return search(archive, query, options, title=f"more like {title}")


def hide_video(archive: Archive, found: Found, video_id: str) -> Found:
    """The same search without one more video."""
    _record(archive.store, video_id)
    hidden = tuple(dict.fromkeys((*found.hidden, video_id)))[-MAX_HIDDEN:]
    return search(archive, found.query, found.form, title=found.title, hidden=hidden)


def unhide_all(archive: Archive, found: Found) -> Found:
    """The same search in all videos again."""
    return search(archive, found.query, found.form, title=found.title)


def turn_page(found: Found, step: int) -> Found:
    """Another page of the same results; stops at both ends."""
    return replace(found, page=min(max(0, found.page + step), found.n_pages - 1))


def watch(archive: Archive, found: Found, number: object) -> Watched:
    """A moment of the results, with the query's similarity along its surroundings."""
    moment = found.moment(number)
    record = _record(archive.store, moment.video_id)
    around = surroundings(record, moment.start, moment.end)
    curve = trace_video(archive.store, found.query, moment.video_id, start=around[0], end=around[1])
    from_file = found.query.kind in ("clip", "sound")
    begin = float(found.query.origin.get("start", 0.0))
    return Watched(
        record=record,
        name=display_name(record),
        start=moment.start,
        end=moment.end,
        curve=curve,
        around=around,
        moment=moment,
        query_offset=moment.offset - begin if from_file else None,
    )


def watch_span(archive: Archive, video_id: str, start: object, end: object) -> Watched:
    """A stretch of an indexed video that does not come from a search."""
    record = _record(archive.store, video_id)
    first, stop = whole_number(start, "start"), whole_number(end, "end")
    if not 0 <= first < stop <= max(1, record.seconds_expected):
        raise UsageError(f"seconds {first} to {stop} are not in this video of {record.seconds_expected}")
    return Watched(record, display_name(record), first, stop, None, surroundings(record, first, stop))


def surroundings(record: VideoRecord, start: float, end: float) -> tuple[int, int]:
    """`[first, stop)` of what is shown around a moment: the whole video if it is short."""
    length = max(record.seconds_expected, math.ceil(end))
    if length <= 2 * TRACE_SECONDS:
        return 0, length
    return max(0, int(start) - TRACE_SECONDS), min(length, math.ceil(end) + TRACE_SECONDS)


def results_document(found: Found) -> dict[str, Any]:
    """The JSON of DESIGN section 4 with `name` instead of `path`: the server's folders are nobody's business.

    `gradio_client` would, besides, try to download whatever has a `path`.
    """
    document = results_to_json(found.results)
    document["query"].pop("path", None)
    document["query"]["title"] = found.title
    for moment in document["moments"]:
        del moment["path"]
        moment["name"] = found.names.get(moment["video_id"], moment["video_id"])
    return document


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


def remove_video(archive: Archive, adder: Adder, video_id: str) -> None:
    """Remove a video from the index; the file itself stays.

    Raises:
        UsageError: If it is not indexed, or videos are being added, whose ledger would bring it back.
    """
    record = _record(archive.store, video_id)
    if adder.is_busy:
        raise UsageError("videos are being added; remove this one when that has ended, or cancel it first")
    archive.store.delete_video(record.video_id)
    archive.store.flush()


def list_videos(store: Store, *, text: str = "", status: str = "") -> list[VideoRecord]:
    """The ledger's entries whose name holds a text, by name."""
    wanted = text.strip().lower()
    records = [record for record in store.videos(status or None) if wanted in display_name(record).lower()]
    return sorted(records, key=lambda record: (display_name(record).lower(), record.video_id))


def video_choices(store: Store, *, limit: int = 2000) -> list[tuple[str, str]]:
    """(name, video id) of videos that can be asked with; a name that occurs twice gets the start of its id."""
    records = [record for record in list_videos(store) if record.seconds_done][:limit]
    names = [display_name(record) for record in records]
    return [
        (f"{name} ({record.video_id[:6]})" if names.count(name) > 1 else name, record.video_id)
        for name, record in zip(names, records, strict=True)
    ]


def name_of(store: Store, video_id: str) -> str:
    """What people are shown instead of the path of a video."""
    record = store.video(video_id)
    return display_name(record) if record is not None else video_id[:12]


def display_name(record: VideoRecord) -> str:
    """The file's name."""
    return Path(record.paths[0]).name if record.paths else record.video_id[:12]


def whole_number(value: object, what: str) -> int:
    """An integer that a browser sent.

    Raises:
        UsageError: If it is none.
    """
    try:
        return int(float(str(value)))
    except (ValueError, OverflowError) as exc:
        raise UsageError(f"{what} {value!r} is not a number") from exc


def hide_folders(text: str, names: Mapping[str, str] | None = None) -> str:
    """A message for a browser: known paths become names, and of any other path only the last part is left."""
    for path in sorted(names or {}, key=len, reverse=True):
        text = text.replace(path, (names or {})[path])
    return _FOLDERS.sub("", text)


def _record(store: Store, video_id: str) -> VideoRecord:
    record = store.video(video_id)
    if record is None:
        raise UsageError("this video is no longer in the index; search again")
    return record


def _a(kind: str) -> str:
    return {"video": "a video", "audio": "a sound", "image": "a picture"}[kind]


def _tab_of(kind: str) -> str:
    return {"video": "Clip", "audio": "Sound", "image": "Still"}[kind]
