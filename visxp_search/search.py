"""A query becomes embeddings, embeddings become hits, hits become moments.

Candidates come from the store (the best seconds for each second of the query). Around them the similarity of every
second of the query with every second of the video is computed exactly, and moments are read off that matrix
(`visxp_search.moments`).
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visxp_search.clips import Clip, make_clip
from visxp_search.decode import decode_clips, decode_image, probe
from visxp_search.embed import Embedder
from visxp_search.errors import UsageError
from visxp_search.moments import Span, same_spans, similar_spans
from visxp_search.store import PENDING, Filter, SecondPoint, Store

FloatArray = npt.NDArray[np.float32]

MODALITIES = ("visual", "audio")
MODES = ("similar", "same")
MAX_QUERY_ROWS = 64
"""Seconds of a query that are sent to the store; longer queries send this many, evenly spread."""
MAX_QUERY_SECONDS = 1200
"""Longest query; a whole tape is not a moment."""
CANDIDATES = 2000
"""Hits asked of the store for a whole query and modality, shared among its seconds."""
BACKGROUND_SECONDS = 512
"""Seconds of the archive, drawn at random but always the same, that scores are compared with."""
WHOLE_VIDEO_SECONDS = 900
"""Videos up to this long are compared whole; of longer ones only the surroundings of hits."""


@dataclass(frozen=True)
class Query:
    """What is looked for: embeddings, one row a second.

    Attributes:
        kind: `clip`, `sound`, `frame` or `moment`, for the report.
        vectors: name of a stored vector -> (Q, D) rows of norm 1; rows of a missing modality are NaN.
        weights: name -> share in the score; they sum to 1.
        origin: what was asked with (path, span), for the report.
        video_id: the indexed video that the query was taken from, if known.
    """

    kind: str
    vectors: Mapping[str, FloatArray]
    weights: Mapping[str, float]
    origin: Mapping[str, Any] = field(default_factory=dict)
    video_id: str | None = None

    @property
    def n_seconds(self) -> int:
        """Q."""
        return len(next(iter(self.vectors.values())))


@dataclass(frozen=True)
class SecondScore:
    """One second of a moment: cosine similarity with the second of the query that it matches best.

    A modality is None where the query or this second has no vector of it.
    """

    second: int
    visual: float | None
    audio: float | None
    cluster: int | None


@dataclass(frozen=True)
class Moment:
    """A run of seconds `[start, end)` of one video that answers the query.

    Attributes:
        video_id: the video.
        path: where it lies.
        start: seconds.
        end: seconds, exclusive.
        score: mean over the query's seconds of the best similarity within the moment, in [-1, 1].
        percentile: share, in percent, of random seconds of the archive that score lower.
        visual: mean similarity of the pictures; None where there are none to compare.
        audio: mean similarity of the sounds.
        coverage: share of the query's seconds that the moment answers.
        offset: start of the moment less the second of the query that it begins with, seconds.
        seconds: the single seconds.
    """

    video_id: str
    path: str
    start: float
    end: float
    score: float
    percentile: float
    visual: float | None
    audio: float | None
    coverage: float
    offset: float
    seconds: tuple[SecondScore, ...]


@dataclass(frozen=True)
class Results:
    """What a search found, best first, and in what it looked."""

    query: Query
    mode: str
    moments: tuple[Moment, ...]
    n_videos: int
    n_seconds: int
    complete: bool
    took_ms: float


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
) -> Query:
    """Ask with a clip of a video or audio file.

    Whole seconds are asked with: `start` is rounded down, `end` up.

    Raises:
        DecodeError: If the file cannot be read.
        UsageError: If the span is empty or has nothing to ask with.
    """
    weights = choose_weights(by, audio_weight)
    clips = read_clips(path, embedder, start=start, end=end)
    embeddings = embedder.embed(clips)
    vectors = {"visual": embeddings.visual, "audio": embeddings.audio}
    weights = _drop_missing(weights, vectors, path, by=by)
    return Query(
        kind="clip",
        vectors={name: vectors[name] for name in weights},
        weights=weights,
        origin={"path": str(path), "start": clips[0].second, "end": clips[-1].second + 1},
    )


def sound_query(
    path: Path, embedder: Embedder, *, start: float = 0.0, end: float | None = None, cross: bool = False
) -> Query:
    """Ask with the sound of a file; `cross` asks which pictures go with it, through the joint space.

    Raises:
        DecodeError: If the file cannot be read.
        UsageError: If there is no sound in the span.
    """
    clips = read_clips(path, embedder, start=start, end=end)
    sounds = [replace(clip, frame=None, flags=()) if clip.has_audio else _nothing(clip.second) for clip in clips]
    embeddings = embedder.embed(sounds)
    vectors = {"joint": embeddings.joint_audio} if cross else {"audio": embeddings.audio}
    weights = _drop_missing(dict.fromkeys(vectors, 1.0), vectors, path, by="sound")
    return Query(
        kind="sound",
        vectors=vectors,
        weights=weights,
        origin={"path": str(path), "start": clips[0].second, "end": clips[-1].second + 1, "cross": cross},
    )


def frame_query(path: Path, embedder: Embedder) -> Query:
    """Ask with a picture file.

    Raises:
        DecodeError: If the file is not a picture that can be read.
        UsageError: If the picture is black.
    """
    frame = decode_image(path, frame_size=embedder.frame_size)
    embeddings = embedder.embed([make_clip(0, frame=frame, waveform=None)])
    weights = _drop_missing({"visual": 1.0}, {"visual": embeddings.visual}, path, by="visual")
    return Query(kind="frame", vectors={"visual": embeddings.visual}, weights=weights, origin={"path": str(path)})


def moment_query(
    store: Store, video_id: str, *, start: int, end: int, by: str = "both", audio_weight: float = 0.5
) -> Query:
    """Ask for more like an indexed moment `[start, end)`; nothing is decoded.

    Raises:
        UsageError: If the index has no such seconds, or they have nothing to ask with.
    """
    weights = choose_weights(by, audio_weight)
    points = store.get([(video_id, second) for second in range(start, end)], with_vectors=tuple(weights))
    if not points:
        raise UsageError(f"seconds {start} to {end} of video {video_id} are not indexed; see: visxp index ls")
    vectors = {
        name: _rows([point.vectors.get(name) for point in points], length=store.info.dims[name]) for name in weights
    }
    weights = _drop_missing(weights, vectors, Path(video_id), by=by)
    return Query(
        kind="moment",
        vectors={name: vectors[name] for name in weights},
        weights=weights,
        origin={"video_id": video_id, "start": start, "end": end},
        video_id=video_id,
    )


def read_clips(path: Path, embedder: Embedder, *, start: float = 0.0, end: float | None = None) -> list[Clip]:
    """The clips of `[start, end)` of a media file, of which a query is made.

    Raises:
        DecodeError: If the file cannot be read.
        UsageError: If the span is empty, or too long to ask with.
    """
    if end is not None and end <= start:
        raise UsageError(f"--end {end} is not after --start {start}")
    clips = list(islice(iterate_clips(path, embedder, start=start, end=end), MAX_QUERY_SECONDS + 1))
    if not clips:
        raise UsageError(f"{path} has no seconds from {start} on; it is {probe(path).duration_seconds:.1f} s long")
    if len(clips) > MAX_QUERY_SECONDS:
        raise UsageError(f"{path} is longer than {MAX_QUERY_SECONDS} s; choose what to ask with: --start and --end")
    return clips


def iterate_clips(path: Path, embedder: Embedder, *, start: float = 0.0, end: float | None = None) -> Iterator[Clip]:
    """The clips of `[start, end)` of a media file one by one; an image is one clip.

    Raises:
        DecodeError: If the file cannot be read.
    """
    with decode_clips(
        path,
        frame_size=embedder.frame_size,
        sample_rate_hz=embedder.sample_rate_hz,
        start_second=int(start),
        stop_second=None if end is None else int(np.ceil(end)),
    ) as clips:
        yield from clips


def find_moments(
    store: Store,
    query: Query,
    *,
    mode: str = "similar",
    top: int = 10,
    per_video: int = 3,
    where: Filter | None = None,
) -> Results:
    """The moments that answer a query best.

    Args:
        store: an open index of the checkpoint that made the query.
        query: from one of the `*_query` functions.
        mode: `similar` (looks or sounds like it) or `same` (the same recording, second by second in step).
        top: moments wanted.
        per_video: at most so many of one video.
        where: which seconds may be found.

    Raises:
        UsageError: If mode is unknown or top is not positive.
    """
    if mode not in MODES:
        raise UsageError(f"--mode {mode} is unknown; choose similar or same")
    if top < 1 or per_video < 1:
        raise UsageError(f"--top {top} and --per-video {per_video} must be at least 1")
    started = time.perf_counter()
    candidates = _candidates(store, query, where=where, n_videos=max(30, 3 * top))
    background = _background_scores(store, query)
    find_spans = similar_spans if mode == "similar" else same_spans
    moments: list[Moment] = []
    for video_id, seconds in candidates.items():
        points = store.get([(video_id, second) for second in seconds], with_vectors=tuple(query.weights))
        for run in _consecutive(points):
            similarities = _similarities(query, run)
            spans = find_spans(_fuse(similarities, query), limit=per_video)
            moments += [_moment(span, run, similarities, background) for span in spans]
    best = _best(moments, top=top, per_video=per_video)
    paths = {video_id: _path_of(store, video_id) for video_id in {moment.video_id for moment in best}}
    return Results(
        query=query,
        mode=mode,
        moments=tuple(replace(moment, path=paths[moment.video_id]) for moment in best),
        n_videos=store.count_videos(),
        n_seconds=store.count(),
        complete=store.count_videos(PENDING) == 0,
        took_ms=(time.perf_counter() - started) * 1000,
    )


def results_to_json(results: Results) -> dict[str, Any]:
    """The document that `--json` prints, as in DESIGN section 4."""
    query = results.query
    return {
        "query": {
            "kind": query.kind,
            "by": "both" if len(query.weights) > 1 else next(iter(query.weights)),
            "mode": results.mode,
            "seconds": query.n_seconds,
            "weights": dict(query.weights),
            **query.origin,
        },
        "moments": [moment_to_json(moment) for moment in results.moments],
        "indexed": {"videos": results.n_videos, "seconds": results.n_seconds, "complete": results.complete},
        "took_ms": round(results.took_ms, 1),
    }


def moment_to_json(moment: Moment) -> dict[str, Any]:
    """One moment as JSON values, numbers rounded to what they mean."""
    return {
        "video_id": moment.video_id,
        "path": moment.path,
        "start": moment.start,
        "end": moment.end,
        "score": round(moment.score, 4),
        "percentile": round(moment.percentile, 2),
        "visual": _rounded(moment.visual),
        "audio": _rounded(moment.audio),
        "coverage": round(moment.coverage, 3),
        "offset": moment.offset,
        "seconds": [
            {
                "second": second.second,
                "visual": _rounded(second.visual),
                "audio": _rounded(second.audio),
                "cluster": second.cluster,
            }
            for second in moment.seconds
        ],
    }


def _candidates(store: Store, query: Query, *, where: Filter | None, n_videos: int) -> dict[str, list[int]]:
    """Video id -> the seconds worth comparing, for the most promising videos."""
    votes: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    hits_at: dict[str, set[int]] = defaultdict(set)
    for name, rows in query.vectors.items():
        present = np.flatnonzero(~np.isnan(rows[:, 0]))
        if len(present) > MAX_QUERY_ROWS:
            present = present[np.linspace(0, len(present) - 1, MAX_QUERY_ROWS).round().astype(int)]
        top = max(30, CANDIDATES // len(present))
        for row, hits in zip(present.tolist(), store.query(name, rows[present], top=top, where=where), strict=True):
            for hit in hits:
                key = (name, row)
                score = query.weights[name] * hit.score
                votes[hit.video_id][key] = max(votes[hit.video_id].get(key, 0.0), score)
                hits_at[hit.video_id].add(hit.second)
    promising = sorted(votes, key=lambda video_id: (-sum(votes[video_id].values()), video_id))[:n_videos]
    allowed = where.seconds if where is not None else None
    return {
        video_id: _surroundings(hits_at[video_id], reach=query.n_seconds, allowed=allowed) for video_id in promising
    }


def _surroundings(seconds: Iterable[int], *, reach: int, allowed: tuple[int, int] | None) -> list[int]:
    """Seconds within reach of a hit, or all up to the last such second where that is not many more."""
    hits = sorted(seconds)
    low, high = max(0, hits[0] - reach), hits[-1] + reach + 1
    if high - low <= WHOLE_VIDEO_SECONDS:
        wanted = set(range(low, high))
    else:
        wanted = {near for hit in hits for near in range(max(0, hit - reach), hit + reach + 1)}
    if allowed is not None:
        wanted = {second for second in wanted if allowed[0] <= second < allowed[1]}
    return sorted(wanted)


def _consecutive(points: Sequence[SecondPoint]) -> list[list[SecondPoint]]:
    """Split points sorted by second where a second is missing."""
    runs: list[list[SecondPoint]] = []
    for point in points:
        if not runs or point.second != runs[-1][-1].second + 1:
            runs.append([])
        runs[-1].append(point)
    return runs


def _similarities(query: Query, points: Sequence[SecondPoint]) -> dict[str, FloatArray]:
    """Vector name -> (Q, T) cosine similarities, NaN where either side has no vector."""
    return {
        name: rows @ _rows([point.vectors.get(name) for point in points], length=rows.shape[1]).T
        for name, rows in query.vectors.items()
    }


def _fuse(similarities: Mapping[str, FloatArray], query: Query) -> FloatArray:
    """(Q, T) weighted similarity.

    A modality that a second of the query lacks does not count for that second; one that only the other side lacks
    counts as no similarity at all (0). Rows of the query with nothing to ask with are NaN.
    """
    total = np.zeros_like(next(iter(similarities.values())))
    weight = np.zeros((len(total), 1), dtype=np.float32)
    for name, matrix in similarities.items():
        present = ~np.isnan(query.vectors[name][:, :1])
        total += np.where(present, query.weights[name] * np.nan_to_num(matrix), 0)
        weight += np.where(present, query.weights[name], 0).astype(np.float32)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan).astype(np.float32)


def _background_scores(store: Store, query: Query) -> FloatArray:
    """Sorted scores of random seconds of the archive: for each, its best similarity with a second of the query."""
    points: list[SecondPoint] = []
    for point in store.seconds(with_vectors=tuple(query.weights), page=BACKGROUND_SECONDS):
        points.append(point)
        if len(points) == BACKGROUND_SECONDS:
            break
    if not points:
        return np.empty(0, dtype=np.float32)
    fused = _fuse(_similarities(query, points), query)
    return np.sort(np.nanmax(fused, axis=0))


def _moment(
    span: Span, points: Sequence[SecondPoint], similarities: Mapping[str, FloatArray], background: FloatArray
) -> Moment:
    seconds = []
    for column in range(span.start, span.stop):
        row = span.rows[column - span.start]
        cluster = points[column].payload.get("cluster")
        scores = {name: _number(matrix[row, column]) for name, matrix in similarities.items()}
        # The joint space has one score for both: it is reported as the picture's, which is what is looked for.
        visual = scores.get("visual", scores.get("joint"))
        seconds.append(SecondScore(points[column].second, visual, scores.get("audio"), cluster))
    first = points[span.start].second
    return Moment(
        video_id=points[0].video_id,
        path="",
        start=float(first),
        end=float(first + span.stop - span.start),
        score=span.score,
        percentile=100.0 * float(np.searchsorted(background, span.score)) / max(len(background), 1),
        visual=_mean([second.visual for second in seconds]),
        audio=_mean([second.audio for second in seconds]),
        coverage=span.coverage,
        offset=float(first - span.rows[0]),
        seconds=tuple(seconds),
    )


def _best(moments: list[Moment], *, top: int, per_video: int) -> list[Moment]:
    chosen: list[Moment] = []
    taken: dict[str, int] = defaultdict(int)
    for moment in sorted(moments, key=lambda moment: (-moment.score, moment.video_id, moment.start)):
        if taken[moment.video_id] < per_video:
            taken[moment.video_id] += 1
            chosen.append(moment)
    return chosen[:top]


def _path_of(store: Store, video_id: str) -> str:
    record = store.video(video_id)
    return record.paths[0] if record and record.paths else ""


def _drop_missing(
    weights: Mapping[str, float], vectors: Mapping[str, FloatArray], path: Path, *, by: str
) -> dict[str, float]:
    """The weights of modalities that the query has at all, summing to 1 again."""
    there = {name: weight for name, weight in weights.items() if not np.isnan(vectors[name]).all()}
    if not there:
        raise UsageError(
            f"{path} has nothing to ask with by {by} in that span: no sound or only silence, no picture or only black; "
            f"choose another span or --by"
        )
    total = sum(there.values())
    return {name: weight / total for name, weight in there.items()}


def _nothing(second: int) -> Clip:
    return make_clip(second, frame=None, waveform=None)


def _rows(vectors: Sequence[FloatArray | None], *, length: int) -> FloatArray:
    missing = np.full(length, np.nan, dtype=np.float32)
    return np.stack([missing if vector is None else vector for vector in vectors])


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
