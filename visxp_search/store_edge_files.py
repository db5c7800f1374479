"""The files of an embedded index beside its shards: its lock, what it says of itself, its documents, and its disk.

What is replaced is written beside, synced and renamed, so that at every moment the old or the new is there whole.
"""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import filelock

from visxp_search.errors import CollectionError, IndexInUseError, MissingIndexError
from visxp_search.store import CollectionInfo
from visxp_search.store_json import info_from_json, info_to_json

LOCK_TIMEOUT_SECONDS = 2.0
"""Long enough for a command that is just ending, short enough for a person."""

LEAST_FREE_BYTES = 256 * 2**20
"""Free space that a write needs. The engine writes through memory maps of sparse files: on a full disk the kernel would
end the process (SIGBUS) instead of reporting an error."""

INFO, INFO_NEW = "index.json", "index.json.new"
LOCK, OWNER = "lock", "lock.owner"


def holds_index(path: Path) -> bool:
    """Whether an index lies in a directory, whatever its state."""
    return (path / INFO).exists()


def begin_info(path: Path, info: CollectionInfo) -> None:
    """Say what an index is going to be; `write_info` says that it is."""
    _write_synced(path / INFO_NEW, json.dumps(info_to_json(info), indent=1))


def write_info(path: Path, info: CollectionInfo) -> None:
    """Say anew, at once and durably, what an index is."""
    begin_info(path, info)
    (path / INFO_NEW).rename(path / INFO)
    _sync_directory(path)


def read_info(path: Path) -> CollectionInfo:
    """What an index says of itself.

    Raises:
        CollectionError: If it is damaged, or of a schema that is not read.
    """
    try:
        data = json.loads((path / INFO).read_text(encoding="utf-8"))
    except ValueError:
        data = None
    return info_from_json(data, location=str(path))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of an index while something is done to its files.

    Raises:
        IndexInUseError: If another process has it open.
    """
    lock = take_lock(path)
    try:
        yield
    finally:
        release_lock(path, lock)


def take_lock(path: Path) -> filelock.FileLock:
    """Take the lock of an index, and leave word who has it; `release_lock` gives it back.

    Raises:
        IndexInUseError: If another process has it open.
        OSError: If it cannot be written.
    """
    lock = filelock.FileLock(path / LOCK, timeout=LOCK_TIMEOUT_SECONDS, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout as exc:
        raise IndexInUseError(
            f"index {path} is in use by another visxp process{_owner(path)}; wait until it ends or stop it; "
            f"to use one index from several processes at once, serve it from a Qdrant server (--index http://host:6333)"
        ) from exc
    try:
        (path / OWNER).write_text(f"pid {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except OSError:
        lock.release()
        raise
    return lock


def release_lock(path: Path, lock: filelock.FileLock) -> None:
    """Let others open an index whose lock was taken."""
    with suppress(OSError):  # permission was lost: who takes the lock next writes over the word that is left
        (path / OWNER).unlink(missing_ok=True)
    lock.release()


def _owner(path: Path) -> str:
    try:
        return f" ({(path / OWNER).read_text(encoding='utf-8')})"
    except OSError:
        return ""  # it is just closing


def swap_edge_indexes(path: Path, incoming: Path, outgoing: Path) -> None:
    """Put one index in the place of another, which goes to a third place; cut short, it can be called again.

    Raises:
        CollectionError: If one of both is in use, `incoming` is no index, or something lies at `outgoing`.
    """
    if not (incoming / INFO).exists():
        raise MissingIndexError(f"there is no index at {incoming}; nothing was changed")
    is_begun = not path.exists()
    if outgoing.exists() and not is_begun:
        raise CollectionError(f"{outgoing} is there already, from an earlier swap; remove it, then try again")
    with ExitStack() as locks:
        for folder in (incoming, *(() if is_begun else (path,))):
            locks.enter_context(locked(folder))
            (folder / OWNER).unlink()
        try:
            if not is_begun:
                path.rename(outgoing)
            incoming.rename(path)
            _sync_directory(path.parent.absolute())
        except OSError as exc:
            raise CollectionError(f"index {path} cannot be renamed: {exc}; check its folder's permissions") from exc


def require_space(path: Path, n_bytes: int = 0) -> None:
    """Refuse to write so many bytes, and what the engine needs besides, where there is no space for them.

    Raises:
        CollectionError: If the disk is full, or gone.
    """
    try:
        free = shutil.disk_usage(path).free
    except OSError as exc:
        raise CollectionError(f"the disk of index {path} is gone: {exc}; bring it back") from exc
    if free < n_bytes + LEAST_FREE_BYTES:
        raise CollectionError(
            f"the disk of index {path} is full ({free // 2**20} MiB are free, writing needs "
            f"{(n_bytes + LEAST_FREE_BYTES) // 2**20}); what is stored is safe: free some space and run the same "
            f"command again"
        )


class FileDocuments:
    """Documents as files of an index's directory, as `store_collection.Documents`; replaced by renaming.

    Args:
        path: directory of the index.
    """

    def __init__(self, path: Path):
        self._path = path

    def read(self, name: str) -> str | None:
        """See `Documents.read`."""
        file = self._path / f"{name}.json"
        try:
            return file.read_text(encoding="utf-8") if file.exists() else None
        except (OSError, ValueError) as exc:
            raise CollectionError(f"{file} cannot be read: {exc}; restore it from a backup, or remove it") from exc

    def write(self, name: str, text: str) -> None:
        """See `Documents.write`."""
        new = self._path / f"{name}.json.new"
        try:
            _write_synced(new, text)
            new.rename(self._path / f"{name}.json")
            _sync_directory(self._path)
        except OSError as exc:
            raise CollectionError(f"{new} cannot be written: {exc}; check the disk and its permissions") from exc


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
