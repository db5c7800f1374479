"""Keep an index like some folders: new, changed, moved and deleted files, as long as it runs.

Notices of the file system only wake it up; what is to be done is found as always, by comparing ledger and disk, so a
notice that is lost costs time and nothing else. A file is read when it has rested: its size and time stayed the same
for a while, as they do not while it is being copied. A deleted file leaves the index after all that is new was read,
so that a moved file keeps its seconds.

The index is open only while there is work, so that an embedded one can be searched in between.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles import Change, watch

from indexer.pipeline import add_files
from indexer.plan import MEDIA_SUFFIXES, FoundFile, make_plan, records_by_path
from indexer.report import AddReport, Progress
from indexer.verify import forget_path, shows_something
from visxp_search.embed import Embedder
from visxp_search.errors import IndexInUseError
from visxp_search.store import FAILED, Store, VideoRecord

REST_SECONDS = 10.0
RESCAN_SECONDS = 600.0
"""So often it looks without being told, as network file systems tell nothing of what other machines do."""


@dataclass
class Rest:
    """Which files have stopped changing.

    Attributes:
        seconds: time without a change.
        seen: path -> (the file as it was, since when).
    """

    seconds: float
    seen: dict[Path, tuple[FoundFile, float]] = field(default_factory=dict)

    def choose(self, files: Iterable[FoundFile], *, now: float) -> list[FoundFile]:
        """Those of the files that have not changed for long enough; `self.seen` is left with the files given."""
        since = {file: self.seen[file.path][1] for file in files if self.seen.get(file.path, (None, 0))[0] == file}
        self.seen = {file.path: (file, since.get(file, now)) for file in files}
        return [file for file, start in self.seen.values() if now - start >= self.seconds]


def watch_folders(
    open_index: Callable[[], Store],
    embedder: Embedder,
    paths: Sequence[Path],
    *,
    workers: int = 2,
    rest_seconds: float = REST_SECONDS,
    rescan_seconds: float = RESCAN_SECONDS,
    progress: Progress | None = None,
    on_work: Callable[[AddReport, int], None] = lambda report, n_forgotten: None,
    stop: threading.Event | None = None,
) -> None:
    """Bring an index up to date with files and folders, and keep it so until Ctrl-C or `stop`.

    Args:
        open_index: opens the index for writing; called whenever there may be work.
        embedder: makes the embeddings.
        paths: files and folders.
        workers: decoding processes.
        rest_seconds: a file that has not changed for so long is read.
        rescan_seconds: look after so long without a notice.
        progress: told what happens.
        on_work: told what a round of work did, and how many paths of deleted files were forgotten.
        stop: ends it when set.

    Raises:
        CollectionError: If the index fails; one that is in use is tried again.
        KeyboardInterrupt: At Ctrl-C while there is work; what is stored stays.
    """
    logging.getLogger("watchfiles.main").setLevel(logging.ERROR)  # else it tells people that it caught Ctrl-C
    rest, looked_at, is_due = Rest(rest_seconds), time.monotonic(), True
    notices = watch(
        *paths,
        watch_filter=_concerns_media,
        rust_timeout=max(1, round(rest_seconds * 1000)),
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=False,
    )
    for changes in notices:
        is_due = is_due or bool(changes) or bool(rest.seen) or time.monotonic() - looked_at > rescan_seconds
        if not is_due:
            continue
        try:
            with closing(open_index()) as store:
                report, n_forgotten = _bring_up_to_date(store, embedder, paths, rest, workers, progress)
        except IndexInUseError:
            continue  # somebody searches; later
        looked_at, is_due = time.monotonic(), False
        if report.indexed or report.duplicates or report.failures or n_forgotten:
            on_work(report, n_forgotten)


def _bring_up_to_date(
    store: Store, embedder: Embedder, paths: Sequence[Path], rest: Rest, workers: int, progress: Progress | None
) -> tuple[AddReport, int]:
    """Index what has rested; then, if nothing is still moving, forget what was deleted."""
    records = list(store.videos())
    by_path = records_by_path(records)
    files = [file for file in make_plan(paths, records).files if not _failed_before(file, by_path)]
    rested = rest.choose(files, now=time.monotonic())
    report = AddReport()
    if rested:
        report = add_files(store, embedder, [file.path for file in rested], workers=workers, progress=progress)
        for file in rested:
            rest.seen.pop(file.path)
    return report, 0 if rest.seen else _forget_deleted(store, paths)


def _failed_before(file: FoundFile, records: dict[str, VideoRecord]) -> bool:
    """Whether exactly this file failed; `visxp index retry` would try it again."""
    record = records.get(str(file.path))
    return record is not None and record.status == FAILED and record.has_seen(file.path, file.size, file.mtime_ns)


def _forget_deleted(store: Store, paths: Sequence[Path]) -> int:
    """Forget the paths of files below the folders that are not there any more; their number.

    A folder that is gone, empty or not to be read may be a disk that is not mounted: nothing below it is forgotten.
    """
    roots = [root for path in paths if shows_something(root := path.absolute())]
    n_forgotten = 0
    for record in list(store.videos()):
        for path in record.paths:
            if any(Path(path).is_relative_to(root) for root in roots) and _is_absent(Path(path)):
                current = store.video(record.video_id)
                if current is not None:
                    forget_path(store, current, path)
                    n_forgotten += 1
    return n_forgotten


def _is_absent(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # it may be there
    return False


def _concerns_media(change: Change, path: str) -> bool:
    """Whether a notice is of a media file or of a folder, which may hold some."""
    suffix = Path(path).suffix.lower()
    return suffix in MEDIA_SUFFIXES or (change != Change.modified and (not suffix or Path(path).is_dir()))
