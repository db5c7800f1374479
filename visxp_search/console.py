"""What people see in a terminal: progress on stderr, tables on stdout."""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from visxp_search.api import IndexFacts
from visxp_search.clips import format_time
from visxp_search.demo.run import DemoOutcome
from visxp_search.search import Moment, Results
from visxp_search.store import VideoRecord


class IndexProgress:
    """Progress of indexing: one bar over all files (by size) and one for each that is being read.

    Without a terminal on stderr, one line a finished file. A context manager; implements `indexer.pipeline.Progress`.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
            transient=True,
        )
        self.overall = self.bars.add_task("all files", total=0, visible=False)
        self.tasks: dict[Path, TaskID] = {}
        self.sizes: dict[Path, int] = {}
        self.seconds: dict[Path, list[int]] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def found(self, path: Path, size: int) -> None:
        """Count the file into the whole."""
        self.sizes[path] = max(size, 1)
        self.bars.update(self.overall, total=sum(self.sizes.values()), visible=True)

    def opened(self, path: Path, n_seconds: int, n_done: int) -> None:
        """Show a bar for the file."""
        self.seconds[path] = [n_done, max(n_seconds, 1)]
        self.tasks[path] = self.bars.add_task(f"  {escape(path.name)}", total=n_seconds, completed=n_done)

    def stored(self, path: Path, n_seconds: int) -> None:
        """Move the file's bar, and its share of the whole."""
        progress = self.seconds[path]
        progress[0] += n_seconds
        self.bars.update(self.tasks[path], completed=progress[0])
        self._advance_whole()

    def finished(self, path: Path) -> None:
        """Take the file's bar away."""
        if path in self.tasks:
            self.bars.remove_task(self.tasks.pop(path))
        done, total = self.seconds.get(path, (0, 0))
        self.seconds[path] = [1, 1]
        self._advance_whole()
        if total and not self.console.is_terminal:
            self.console.print(f"{path}: {done} of {total} s", markup=False, highlight=False, soft_wrap=True)

    def failed(self, path: Path, reason: str) -> None:
        """Say at once what went wrong, in one line."""
        reason = reason.removeprefix(f"{path}: ").removeprefix(f"{path} ")
        self.console.print(f"[red]failed[/red] {escape(str(path))}: {escape(reason)}", highlight=False, soft_wrap=True)

    def _advance_whole(self) -> None:
        done = sum(
            self.sizes[path] * min(1.0, stored / total)
            for path, (stored, total) in self.seconds.items()
            if path in self.sizes
        )
        self.bars.update(self.overall, completed=done)


class StepProgress:
    """One bar for work that reports (what, done, total), such as training; a context manager."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True, quiet=quiet)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of `what` are done."""
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(escape(what), total=total)
        self.bars.update(self.tasks[what], completed=done, total=total)


def print_moments(results: Results) -> None:
    """The moments as a table, best first."""
    if not results.moments:
        say(f"nothing found in {results.n_seconds} seconds of {results.n_videos} videos")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("from", justify="right")
    table.add_column("to", justify="right")
    for name in ("score", "better than", "picture", "sound"):
        table.add_column(name, justify="right")
    table.add_column("video", overflow="fold")
    for rank, moment in enumerate(results.moments, start=1):
        table.add_row(str(rank), *_moment_cells(moment))
    _stdout().print(table)
    rest = "" if results.complete else "; indexing is not complete"
    say(f"searched {results.n_seconds} seconds of {results.n_videos} videos in {results.took_ms:.0f} ms{rest}")


def print_videos(records: Iterable[VideoRecord]) -> None:
    """The ledger as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "status", "kind"):
        table.add_column(name)
    table.add_column("length", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("path, remarks", overflow="fold")
    for record in records:
        remark = f"\n{escape(record.error)}" if record.error else ""
        table.add_row(
            record.video_id[:12],
            record.status,
            record.kind,
            format_time(record.duration_seconds),
            f"{record.seconds_done} of {record.seconds_expected}",
            "\n".join(escape(path) for path in record.paths) + remark,
        )
    _stdout().print(table)


def print_facts(facts: IndexFacts) -> None:
    """What an index holds, a line each."""
    videos = ", ".join(f"{number} {status}" for status, number in sorted(facts.videos.items())) or "none"
    hours = facts.seconds / 3600
    lines = {
        "index": facts.location,
        "checkpoint": facts.checkpoint,
        "vectors": ", ".join(f"{name} {length}" for name, length in facts.dims.items()),
        "videos": videos,
        "seconds": f"{facts.seconds} of {facts.seconds_expected} ({hours:.2f} h)",
        "flags": ", ".join(f"{flag} {number}" for flag, number in sorted(facts.flags.items())) or "none",
    }
    for name, value in lines.items():
        _stdout().print(f"{name:11}{value}", markup=False, highlight=False, soft_wrap=True)


def print_demo(outcome: DemoOutcome) -> None:
    """What each query of the demo found, whether it is right, and how to go on."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("asked with", "best moment", "shows"):
        table.add_column(name)
    table.add_column("score", justify="right")
    table.add_column("")
    for answer in outcome.answers:
        moment = answer.moment
        table.add_row(
            answer.query.path.name,
            f"{escape(Path(moment.path).name)} {format_time(moment.start)}-{format_time(moment.end)}",
            answer.found_kind,
            f"{moment.score:.2f}",
            "right" if answer.is_right else f"wrong: {answer.query.kind} was asked for",
        )
    _stdout().print(table)
    n_answers = len(outcome.answers)
    n_right = n_answers - outcome.n_wrong
    print(
        f"\n{n_right} of {n_answers} queries found their kind first, among {outcome.n_seconds} seconds.\n"
        f"\nThe archive lies in {outcome.folder}/archive. Go on with your own files:\n"
        f"  visxp index add ~/Videos\n"
        f"  visxp search clip some.mp4 --start 12 --end 18\n"
        f"  visxp search sound some.wav"
    )


def say(text: str) -> None:
    """A message for a person, on stderr."""
    print(text, file=sys.stderr)


def _moment_cells(moment: Moment) -> list[str]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    return [
        format_time(moment.start),
        format_time(moment.end),
        f"{moment.score:.2f}",
        f"{moment.percentile:.1f} %",
        number(moment.visual),
        number(moment.audio),
        escape(moment.path),
    ]


def _stdout() -> Console:
    """Tables keep their full width when piped, so that long paths can be read by programs."""
    return Console() if sys.stdout.isatty() else Console(width=400, no_color=True)
