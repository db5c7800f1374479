"""Drift between the ledger, the stored seconds and the files on the disk: find it, say it, mend it.

| kind | what is wrong | what mending does |
| --- | --- | --- |
| `orphan` | seconds that no ledger entry knows | removes them |
| `missing` | a video that is done has fewer seconds than it had | marks it to be indexed again |
| `surplus` | ... or more | removes them all and marks it to be indexed again |
| `touched` | a file's size or time changed, its content did not | notes size and time |
| `changed` | a path has other content now | takes the path away from the old content; the new is indexed |
| `moved` | a file is at another path now | notes the new path |
| `vanished` | a file is not there any more | takes the path away; content without a path leaves the index |
| `unreachable` | it is not there, nor is anything else: its disk is not mounted, perhaps | nothing |
"""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.plan import FoundFile, find_files, with_path, without_path
from visxp_search.store import DONE, PENDING, Store, VideoRecord, hash_file

ORPHAN, MISSING, SURPLUS = "orphan", "missing", "surplus"
TOUCHED, CHANGED, MOVED, VANISHED, UNREACHABLE = "touched", "changed", "moved", "vanished", "unreachable"

MOST_ORPHANS = 100_000
"""Videos without a ledger entry that are found at once; verifying again finds more."""

Progress = Callable[[str, int, int], None]
"""Called with (what, number done, number in all)."""


@dataclass(frozen=True)
class Drift:
    """One disagreement.

    Attributes:
        kind: see the table of this file.
        video_id: whose.
        path: the file it is about; empty where it is about the stored seconds.
        what: one line for a person.
        file: the file as it is now, where there is one; of a moved file the new one.
    """

    kind: str
    video_id: str
    path: str
    what: str
    file: FoundFile | None = None


def find_drift(
    store: Store,
    *,
    folders: Sequence[Path] = (),
    read_all: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> list[Drift]:
    """Compare ledger, seconds and files; nothing is changed.

    Args:
        store: an open index.
        folders: where files that are not at their place may have moved to; none: the folders of the known files.
        read_all: read every file to its end and compare its content, not only its size and time.
        progress: told what happens.
    """
    records = {record.video_id: record for record in store.videos()}
    return [*_compare_seconds(store, records.values()), *_compare_files(records.values(), folders, read_all, progress)]


def repair_drift(store: Store, drifts: Iterable[Drift]) -> list[Path]:
    """Mend what was found; see the table of this file.

    Returns:
        Files to index (again), with `pipeline.add_files`; until then their seconds are missing.
    """
    to_index: list[Path] = []
    for drift in drifts:
        record = store.video(drift.video_id)
        if drift.kind == ORPHAN:
            store.delete_seconds(drift.video_id)
        elif record is None or drift.kind == UNREACHABLE:
            continue
        elif drift.kind in (MISSING, SURPLUS):
            if drift.kind == SURPLUS:
                store.delete_seconds(drift.video_id)
            store.upsert_videos([replace(record, status=PENDING)])
            to_index += [Path(path) for path in record.paths[:1]]
        elif drift.kind == TOUCHED and drift.file:
            store.upsert_videos([with_path(record, drift.file)])
        elif drift.kind == MOVED and drift.file:
            store.upsert_videos([without_path(with_path(record, drift.file), drift.path)])
        else:
            forget_path(store, record, drift.path)
            to_index += [Path(drift.path)] if drift.kind == CHANGED else []
    store.flush()
    return to_index


def forget_path(store: Store, record: VideoRecord, path: str) -> None:
    """Take a path away from a video; a video without any path leaves the index."""
    left = without_path(record, path)
    if left.paths:
        store.upsert_videos([left])
    else:
        store.delete_video(record.video_id)


def is_gone(path: Path) -> bool:
    """Whether a file that is not there was removed: something else still lies where it lay.

    An empty folder looks the same as the mount point of a disk that is not mounted, so there the answer is no, as it is
    where nothing may be read.
    """
    return shows_something(next(parent for parent in path.parents if os.path.isdir(parent)))


def shows_something(folder: Path) -> bool:
    """Whether a folder is there, may be read, and is not empty."""
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _compare_seconds(store: Store, records: Iterable[VideoRecord]) -> Iterable[Drift]:
    """Compare the number of stored seconds of each video with what the ledger says of it."""
    known = {record.video_id: record for record in records}
    stored = store.facet("video_id", limit=2 * len(known) + MOST_ORPHANS)
    for video_id, number in stored.items():
        if video_id not in known:
            yield Drift(ORPHAN, video_id, "", f"{number} seconds of a video that is not in the ledger")
    for video_id, record in known.items():
        number = stored.get(video_id, 0)
        if record.status == DONE and number != record.seconds_done:
            kind = MISSING if number < record.seconds_done else SURPLUS
            what = f"{number} seconds stored, {record.seconds_done} were"
            yield Drift(kind, video_id, "", f"{what} ({', '.join(record.paths)})")


def _compare_files(
    records: Iterable[VideoRecord], folders: Sequence[Path], read_all: bool, progress: Progress
) -> Iterable[Drift]:
    known = [(record, path) for record in records for path in record.paths]
    absent: list[tuple[VideoRecord, str]] = []
    for number, (record, path) in enumerate(known, start=1):
        progress("compare files", number, len(known))
        try:
            file = _find_file(Path(path))
        except OSError as exc:
            yield Drift(UNREACHABLE, record.video_id, path, f"cannot be looked at: {exc.strerror}")
            continue
        if file is None:
            absent.append((record, path))
            continue
        if record.status != DONE:
            continue  # indexing it again reads it anyway
        noted = list(record.stats.get(path, ()))
        is_same = noted == [file.size, file.mtime_ns] or not noted
        if is_same and not read_all:
            continue
        try:
            same_content = hash_file(file.path) == record.video_id
        except OSError as exc:
            yield Drift(UNREACHABLE, record.video_id, path, f"cannot be read: {exc.strerror}", file)
            continue
        if not same_content:
            yield Drift(CHANGED, record.video_id, path, "has other content now", file)
        elif not is_same:
            yield Drift(TOUCHED, record.video_id, path, "has another time now, and the same content", file)
    done = {path for record, path in known if record.status == DONE}
    yield from _look_for(absent, done, folders, progress)


def _find_file(path: Path) -> FoundFile | None:
    """The file at a path; None if none is there.

    Raises:
        OSError: If that cannot be told, e.g. for want of permission.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FoundFile(path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _look_for(
    absent: Sequence[tuple[VideoRecord, str]], done: set[str], folders: Sequence[Path], progress: Progress
) -> Iterable[Drift]:
    """Say of each file that is not at its place where it is now, if it can be found by size and content."""
    wanted = {record.stats[path][0] for record, path in absent if path in record.stats}
    parents = {Path(path).parent for path in done}
    roots = folders or _outermost(folder for folder in parents if os.path.isdir(folder) and folder.name)
    candidates = [
        item
        for item in (find_files(roots) if absent else ())
        if isinstance(item, FoundFile) and item.size in wanted and str(item.path) not in done
    ]
    found: dict[str, FoundFile] = {}
    for number, item in enumerate(candidates, start=1):
        progress("look for moved files", number, len(candidates))
        try:
            found.setdefault(hash_file(item.path), item)
        except OSError:
            continue  # not readable, so not a place to index from
    for record, path in absent:
        moved = found.get(record.video_id)
        if moved is not None:
            yield Drift(MOVED, record.video_id, path, f"is now {moved.path}", moved)
        elif is_gone(Path(path)):
            yield Drift(VANISHED, record.video_id, path, "is not there any more")
        else:
            yield Drift(UNREACHABLE, record.video_id, path, "is not there, nor is anything else; is its disk mounted?")


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Those folders that do not lie in another one, sorted."""
    kept: list[Path] = []
    for folder in sorted(folders):
        if not kept or not folder.is_relative_to(kept[-1]):
            kept.append(folder)
    return kept
