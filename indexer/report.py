"""What an indexing run tells: its progress while it runs, and a report at its end."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Progress(Protocol):
    """What a caller may want to know while indexing runs."""

    def found(self, path: Path, size: int) -> None:
        """A file needs work."""

    def opened(self, path: Path, n_seconds: int, n_done: int) -> None:
        """A file was opened; so many of its seconds are stored already."""

    def stored(self, path: Path, n_seconds: int) -> None:
        """So many more seconds of it are stored."""

    def finished(self, path: Path) -> None:
        """A file needs no more work."""

    def failed(self, path: Path, reason: str) -> None:
        """A file could not be indexed, or not wholly."""


class Silent:
    """Progress that tells nobody."""

    def found(self, path: Path, size: int) -> None:
        """Nothing."""

    def opened(self, path: Path, n_seconds: int, n_done: int) -> None:
        """Nothing."""

    def stored(self, path: Path, n_seconds: int) -> None:
        """Nothing."""

    def finished(self, path: Path) -> None:
        """Nothing."""

    def failed(self, path: Path, reason: str) -> None:
        """Nothing."""


@dataclass
class AddReport:
    """What an indexing run did.

    Attributes:
        indexed: files that are now complete.
        skipped: files that were complete already.
        duplicates: files whose content was indexed under another path; the path was added.
        failures: (path, reason) of files that could not be indexed wholly.
        seconds: seconds stored by this run.
        stage_seconds: stage -> wall time spent in it, seconds (`wait` is waiting for the decoders).
    """

    indexed: int = 0
    skipped: int = 0
    duplicates: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)
    seconds: int = 0
    stage_seconds: dict[str, float] = field(default_factory=lambda: {"wait": 0.0, "embed": 0.0, "write": 0.0})
