"""A folder of files that can be made again, kept below a size: thumbnails, spectrograms, proxies."""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path


class FileCache:
    """Files by key; the least recently used go when the folder outgrows its size.

    Args:
        folder: made if missing; belongs to the cache alone.
        max_bytes: of all files together.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}
        self._since_trim = max_bytes  # trims what an earlier run left behind
        for left in folder.glob("*.part*"):
            left.unlink(missing_ok=True)

    def fetch(self, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
        """The file of a key; made, by one caller at a time, if it is not there.

        Args:
            key: everything the content depends on.
            suffix: of the file, with its dot.
            make: writes the file at the path it is given; what it raises is passed on, and nothing is kept.
        """
        path = self._folder / (
            hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() + suffix
        )
        with self._lock:
            making = self._making.setdefault(path.name, threading.Lock())
        with making:
            try:
                os.utime(path)  # most recently used
                return path
            except FileNotFoundError:
                pass
            part = path.with_suffix(f".part{suffix}")
            try:
                make(part)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
                with self._lock:
                    self._making.pop(path.name, None)
        self._grow(path)
        return path

    def _grow(self, path: Path) -> None:
        """Trim from time to time, never the file that was just made."""
        with self._lock:
            self._since_trim += path.stat().st_size
            if self._since_trim < self._max_bytes // 20:
                return
            self._since_trim = 0
            files = sorted(_stats(self._folder), key=lambda item: item[1].st_mtime_ns, reverse=True)
            total = 0
            for file, status in files:
                total += status.st_size
                if total > self._max_bytes and file != path and ".part" not in file.name:
                    file.unlink(missing_ok=True)


def _stats(folder: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append((file, file.stat()))
    return found
