"""How good the search is on an archive: measures of ranked moments, with confidence intervals.

An answer is right if it lies in the right video and overlaps the judged moment enough. All measures are pure functions;
`evaluate` puts queries to a search and averages over them.

References:
    [everingham2010] The PASCAL visual object classes challenge (matching by overlap; average precision). IJCV 88, 2010.
    [efron1979] Bootstrap methods: another look at the jackknife. Annals of Statistics 7, 1979 (percentile intervals).
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from visxp_search.clips import parse_time
from visxp_search.errors import UsageError
from visxp_search.results import Results

MIN_OVERLAP = 0.5
"""Temporal intersection over union from which an answer is right."""
RANKS = (1, 5, 10)
BOOTSTRAP_DRAWS = 2000
COLUMNS = ("query", "video", "start", "end")
KINDS = ("clip", "sound", "frame")


@dataclass(frozen=True)
class Span:
    """`[start, end)` seconds of a video, by its id."""

    video_id: str
    start: float
    end: float


@dataclass(frozen=True)
class Judgement:
    """A query and the moments that answer it.

    Attributes:
        path: file to ask with.
        relevant: the right answers, one or more.
        kind: `clip`, `sound` or `frame`.
        start: seconds, where the query begins.
        end: seconds; None for the end of the file.
        group: what the averages are broken down by, such as the kind of degradation.
    """

    path: Path
    relevant: tuple[Span, ...]
    kind: str = "clip"
    start: float = 0.0
    end: float | None = None
    group: str = ""


@dataclass(frozen=True)
class Outcome:
    """What one query scored.

    Attributes:
        judgement: the query.
        answers: what was found, best first.
        recall: k -> share of the relevant moments among the first k answers.
        average_precision: in [0, 1].
        overlap: mean over the relevant moments of the best temporal intersection over union among the answers.
        right_video_first: whether the first answer lies in a right video.
        took_ms: of the search alone.
    """

    judgement: Judgement
    answers: tuple[Span, ...]
    recall: dict[int, float]
    average_precision: float
    overlap: float
    right_video_first: bool
    took_ms: float


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % bootstrap interval [efron1979]."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """All outcomes and their averages, measure -> estimate, over all and by group."""

    outcomes: tuple[Outcome, ...]
    overall: dict[str, Estimate] = field(default_factory=dict)
    groups: dict[str, dict[str, Estimate]] = field(default_factory=dict)


def temporal_iou(first: Span, second: Span) -> float:
    """Intersection over union of two spans, 0 in different videos or where both are empty."""
    if first.video_id != second.video_id:
        return 0.0
    shared = max(0.0, min(first.end, second.end) - max(first.start, second.start))
    union = (first.end - first.start) + (second.end - second.start) - shared
    return shared / union if union > 0 else 0.0


def match_answers(answers: Sequence[Span], relevant: Sequence[Span], *, min_overlap: float = MIN_OVERLAP) -> list[bool]:
    """Whether each answer is right: each relevant moment is used up by its first right answer [everingham2010]."""
    free = list(relevant)
    right = []
    for answer in answers:
        best = max(free, key=lambda span: temporal_iou(answer, span), default=None)
        hit = best is not None and temporal_iou(answer, best) >= min_overlap
        right.append(hit)
        if hit and best is not None:
            free.remove(best)
    return right


def recall_at(right: Sequence[bool], n_relevant: int, k: int) -> float:
    """Share of the relevant moments that the first k answers hold."""
    return sum(right[:k]) / n_relevant


def average_precision(right: Sequence[bool], n_relevant: int) -> float:
    """Mean over the relevant moments of the precision at the rank where each is found; 0 for those never found."""
    precisions = [sum(right[: rank + 1]) / (rank + 1) for rank, hit in enumerate(right) if hit]
    return sum(precisions) / n_relevant


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Mean with its 95 % percentile interval over resampled queries.

    Raises:
        ValueError: If there are no values.
    """
    if not values:
        raise ValueError("no values to average; expected one or more")
    array = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(array), size=(BOOTSTRAP_DRAWS, len(array)))
    low, high = np.quantile(array[draws].mean(axis=1), (0.025, 0.975))
    return Estimate(mean=float(array.mean()), low=float(low), high=float(high))


def evaluate(
    judgements: Sequence[Judgement],
    search: Callable[[Judgement], Results],
    *,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Report:
    """Ask all queries and measure.

    Args:
        judgements: one or more.
        search: from a judgement to what is found.
        on_progress: called with ("ask", done, total).
    """
    outcomes = []
    for done, judgement in enumerate(judgements, start=1):
        outcomes.append(score(judgement, search(judgement)))
        on_progress("ask", done, len(judgements))
    groups = sorted({outcome.judgement.group for outcome in outcomes} - {""})
    return Report(
        outcomes=tuple(outcomes),
        overall=_averages(outcomes),
        groups={group: _averages([o for o in outcomes if o.judgement.group == group]) for group in groups},
    )


def score(judgement: Judgement, results: Results) -> Outcome:
    """Measure the answers to one query."""
    answers = tuple(Span(moment.video_id, moment.start, moment.end) for moment in results.moments)
    relevant = judgement.relevant
    right = match_answers(answers, relevant)
    return Outcome(
        judgement=judgement,
        answers=answers,
        recall={k: recall_at(right, len(relevant), k) for k in RANKS},
        average_precision=average_precision(right, len(relevant)),
        overlap=sum(max((temporal_iou(a, r) for a in answers), default=0.0) for r in relevant) / len(relevant),
        right_video_first=bool(answers) and answers[0].video_id in {span.video_id for span in relevant},
        took_ms=results.took_ms,
    )


def read_judgements(path: Path, *, find_video: Callable[[str], str]) -> list[Judgement]:
    """Judgements from a CSV file with a header; lines of the same query are its several right answers.

    Columns: `query` (file; relative to the CSV file), `video` (id, path or name), `start`, `end` (of the right answer),
    and optionally `kind`, `query_start`, `query_end` and `group`.

    Raises:
        UsageError: If the file cannot be read, or a line is not understood.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise UsageError(f"{path} cannot be read as CSV ({exc})") from exc
    if not lines or not set(COLUMNS) <= set(lines[0]):
        raise UsageError(f"{path} has no judgements; expected a header with {', '.join(COLUMNS)} and a line each")
    grouped: dict[Judgement, list[Span]] = {}
    for number, line in enumerate(lines, start=2):
        try:
            query, span = _read_line(line, path.parent, find_video)
        except (ValueError, TypeError, UsageError) as exc:
            raise UsageError(f"{path}, line {number}: {exc}") from exc
        grouped.setdefault(query, []).append(span)
    return [
        Judgement(query.path, tuple(spans), query.kind, query.start, query.end, query.group)
        for query, spans in grouped.items()
    ]


def report_to_json(report: Report) -> dict[str, Any]:
    """A report as JSON values."""

    def estimates(values: dict[str, Estimate]) -> dict[str, dict[str, float]]:
        return {
            name: {"mean": round(e.mean, 4), "low": round(e.low, 4), "high": round(e.high, 4)}
            for name, e in values.items()
        }

    return {
        "queries": len(report.outcomes),
        "overall": estimates(report.overall),
        "groups": {name: estimates(values) for name, values in report.groups.items()},
        "outcomes": [
            {
                "query": str(outcome.judgement.path),
                "group": outcome.judgement.group,
                "recall": {f"@{k}": round(value, 4) for k, value in outcome.recall.items()},
                "average_precision": round(outcome.average_precision, 4),
                "iou": round(outcome.overlap, 4),
                "right_video_first": outcome.right_video_first,
                "answers": len(outcome.answers),
                "took_ms": round(outcome.took_ms, 1),
            }
            for outcome in report.outcomes
        ],
    }


def _averages(outcomes: Sequence[Outcome]) -> dict[str, Estimate]:
    if not outcomes:
        return {}
    measures: dict[str, list[float]] = {
        **{f"recall@{k}": [outcome.recall[k] for outcome in outcomes] for k in RANKS},
        "mAP": [outcome.average_precision for outcome in outcomes],
        "right video first": [float(outcome.right_video_first) for outcome in outcomes],
        "temporal IoU": [outcome.overlap for outcome in outcomes],
        "IoU >= 0.8": [float(outcome.overlap >= 0.8) for outcome in outcomes],
        "latency ms": [outcome.took_ms for outcome in outcomes],
    }
    return {name: bootstrap(values) for name, values in measures.items()}


def _read_line(line: dict[str, str], folder: Path, find_video: Callable[[str], str]) -> tuple[Judgement, Span]:
    kind = line.get("kind") or "clip"
    if kind not in KINDS:
        raise UsageError(f"kind {kind!r} is unknown; choose from {', '.join(KINDS)}")
    span = Span(find_video(line["video"]), parse_time(line["start"]), parse_time(line["end"]))
    if span.end <= span.start:
        raise UsageError(f"end {span.end:g} is not after start {span.start:g}")
    query_end = line.get("query_end")
    query = Judgement(
        path=folder / line["query"],
        relevant=(),
        kind=kind,
        start=parse_time(line.get("query_start") or "0"),
        end=parse_time(query_end) if query_end else None,
        group=line.get("group") or "",
    )
    return query, span
