"""What people see of an index itself: its videos, what it holds, what disagrees, what a run would take.

Loads no media and no networks, so that `visxp index ls` answers at once.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from visxp_search.clips import format_bytes, format_span, format_time
from visxp_search.store import VideoRecord
from visxp_search.terminal import say, stdout, without_path

if TYPE_CHECKING:
    from indexer.estimate import Estimate
    from indexer.rebuild import Difference
    from indexer.verify import Drift
    from visxp_search.facts import IndexFacts


def print_videos(records: Iterable[VideoRecord]) -> None:
    """The ledger as a table by path: a line each video, with further lines for further paths and for what failed.

    A hundred thousand entries are made into lines as they come, and only those are kept to be sorted.
    """
    lines = [(record.paths[0] if record.paths else "", _lines_of(record)) for record in records]
    lines.sort(key=itemgetter(0))
    heads = _row("id", "status", "kind", "length", "seconds", "path, remarks")
    sys.stdout.write("".join([heads, *(text for _, text in lines)]))


def _lines_of(record: VideoRecord) -> str:
    line = _row(
        record.video_id[:12],
        record.status,
        record.kind,
        format_time(record.duration_seconds),
        f"{record.seconds_done} of {record.seconds_expected}",
        _printable(record.paths[0] if record.paths else ""),
    )
    if not record.error and len(record.paths) == 1:
        return line
    remarks = [*record.paths[1:], *([_reason(record)] if record.error else [])]
    return line + "".join([_row("", "", "", "", "", _printable(remark)) for remark in remarks])


def _reason(record: VideoRecord) -> str:
    """Why a file failed, without the path that stands above it."""
    reason = record.error
    for path in record.paths:
        reason = without_path(reason, path)
    return reason


def _row(video_id: str, status: str, kind: str, length: str, seconds: str, path: str) -> str:
    return f"{video_id:12}  {status:7}  {kind:5}  {length:>9}  {seconds:>16}  {path}\n"


def _printable(text: str) -> str:
    """Text in one line that every terminal takes: control characters and undecodable bytes are written out."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


CLUSTERS_OF = {
    "archive": "of this archive (visxp clusters fit)",
    "checkpoint": "that the checkpoint learned in training (visxp clusters fit makes this archive's own)",
}


def print_facts(facts: "IndexFacts") -> None:
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
        "clusters": f"{facts.clusters} {CLUSTERS_OF[facts.clusters_of]}" if facts.clusters else "none",
    }
    _print_lines(lines)


def print_difference(found: "Difference") -> None:
    """How alike two indexes are, a line each."""
    seconds, other = found.seconds
    lines = {"seconds": f"{seconds}, and {other} in the other", "sample": f"{found.sampled} seconds"}
    for name, share in found.overlap.items():
        lines[name] = (
            f"{share:.0%} of the ten nearest seconds of other videos are the same, "
            f"{found.overlap_videos[name]:.0%} of their videos"
        )
    _print_lines(lines)
    for path in found.videos_missing:
        stdout().print(f"missing    {_printable(path)}", markup=False, highlight=False, soft_wrap=True)


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


def print_drifts(drifts: "Sequence[Drift]", *, repaired: bool, n_unreachable: int) -> None:
    """What disagrees, a line each, and how to go on; of so many only the disk can be brought back."""
    for drift in drifts:
        subject = drift.path or drift.video_id
        stdout().print(f"{drift.kind:12}{subject}: {drift.what}", markup=False, highlight=False, soft_wrap=True)
    n_mendable = len(drifts) - n_unreachable
    if not drifts:
        say("ledger, seconds and files agree")
    if n_mendable:
        say(f"disagreements: {n_mendable}; " + ("they were mended" if repaired else "mend them with --repair"))
    if n_unreachable:
        say(f"unreachable: {n_unreachable}; bring the disk back or, where files are gone for good, remove their folder")


def _print_lines(lines: Mapping[str, str]) -> None:
    for name, value in lines.items():
        stdout().print(f"{name:11}{value}", markup=False, highlight=False, soft_wrap=True)
