"""Queries that are not in the index: what a search says to them, and whether it is wrong.

The opposite of `visxp_search.trials`. An answer is false unless it is the query's own recording in another file, which
is told by correlation of samples and pixels (`visxp_search.recordings`), never by the search's own scores.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from visxp_search.decode import decode_waveform, probe
from visxp_search.errors import DecodeError, UsageError
from visxp_search.recordings import SAME_RECORDING, motion_correlation, sound_correlation
from visxp_search.results import Moment, Results
from visxp_search.store import Store, hash_file
from visxp_search.trials import cut

QUERY_SECONDS = 10
"""The begin of each file is asked with."""
MARGIN_SECONDS = 2.0
"""An answer is compared with so much around it."""
SAMPLE_RATE_HZ = 8000
PICTURES_PER_SECOND = 10
PICTURE_SIZE = 32


@dataclass(frozen=True)
class AbsentAnswer:
    """What was answered to a query that should have had no answer.

    Attributes:
        query: the file asked with.
        moment: the answer.
        sound: correlation of the waveforms; None without two sounds.
        motion: correlation of what moves; None without two moving pictures.
    """

    query: Path
    moment: Moment
    sound: float | None
    motion: float | None

    @property
    def is_same_recording(self) -> bool:
        """Whether it is no mistake: the query stands in the index in another file."""
        return max(self.sound or 0.0, self.motion or 0.0) >= SAME_RECORDING


@dataclass(frozen=True)
class AbsentReport:
    """All queries and what was answered.

    Attributes:
        queries: files asked with.
        answers: to any of them.
    """

    queries: tuple[Path, ...]
    answers: tuple[AbsentAnswer, ...]

    @property
    def false_answers(self) -> tuple[AbsentAnswer, ...]:
        """Answers that are not the query's own recording."""
        return tuple(answer for answer in self.answers if not answer.is_same_recording)


def choose_absent(store: Store, paths: Sequence[Path], *, n_queries: int, seed: int) -> list[Path]:
    """Videos to ask with, drawn at random from those whose content is not indexed.

    Raises:
        UsageError: If there are none.
    """
    order = np.random.default_rng(seed).permutation(len(paths))
    chosen: list[Path] = []
    for number in order.tolist():
        if len(chosen) == n_queries:
            break
        with suppress(DecodeError):  # there is nothing to ask with in it
            if probe(paths[number]).has_video and store.video(hash_file(paths[number])) is None:
                chosen.append(paths[number])
    if not chosen:
        raise UsageError("--absent names no video that is not in the index; name a folder of others, or a list")
    return chosen


def evaluate_absent(
    queries: Sequence[Path],
    search: Callable[[Path], Results],
    *,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> AbsentReport:
    """Ask all queries, and judge what is answered.

    Args:
        queries: files whose content is not indexed.
        search: from the begin of a file to what is found, at the default cut-off.
        on_progress: called with ("ask", done, total).
    """
    answers = []
    for done, query in enumerate(queries, start=1):
        answers += [_judge(query, moment) for moment in search(query).moments]
        on_progress("ask", done, len(queries))
    return AbsentReport(tuple(queries), tuple(answers))


def absent_to_json(report: AbsentReport) -> dict[str, Any]:
    """A report as JSON values."""
    return {
        "queries": len(report.queries),
        "answers": len(report.answers),
        "same_recording": len(report.answers) - len(report.false_answers),
        "false_answers": len(report.false_answers),
        "outcomes": [
            {
                "query": str(answer.query),
                "path": answer.moment.path,
                "start": round(answer.moment.start, 2),
                "end": round(answer.moment.end, 2),
                "chance": answer.moment.chance,
                "visual": answer.moment.visual,
                "audio": answer.moment.audio,
                "sound_correlation": answer.sound,
                "motion_correlation": answer.motion,
                "same_recording": answer.is_same_recording,
            }
            for answer in report.answers
        ],
    }


def _judge(query: Path, moment: Moment) -> AbsentAnswer:
    path = Path(moment.path)
    asked, found = probe(query), probe(path)
    start, end = max(0.0, moment.start - MARGIN_SECONDS), moment.end + MARGIN_SECONDS
    sound = motion = None
    if asked.has_audio and found.has_audio:
        sound = sound_correlation(
            decode_waveform(query, sample_rate_hz=SAMPLE_RATE_HZ, stop_seconds=QUERY_SECONDS),
            decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ, start_seconds=start, stop_seconds=end),
        )
    if asked.has_video and found.has_video:
        motion = motion_correlation(_pictures(query, 0.0, QUERY_SECONDS), _pictures(path, start, end))
    return AbsentAnswer(query, moment, sound, motion)


def _pictures(path: Path, start: float, end: float) -> npt.NDArray[np.float32]:
    """(n, PICTURE_SIZE, PICTURE_SIZE) grey in [0, 1], `PICTURES_PER_SECOND`."""
    excerpt = cut(path, start=start, end=end)
    rate = float(excerpt.frames_per_second)
    n_pictures = max(1, int(len(excerpt.frames) / rate * PICTURES_PER_SECOND))
    rows = np.minimum((np.arange(n_pictures) / PICTURES_PER_SECOND * rate).round().astype(int), len(excerpt.frames) - 1)
    size = (PICTURE_SIZE, PICTURE_SIZE)
    small = [Image.fromarray(excerpt.frames[row]).convert("L").resize(size, Image.Resampling.BOX) for row in rows]
    return np.stack([np.asarray(picture, dtype=np.float32) / 255 for picture in small])
