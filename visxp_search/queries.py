"""What is asked with: a clip, a sound, a picture or indexed moments become the embeddings of a query."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visxp_search.clips import BLACK, NO_AUDIO, NO_VIDEO, SILENT, Clip, make_clip
from visxp_search.decode import decode_clips, decode_image, probe
from visxp_search.embed import Embedder, Embeddings, begin_loading
from visxp_search.errors import UsageError
from visxp_search.sound_step import band_levels
from visxp_search.store import SecondPoint, Store

FloatArray = npt.NDArray[np.float32]

MODALITIES = ("visual", "audio")
STEPS = 4
"""Seconds that begin in each second of a query where the same recording is looked for: an excerpt begins somewhere
between the whole seconds of what it was taken from, and only what was cut as those were is fully like them."""
FIRST_STEP = -1
"""The first of them begins so many steps after the query: all whose middle lies in the query are asked with."""
MAX_FINE_SECONDS = 60
"""Longer queries are cut into whole seconds only: they find their place by their length."""
ALONE_SECONDS = 0.3
"""Reading a query that takes longer goes on while the encoders are loaded; a shorter one is read before, as two threads
of Python hold each other up: 5 s of 360p take 0.1 s alone and 0.8 s beside `import torch`, which itself takes half as
long again."""
MAX_QUERY_SECONDS = 1200
"""Longest query; a whole tape is not a moment."""
EMBED_STEP = 16
"""Clips embedded at a time; after so many a long query can be ended."""
Progress = Callable[[str, int, int], None]
"""Told what is done (`read`, `embed`), how many seconds of it are done, and how many there are; may raise to end it."""


def untold(what: str, done: int, total: int) -> None:
    """Nobody follows."""


@dataclass(frozen=True)
class Query:
    """What is looked for: embeddings, one row a second.

    Attributes:
        kind: `clip`, `sound`, `frame` or `moment`, for the report.
        vectors: name of a stored vector -> (Q, D) rows of norm 1; rows of a missing modality are NaN.
        weights: name -> share in the score; they sum to 1. Empty where there is nothing to ask with (`why_empty`).
        origin: what was asked with (path, span), for the report.
        video_id: the indexed video that the query was taken from, if known.
        duration_seconds: real length; less than Q where the last second is a part of one.
        examples: for each row the number of the example that it belongs to; None for one clip, whose order counts.
        against: name -> (U, D) rows of examples of what is not wanted.
        fine_vectors: name -> (F, D) rows of the seconds that begin `STEPS` times a second, from `FIRST_STEP` on; empty
            where the query was not cut that finely.
        sound_levels: (n, B) levels of its sound (`visxp_search.sound_step`), where it was cut finely and has any.
        notes: what a person should know of the query, such as seconds that are silent.
        why_empty: why nothing can be asked with this.
    """

    kind: str
    vectors: Mapping[str, FloatArray]
    weights: Mapping[str, float]
    origin: Mapping[str, Any] = field(default_factory=dict)
    video_id: str | None = None
    duration_seconds: float | None = None
    examples: tuple[int, ...] | None = None
    against: Mapping[str, FloatArray] = field(default_factory=dict)
    fine_vectors: Mapping[str, FloatArray] = field(default_factory=dict)
    sound_levels: FloatArray | None = None
    notes: tuple[str, ...] = ()
    why_empty: str = ""

    @property
    def n_seconds(self) -> int:
        """Q."""
        return len(next(iter(self.vectors.values()), ()))

    @property
    def length_seconds(self) -> float:
        """Real length."""
        return float(self.n_seconds) if self.duration_seconds is None else self.duration_seconds


def choose_weights(by: str, audio_weight: float) -> dict[str, float]:
    """Shares of the modalities in the score.

    Args:
        by: `both`, `visual` or `audio`.
        audio_weight: share of the sound when by both, in [0, 1].

    Raises:
        UsageError: If a value is not allowed.
    """
    if by not in ("both", *MODALITIES):
        raise UsageError(f"--by {by} is unknown; choose both, visual or audio")
    if not 0 <= audio_weight <= 1:
        raise UsageError(f"--audio-weight {audio_weight} is outside 0 to 1")
    if by != "both":
        return {by: 1.0}
    return {name: share for name, share in (("visual", 1 - audio_weight), ("audio", audio_weight)) if share > 0}


def clip_query(
    path: Path,
    embedder: Embedder,
    *,
    start: float = 0.0,
    end: float | None = None,
    by: str = "both",
    audio_weight: float = 0.5,
    fine: bool = False,
    progress: Progress = untold,
) -> Query:
    """Ask with a clip of a video or audio file.

    Whole seconds are asked with: `start` is rounded down, `end` up. `fine` also cuts it as `same` searches want it.

    Raises:
        DecodeError: If the file cannot be read.
        UsageError: If the span is empty or an option is not allowed.
    """
    weights = choose_weights(by, audio_weight)
    clips, fine_clips = _read_finely(path, embedder, start=start, end=end, fine=fine, progress=progress)
    embeddings = embed_clips(fine_clips or clips, embedder, progress=progress)
    query = _query(
        "clip",
        _whole_seconds({"visual": embeddings.visual, "audio": embeddings.audio}, is_fine=bool(fine_clips)),
        weights,
        clips,
        what=str(path),
        origin={"path": str(path), "start": clips[0].second, "end": clips[-1].second + 1},
        duration=_real_length(path, clips, end=end),
    )
    if not fine_clips:
        return query
    vectors = {"visual": embeddings.visual, "audio": embeddings.audio}
    return replace(
        query,
        fine_vectors={name: vectors[name] for name in vectors if name in query.weights},
        sound_levels=_sound_levels(clips, embedder, query) if "audio" in query.weights else None,
    )


def sound_query(
    path: Path,
    embedder: Embedder,
    *,
    start: float = 0.0,
    end: float | None = None,
    cross: bool = False,
    fine: bool = False,
    progress: Progress = untold,
) -> Query:
    """Ask with the sound of a file; `cross` asks which pictures go with it, through the joint space.

    `fine` also cuts it as `same` searches want it.

    Raises:
        DecodeError: If the file cannot be read.
        UsageError: If the span is empty.
    """
    clips, fine_clips = _read_finely(path, embedder, start=start, end=end, fine=fine, progress=progress)
    sounds = [
        replace(clip, frame=None, flags=()) if clip.has_audio else _nothing(clip.second) for clip in fine_clips or clips
    ]
    embeddings = embed_clips(sounds, embedder, progress=progress)
    vectors = {"joint": embeddings.joint_audio} if cross else {"audio": embeddings.audio}
    query = _query(
        "sound",
        _whole_seconds(vectors, is_fine=bool(fine_clips)),
        dict.fromkeys(vectors, 1.0),
        clips,
        what=str(path),
        origin={"path": str(path), "start": clips[0].second, "end": clips[-1].second + 1, "cross": cross},
        duration=_real_length(path, clips, end=end),
    )
    if not fine_clips or not query.weights:
        return query
    return replace(query, fine_vectors=vectors, sound_levels=None if cross else _sound_levels(clips, embedder, query))


def frame_query(path: Path, embedder: Embedder) -> Query:
    """Ask with a picture file.

    Raises:
        DecodeError: If the file is not a picture that can be read.
    """
    frame = decode_image(path, frame_size=embedder.frame_size)
    clips = [make_clip(0, frame=frame, waveform=None)]
    vectors = {"visual": embedder.embed(clips).visual}
    return _query("frame", vectors, {"visual": 1.0}, clips, what=str(path), origin={"path": str(path)})


def moment_query(
    store: Store, video_id: str, *, start: int, end: int, by: str = "both", audio_weight: float = 0.5
) -> Query:
    """Ask for more like an indexed moment `[start, end)`; nothing is decoded.

    Raises:
        UsageError: If the index has no such seconds.
    """
    weights = choose_weights(by, audio_weight)
    points = store.get([(video_id, second) for second in range(start, end)], with_vectors=tuple(weights))
    if not points:
        raise UsageError(f"seconds {start} to {end} of video {video_id} are not indexed; see: visxp index ls")
    query = _query(
        "moment",
        {name: stack_rows(points, name, length=store.info.dims[name]) for name in weights},
        weights,
        points,
        what=f"{video_id} from {start} to {end} s",
        origin={"video_id": video_id, "start": start, "end": end},
    )
    return replace(query, video_id=video_id)


def add_examples(query: Query, *, like: Sequence[Query], unlike: Sequence[Query]) -> Query:
    """The query with further examples of what is wanted, and of what is not.

    With examples the order of seconds no longer counts: a second is wanted as much as it resembles, on average, the
    best second of each example, less what it resembles an unwanted one.
    """
    wanted = [part for part in (query, *like) if part.weights]
    names = [name for name in ("visual", "audio", "joint") if any(name in part.weights for part in wanted)]
    vectors: dict[str, FloatArray] = {}
    against: dict[str, FloatArray] = {}
    for name in names:
        length = next(part.vectors[name].shape[1] for part in wanted if name in part.vectors)
        vectors[name] = np.concatenate([_rows_or_nan(part, name, length) for part in wanted])
        unwanted = [_rows_or_nan(part, name, length) for part in unlike]
        if unwanted:
            against[name] = np.concatenate(unwanted)
    weights = {name: max(part.weights.get(name, 0.0) for part in wanted) for name in names}
    total = sum(weights.values())
    examples = [number for number, part in enumerate(wanted) for _ in range(part.n_seconds)]
    remarks = {"like": [dict(part.origin) for part in like], "unlike": [dict(part.origin) for part in unlike]}
    return replace(
        query,
        vectors=vectors or query.vectors,
        weights={name: weight / total for name, weight in weights.items()},
        examples=tuple(examples) if like or len(wanted) != 1 else query.examples,
        against=against,
        fine_vectors={} if like or len(wanted) != 1 else query.fine_vectors,
        sound_levels=None if like or len(wanted) != 1 else query.sound_levels,
        origin={**query.origin, **{name: values for name, values in remarks.items() if values}},
        duration_seconds=None if like else query.duration_seconds,
        why_empty="" if wanted else query.why_empty,
    )


def read_clips(
    path: Path,
    embedder: Embedder,
    *,
    start: float = 0.0,
    end: float | None = None,
    per_second: int = 1,
    progress: Progress = untold,
) -> list[Clip]:
    """The clips of `[start, end)` of a media file, of which a query is made; `per_second` as for `decode_clips`.

    Raises:
        DecodeError: If the file cannot be read.
        UsageError: If the span is empty, or too long to ask with.
    """
    if end is not None and end <= start:
        raise UsageError(f"--end {end} is not after --start {start}")
    most = MAX_QUERY_SECONDS * per_second
    reader = iterate_clips(path, embedder, start=start, end=end, per_second=per_second, progress=progress)
    clips: list[Clip] = []
    begun = time.perf_counter()
    for clip in islice(reader, most + 1):
        clips.append(clip)
        if time.perf_counter() - begun > ALONE_SECONDS:
            begin_loading(embedder)
    if not clips:
        raise UsageError(f"{path} has no seconds from {start} on; it is {probe(path).duration_seconds:.1f} s long")
    if len(clips) > most:
        raise UsageError(f"{path} is longer than {MAX_QUERY_SECONDS} s; choose what to ask with: --start and --end")
    return clips


def _read_finely(
    path: Path, embedder: Embedder, *, start: float, end: float | None, fine: bool, progress: Progress
) -> tuple[list[Clip], list[Clip]]:
    """The clips of whole seconds, and those that begin `STEPS` times a second; none where that is not wanted."""
    if fine:
        info = probe(path)
        length = min(info.duration_seconds, np.inf if end is None else end) - start
        if info.kind != "image" and 0 < length <= MAX_FINE_SECONDS:
            clips = read_clips(path, embedder, start=start, end=end, per_second=STEPS, progress=progress)
            return clips[-FIRST_STEP::STEPS], clips
    return read_clips(path, embedder, start=start, end=end, progress=progress), []


def _whole_seconds(vectors: Mapping[str, FloatArray], *, is_fine: bool) -> dict[str, FloatArray]:
    return {name: rows[-FIRST_STEP::STEPS] if is_fine else rows for name, rows in vectors.items()}


def _sound_levels(clips: Sequence[Clip], embedder: Embedder, query: Query) -> FloatArray:
    """Of the seconds of a query, to its real end."""
    rate = embedder.sample_rate_hz
    silence = np.zeros(rate, dtype=np.float32)
    waveform = np.concatenate([silence if clip.waveform is None else clip.waveform for clip in clips])
    return band_levels(waveform[: round(query.length_seconds * rate)], sample_rate_hz=rate)


def embed_clips(clips: Sequence[Clip], embedder: Embedder, *, progress: Progress = untold) -> Embeddings:
    """The embeddings of the clips of a query, `EMBED_STEP` at a time."""
    parts = []
    for first in range(0, len(clips), EMBED_STEP):
        progress("embed", first, len(clips))
        parts.append(embedder.embed(clips[first : first + EMBED_STEP]))
    return Embeddings.joined(parts)


def iterate_clips(
    path: Path,
    embedder: Embedder,
    *,
    start: float = 0.0,
    end: float | None = None,
    per_second: int = 1,
    progress: Progress = untold,
) -> Iterator[Clip]:
    """The clips of `[start, end)` of a media file one by one, `per_second` as for `decode_clips`; an image is one clip.

    Raises:
        DecodeError: If the file cannot be read.
    """
    with decode_clips(
        path,
        frame_size=embedder.frame_size,
        sample_rate_hz=embedder.sample_rate_hz,
        start_second=int(start),
        stop_second=None if end is None else int(np.ceil(end)),
        per_second=per_second,
    ) as clips:
        for done, clip in enumerate(clips, start=1):
            progress("read", done // per_second, clips.stop_second - clips.start_second)
            yield clip


def stack_rows(points: Sequence[SecondPoint | None], name: str, *, length: int) -> FloatArray:
    """(n, D) named vectors of points; NaN where there is no point, or no such vector."""
    rows = np.full((len(points), length), np.nan, dtype=np.float32)
    for row, point in enumerate(points):
        if point is not None and name in point.vectors:
            rows[row] = point.vectors[name]
    return rows


def _query(
    kind: str,
    vectors: Mapping[str, FloatArray],
    weights: Mapping[str, float],
    seconds: Sequence[Clip | SecondPoint],
    *,
    what: str,
    origin: Mapping[str, Any],
    duration: float | None = None,
) -> Query:
    """A query of the modalities that are there at all, or one that says why there is nothing to ask with."""
    there = {name: weight for name, weight in weights.items() if not np.isnan(vectors[name]).all()}
    total = sum(there.values())
    return Query(
        kind=kind,
        vectors={name: vectors[name] for name in there} or vectors,
        weights={name: weight / total for name, weight in there.items()},
        origin=origin,
        duration_seconds=duration,
        notes=_remarks(seconds, wanted=weights) if there else (),
        why_empty="" if there else f"{what} has nothing to compare: {', '.join(_remarks(seconds, wanted=weights))}",
    )


def _remarks(seconds: Sequence[Clip | SecondPoint], *, wanted: Mapping[str, float]) -> tuple[str, ...]:
    """Which seconds lack what was to be compared, and why."""
    visual, audio = "visual" in wanted, "audio" in wanted or "joint" in wanted
    reasons = (
        (BLACK, visual, "the picture is black"),
        (NO_VIDEO, visual, "there is no picture"),
        (SILENT, audio, "the sound is silent"),
        (NO_AUDIO, audio, "there is no sound"),
    )
    remarks = []
    for flag, matters, words in reasons:
        n_flagged = sum(flag in _flags_of(second) for second in seconds)
        if matters and n_flagged:
            extent = f"in {n_flagged} of {len(seconds)} s" if n_flagged < len(seconds) else "throughout"
            remarks.append(f"{words} {extent}")
    return tuple(remarks)


def _flags_of(second: Clip | SecondPoint) -> Sequence[str]:
    return second.flags if isinstance(second, Clip) else second.payload.get("flags", ())


def _real_length(path: Path, clips: Sequence[Clip], *, end: float | None) -> float:
    """Seconds from the first clip's start to the end of the file, or of the last second asked for if that is first."""
    whole = float(len(clips))
    first = clips[0].second
    rest = probe(path).duration_seconds - first
    if rest <= whole - 1:  # images, and files that do not say how long they are
        return whole
    return min(rest, whole + 0.5, np.inf if end is None else np.ceil(end) - first)


def _rows_or_nan(part: Query, name: str, length: int) -> FloatArray:
    return part.vectors[name] if name in part.vectors else np.full((part.n_seconds, length), np.nan, dtype=np.float32)


def _nothing(second: int) -> Clip:
    return make_clip(second, frame=None, waveform=None)
