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
from visxp_search.filters import make_filter
from visxp_search.queries import add_examples
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
from visxp_search.store import Store, VideoRecord
from visxp_search.trace import Curve, trace_video
from webui.adding import Adder
from webui.archive import Archive
from webui.clusters import Clusters, Run, title_of
from webui.narrow import EVERYWHERE, Narrow, make_scope

CLIP, SOUND, STILL, INDEXED = "clip", "sound", "still", "indexed"
PAGE_SIZE = 12
MAX_TOP = 96
MAX_HIDDEN = 500
MAX_ROUNDS = 20
"""Examples that rounds of "also like" and "not like" may add to a search."""
CLUSTER_EXAMPLES = 4
"""Typical seconds of a cluster that a search for more like it asks with."""
MAX_EARLIER = 10
"""Searches that can be gone back to."""
TRACE_SECONDS = 150
"""Seconds of video shown around a moment, on each side."""
MAX_QUERY_SPAN_SECONDS = 120
"""Longest query the page computes; the command line takes longer ones."""

PAGE_WORDS = {
    "; --max-chance raises it": ", so it is left out as weak",
    "--min-visual and --min-audio": "the least likeness that was asked for",
    "see: visxp index ls": "see Manage",
}
"""What core messages say of the command line, in the words of the page."""

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


@dataclass(frozen=True)
class Round:
    """An indexed moment that a person added to a search as an example of what is wanted, or of what is not."""

    video_id: str
    start: int
    end: int
    wanted: bool


@dataclass(frozen=True)
class Found:
    """A search and how it is being looked at; lives on the server, one per visitor.

    Attributes:
        base: what was asked with at first.
        results: what was found; its query has the examples of all rounds.
        form: with which options.
        names: video id -> what people are shown instead of a path.
        title: what was asked, in words.
        hidden: videos that are left out.
        rounds: examples that were added to it, oldest first.
        page: first page is 0.
        chosen: number of the moment being watched, or None.
        earlier: searches that this one came from, the last one last; theirs are empty.
    """

    base: Query
    results: Results
    form: Form
    names: Mapping[str, str]
    title: str
    hidden: tuple[str, ...] = ()
    rounds: tuple[Round, ...] = ()
    page: int = 0
    chosen: int | None = None
    earlier: tuple["Found", ...] = ()

    @property
    def query(self) -> Query:
        """What was asked with in the end."""
        return self.results.query

    @property
    def reason(self) -> str:
        """Why nothing was found, in the words of the page; empty if something was."""
        words = self.results.reason
        for said, shown in PAGE_WORDS.items():
            words = words.replace(said, shown)
        return hide_folders(words)

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
        strip: the whole video as runs of clusters; empty where it has none.
        moment: what the search says of it, if it comes from one.
        query_offset: time in the video less the time in the query's own file, in step; None where that means nothing.
    """

    record: VideoRecord
    name: str
    start: float
    end: float
    curve: Curve | None
    around: tuple[int, int]
    strip: tuple[Run, ...] = ()
    moment: Moment | None = None
    query_offset: float | None = None


def find(archive: Archive, clusters: Clusters, form: Form, uploads: Uploads) -> Found:
    """Ask with what the form says.

    Raises:
        VisxpError: If the form cannot be answered; the words are for a person.
    """
    check_form(form)
    query, title = read_query(archive, form, uploads)
    return search(archive, clusters, query, form, title=title)


def search(
    archive: Archive,
    clusters: Clusters,
    query: Query,
    form: Form,
    *,
    title: str,
    hidden: Sequence[str] = (),
    rounds: Sequence[Round] = (),
    earlier: Sequence[Found] = (),
) -> Found:
    """Find the moments that answer a query and the examples of all rounds, leaving out hidden videos."""
    store = archive.store
    asked = query
    if rounds:
        examples = [
            (moment_query(store, r.video_id, start=r.start, end=r.end, by=form.by, audio_weight=form.audio_weight), r)
            for r in rounds
        ]
        asked = add_examples(
            query,
            like=[example for example, r in examples if r.wanted],
            unlike=[example for example, r in examples if not r.wanted],
        )
    results = find_moments(
        store,
        asked,
        mode=form.mode,
        top=form.top,
        per_video=form.per_video,
        where=make_filter(store, make_scope(form.narrow, clusters, hidden=hidden)),
        max_chance=math.inf if form.weak else None,
    )
    wanted = {moment.video_id for moment in results.moments} | {r.video_id for r in rounds}
    names = {video_id: name_of(store, video_id) for video_id in wanted}
    return Found(
        query, results, form, names, title, tuple(hidden), tuple(rounds), earlier=tuple(earlier)[-MAX_EARLIER:]
    )


def again(archive: Archive, clusters: Clusters, found: Found, **changes: Any) -> Found:
    """The same search with something changed; it can be gone back from.

    Args:
        archive: the index.
        clusters: its clusters.
        found: the search so far.
        changes: arguments of `search`.
    """
    asked: dict[str, Any] = {"title": found.title, "hidden": found.hidden, "rounds": found.rounds} | changes
    form = asked.pop("form", found.form)
    return search(archive, clusters, found.base, form, earlier=(*found.earlier, replace(found, earlier=())), **asked)


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


def more_like(
    archive: Archive, clusters: Clusters, form: Form, video_id: str, start: float, end: float, *, found: Found | None
) -> Found:
    """A new search for more like an indexed moment, with the options of the form.

    `found` can be gone back to, and what is hidden in it stays so.
    """
    record = _record(archive.store, video_id)
    options = replace(form, kind=INDEXED, video=video_id, start=str(start), end=str(end), cross=False)
    first, stop = whole_span(start, end)
    query, title = indexed_query(archive.store, record, first, stop, options)
    earlier = () if found is None else (*found.earlier, replace(found, earlier=()))
    hidden = () if found is None else found.hidden
    return search(archive, clusters, query, options, title=f"more like {title}", hidden=hidden, earlier=earlier)


def search_cluster(archive: Archive, clusters: Clusters, form: Form, node: str) -> Found:
    """A search with what stands for a cluster or branch: its typical seconds as examples.

    Raises:
        UsageError: If there is no such node, or it has no seconds.
    """
    known = clusters.require()
    description = known.descriptions[known.book.find(node)]
    if not description.nearest:
        raise UsageError(f"{node} has no seconds to ask with")
    first, *others = [(e.video_id, e.second, e.second + 1) for e in description.nearest[:CLUSTER_EXAMPLES]]
    query = moment_query(
        archive.store, first[0], start=first[1], end=first[2], by=form.by, audio_weight=form.audio_weight
    )
    rounds = [Round(video_id, start, end, wanted=True) for video_id, start, end in others]
    name = name_of(archive.store, first[0])
    asked = f"{title_of(known.book, description.node)}: {name}, {format_time(first[1])}"
    return search(archive, clusters, query, form, title=asked, rounds=rounds)


def add_round(
    archive: Archive, clusters: Clusters, found: Found, video_id: str, start: float, end: float, *, wanted: bool
) -> Found:
    """The same search with one more example of what is wanted, or of what is not.

    Raises:
        UsageError: If there are too many, or the moment is no longer indexed.
    """
    record = _record(archive.store, video_id)
    first, stop = whole_span(start, end)
    example = Round(record.video_id, first, stop, wanted)
    others = tuple(r for r in found.rounds if (r.video_id, r.start, r.end) != (example.video_id, first, stop))
    if len(others) >= MAX_ROUNDS:
        raise UsageError(f"a search holds {MAX_ROUNDS} examples; take one away, or begin anew with More")
    return again(archive, clusters, found, rounds=(*others, example))


def drop_round(archive: Archive, clusters: Clusters, found: Found, number: object) -> Found:
    """The same search without one of its examples."""
    at = whole_number(number, "example")
    return again(archive, clusters, found, rounds=tuple(r for n, r in enumerate(found.rounds) if n != at))


def go_back(found: Found) -> Found:
    """The search before this one; the first one stays."""
    return replace(found.earlier[-1], earlier=found.earlier[:-1]) if found.earlier else found


def show_weak(archive: Archive, clusters: Clusters, found: Found) -> Found:
    """The same search with what chance gives."""
    return again(archive, clusters, found, form=replace(found.form, weak=True))


def hide_video(archive: Archive, clusters: Clusters, found: Found, video_id: str) -> Found:
    """The same search without one more video."""
    _record(archive.store, video_id)
    hidden = tuple(dict.fromkeys((*found.hidden, video_id)))[-MAX_HIDDEN:]
    return again(archive, clusters, found, hidden=hidden)


def unhide_all(archive: Archive, clusters: Clusters, found: Found) -> Found:
    """The same search in all videos again."""
    return again(archive, clusters, found, hidden=())


def turn_page(found: Found, step: int) -> Found:
    """Another page of the same results; stops at both ends."""
    return replace(found, page=min(max(0, found.page + step), found.n_pages - 1))


def watch(archive: Archive, clusters: Clusters, found: Found, number: object) -> Watched:
    """A moment of the results, with the query's similarity along its surroundings."""
    moment = found.moment(number)
    record = _record(archive.store, moment.video_id)
    around = surroundings(record, moment.start, moment.end)
    curve = trace_video(archive.store, found.query, moment.video_id, start=around[0], end=around[1])
    from_file = found.query.kind in ("clip", "sound") and found.query.examples is None
    begin = float(found.query.origin.get("start", 0.0))
    return Watched(
        record=record,
        name=display_name(record),
        start=moment.start,
        end=moment.end,
        curve=curve,
        around=around,
        strip=clusters.strip(record.video_id),
        moment=moment,
        query_offset=moment.offset - begin if from_file else None,
    )


def watch_span(archive: Archive, clusters: Clusters | None, video_id: str, start: object, end: object) -> Watched:
    """A stretch of an indexed video that does not come from a search."""
    record = _record(archive.store, video_id)
    first, stop = whole_number(start, "start"), whole_number(end, "end")
    if not 0 <= first < stop <= max(1, record.seconds_expected):
        raise UsageError(f"seconds {first} to {stop} are not in this video of {record.seconds_expected}")
    strip = clusters.strip(record.video_id) if clusters is not None else ()
    return Watched(record, display_name(record), first, stop, None, surroundings(record, first, stop), strip)


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


def whole_span(start: float, end: float) -> tuple[int, int]:
    """`[first, stop)` whole seconds of a moment, as many as the page asks with at most."""
    first = int(start)
    return first, max(first + 1, min(math.ceil(end), first + MAX_QUERY_SPAN_SECONDS))


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
