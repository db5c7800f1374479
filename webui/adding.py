"""Adding files to the index from the page: one job at a time, the rest waits; progress, failures, cancelling."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path

from visxp_search.errors import UsageError, VisxpError
from webui.archive import Archive
from webui.wording import printable

log = logging.getLogger(__name__)

MAX_WAITING = 20
MAX_LISTED = 2000
"""Folders offered below the roots."""
MAX_DEPTH = 4


@dataclass(frozen=True)
class JobView:
    """What is known of the adding at one moment.

    Attributes:
        running: name of what is being added; empty if nothing is.
        waiting: names of what comes next.
        n_files: files that need work.
        n_finished: of those, how many are through.
        n_seconds: seconds stored by this job.
        current: file name -> (seconds stored, seconds it has).
        failures: (file name, reason) in this job.
        words: how the last job ended; empty while one runs.
    """

    running: str = ""
    waiting: tuple[str, ...] = ()
    n_files: int = 0
    n_finished: int = 0
    n_seconds: int = 0
    current: dict[str, tuple[int, int]] = field(default_factory=dict)
    failures: tuple[tuple[str, str], ...] = ()
    words: str = ""


class Adder:
    """The queue of folders to add; a thread works on it while there is something to do.

    Args:
        archive: whose index is added to.
        workers: decoding processes.
    """

    def __init__(self, archive: Archive, *, workers: int = 2) -> None:
        self._archive = archive
        self._workers = workers
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, list[Path]]] = deque()
        self._view = JobView()
        self._thread: threading.Thread | None = None
        self._cancel = threading.Event()

    def enqueue(self, name: str, paths: Sequence[Path]) -> None:
        """Add paths after what is waiting already.

        Raises:
            UsageError: If too much is waiting.
        """
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                raise UsageError(f"{MAX_WAITING} folders are waiting already; add more when some are done")
            self._waiting.append((name, list(paths)))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="add to the index", daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """Stop at the next stored block and forget what is waiting; what is stored stays and is gone on from later."""
        with self._lock:
            self._waiting.clear()
            self._cancel.set()

    def view(self) -> JobView:
        """The state now."""
        with self._lock:
            return replace(self._view, waiting=tuple(name for name, _ in self._waiting))

    @property
    def is_busy(self) -> bool:
        """Whether something is being added or waits."""
        with self._lock:
            return self._thread is not None

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Cancel, and wait for the end."""
        self.cancel()
        thread = self._thread
        if thread is not None:
            thread.join(timeout_seconds)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                name, paths = self._waiting.popleft()
                self._cancel.clear()  # whatever waits now was asked for after the cancelling
                self._view = JobView(running=name)
            words = self._add(name, paths)
            self._archive.facts(fresh=True)
            with self._lock:
                self._view = replace(self._view, running="", current={}, words=words)

    def _add(self, name: str, paths: Sequence[Path]) -> str:
        try:
            report = self._archive.index.add(paths, workers=self._workers, progress=_Watcher(self))
        except CancelledError:
            return f"{name}: cancelled. What was stored stays; adding it again goes on from there."
        except VisxpError as exc:
            log.error("adding %s: %s", name, exc)
            return f"{name}: stopped by an error; the terminal of visxp ui says which."
        return (
            f"{name}: {report.indexed} files indexed ({report.seconds} seconds), {report.skipped} were done already, "
            f"{report.duplicates} duplicates, {len(report.failures)} failed."
        )

    def change(self, **changes: object) -> None:
        """Update the view; raise if the job is to end."""
        with self._lock:
            self._view = replace(self._view, **changes)  # type: ignore[arg-type]
        if self._cancel.is_set():
            raise CancelledError


class _Watcher:
    """The pipeline's `Progress`, told to the page."""

    def __init__(self, adder: Adder) -> None:
        self._adder = adder
        self._n_files = self._n_finished = self._n_seconds = 0
        self._current: dict[str, tuple[int, int]] = {}
        self._failures: list[tuple[str, str]] = []

    def found(self, path: Path, size: int) -> None:
        """A file needs work."""
        self._n_files += 1
        self._tell()

    def opened(self, path: Path, n_seconds: int, n_done: int) -> None:
        """A file is being read."""
        self._current[printable(path.name)] = (n_done, n_seconds)
        self._tell()

    def stored(self, path: Path, n_seconds: int) -> None:
        """Some of it is stored."""
        done, total = self._current.get(printable(path.name), (0, 0))
        self._current[printable(path.name)] = (done + n_seconds, total)
        self._n_seconds += n_seconds
        self._tell()

    def finished(self, path: Path) -> None:
        """It is through."""
        self._current.pop(printable(path.name), None)
        self._n_finished += 1
        self._tell()

    def failed(self, path: Path, reason: str) -> None:
        """It, or part of it, failed."""
        self._failures.append((printable(path.name), reason))
        self._tell()

    def _tell(self) -> None:
        self._adder.change(
            n_files=self._n_files,
            n_finished=self._n_finished,
            n_seconds=self._n_seconds,
            current=dict(self._current),
            failures=tuple(self._failures),
        )


class Roots:
    """The folders of the server that may be added from, by the names people see.

    Args:
        folders: given with `--root`.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._roots: dict[str, Path] = {}
        for folder in folders:
            resolved = folder.resolve()
            name, number = resolved.name or "root", 2
            while name in self._roots:
                name, number = f"{resolved.name} ({number})", number + 1
            self._roots[name] = resolved

    def __bool__(self) -> bool:
        return bool(self._roots)

    def resolve(self, text: str) -> Path:
        """The folder or file that `ROOT/BELOW` means.

        Raises:
            UsageError: If it is not below a root, after resolving links, or is not there.
        """
        name, _, below = text.strip().strip("/").partition("/")
        root = self._roots.get(name)
        if root is None:
            raise UsageError(f"{text!r} is not below one of {sorted(self._roots)}")
        try:
            path = (root / below).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as exc:
            raise UsageError(f"there is no {text!r}") from exc
        if not path.is_relative_to(root):
            raise UsageError(f"{text!r} leads out of {name!r}; only what lies below it can be added")
        return path

    def listing(self) -> list[str]:
        """The folders below the roots, as `resolve` takes them: no hidden ones, links or names that are no text."""
        names: list[str] = []
        for name, root in self._roots.items():
            level = [(name, root)]
            for _ in range(MAX_DEPTH):
                names += [shown for shown, _ in level]
                level = [(f"{shown}/{below.name}", below) for shown, folder in level for below in _subfolders(folder)]
                if len(names) + len(level) > MAX_LISTED:
                    break
        return sorted(names[:MAX_LISTED])


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    shown = [path for path in found if not path.name.startswith(".") and path.name == printable(path.name)]
    return [path for path in shown if path.is_dir() and not path.is_symlink()]
