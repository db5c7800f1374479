"""What people see in a terminal: progress on stderr, tables on stdout."""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

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
from visxp_search.clips import format_bytes, format_span, format_time
from visxp_search.demo.run import DemoOutcome
from visxp_search.evaluate import Report
from visxp_search.results import Moment, Results
from visxp_search.saved_searches import SavedSearch
from visxp_search.store import VideoRecord

if TYPE_CHECKING:
    from indexer.estimate import Estimate
    from indexer.verify import Drift


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


class YieldProgress:
    """The running yield of an exhaustive search, a line a step; called with (videos done, videos, moments)."""

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown
        self.found = 0

    def __call__(self, done: int, total: int, found: int) -> None:
        """Say how many moments there are, and how many of them are new."""
        if self.shown:
            say(f"compared {done} of {total} videos: {found} moments, {found - self.found:+d} since the last line")
        self.found = found


def print_moments(results: Results, *, explain: bool = False) -> None:
    """The moments as a table, the one that stands out most first; with `explain` each second by second as well."""
    for note in results.query.notes:
        say(f"note: {note} in the query; that is not compared")
    if not results.moments:
        say(f"{results.reason} (searched {results.n_seconds} seconds of {results.n_videos} videos)")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("#", "from", "to", "score", "better than", "by chance", "picture", "sound"):
        table.add_column(name, justify="right")
    table.add_column("video, remarks", overflow="fold")
    for rank, moment in enumerate(results.moments, start=1):
        table.add_row(str(rank), *_moment_cells(moment))
    _stdout().print(table)
    if explain:
        for rank, moment in enumerate(results.moments, start=1):
            _print_timelines(rank, moment, first_second=int(results.query.origin.get("start", 0)))
    rest = "" if results.complete else "; indexing is not complete"
    say(f"searched {results.n_seconds} seconds of {results.n_videos} videos in {results.took_ms:.0f} ms{rest}")


def print_saved(searches: Sequence[SavedSearch]) -> None:
    """The saved searches, a line each."""
    if not searches:
        say("no search is saved; `visxp search ... --save NAME` keeps one")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "asked with"):
        table.add_column(name)
    table.add_column("found", justify="right")
    for saved in searches:
        origin = saved.query.origin
        what = f"{saved.query.kind} {origin.get('path', origin.get('video_id', ''))}"
        table.add_row(escape(saved.name), escape(what), str(len(saved.seen)))
    _stdout().print(table)


def print_report(report: Report) -> None:
    """Averages with their 95 % intervals, over all queries and by group."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    columns = {f"all {len(report.outcomes)}": report.overall, **report.groups}
    for name in columns:
        table.add_column(escape(name), justify="right")
    for measure in report.overall:
        digits = 0 if measure == "latency ms" else 2
        estimates = [values[measure] for values in columns.values()]
        cells = [f"{e.mean:.{digits}f} [{e.low:.{digits}f}, {e.high:.{digits}f}]" for e in estimates]
        table.add_row(measure, *(escape(cell) for cell in cells))
    _stdout().print(table)


def _print_timelines(rank: int, moment: Moment, *, first_second: int) -> None:
    """Both timelines side by side: each second of the query, the second of the video, and what carried it."""
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title=f"{rank}: {escape(moment.path)}",
        title_justify="left",
        title_style="",
    )
    for name in ("query", "video", "picture", "better than", "sound", "better than", "cluster"):
        table.add_column(name, justify="right")
    table.add_column("carried by")
    for second in moment.seconds:
        table.add_row(
            format_time(first_second + second.query_second),
            format_time(second.second),
            _number(second.visual),
            _percent(second.visual_percentile),
            _number(second.audio),
            _percent(second.audio_percentile),
            "-" if second.cluster is None else str(second.cluster),
            {"visual": "picture", "audio": "sound", "joint": "joint space"}.get(second.carried_by, second.carried_by),
        )
    _stdout().print(table)
    if moment.then is not None:
        _print_timelines(rank, moment.then, first_second=0)


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
    _print_lines(lines)


def print_estimate(found: "Estimate") -> None:
    """What an indexing run would do, a line each."""
    unreadable = f", {found.unreadable:.0%} of the sample cannot be read" if found.unreadable else ""
    lines = {
        "files": f"{found.files} to index ({format_bytes(found.bytes)}), {found.done} done already",
        "media": f"{format_span(found.media_seconds)} in them{unreadable}",
        "time": f"about {format_span(found.wall_seconds)} on this machine",
        "index": f"about {format_bytes(found.index_bytes)} larger, if it is embedded",
        "measured": f"{found.sampled_files} files looked into, {found.measured_seconds} seconds indexed on trial",
    }
    _print_lines(lines)


def print_drifts(drifts: "Sequence[Drift]", *, repaired: bool) -> None:
    """What disagrees, a line each, and how to go on."""
    for drift in drifts:
        subject = drift.path or drift.video_id
        _stdout().print(f"{drift.kind:12}{subject}: {drift.what}", markup=False, highlight=False, soft_wrap=True)
    if not drifts:
        say("ledger, seconds and files agree")
    elif repaired:
        say(f"{len(drifts)} disagreements; all but what is unreachable was mended")
    else:
        say(f"{len(drifts)} disagreements; mend them with --repair")


def _print_lines(lines: Mapping[str, str]) -> None:
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
            f"{escape(Path(moment.path).name)} {format_time(moment.start)}-{format_time(moment.end)}"
            if moment
            else "-",
            answer.found_kind,
            f"{moment.score:.2f}" if moment else "-",
            "right" if answer.is_right else f"wrong: {answer.query.kind} was asked for",
        )
    _stdout().print(table)
    n_answers = len(outcome.answers)
    n_right = n_answers - outcome.n_wrong
    program = "visxp" if shutil.which("visxp") else sys.argv[0]
    print(
        f"\n{n_right} of {n_answers} queries found their kind first, among {outcome.n_seconds} seconds.\n"
        f"\nThe archive lies in {outcome.folder}/archive. Go on with your own files:\n"
        f"  {program} index add ~/Videos\n"
        f"  {program} search clip some.mp4 --start 12 --end 18\n"
        f"  {program} search sound some.wav"
    )


def say(text: str) -> None:
    """A message for a person, on stderr."""
    print(text, file=sys.stderr)


def _moment_cells(moment: Moment) -> list[str]:
    remarks = [moment.remark] if moment.remark else []
    if abs(moment.speed - 1) > 0.005:
        remarks.append(f"speed {moment.speed:.2f}")
    if moment.then is not None:
        remarks.append(f"then {format_time(moment.then.start)}-{format_time(moment.then.end)}")
    return [
        format_time(moment.start),
        format_time(moment.end),
        f"{moment.score:.2f}",
        f"{moment.percentile:.1f} %",
        "-" if moment.chance is None else f"{moment.chance:.1g}",
        _number(moment.visual),
        _number(moment.audio),
        escape("; ".join([moment.path, *remarks])),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _stdout() -> Console:
    """Tables keep their full width when piped, so that long paths can be read by programs."""
    return Console() if sys.stdout.isatty() else Console(width=400, no_color=True)
