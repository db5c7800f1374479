"""What a search found, and the document that `--json` prints (DESIGN section 4)."""

from dataclasses import dataclass
from typing import Any

from visxp_search.queries import Query
from visxp_search.sound_step import SoundStep


@dataclass(frozen=True)
class SecondScore:
    """One second of a moment beside the second of the query that it matches.

    A modality is None where the query or this second has no vector of it.

    Attributes:
        second: of the video.
        visual: cosine similarity of the pictures.
        audio: cosine similarity of the sounds.
        cluster: pseudo-label of the second.
        query_second: row of the query, 0 for its first second.
        visual_percentile: share of the archive's seconds, in percent, whose picture is less like it.
        audio_percentile: the same for the sound.
        carried_by: the modality that stands out more (`visual`, `audio`), or `both` if they do alike.
    """

    second: int
    visual: float | None
    audio: float | None
    cluster: int | None
    query_second: int = 0
    visual_percentile: float | None = None
    audio_percentile: float | None = None
    carried_by: str = ""


@dataclass(frozen=True)
class Moment:
    """A run of seconds `[start, end)` of one video that answers the query.

    Moments are ordered by how far they stand out from the archive (`chance`), not by `score`: a cosine of 0.9 is little
    in an archive of talking heads and much in one of everything.

    Attributes:
        video_id: the video.
        path: where it lies.
        start: seconds; not whole where query and video are out of step by less than a second (`same`).
        end: seconds, exclusive.
        score: cosine similarity in [-1, 1]: `visual` and `audio` by their weights.
        percentile: share, in percent, of random places of the archive that answer the query less well.
        visual: mean similarity of the pictures; None where there are none to compare.
        audio: mean similarity of the sounds.
        coverage: share of the query's seconds that the moment answers.
        offset: start of the moment less the second of the query that it begins with, seconds.
        seconds: the single seconds.
        chance: expected number of places in this archive that answer as well without being related; None in archives
            too small to tell.
        visual_percentile: mean over the seconds; None where there are no pictures to compare.
        audio_percentile: the same for the sound.
        target_coverage: share of the video that the moment covers.
        speed: seconds of video per second of query (`same`).
        common: share of the archive that the moment's seconds resemble; in `similar` they count less for it.
        value: how far it stands out, by which moments are ordered; comparable within one search only.
        movement: correlation of what changes from second to second with what changes in the query (`same`); None where
            nothing does.
        sound_step: how its sound runs with that of the query (`same`); None where they were not compared.
        not_compared: why its file could not be read for that; empty if it could, or need not be.
        doubt: why it is not taken for the same recording (`same`); empty if it is, or if only chance speaks against it.
        then: the second moment of a sequence (`--then`).
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
    chance: float | None = None
    visual_percentile: float | None = None
    audio_percentile: float | None = None
    target_coverage: float = 0.0
    speed: float = 1.0
    common: float = 0.0
    value: float = 0.0
    movement: float | None = None
    sound_step: SoundStep | None = None
    not_compared: str = ""
    doubt: str = ""
    then: "Moment | None" = None

    @property
    def remark(self) -> str:
        """What a person should know of it; empty if there is nothing."""
        common = f"common: resembles {100 * self.common:.0f} % of the archive" if self.common > 0 else ""
        return "; ".join(part for part in (self.doubt, self.not_compared, common) if part)


@dataclass(frozen=True)
class Results:
    """What a search found, best first, and in what it looked.

    Attributes:
        query: what was asked with.
        mode: `similar` or `same`.
        moments: best first.
        n_videos: in the index.
        n_seconds: in the index.
        complete: whether indexing is done.
        took_ms: without reading and embedding the query.
        max_chance: the cut-off.
        reason: why there are no moments; empty if there are.
        yields: of an exhaustive search, (videos examined, moments found in them).
    """

    query: Query
    mode: str
    moments: tuple[Moment, ...]
    n_videos: int
    n_seconds: int
    complete: bool
    took_ms: float
    max_chance: float = float("inf")
    reason: str = ""
    yields: tuple[tuple[int, int], ...] = ()


def results_to_json(results: Results) -> dict[str, Any]:
    """The document that `--json` prints."""
    query = results.query
    document: dict[str, Any] = {
        "query": {
            "kind": query.kind,
            "by": "both" if len(query.weights) > 1 else next(iter(query.weights), "nothing"),
            "mode": results.mode,
            "seconds": query.n_seconds,
            "weights": dict(query.weights),
            "max_chance": None if results.max_chance == float("inf") else results.max_chance,
            "notes": list(query.notes),
            **query.origin,
        },
        "moments": [moment_to_json(moment) for moment in results.moments],
        "indexed": {"videos": results.n_videos, "seconds": results.n_seconds, "complete": results.complete},
        "took_ms": round(results.took_ms, 1),
    }
    if results.reason:
        document["reason"] = results.reason
    if results.yields:
        document["yield"] = [{"videos": videos, "moments": moments} for videos, moments in results.yields]
    return document


def moment_to_json(moment: Moment) -> dict[str, Any]:
    """One moment as JSON values, numbers rounded to what they mean."""
    document: dict[str, Any] = {
        "video_id": moment.video_id,
        "path": moment.path,
        "start": round(moment.start, 2),
        "end": round(moment.end, 2),
        "score": round(moment.score, 4),
        "percentile": round(moment.percentile, 2),
        "chance": None if moment.chance is None else float(f"{moment.chance:.2g}"),
        "visual": _rounded(moment.visual),
        "audio": _rounded(moment.audio),
        "visual_percentile": _rounded(moment.visual_percentile, 2),
        "audio_percentile": _rounded(moment.audio_percentile, 2),
        "coverage": round(moment.coverage, 3),
        "target_coverage": round(moment.target_coverage, 3),
        "offset": round(moment.offset, 2),
        "speed": round(moment.speed, 3),
        "movement": _rounded(moment.movement, 3),
        "sound_step": _sound_step_to_json(moment.sound_step),
        "common": round(moment.common, 3),
        "remark": moment.remark,
        "seconds": [
            {
                "second": second.second,
                "visual": _rounded(second.visual),
                "audio": _rounded(second.audio),
                "cluster": second.cluster,
                "query_second": second.query_second,
                "visual_percentile": _rounded(second.visual_percentile, 2),
                "audio_percentile": _rounded(second.audio_percentile, 2),
                "carried_by": second.carried_by,
            }
            for second in moment.seconds
        ],
    }
    if moment.then is not None:
        document["then"] = moment_to_json(moment.then)
    return document


def _sound_step_to_json(step: SoundStep | None) -> dict[str, Any] | None:
    if step is None:
        return None
    return {
        "correlation": round(step.correlation, 3),
        "in_step": step.is_in_step,
        "start": round(step.start, 2),
        "speed": round(step.speed, 3),
    }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
