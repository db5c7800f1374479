"""Hits become moments: candidates, exact comparison, and what chance would give.

Candidates come from the store: the best seconds for each second of the query vote for a video and, in `same`, for a
place in it. Around them the similarity of every second of the query with every second of the video is computed exactly,
standardised against a random sample of the archive (`visxp_search.background`), and moments are read off that matrix
(`visxp_search.moments`).

What is expected by chance: of a `similar` moment, how many windows of the archive would score as high, by the tail of
random windows; of a `same` moment, how many lines would, by the best lines through the next similar videos.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from visxp_search.background import (
    COMMON_SHARE,
    MIN_SAMPLE,
    Scale,
    Tail,
    common_shares,
    common_weights,
    expected_above,
    fit_scale,
    fit_tail,
    nearest_cosines,
    resemblance_threshold,
)
from visxp_search.errors import UsageError
from visxp_search.filters import matches
from visxp_search.moments import Span, best_elsewhere, line_gains, same_spans, similar_spans, window_value
from visxp_search.queries import (
    Query,
    clip_query,
    frame_query,
    iterate_clips,
    moment_query,
    read_clips,
    sound_query,
    stack_rows,
)
from visxp_search.results import Moment, Results, SecondScore, moment_to_json, results_to_json
from visxp_search.store import PENDING, Filter, SecondPoint, Store, VideoRecord

__all__ = [
    "Moment",
    "Query",
    "Results",
    "SecondScore",
    "clip_query",
    "find_moments",
    "frame_query",
    "iterate_clips",
    "moment_query",
    "moment_to_json",
    "read_clips",
    "results_to_json",
    "sound_query",
]

FloatArray = npt.NDArray[np.float32]

MODES = ("similar", "same")
MAX_CHANCE = {"similar": 1.0, "same": 0.01}
"""Default cut-off: moments of which more are expected by chance are not answers; see also `FAMILIAR_QUANTILE`."""
FAMILIAR_QUANTILE = 0.05
"""By default a `similar` moment is an answer, too, if it is as like the query as the seconds of the archive are like
their nearest neighbours in other videos, apart from this share of the loneliest ones."""
MAX_QUERY_ROWS = 64
"""Seconds of a query that are sent to the store; longer queries send this many, evenly spread."""
CANDIDATES = 2000
"""Hits asked of the store for a whole query and modality, shared among its seconds."""
BLOCK_SECONDS = 60
"""Every such stretch of a video has one best line; long videos tell more of chance than short ones."""
MOST_SUPPORT = 0.1
"""A `same` moment must stand out from the best lines elsewhere; that its seconds also stand out from random windows
makes it less likely by chance, but at most by this factor, as lookalikes do so too."""
OUT_OF_STEP, CLEARLY_IN_STEP = 0.85, 0.6
"""A line must also stand out from the others in its own video. If another offset is worth more than the first share
of it, the video merely looks or sounds alike throughout (so do stills: `similar` finds those); if none is worth the
second, that supports it as much as `MOST_SUPPORT` says. Support counts for the best line alone: of a group of equals
each must stand out from the rest without it, as lookalikes come in groups. Both shares are chosen on 112 degraded
excerpts and 70 queries that were not indexed."""
MIN_STEPS = 3
CANDIDATE_VIDEOS = 80
"""Videos that are compared at least: the best ones hold the answers, the others tell what chance gives."""
SAMPLE_SECONDS = 2048
"""Seconds of the archive, drawn at random but always the same, that scores are compared with."""
SAMPLE_WINDOW = 16
"""Longest window of the sample."""
RESEMBLANCE_SECONDS = 600
"""Seconds of the sample that tell what is common."""
WHOLE_VIDEO_SECONDS = 900
"""Videos up to this long are compared whole; of longer ones only the surroundings of hits."""


@dataclass(frozen=True)
class Sample:
    """Random windows of consecutive seconds of the archive.

    Attributes:
        vectors: name -> (B, D), NaN where a second has none.
        owners: (B,) number of the video of each second.
        seconds: (B,) the second of its video that each is.
        video_ids: the video of each number.
        windows: (n, L) rows of `vectors`; -1 behind the end of a video.
    """

    vectors: Mapping[str, FloatArray]
    owners: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.int64]
    video_ids: tuple[str, ...]
    windows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Comparison:
    """A query beside one run of seconds of one video.

    Attributes:
        points: T consecutive seconds.
        cosines: name -> (Q, T), NaN where either side has no vector.
        evidence: (Q, T) what all modalities together say, in deviations above unrelated seconds.
        common: (T,) share of the archive that each second resembles.
        elsewhere: of `same`, how well the video fits the query out of step, see `moments.best_elsewhere`.
    """

    points: Sequence[SecondPoint]
    cosines: Mapping[str, FloatArray]
    evidence: FloatArray
    common: FloatArray
    elsewhere: float


def find_moments(
    store: Store,
    query: Query,
    *,
    mode: str = "similar",
    top: int = 10,
    per_video: int = 3,
    where: Filter | None = None,
    max_chance: float | None = None,
    min_visual: float = 0.0,
    min_audio: float = 0.0,
    exhaustive: bool = False,
    on_progress: Callable[[int, int, int], None] = lambda done, total, found: None,
) -> Results:
    """The moments that answer a query best.

    Args:
        store: an open index of the checkpoint that made the query.
        query: from `visxp_search.queries`.
        mode: `similar` (looks or sounds like it) or `same` (the same recording, second by second in step).
        top: moments wanted.
        per_video: at most so many of one video.
        where: which seconds may be found.
        max_chance: leave out moments of which more are expected by chance; infinity leaves out none. None takes
            `MAX_CHANCE` and, in `similar`, keeps what is as alike as neighbours in this archive are.
        min_visual: least percentile of the picture, 0 to 100; needs a picture if above 0.
        min_audio: least percentile of the sound.
        exhaustive: compare every second of every video, not only the candidates of the store.
        on_progress: of an exhaustive search, called with (videos done, videos, moments so far).

    Raises:
        UsageError: If mode is unknown, or a number is outside its range.
    """
    _check_options(mode, top=top, per_video=per_video, min_visual=min_visual, min_audio=min_audio)
    started = time.perf_counter()
    cut = MAX_CHANCE[mode] if max_chance is None else max_chance
    moments: list[Moment] = []
    yields: list[tuple[int, int]] = []
    if query.weights:
        reader = _Reader(store, query, mode=mode, per_video=per_video, n_places=store.count(where))

        def passes(moment: Moment) -> bool:
            familiar = max_chance is None and reader.is_familiar(moment)
            return (familiar or _within(moment, cut)) and _reaches(moment, min_visual, min_audio)

        chosen = (
            _everything(store, where)
            if exhaustive
            else reader.candidates(where, n_videos=max(CANDIDATE_VIDEOS, 3 * top))
        )
        for done, (video_id, seconds) in enumerate(chosen.items(), start=1):
            for run in _consecutive(_points(store, query, video_id, seconds, where)):
                reader.read(run)
            if exhaustive and (done % max(1, len(chosen) // 10) == 0 or done == len(chosen)):
                # Until enough is compared nothing is known of chance, and so of no moment that it is one.
                so_far = [m for m in reader.moments() if passes(m) and (m.chance is not None or done == len(chosen))]
                yields.append((done, len(_best(so_far, top=len(so_far), per_video=per_video))))
                on_progress(done, len(chosen), yields[-1][1])
        found = reader.moments()
        best = _best([moment for moment in found if passes(moment)], top=top, per_video=per_video)
        records = {video_id: store.video(video_id) for video_id in {moment.video_id for moment in best}}
        moments = [_located(moment, records[moment.video_id]) for moment in best]
        reason = "" if moments else _why_nothing(found, cut)
    else:
        reason = query.why_empty
    return Results(
        query=query,
        mode=mode,
        moments=tuple(moments),
        n_videos=store.count_videos(),
        n_seconds=store.count(),
        complete=store.count_videos(PENDING) == 0,
        took_ms=(time.perf_counter() - started) * 1000,
        max_chance=cut,
        reason=reason,
        yields=tuple(yields),
    )


def draw_sample(store: Store, names: Sequence[str], *, window: int) -> Sample:
    """Random windows of the archive: they begin at the first points in the order of ids, which are hashes.

    Args:
        store: an open index.
        names: vectors wanted.
        window: seconds of each window; `SAMPLE_SECONDS` are shared among them.
    """
    n_windows = SAMPLE_SECONDS // window
    anchors = list(islice(store.seconds(page=n_windows), n_windows))
    keys = sorted({(a.video_id, a.second + step) for a in anchors for step in range(window)})
    points = store.get(keys, with_vectors=tuple(names))
    row_of = {(point.video_id, point.second): row for row, point in enumerate(points)}
    video_ids = tuple(sorted({point.video_id for point in points}))
    number = {video_id: n for n, video_id in enumerate(video_ids)}
    return Sample(
        vectors={name: stack_rows(points, name, length=store.info.dims[name]) for name in names},
        owners=np.array([number[point.video_id] for point in points], dtype=np.int64),
        seconds=np.array([point.second for point in points], dtype=np.int64),
        video_ids=video_ids,
        windows=np.array(
            [[row_of.get((a.video_id, a.second + step), -1) for step in range(window)] for a in anchors], dtype=np.int64
        ).reshape(-1, window),
    )


class _Reader:
    """Compares a query with runs of seconds, and reads moments off all comparisons at the end.

    Args:
        store: an open index.
        query: with something to ask with.
        mode: see `find_moments`.
        per_video: moments of one run at most.
        n_places: seconds that may be found.
    """

    def __init__(self, store: Store, query: Query, *, mode: str, per_video: int, n_places: int) -> None:
        self.store = store
        self.query = query
        self.mode = mode
        self.per_video = per_video
        self.n_places = n_places
        length = 1 if query.examples is not None else min(query.n_seconds, SAMPLE_WINDOW)
        self.sample = draw_sample(store, tuple(query.weights), window=length)
        cosines = {name: rows @ self.sample.vectors[name].T for name, rows in self._vectors.items()}
        self.scales = {name: fit_scale(values) for name, values in cosines.items()}
        self.sorted_cosines = {name: _sorted_columns(values) for name, values in cosines.items()}
        self.resemblance = {name: self._resemblance(name) for name in query.weights}
        self.nearest = {name: self._nearest(name) for name in query.weights}
        self.windows = self._window_values(cosines)
        self.spans: list[tuple[Comparison, Span]] = []
        self.bests: list[tuple[str, FloatArray]] = []

    @property
    def _vectors(self) -> dict[str, FloatArray]:
        """Rows of the query, then those of what is not wanted."""
        query = self.query
        return {
            name: np.concatenate([query.vectors[name], query.against[name]])
            if name in query.against
            else query.vectors[name]
            for name in query.weights
        }

    def candidates(self, where: Filter | None, *, n_videos: int) -> dict[str, list[int]]:
        """Video id -> the seconds worth comparing, for the most promising videos."""
        votes: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
        places: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        hits_at: dict[str, set[int]] = defaultdict(set)
        for name, rows in self.query.vectors.items():
            present = np.flatnonzero(~np.isnan(rows[:, 0]))
            if len(present) > MAX_QUERY_ROWS:
                present = present[np.linspace(0, len(present) - 1, MAX_QUERY_ROWS).round().astype(int)]
            top = max(30, CANDIDATES // max(1, len(present)))
            scale = self.scales[name]
            found = self.store.query(name, rows[present], top=top, where=where) if len(present) else []
            for row, hits in zip(present.tolist(), found, strict=True):
                for hit in hits:
                    above = self.query.weights[name] * scale.deviation(row, hit.score)
                    best = votes[hit.video_id].get((name, row), 0.0)
                    votes[hit.video_id][name, row] = max(best, above)
                    places[hit.video_id][hit.second - row] += max(above, 0.0)
                    hits_at[hit.video_id].add(hit.second)
        if self.mode == "same":
            promise = {
                video_id: _most_votes(at, reach=1 + self.query.n_seconds // 20) for video_id, at in places.items()
            }
        else:
            promise = {video_id: sum(best.values()) for video_id, best in votes.items()}
        promising = sorted(promise, key=lambda video_id: (-promise[video_id], video_id))[:n_videos]
        chosen = {video_id: _surroundings(hits_at[video_id], reach=self.query.n_seconds) for video_id in promising}
        for number, video_id in enumerate(self.sample.video_ids):
            if len(chosen) >= n_videos:
                break
            if video_id not in chosen:  # nothing is expected of it but to tell what chance gives
                seconds = self.sample.seconds[self.sample.owners == number].tolist()
                chosen[video_id] = _surroundings(seconds[:1], reach=BLOCK_SECONDS // 2)
        return chosen

    def read(self, points: Sequence[SecondPoint]) -> None:
        """Compare the query with consecutive seconds of one video, and keep what could be a moment."""
        vectors = {name: stack_rows(points, name, length=rows.shape[1]) for name, rows in self.query.vectors.items()}
        cosines = {name: rows @ vectors[name].T for name, rows in self._vectors.items()}
        common = {name: self._common(name, vectors[name], points[0].video_id) for name in vectors}
        # In `same` the best lines elsewhere tell what is common: thirty copies of an ident are thirty right answers.
        even = np.ones(len(points), dtype=np.float32)
        weights = {name: even if self.mode == "same" else common_weights(shares) for name, shares in common.items()}
        evidence = self._evidence(cosines, weights)
        share = sum(self.query.weights[name] * shares for name, shares in common.items())
        spans = (same_spans if self.mode == "same" else similar_spans)(evidence, limit=self.per_video)
        lines = line_gains(evidence)
        comparison = Comparison(
            points=[replace(point, vectors={}) for point in points],
            cosines={name: values[: self.query.n_seconds] for name, values in cosines.items()},
            evidence=evidence,
            common=np.asarray(share, dtype=np.float32),
            elsewhere=best_elsewhere(lines, spans, n_rows=len(evidence)) if self.mode == "same" else 0.0,
        )
        self.spans += [(comparison, span) for span in spans]
        self.bests.append((points[0].video_id, _best_of_blocks(lines)))

    def moments(self) -> list[Moment]:
        """What has been read so far, in no order, with what chance would give."""
        return [self._judged(comparison, span) for comparison, span in self.spans]

    def _judged(self, comparison: Comparison, span: Span) -> Moment:
        """The moment of a span. A similar one that is in step with the query may also stand out as a same one does."""
        moment = self._moment(comparison, span)
        windows = self._window_tail(comparison)
        percentile = windows.percentile(window_value(comparison.evidence[:, list(span.columns)])) if windows else 100.0
        if self.mode == "same":
            chance = self._line_chance(moment.video_id, span.value)
            if chance is not None and windows is not None:
                value = window_value(comparison.evidence[:, list(span.columns)])
                share = comparison.elsewhere / span.value if self.query.n_seconds >= MIN_STEPS else 1.0
                if self.query.n_seconds >= MIN_STEPS and share > OUT_OF_STEP:
                    chance = max(chance, 1.0)
                elif span.value >= self._best_of_others(moment.video_id):
                    chance *= float(np.clip(self.n_places * windows.chance(value), MOST_SUPPORT, 1.0))
                    chance *= MOST_SUPPORT if share < CLEARLY_IN_STEP else 1.0
            return replace(moment, percentile=percentile, chance=chance)
        chances = []
        if windows is not None:
            chances.append(self.n_places * windows.chance(span.value))
        line = self._line_chance(moment.video_id, float(line_gains(comparison.evidence[:, list(span.columns)]).max()))
        if line is not None:
            chances.append(line)
        # Two ways to stand out are two chances to do so.
        return replace(moment, percentile=percentile, chance=len(chances) * min(chances) if chances else None)

    def _line_chance(self, video_id: str, value: float) -> float | None:
        """Expected number of lines that reach a value by chance, told by the best lines elsewhere.

        Elsewhere are the other videos and the other minutes of the same one.
        """
        others = [bests for other, bests in self.bests if other != video_id]
        own = np.concatenate([np.empty(0, np.float32), *(bests for other, bests in self.bests if other == video_id)])
        far = np.sort(own)[: max(0, len(own) - 2)]  # the moment's own block, and one that it may reach into
        return expected_above(value, np.concatenate([far, *others]))

    def _best_of_others(self, video_id: str) -> float:
        return max((float(bests.max()) for other, bests in self.bests if other != video_id), default=0.0)

    def _evidence(self, cosines: Mapping[str, FloatArray], weights: Mapping[str, FloatArray]) -> FloatArray:
        """(Q, T) from (Q + U, T) cosines: weighted sum of both modalities' standardised similarities.

        It is divided by its deviation if both were noise, so that one modality and two give values alike. A modality
        that only the other side lacks counts as 0. Rows of the query with nothing to ask with are NaN. What resembles
        an unwanted example loses as much. With examples there is one row, the mean over them of their best second.
        """
        n_rows, n_columns = next(iter(cosines.values())).shape
        total = np.zeros((n_rows, n_columns), dtype=np.float64)
        square = np.zeros((n_rows, 1), dtype=np.float64)
        for name, values in cosines.items():
            standard = self.scales[name].standardise(values)
            standard = np.where(standard > 0, standard * weights[name], standard)
            present = ~np.isnan(self._vectors[name][:, :1])
            share = np.where(present, self.query.weights[name], 0.0)
            total += share * np.nan_to_num(standard)
            square += share**2
        fused = np.where(square > 0, total / np.sqrt(np.where(square > 0, square, 1)), np.nan).astype(np.float32)
        n_wanted = self.query.n_seconds
        wanted, unwanted = fused[:n_wanted], fused[n_wanted:]
        if self.query.examples is not None:
            examples = np.array(self.query.examples)
            groups = [wanted[examples == number] for number in sorted(set(self.query.examples))]
            bests = [group[~np.isnan(group).any(axis=1)].max(axis=0) for group in groups if (~np.isnan(group)).any()]
            wanted = np.mean(bests, axis=0, keepdims=True).astype(np.float32)
        if len(unwanted):
            wanted = wanted - np.maximum(np.nan_to_num(unwanted, nan=0.0).max(axis=0), 0.0)
        return wanted

    def _window_values(self, cosines: Mapping[str, FloatArray]) -> FloatArray:
        """(n,) what each window of the sample would be worth as a moment."""
        even = {name: np.ones(values.shape[1], dtype=np.float32) for name, values in cosines.items()}
        evidence = self._evidence(cosines, even)
        return np.array(
            [window_value(evidence[:, window[window >= 0]]) for window in self.sample.windows], dtype=np.float32
        )

    def _window_tail(self, comparison: Comparison) -> Tail | None:
        """Of windows from other videos, where there are enough of them; a video is no chance hit of itself."""
        video_id = comparison.points[0].video_id
        if video_id not in self._tails:
            owners = (
                self.sample.owners[self.sample.windows[:, 0]] if len(self.sample.windows) else np.empty(0, np.int64)
            )
            own = self.sample.video_ids.index(video_id) if video_id in self.sample.video_ids else -1
            tail = fit_tail(self.windows[owners != own])
            self._tails[video_id] = fit_tail(self.windows) if tail is None else tail
        return self._tails[video_id]

    @cached_property
    def _tails(self) -> dict[str, Tail | None]:
        return {}

    def _resemblance(self, name: str) -> float:
        vectors = self.sample.vectors[name]
        there = ~np.isnan(vectors[:, 0])
        spread = _spread_rows(there, RESEMBLANCE_SECONDS)
        return resemblance_threshold(vectors[spread], self.sample.owners[spread])

    def _nearest(self, name: str) -> FloatArray:
        rows = _spread_rows(~np.isnan(self.sample.vectors[name][:, 0]), RESEMBLANCE_SECONDS)
        return nearest_cosines(self.sample.vectors[name][rows], self.sample.owners[rows])

    def is_familiar(self, moment: Moment) -> bool:
        """Whether a similar moment is as like the query as seconds of this archive are like their neighbours."""
        if self.mode != "similar":
            return False
        cosines = {"visual": moment.visual, "joint": moment.visual, "audio": moment.audio}
        nearest = {name: values for name, values in self.nearest.items() if len(values) >= MIN_SAMPLE}
        return any(
            cosine >= float(np.quantile(values, FAMILIAR_QUANTILE))
            for name, values in nearest.items()
            if (cosine := cosines[name]) is not None
        )

    def _common(self, name: str, vectors: FloatArray, video_id: str) -> FloatArray:
        """(T,) share of other videos' seconds that each second resembles."""
        own = self.sample.video_ids.index(video_id) if video_id in self.sample.video_ids else -1
        rows = _spread_rows(~np.isnan(self.sample.vectors[name][:, 0]), RESEMBLANCE_SECONDS)
        foreign = rows[self.sample.owners[rows] != own]
        return common_shares(vectors, self.sample.vectors[name][foreign], threshold=self.resemblance[name])

    def _moment(self, comparison: Comparison, span: Span) -> Moment:
        query, points = self.query, comparison.points
        rows = self._matched_rows(comparison, span)
        seconds = tuple(self._second(comparison, row, column) for row, column in zip(rows, span.columns, strict=True))
        visual, audio = _mean([s.visual for s in seconds]), _mean([s.audio for s in seconds])
        shares = {"visual": visual, "audio": audio}
        weights = {"visual": query.weights.get("visual", query.weights.get("joint", 0.0)), **query.weights}
        there = {name: weights[name] for name in shares if shares[name] is not None and weights.get(name, 0) > 0}
        score = sum(weights[name] * (shares[name] or 0.0) for name in there) / max(sum(there.values()), 1e-9)
        first = points[0].second
        start, end = first + span.start, first + span.stop
        if self.mode == "same" and rows[-1] == query.n_seconds - 1:
            end -= span.speed * max(0.0, query.n_seconds - query.length_seconds)
        common = float(np.mean(comparison.common[list(span.columns)]))
        return Moment(
            video_id=points[0].video_id,
            path="",
            start=float(start),
            end=float(end),
            score=float(score),
            percentile=100.0,
            visual=visual,
            audio=audio,
            coverage=span.coverage,
            offset=float(start - rows[0] * span.speed),
            seconds=seconds,
            visual_percentile=_mean([s.visual_percentile for s in seconds]),
            audio_percentile=_mean([s.audio_percentile for s in seconds]),
            speed=span.speed,
            common=common if common > COMMON_SHARE else 0.0,
            value=span.value,
        )

    def _matched_rows(self, comparison: Comparison, span: Span) -> list[int]:
        """For each column the row of the query, which for examples is the best row of any of them."""
        if self.query.examples is None:
            return list(span.rows)
        best = sum(
            self.query.weights[name] * np.nan_to_num(self.scales_of_wanted(name).standardise(values), nan=-9.0)
            for name, values in comparison.cosines.items()
        )
        rows: list[int] = np.asarray(best)[:, list(span.columns)].argmax(axis=0).tolist()
        return rows

    def scales_of_wanted(self, name: str) -> Scale:
        """The scale of the query's own rows, without those of what is not wanted."""
        n_wanted = self.query.n_seconds
        return Scale(self.scales[name].centre[:n_wanted], self.scales[name].spread[:n_wanted])

    def _second(self, comparison: Comparison, row: int, column: int) -> SecondScore:
        cosines = {name: _number(values[row, column]) for name, values in comparison.cosines.items()}
        percentiles, above = {}, {}
        for name, cosine in cosines.items():
            if cosine is not None:
                background = self.sorted_cosines[name][row]
                percentiles[name] = 100.0 * float(np.searchsorted(background, cosine)) / max(len(background), 1)
                above[name] = self.query.weights[name] * self.scales[name].deviation(row, cosine)
        # The joint space has one score for both: it is reported as the picture's, which is what is looked for.
        point = comparison.points[column]
        return SecondScore(
            second=point.second,
            visual=cosines.get("visual", cosines.get("joint")),
            audio=cosines.get("audio"),
            cluster=point.payload.get("cluster"),
            query_second=row,
            visual_percentile=percentiles.get("visual", percentiles.get("joint")),
            audio_percentile=percentiles.get("audio"),
            carried_by=_carrier(above),
        )


def _check_options(mode: str, *, top: int, per_video: int, min_visual: float, min_audio: float) -> None:
    if mode not in MODES:
        raise UsageError(f"--mode {mode} is unknown; choose similar or same")
    if top < 1 or per_video < 1:
        raise UsageError(f"--top {top} and --per-video {per_video} must be at least 1")
    for name, value in (("--min-visual", min_visual), ("--min-audio", min_audio)):
        if not 0 <= value <= 100:
            raise UsageError(f"{name} {value} is outside 0 to 100 (a percentile of this archive)")


def _everything(store: Store, where: Filter | None) -> dict[str, None]:
    """All videos that may be found, to be compared whole."""
    where = where or Filter()
    wanted = None if where.video_ids is None else set(where.video_ids)
    ids = (record.video_id for record in store.videos())
    return {v: None for v in ids if (wanted is None or v in wanted) and v not in where.not_video_ids}


def _points(
    store: Store, query: Query, video_id: str, seconds: Sequence[int] | None, where: Filter | None
) -> list[SecondPoint]:
    """The seconds of one video that are to be compared and may be found, sorted; None takes all."""
    names = tuple(query.weights)
    if seconds is None:
        points = store.seconds_of(video_id, with_vectors=names)
    else:
        points = store.get([(video_id, second) for second in seconds], with_vectors=names)
    return [point for point in points if matches(point, where)]


def _surroundings(seconds: Iterable[int], *, reach: int) -> list[int]:
    """Seconds within reach of a hit, or all up to the last such second where that is not many more."""
    hits = sorted(seconds)
    low, high = max(0, hits[0] - reach), hits[-1] + reach + 1
    if high - low <= WHOLE_VIDEO_SECONDS:
        return list(range(low, high))
    return sorted({near for hit in hits for near in range(max(0, hit - reach), hit + reach + 1)})


def _most_votes(places: Mapping[int, float], *, reach: int) -> float:
    """The most votes that offsets within reach of each other have together."""
    return max(sum(places.get(near, 0.0) for near in range(at - reach, at + reach + 1)) for at in places)


def _consecutive(points: Sequence[SecondPoint]) -> Iterator[list[SecondPoint]]:
    """Split points sorted by second where a second is missing."""
    run: list[SecondPoint] = []
    for point in points:
        if run and point.second != run[-1].second + 1:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _within(moment: Moment, max_chance: float) -> bool:
    return moment.chance is None or moment.chance <= max_chance


def _reaches(moment: Moment, min_visual: float, min_audio: float) -> bool:
    visual, audio = moment.visual_percentile or 0.0, moment.audio_percentile or 0.0
    return visual >= min_visual and audio >= min_audio


def _best(moments: Sequence[Moment], *, top: int, per_video: int) -> list[Moment]:
    chosen: list[Moment] = []
    taken: dict[str, int] = defaultdict(int)
    for moment in sorted(moments, key=lambda moment: (-moment.value, -moment.score, moment.video_id, moment.start)):
        if taken[moment.video_id] < per_video:
            taken[moment.video_id] += 1
            chosen.append(moment)
    return chosen[:top]


def _located(moment: Moment, record: VideoRecord | None) -> Moment:
    """The moment with its path, inside its video."""
    if record is None:
        return moment
    length = max(record.duration_seconds, float(moment.seconds[-1].second) + 0.5)
    end = min(moment.end, length)
    path = record.paths[0] if record.paths else ""
    return replace(moment, path=path, end=end, target_coverage=min(1.0, (end - moment.start) / length))


def _why_nothing(found: Sequence[Moment], max_chance: float) -> str:
    if not found:
        return "nothing like this here: no second that may be found has anything in common with the query"
    nearest = min(found, key=lambda moment: np.inf if moment.chance is None else moment.chance)
    if nearest.chance is not None and nearest.chance > max_chance:
        return (
            f"nothing like this here: the nearest moment is one of which {nearest.chance:.2g} are expected by chance "
            f"in this archive, and the cut-off is {max_chance:g}; --max-chance raises it"
        )
    return "nothing like this here: no moment reaches --min-visual and --min-audio"


def _best_of_blocks(lines: FloatArray) -> FloatArray:
    """The best line of each `BLOCK_SECONDS` of a video."""
    return np.array([lines[at : at + BLOCK_SECONDS].max() for at in range(0, len(lines), BLOCK_SECONDS)], np.float32)


def _carrier(above: Mapping[str, float]) -> str:
    """Which modality stands out more; `both` if the weaker one has at least two thirds of the stronger one."""
    if len(above) < 2:
        return next(iter(above), "")
    weak, strong = sorted(above, key=lambda name: above[name])
    return "both" if above[weak] > 0 and above[weak] >= 2 / 3 * above[strong] else strong


def _spread_rows(there: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.int64]:
    """At most so many of the rows that are there, evenly spread."""
    rows = np.flatnonzero(there)
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _sorted_columns(cosines: FloatArray) -> FloatArray:
    """(Q, B) -> (Q, B'): each row sorted, without the columns that have no vector."""
    return np.sort(cosines[:, ~np.isnan(cosines).all(axis=0)], axis=1)


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
