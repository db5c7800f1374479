"""Hits become moments: the whole way from a query to its results.

Candidates come from the store (`visxp_search.candidates`), each is compared exactly and judged against chance
(`visxp_search.reader`), and what is unlikely enough by chance is an answer.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from visxp_search.candidates import all_videos, consecutive_runs, find_candidates, points_of
from visxp_search.errors import UsageError
from visxp_search.queries import (
    Progress,
    Query,
    clip_query,
    frame_query,
    iterate_clips,
    moment_query,
    read_clips,
    sound_query,
    untold,
)
from visxp_search.reader import BLOCK_SECONDS, MOST_GAIN, Reader
from visxp_search.results import Moment, Results, SecondScore, moment_to_json, results_to_json
from visxp_search.store import PENDING, Filter, Store, VideoRecord

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

MODES = ("similar", "same")
MAX_CHANCE = {"similar": 1.0, "same": 0.05}
"""Default cut-off: moments of which more are expected by chance are not answers; see also `Reader.is_familiar`."""
NO_PLACES = "nothing like this here: no indexed second meets the conditions (--video, --path, --cluster, --after, ...)"
NOTHING_INDEXED = "nothing like this here: nothing is indexed yet; see: visxp index add"
CANDIDATE_VIDEOS = 80
"""Videos that are compared at least: the best ones hold the answers, the others tell what chance gives."""


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
    accept: Callable[[Moment], bool] = lambda moment: True,
    on_progress: Callable[[int, int, int], None] = lambda done, total, found: None,
    progress: Progress = untold,
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
        accept: which moments may be answers; all are compared, and tell what chance gives.
        on_progress: of an exhaustive search, called with (videos done, videos, moments so far).
        progress: told `compare` and the seconds compared, before each video and each moment; may raise to end it.

    Raises:
        UsageError: If mode is unknown, or a number is outside its range.
    """
    _check_options(mode, top=top, per_video=per_video, min_visual=min_visual, min_audio=min_audio)
    missing = sorted(set(query.weights) - set(store.info.dims))
    if missing:
        raise UsageError(
            f"index {store.location} has no {' and no '.join(missing)} vectors, only {', '.join(store.info.dims)}; "
            f"ask by these (--by, without --cross), or index the videos into a new --index"
        )
    started = time.perf_counter()
    cut = MAX_CHANCE[mode] if max_chance is None else max_chance
    moments: list[Moment] = []
    yields: list[tuple[int, int]] = []
    n_compared = 0
    n_places = store.count(where)
    if query.weights and n_places:
        progress("compare", 0, 0)
        reader = Reader(store, query, mode=mode, per_video=per_video, n_places=n_places)

        def passes(moment: Moment) -> bool:
            progress("compare", n_compared, 0)
            if not accept(moment):
                return False
            if moment.doubt and cut < 1:  # also where there is too little to tell what chance gives
                return False
            familiar = max_chance is None and reader.is_familiar(moment)
            return (familiar or _within(moment, cut)) and _reaches(moment, min_visual, min_audio)

        chosen: Mapping[str, Sequence[int] | None]
        if exhaustive:
            chosen, is_whole = all_videos(store, where), True
        else:
            chosen, is_whole = find_candidates(
                store,
                query,
                mode=mode,
                scales=reader.scales,
                sample=reader.sample,
                where=where,
                n_videos=max(CANDIDATE_VIDEOS, 3 * top),
                n_answers=3 * top,
                per_video=per_video,
            )
        for done, (video_id, seconds) in enumerate(chosen.items(), start=1):
            progress("compare", n_compared, 0)
            for run in consecutive_runs(points_of(store, query, video_id, seconds, where)):
                reader.read(run)
                n_compared += len(run)
            if exhaustive and (done % max(1, len(chosen) // 10) == 0 or done == len(chosen)):
                # Until enough is compared nothing is known of chance, and so of no moment that it is one.
                so_far = [m for m in reader.moments() if passes(m) and (m.chance is not None or done == len(chosen))]
                yields.append((done, len(_best(so_far, top=len(so_far), per_video=per_video))))
                on_progress(done, len(chosen), yields[-1][1])
        best, found = _choose(reader, passes, top=top, per_video=per_video)
        if not is_whole and _read_on(store, query, reader, best, chosen, where):
            best, found = _choose(reader, passes, top=top, per_video=per_video)
        records = {video_id: store.video(video_id) for video_id in {moment.video_id for moment in best}}
        moments = [_located(moment, records[moment.video_id]) for moment in best]
        reason = "" if moments else _why_nothing(found, cut)
    else:
        reason = query.why_empty or (NO_PLACES if store.count() else NOTHING_INDEXED)
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


def _check_options(mode: str, *, top: int, per_video: int, min_visual: float, min_audio: float) -> None:
    if mode not in MODES:
        raise UsageError(f"--mode {mode} is unknown; choose similar or same")
    if top < 1 or per_video < 1:
        raise UsageError(f"--top {top} and --per-video {per_video} must be at least 1")
    for name, value in (("--min-visual", min_visual), ("--min-audio", min_audio)):
        if not 0 <= value <= 100:
            raise UsageError(f"{name} {value} is outside 0 to 100 (a percentile of this archive)")


def _within(moment: Moment, max_chance: float) -> bool:
    return moment.chance is None or moment.chance <= max_chance


def _reaches(moment: Moment, min_visual: float, min_audio: float) -> bool:
    visual, audio = moment.visual_percentile or 0.0, moment.audio_percentile or 0.0
    return visual >= min_visual and audio >= min_audio


def _choose(
    reader: Reader, passes: Callable[[Moment], bool], *, top: int, per_video: int
) -> tuple[list[Moment], list[Moment]]:
    """The best moments that pass, and all that had to be judged for it."""
    judged: list[Moment] = []
    passing: list[Moment] = []
    best: list[Moment] = []
    for moment in reader.moments():
        if len(best) == top and MOST_GAIN * moment.value < best[-1].value:
            break
        judged.append(moment)
        if passes(moment):
            passing.append(moment)
            best = _best(passing, top=top, per_video=per_video)
    return best, judged


def _read_on(
    store: Store,
    query: Query,
    reader: Reader,
    answers: Sequence[Moment],
    chosen: Mapping[str, Sequence[int] | None],
    where: Filter | None,
) -> bool:
    """Where an answer reaches the end of what was read of its video, read a minute more on both sides, and it anew.

    Returns:
        Whether anything was read.
    """
    has_read = False
    for video_id in sorted({moment.video_id for moment in answers}):
        read = set(chosen[video_id] or ())
        more: set[int] = set()
        for moment in answers:
            first, last = moment.seconds[0].second, moment.seconds[-1].second
            if moment.video_id == video_id and not {first - 1, last + 1} <= read:
                more.update(range(max(0, first - BLOCK_SECONDS), last + BLOCK_SECONDS + 1))
        if points_of(store, query, video_id, sorted(more - read), where):
            has_read = True
            reader.forget(video_id)
            for run in consecutive_runs(points_of(store, query, video_id, sorted(more | read), where)):
                reader.read(run)
    return has_read


def _best(moments: Sequence[Moment], *, top: int, per_video: int) -> list[Moment]:
    chosen: list[Moment] = []
    taken: dict[str, int] = defaultdict(int)
    for moment in sorted(moments, key=lambda moment: (-moment.value, -moment.score, moment.video_id, moment.start)):
        if taken[moment.video_id] < per_video and not any(_overlap(moment, better) for better in chosen):
            taken[moment.video_id] += 1
            chosen.append(moment)
    return chosen[:top]


def _overlap(moment: Moment, other: Moment) -> bool:
    """Whether two moments are one, found in two places of which the sound moved one to the other."""
    shared = min(moment.end, other.end) - max(moment.start, other.start)
    return moment.video_id == other.video_id and shared > 0.5 * min(moment.end - moment.start, other.end - other.start)


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
    if found[0].doubt:
        return (
            f"nothing like this here: the nearest moment is {found[0].doubt}; --mode similar finds what is alike, and "
            f"--max-chance inf, where the cut-off is {max_chance:g}, shows this one"
        )
    nearest = min(found, key=lambda moment: np.inf if moment.chance is None else moment.chance)
    if nearest.chance is not None and nearest.chance > max_chance:
        return (
            f"nothing like this here: the nearest moment is one of which {nearest.chance:.2g} are expected by chance "
            f"in this archive, and the cut-off is {max_chance:g}; --max-chance raises it"
        )
    return "nothing like this here: no moment reaches --min-visual and --min-audio"
