"""Compares a query with runs of seconds, second by second, and judges what stands out against chance.

The similarity of every second of the query with every second of a run is computed exactly, standardised against a
random sample of the archive (`visxp_search.background`), and moments are read off that matrix (`visxp_search.moments`).

What is expected by chance: of a `similar` moment, how many windows of the archive would score as high, by the tail of
random windows; of a `same` moment, how many lines would, by the best lines through the next similar videos.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from visxp_search.background import (
    COMMON_SHARE,
    LARGEST,
    LARGEST_SAME,
    MIN_SAMPLE,
    Scale,
    Tail,
    common_shares,
    common_weights,
    expected_above,
    fisher,
    fit_scale,
    fit_tail,
)
from visxp_search.moments import (
    Span,
    fit_elsewhere,
    line_gains,
    movement_in_step,
    same_spans,
    similar_spans,
    window_values,
)
from visxp_search.queries import FIRST_STEP, STEPS, Query, stack_rows
from visxp_search.results import Moment, SecondScore
from visxp_search.sample import SAMPLE_WINDOW, sample_of
from visxp_search.sound_check import SoundCheck
from visxp_search.store import SecondPoint, Store

FloatArray = npt.NDArray[np.float32]

FAMILIAR_QUANTILE = 0.05
"""By default a `similar` moment is an answer, too, if it is as like the query as the seconds of the archive are like
their nearest neighbours in other videos, apart from this share of the loneliest ones."""
BLOCK_SECONDS = 60
"""Every such stretch of a video has one best line; long videos tell more of chance than short ones."""
LEAST_MOVEMENT = 0.7
"""A `same` moment must change as the query does: artanh of the correlation of their changes [fisher1915], times the
root of the number of changes, as chance correlations fall with that. Other takes of one scene stay below."""
OUT_OF_STEP = 0.95
"""Where nothing changes a `same` moment must stand out from the other lines in its own video: where one of them fits
nearly as well, the video looks or sounds alike throughout (so do stills: `similar` finds those)."""
LEAD, LEAD_SUPPORT = 0.05, 0.1
"""A line that leads the best lines of all other videos by this share is as much less likely by chance: of a group that
shows the same scene, such as one talker in one studio, many stand out from the archive, but none from the group."""
SOUND_SUPPORT = 0.01
"""Sounds that run in step make a `same` moment so much less likely by chance: of moments that look and sound alike,
fewer do if they are not one recording. Sounds that only resemble each other make it as much more likely."""
MOST_GAIN = 2.0
MIN_STEPS = 3
"""Shorter queries fit in many places."""


@dataclass(frozen=True)
class Comparison:
    """A query beside one run of seconds of one video.

    Attributes:
        points: T consecutive seconds.
        cosines: name -> (Q, T), NaN where either side has no vector.
        evidence: (Q, T) what all modalities together say, in deviations above unrelated seconds.
        common: (T,) share of the archive that each second resembles.
        spans: what could be a moment.
        movements: for each of `spans` how far query and video change in step, in [-1, 1]; None where that is not known.
    """

    points: Sequence[SecondPoint]
    cosines: Mapping[str, FloatArray]
    evidence: FloatArray
    common: FloatArray
    spans: Sequence[Span]
    movements: Sequence[float | None]


class Reader:
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
        self.sounds = SoundCheck(store, query)
        self.mode = mode
        self.per_video = per_video
        is_fine = mode == "same" and bool(query.fine_vectors)
        self.asked = query.fine_vectors if is_fine else query.vectors
        self.steps, self.first_step = (STEPS, FIRST_STEP) if is_fine else (1, 0)
        self.n_places = n_places
        length = 1 if query.examples is not None else min(query.n_seconds, SAMPLE_WINDOW)
        self.sample = sample_of(store, tuple(query.weights), window=length)
        cosines = {name: rows @ self.sample.vectors[name].T for name, rows in self._vectors.items()}
        self.scales = {name: fit_scale(values) for name, values in cosines.items()}
        self.sorted_cosines = {name: _sorted_columns(values) for name, values in cosines.items()}
        self.windows = self._window_values(cosines)
        self.comparisons: list[Comparison] = []
        self.bests: list[tuple[str, FloatArray]] = []

    @property
    def _vectors(self) -> dict[str, FloatArray]:
        """Rows of the query, then those of what is not wanted."""
        against = self.query.against
        return {
            name: np.concatenate([self.asked[name], against[name]]) if name in against else self.asked[name]
            for name in self.query.weights
        }

    @property
    def _n_rows(self) -> int:
        """Rows of the query, in all phases."""
        return len(next(iter(self.asked.values())))

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
        if self.mode == "same":
            spans = same_spans(evidence, limit=self.per_video, steps=self.steps)
        else:
            spans = similar_spans(evidence, limit=self.per_video)
        lines = line_gains(evidence, steps=self.steps)
        comparison = Comparison(
            points=[SecondPoint(point.video_id, point.second, {}, point.payload) for point in points],
            cosines={name: values[: self._n_rows] for name, values in cosines.items()},
            evidence=evidence,
            common=np.asarray(share, dtype=np.float32),
            spans=spans,
            movements=[self._movement(vectors, span) if self.mode == "same" else None for span in spans],
        )
        self.comparisons.append(comparison)
        self.bests.append((points[0].video_id, _best_of_blocks(lines)))

    def forget(self, video_id: str) -> None:
        """As if nothing of this video had been read."""
        self.comparisons = [read for read in self.comparisons if read.points[0].video_id != video_id]
        self.bests = [(other, lines) for other, lines in self.bests if other != video_id]

    def moments(self) -> Iterator[Moment]:
        """What has been read so far, with what chance would give; judged one by one, the most valuable spans first.

        A moment's value is at most `MOST_GAIN` times that of its span.
        """
        found = [(comparison, span) for comparison in self.comparisons for span in comparison.spans]
        for comparison, span in sorted(found, key=lambda one: -one[1].value):
            yield self._judged(comparison, span)

    def _judged(self, comparison: Comparison, span: Span) -> Moment:
        """The moment of a span. A similar one that is in step with the query may also stand out as a same one does."""
        moment = self._moment(comparison, span)
        windows = self._window_tail(comparison)
        columns = np.array([span.columns])
        value = float(window_values(comparison.evidence[span.phase :: self.steps], columns)[0])
        percentile = windows.percentile(value) if windows else 100.0
        if self.mode == "same":
            return replace(self._judged_same(comparison, span, moment), percentile=percentile)
        chances = []
        if windows is not None:
            chances.append(self.n_places * windows.chance(span.value))
        line = self._line_chance(moment.video_id, float(line_gains(comparison.evidence[:, list(span.columns)]).max()))
        if line is not None:
            chances.append(line)
        # Two ways to stand out are two chances to do so.
        return replace(moment, percentile=percentile, chance=len(chances) * min(chances) if chances else None)

    def _judged_same(self, comparison: Comparison, span: Span, moment: Moment) -> Moment:
        """Whether it is the same recording, told by the vectors and, where it is alike, by the sounds themselves."""
        if not self._is_alike(moment):
            moment = replace(moment, doubt="not alike enough for the same recording")
        else:
            moment = self._with_sound(moment)
            moment = replace(moment, doubt=self._doubt(comparison, span, moment))
        return replace(moment, chance=self._same_chance(moment, span.value))

    def _with_sound(self, moment: Moment) -> Moment:
        """The moment with what its file says, moved to where the sounds are in step; of two copies the nearer leads."""
        if moment.audio is None:
            return moment
        asked = (moment.start - moment.offset) / moment.speed, (moment.end - moment.offset) / moment.speed
        step, why_not = self.sounds.compare(moment.video_id, start=moment.start, end=moment.end, asked=asked)
        moment = replace(moment, sound_step=step, not_compared=why_not)
        if step is None or not step.is_in_step:
            return moment
        start = step.start
        return replace(
            moment,
            start=start,
            end=start + step.speed * (asked[1] - asked[0]),
            offset=start - step.speed * asked[0],
            speed=step.speed,
            value=moment.value * (1 + step.correlation),
        )

    def _same_chance(self, moment: Moment, value: float) -> float | None:
        """Expected number of lines of this value by chance: not below 1 for what cannot be the same recording."""
        chance = self._line_chance(moment.video_id, value)
        if chance is None:
            return None
        if moment.doubt:
            return max(chance, 1.0)
        if value * (1 - LEAD) >= self._best_of_others(moment.video_id):
            chance *= LEAD_SUPPORT
        if moment.sound_step is None:
            return chance
        if moment.sound_step.is_in_step:
            return chance * SOUND_SUPPORT
        return chance / SOUND_SUPPORT if (moment.audio or 0.0) >= self.sample.resemblance["audio"] else chance

    def _doubt(self, comparison: Comparison, span: Span, moment: Moment) -> str:
        """Why a span that is alike is not the same recording: it is not in step."""
        if moment.sound_step is not None:
            if moment.sound_step.is_in_step:
                return ""
            if (moment.audio or 0.0) >= self.sample.alike["audio"]:
                return f"alike, but its sound is not in step (correlation {moment.sound_step.correlation:.2f})"
        if moment.movement is not None:
            if float(fisher(moment.movement)) * np.sqrt(len(span.rows) - 1) >= LEAST_MOVEMENT:
                return ""
            return f"alike, but does not change as the query does (correlation {moment.movement:.2f})"
        if self.query.n_seconds < MIN_STEPS:
            return ""
        elsewhere = fit_elsewhere(comparison.evidence, span, spans=comparison.spans, steps=self.steps)
        return "" if elsewhere <= OUT_OF_STEP else "alike, but stands still and fits elsewhere in its video as well"

    def _movement(self, vectors: Mapping[str, FloatArray], span: Span) -> float | None:
        """How far query and video change in step along a span, over the modalities by their weights [fisher1915]."""
        rows = [row * self.steps + span.phase for row in span.rows]
        found = {
            name: movement_in_step(self.asked[name][rows], vectors[name][list(span.columns)])
            for name in self.query.weights
        }
        there = {name: movement for name, movement in found.items() if movement is not None}
        if not there:
            return None
        total = sum(self.query.weights[name] for name in there)
        return float(np.tanh(sum(self.query.weights[name] / total * fisher(there[name]) for name in there)))

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
            largest = LARGEST_SAME if self.mode == "same" else LARGEST
            standard = self.scales[name].standardise(values, largest=largest)
            standard = np.where(standard > 0, standard * weights[name], standard)
            present = ~np.isnan(self._vectors[name][:, :1])
            share = np.where(present, self.query.weights[name], 0.0)
            total += share * np.nan_to_num(standard)
            square += share**2
        fused = np.where(square > 0, total / np.sqrt(np.where(square > 0, square, 1)), np.nan).astype(np.float32)
        n_wanted = self._n_rows
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
        return window_values(self._evidence(cosines, even), self.sample.windows)

    def _window_tail(self, comparison: Comparison) -> Tail | None:
        """Of windows from other videos, where there are enough of them; a video is no chance hit of itself."""
        video_id = comparison.points[0].video_id
        if video_id not in self._tails:
            owners = (
                self.sample.owners[self.sample.windows[:, 0]] if len(self.sample.windows) else np.empty(0, np.int64)
            )
            tail = fit_tail(self.windows[owners != self.sample.number_of(video_id)])
            self._tails[video_id] = fit_tail(self.windows) if tail is None else tail
        return self._tails[video_id]

    @cached_property
    def _tails(self) -> dict[str, Tail | None]:
        return {}

    def is_familiar(self, moment: Moment) -> bool:
        """Whether a similar moment is as like the query as seconds of this archive are like their neighbours."""
        if self.mode != "similar":
            return False
        least = self._least_familiar
        return any(cosine >= least[name] for name, cosine in self._cosines(moment).items() if name in least)

    @cached_property
    def _least_familiar(self) -> dict[str, float]:
        nearest = {name: values for name, values in self.sample.nearest.items() if len(values) >= MIN_SAMPLE}
        return {name: float(np.quantile(values, FAMILIAR_QUANTILE)) for name, values in nearest.items()}

    def _is_alike(self, moment: Moment) -> bool:
        """Whether picture or sound is alike enough for the same recording, and the other one does not speak against it.

        Against it speaks what does not even resemble, unless the one is nearly equal: pictures are found under another
        sound, pictures of the same kind are not.
        """
        alike, resemblance, cosines = self.sample.alike, self.sample.resemblance, self._cosines(moment)
        if any(cosine >= (1 + alike[name]) / 2 for name, cosine in cosines.items()):
            return True
        is_alike = any(cosine >= alike[name] for name, cosine in cosines.items())
        return is_alike and all(cosine >= resemblance[name] for name, cosine in cosines.items())

    def _cosines(self, moment: Moment) -> dict[str, float]:
        """Similarity of what there is to compare, by the name of its vector; a moment tells `joint` as the picture."""
        told = {"visual": moment.visual, "joint": moment.visual, "audio": moment.audio}
        return {name: cosine for name in self.query.weights if (cosine := told[name]) is not None}

    def _common(self, name: str, vectors: FloatArray, video_id: str) -> FloatArray:
        """(T,) share of other videos' seconds that each second resembles."""
        foreign = self.sample.owners[self.sample.spread[name]] != self.sample.number_of(video_id)
        spread, threshold = self.sample.spread_vectors[name], self.sample.resemblance[name]
        return common_shares(vectors, spread, among=foreign, threshold=threshold)

    def _moment(self, comparison: Comparison, span: Span) -> Moment:
        query, points = self.query, comparison.points
        rows = self._matched_rows(comparison, span)
        seconds = tuple(
            self._second(comparison, row, column, phase=span.phase)
            for row, column in zip(rows, span.columns, strict=True)
        )
        visual, audio = _mean([s.visual for s in seconds]), _mean([s.audio for s in seconds])
        shares = {"visual": visual, "audio": audio}
        weights = {"visual": query.weights.get("visual", query.weights.get("joint", 0.0)), **query.weights}
        there = {name: weights[name] for name in shares if shares[name] is not None and weights.get(name, 0) > 0}
        score = sum(weights[name] * (shares[name] or 0.0) for name in there) / max(sum(there.values()), 1e-9)
        first = points[0].second
        start, end = first + span.start, first + span.stop
        late = (span.phase + self.first_step) / self.steps  # where in the query the first row of the phase begins
        if self.mode == "same" and rows[0] == 0:
            start -= span.speed * late
        n_rows = len(comparison.evidence[span.phase :: self.steps])
        if self.mode == "same" and rows[-1] == n_rows - 1:
            end += span.speed * (query.length_seconds - late - n_rows)
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
            offset=float(first + span.start - (rows[0] + late) * span.speed),
            seconds=seconds,
            visual_percentile=_mean([s.visual_percentile for s in seconds]),
            audio_percentile=_mean([s.audio_percentile for s in seconds]),
            speed=span.speed,
            common=common if common > COMMON_SHARE else 0.0,
            value=span.value,
            movement=comparison.movements[comparison.spans.index(span)],
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
        n_wanted = self._n_rows
        return Scale(self.scales[name].centre[:n_wanted], self.scales[name].spread[:n_wanted])

    def _second(self, comparison: Comparison, row: int, column: int, *, phase: int) -> SecondScore:
        fine = row * self.steps + phase
        cosines = {name: _number(values[fine, column]) for name, values in comparison.cosines.items()}
        percentiles, above = {}, {}
        for name, cosine in cosines.items():
            if cosine is not None:
                background = self.sorted_cosines[name][fine]
                percentiles[name] = 100.0 * float(np.searchsorted(background, cosine)) / max(len(background), 1)
                above[name] = self.query.weights[name] * float(self.scales[name].deviations(fine, cosine))
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


def _best_of_blocks(lines: FloatArray) -> FloatArray:
    """The best line of each `BLOCK_SECONDS` of a video."""
    return np.array([lines[at : at + BLOCK_SECONDS].max() for at in range(0, len(lines), BLOCK_SECONDS)], np.float32)


def _carrier(above: Mapping[str, float]) -> str:
    """Which modality stands out more; `both` if the weaker one has at least two thirds of the stronger one."""
    if len(above) < 2:
        return next(iter(above), "")
    weak, strong = sorted(above, key=lambda name: above[name])
    return "both" if above[weak] > 0 and above[weak] >= 2 / 3 * above[strong] else strong


def _sorted_columns(cosines: FloatArray) -> FloatArray:
    """(Q, B) -> (Q, B'): each row sorted, without the columns that have no vector."""
    return np.sort(cosines[:, ~np.isnan(cosines).all(axis=0)], axis=1)


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
