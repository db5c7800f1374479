"""The embedded store: Qdrant Edge, Qdrant's own engine inside this process, in a directory.

    index.json        what the index says of itself; it appears last, and makes the directory an index
    NAME.json         a document kept with the index, e.g. its clusters
    seconds/          Edge shard, one point per second
    ledger/           Edge shard, one point per video; `videos/` in an index of schema 1
    backup-schemaN/   what a migration replaced (`store_edge_migrate`)
    ledger.damaged-N/ a ledger that could not be read, and was made anew (`store_edge_ledger`)
    lock              held by the one process that has the index open
    lock.owner        its pid and host, for the message that the next one gets

Reading beside a writer is impossible: Edge locks the write-ahead log of a shard when it loads it, also only to read.
Hence whoever opens an index takes the lock; several processes share an index through a Qdrant server (`store_server`).
"""

import errno
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import filelock

from visxp_search.errors import CollectionError, LedgerError, MissingIndexError
from visxp_search.store import (
    PAYLOAD_INDEXES,
    SCHEMA_VERSION,
    VIDEO_PAYLOAD_INDEXES,
    CollectionInfo,
    check_info,
    new_info,
)
from visxp_search.store_collection import CollectionStore
from visxp_search.store_edge_files import (
    INFO,
    INFO_NEW,
    LOCK,
    OWNER,
    FileDocuments,
    begin_info,
    read_info,
    release_lock,
    require_space,
    take_lock,
    write_info,
)
from visxp_search.store_edge_shard import EdgeCollection, create_shard, ledger_config, seconds_config

_SECONDS = "seconds"
LEDGERS = {1: "videos", 2: "ledger", 3: "ledger"}
"""Schema -> directory of the ledger. Since 2 its payloads are kept in the page cache, and its vectors, which nothing
compares, are not: listing 100,000 videos reads 65 MB in a row instead of 13,600 single pages, with 250 MB of memory
instead of 560."""

logger = logging.getLogger(__name__)


def open_edge_store(path: Path, *, checkpoint: str | None, create: Mapping[str, int] | None) -> CollectionStore:
    """Open the index in a directory, or create it there; see `store.open_store`.

    Raises:
        CollectionError: If there is none and none is to be created, the directory holds something else, another
            process has it open, it is damaged, or it is of another checkpoint or schema.
    """
    try:
        _require_index_or_room(path, create=create is not None)
        path.mkdir(parents=True, exist_ok=True)
        lock = take_lock(path)
    except OSError as exc:
        raise CollectionError(f"index {path} cannot be opened: {exc}; {_advice(exc)}") from exc
    try:
        return _open_locked(path, lock, checkpoint=checkpoint, create=create)
    except OSError as exc:
        release_lock(path, lock)
        raise CollectionError(f"index {path} cannot be opened: {exc}; {_advice(exc)}") from exc
    except BaseException:
        release_lock(path, lock)
        raise


def _advice(exc: OSError) -> str:
    """What to do where an index cannot be opened, which writes its lock also to read."""
    if exc.errno == errno.ENOSPC:
        return "the disk is full: free some space; what is stored is safe"
    if exc.errno == errno.EROFS:
        return "an index is locked also to read it: copy it to a disk that can be written to"
    return "check the disk, and that this is a directory you may write to"


def _open_locked(
    path: Path, lock: filelock.FileLock, *, checkpoint: str | None, create: Mapping[str, int] | None
) -> CollectionStore:
    location = str(path)
    _require_index_or_room(path, create=create is not None)  # again: only now does nobody else change it
    if create is not None and not (path / INFO).exists():
        _create(path, new_info(checkpoint, create))
    info = read_info(path)
    check_info(info, wanted_checkpoint=checkpoint, wanted_dims=create, location=location)
    if info.schema < SCHEMA_VERSION:
        logger.warning(
            "index %s has schema version %d and goes on to work; version %d answers sooner with less memory: "
            "visxp index migrate --index %s",
            *(path, info.schema, SCHEMA_VERSION, path),
        )

    seconds = open_seconds(path, info)
    try:
        videos = open_ledger(path, info)
    except BaseException:
        seconds.close()
        raise

    def let_go() -> None:
        try:
            seconds.close()
            videos.close()
        finally:
            release_lock(path, lock)

    return CollectionStore(
        info=info,
        location=location,
        seconds=seconds,
        videos=videos,
        documents=FileDocuments(path),
        let_go=let_go,
    )


def open_seconds(path: Path, info: CollectionInfo) -> EdgeCollection:
    """The seconds of an index whose lock is held.

    Raises:
        CollectionError: If they cannot be loaded.
    """
    return EdgeCollection(path / _SECONDS, location=str(path), config=seconds_config(info.dims))


def open_ledger(path: Path, info: CollectionInfo) -> EdgeCollection:
    """The ledger of an index whose lock is held.

    Raises:
        LedgerError: If it cannot be loaded.
    """
    try:
        return EdgeCollection(path / LEDGERS[info.schema], location=str(path), config=ledger_config(info.dims))
    except CollectionError as exc:
        raise LedgerError(
            f"{exc}; or keep what is stored and have the ledger made anew: visxp index verify --repair --index {path}"
        ) from exc


def _require_index_or_room(path: Path, *, create: bool) -> None:
    """Refuse a directory that is neither an index nor a place for a new one; touches nothing."""
    if path.exists() and not path.is_dir():
        raise CollectionError(f"index {path} is a file; expected a directory, or the URL of a Qdrant server")
    if (path / INFO).exists():
        return
    found = {entry.name for entry in path.iterdir()} if path.exists() else set()
    ours = {LOCK, OWNER}
    if INFO_NEW in found:  # a creation that was cut short, so the shards are ours too
        ours |= {INFO_NEW, _SECONDS, *LEDGERS.values()}
    if foreign := sorted(found - ours):
        raise CollectionError(
            f"directory {path} is not a visxp index (it has no {INFO}, but {foreign[0]!r}); nothing was changed; "
            f"pass an index, or an empty or new directory, with --index"
        )
    if not create:
        raise MissingIndexError(f"there is no index at {path}; make one with `visxp index add`, or pass --index")


def _create(path: Path, info: CollectionInfo) -> None:
    """Create an index, so that at every moment the directory says how far it came.

    `index.json.new` is there before the shards and becomes `index.json` when they are complete; a creation that was
    cut short before that holds no data, and is begun again.
    """
    require_space(path)
    begin_info(path, info)
    for name, config, indexes in (
        (_SECONDS, seconds_config(info.dims), PAYLOAD_INDEXES),
        (LEDGERS[SCHEMA_VERSION], ledger_config(info.dims), VIDEO_PAYLOAD_INDEXES),
    ):
        shutil.rmtree(path / name, ignore_errors=True)
        create_shard(path / name, config=config, indexes=indexes, location=str(path))
    write_info(path, info)
