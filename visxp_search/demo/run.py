"""The demo itself: render, index, ask, and check every answer against the truth."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visxp_search.api import Index, open_index
from visxp_search.demo.archive import DemoQuery, DemoTruth, render_archive, render_queries
from visxp_search.search import Moment

if TYPE_CHECKING:
    from indexer.report import Progress


@dataclass(frozen=True)
class Answer:
    """What one query found.

    Attributes:
        query: what was asked with.
        moment: the best moment; None if nothing was found.
        found_kind: the kind that most of the moment shows; empty if nothing was found.
    """

    query: DemoQuery
    moment: Moment | None
    found_kind: str

    @property
    def is_right(self) -> bool:
        """Whether the best moment shows the kind that was asked for."""
        return self.found_kind == self.query.kind


@dataclass(frozen=True)
class DemoOutcome:
    """What came out of the demo."""

    folder: Path
    n_seconds: int
    answers: tuple[Answer, ...]

    @property
    def n_wrong(self) -> int:
        """Number of queries whose best moment shows another kind."""
        return sum(not answer.is_right for answer in self.answers)


def render_demo(folder: Path, *, progress: Callable[[str, int, int], None]) -> tuple[DemoTruth, list[DemoQuery]]:
    """Render the archive and the queries below `folder`; a demo that was made before is made anew.

    Args:
        folder: working folder; `archive`, `queries` and `index` in it are replaced.
        progress: called with (what, done, total).
    """
    for name in ("archive", "queries", "index"):
        shutil.rmtree(folder / name, ignore_errors=True)
    truth = render_archive(folder / "archive", on_progress=lambda done, total: progress("render", done, total))
    return truth, render_queries(folder / "queries")


def search_demo(
    folder: Path,
    truth: DemoTruth,
    queries: Sequence[DemoQuery],
    *,
    workers: int,
    progress: "Progress",
    model: str | None = None,
) -> DemoOutcome:
    """Index the archive below `folder` and ask all queries.

    Args:
        folder: as for `render_demo`.
        truth: what the archive holds.
        queries: what to ask with.
        workers: decoding processes.
        progress: told about the indexing.
        model: as for `open_index`.
    """
    with open_index(folder / "index", model=model, create=True) as index:
        index.add([folder / "archive"], workers=workers, progress=progress)
        answers = tuple(ask(index, query, truth) for query in queries)
        return DemoOutcome(folder=folder, n_seconds=index.facts().seconds, answers=answers)


def ask(index: Index, query: DemoQuery, truth: DemoTruth) -> Answer:
    """Search by picture and sound for a clip, by sound for a sound, and say which kind came first."""
    found = index.search_sound(query.path) if query.path.suffix == ".wav" else index.search_clip(query.path)
    moment = next(iter(found), None)
    return Answer(query=query, moment=moment, found_kind="" if moment is None else kind_of(moment, truth))


def kind_of(moment: Moment, truth: DemoTruth) -> str:
    """The kind that the largest part of a moment shows, by the truth."""
    shares: dict[str, float] = {}
    for file in truth.files:
        if str(file.path.resolve()) != str(Path(moment.path).resolve()):
            continue
        for span in file.spans:
            overlap = min(moment.end, span.stop_seconds) - max(moment.start, span.start_seconds)
            shares[span.kind] = shares.get(span.kind, 0.0) + max(0.0, overlap)
    return max(shares, key=lambda kind: shares[kind])
