"""What people see in a terminal: progress on stderr, tables on stdout."""

import shutil
import sys
from collections.abc import Sequence
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

from visxp_search.clips import format_time
from visxp_search.evaluate import Report
from visxp_search.results import Moment, Results
from visxp_search.saved_searches import SavedSearch
from visxp_search.terminal import say as say
from visxp_search.terminal import stdout, without_path

if TYPE_CHECKING:
    from visxp_search.absent import AbsentReport
    from visxp_search.demo.run import DemoOutcome


class IndexProgress:
    """Progress of indexing: one bar over all files (by size) and one for each that is being read.

    Without a terminal on stderr, one line a finished file. A context manager; implements `indexer.report.Progress`.

    Args:
        quiet: say nothing but what fails.
        silent: not even that, as the caller does.
    """

    def __init__(self, *, quiet: bool, silent: bool = False) -> None:
        self.console = Console(stderr=True, quiet=silent)
        self.tells_finished = not (quiet or silent or self.console.is_terminal)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or silent or not self.console.is_terminal,
            transient=True,
        )
        self.overall = self.bars.add_task("all files", total=0, visible=False)
        self.tasks: dict[Path, TaskID] = {}
        self.sizes: dict[Path, int] = {}
        self.seconds: dict[Path, list[int]] = {}
        self.total = self.done = 0

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
        self.total += self.sizes[path]
        self.bars.update(self.overall, total=self.total, visible=True)

    def opened(self, path: Path, n_seconds: int, n_done: int) -> None:
        """Show a bar for the file, in place of the one it has if it is begun anew."""
        if path in self.tasks:
            self.bars.remove_task(self.tasks.pop(path))
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
        done, total = self.seconds.pop(path, (0, 0))
        self.done += self.sizes.pop(path, 0)
        self._advance_whole()
        if total and self.tells_finished:
            self.console.print(f"{path}: {done} of {total} s", markup=False, highlight=False, soft_wrap=True)

    def failed(self, path: Path, reason: str) -> None:
        """Say at once what went wrong, in one line."""
        reason = without_path(reason, str(path))
        self.console.print(f"[red]failed[/red] {escape(str(path))}: {escape(reason)}", highlight=False, soft_wrap=True)

    def _advance_whole(self) -> None:
        begun = sum(
            self.sizes[path] * min(1.0, stored / total)
            for path, (stored, total) in self.seconds.items()
            if path in self.sizes
        )
        self.bars.update(self.overall, completed=self.done + begun)


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
    stdout().print(table)
    if explain:
        for rank, moment in enumerate(results.moments, start=1):
            _print_timelines(rank, moment, first_second=int(results.query.origin.get("start", 0)), mode=results.mode)
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
    stdout().print(table)


def print_report(report: Report) -> None:
    """Averages with their 95 % intervals, over all queries and by group, and the queries to look at."""
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
    stdout().print(table)
    for outcome in report.outcomes:
        if not outcome.right_video_first:
            judged = outcome.judgement
            group = f" ({judged.group})" if judged.group else ""
            print(
                f"right video not first: {judged.path}{group}, from {format_time(judged.start)}: "
                f"{len(outcome.answers)} answers, best temporal IoU {outcome.overlap:.2f}"
            )


def print_absent(report: "AbsentReport") -> None:
    """What was answered to queries that are not in the index, answer by answer."""
    n_answers, n_false = len(report.answers), len(report.false_answers)
    print(
        f"{len(report.queries)} queries that are not in the index: {n_answers} answers, {n_answers - n_false} of them "
        f"the query's own recording in another file, {n_false} false"
    )
    for answer in report.answers:
        kind = "same recording" if answer.is_same_recording else "false"
        moment = answer.moment
        print(
            f"  {kind}: {answer.query} -> {moment.path} {format_time(moment.start)}, chance {_number(moment.chance)}, "
            f"correlation of sound {_number(answer.sound)}, of motion {_number(answer.motion)}"
        )


def _print_timelines(rank: int, moment: Moment, *, first_second: int, mode: str) -> None:
    """Both timelines side by side: each second of the query, the second of the video, and what carried it."""
    title = f"{rank}: {moment.path}"
    if moment.movement is not None:
        title += f", changes as the query does: correlation {moment.movement:.2f}"
    if moment.sound_step is not None:
        is_in_step = "in step" if moment.sound_step.is_in_step else "not in step"
        title += f", sound {is_in_step}: correlation {moment.sound_step.correlation:.2f}"
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title=escape(title),
        title_justify="left",
        title_style="",
    )
    for name in ("query", "video", "picture", "better than", "sound", "better than", "cluster"):
        table.add_column(name, justify="right")
    table.add_column("carried by")
    for second in moment.seconds:
        in_step = max(0.0, (second.second - moment.offset) / moment.speed)
        table.add_row(
            format_time(first_second + (in_step if mode == "same" else second.query_second)),
            format_time(second.second),
            _number(second.visual),
            _percent(second.visual_percentile),
            _number(second.audio),
            _percent(second.audio_percentile),
            "-" if second.cluster is None else str(second.cluster),
            {"visual": "picture", "audio": "sound", "joint": "joint space"}.get(second.carried_by, second.carried_by),
        )
    stdout().print(table)
    if moment.then is not None:
        _print_timelines(rank, moment.then, first_second=0, mode=mode)


def print_demo(outcome: "DemoOutcome") -> None:
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
    stdout().print(table)
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
