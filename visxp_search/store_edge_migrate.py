"""An embedded index of an older schema is brought to the present one; what it was is kept.

A step makes what the next schema needs *beside* what is there, or has the engine write its segments anew. Then
`index.json` is replaced, which is the one moment of change: killed before it, the index is what it was, and the next
call begins again; killed after it, the next call puts away what is left. What a step replaced is moved into
`backup-schemaN/`, with the `index.json` of that time: to go back, move both into the index again.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from visxp_search.errors import CollectionError, MissingIndexError
from visxp_search.store import PAYLOAD_INDEXES, SCHEMA_VERSION, CollectionInfo, check_info
from visxp_search.store_edge import LEDGERS, open_ledger, open_seconds
from visxp_search.store_edge_files import INFO, locked, read_info, require_space, write_info


@dataclass(frozen=True)
class Step:
    """From one schema to the next.

    Attributes:
        make: makes what is new, beside what is there; called again after it was cut short.
        replaces: names of what the new schema does not use any more; nothing where the form stays and only the engine's
            settings change.
    """

    make: Callable[[Path, CollectionInfo], None]
    replaces: tuple[str, ...]


@dataclass(frozen=True)
class Migration:
    """What was done.

    Attributes:
        before: schema that the index had.
        after: schema that it has.
        backups: where what was replaced is kept; empty if nothing was.
    """

    before: int
    after: int
    backups: tuple[Path, ...]


def migrate_edge_index(path: Path) -> Migration:
    """Bring an embedded index to the present schema; cut short, it can be called again.

    Raises:
        CollectionError: If there is none, it is in use, damaged or of a later schema, or the disk is full.
    """
    if not (path / INFO).exists():
        raise MissingIndexError(f"there is no index at {path}; nothing was changed")
    try:
        with locked(path):
            return _migrate_locked(path)
    except OSError as exc:
        raise CollectionError(
            f"index {path} cannot be migrated: {exc}; check the disk and its permissions, then run it again"
        ) from exc


def _migrate_locked(path: Path) -> Migration:
    found = info = read_info(path)
    check_info(info, wanted_checkpoint=None, location=str(path))
    while info.schema < SCHEMA_VERSION:
        step, backup = STEPS[info.schema], _backup(path, info.schema)
        if any((backup / name).exists() for name in step.replaces):
            raise CollectionError(f"{backup} holds an earlier backup; move it away, then migrate again")
        if step.replaces:
            backup.mkdir(exist_ok=True)
            shutil.copy2(path / INFO, backup / INFO)
        step.make(path, info)
        info = replace(info, schema=info.schema + 1)
        write_info(path, info)
    moved = [schema for schema, step in STEPS.items() if schema < info.schema and _put_away(path, schema, step)]
    return Migration(found.schema, info.schema, tuple(_backup(path, schema) for schema in moved))


def _backup(path: Path, schema: int) -> Path:
    return path / f"backup-schema{schema}"


def _put_away(path: Path, schema: int, step: Step) -> bool:
    """Move what a step replaced into its backup; whether there was something left to move."""
    left = [name for name in step.replaces if (path / name).exists()]
    for name in left:
        (path / name).rename(_backup(path, schema) / name)
    return bool(left)


def _keep_the_ledger_apart(path: Path, info: CollectionInfo) -> None:
    """Copy the ledger, and have the engine rewrite the copy as ledgers are kept now (`store_edge.LEDGERS`)."""
    old, new = path / LEDGERS[1], path / LEDGERS[2]
    shutil.rmtree(new, ignore_errors=True)
    require_space(path, 2 * sum(file.stat().st_size for file in old.rglob("*")))
    shutil.copytree(old, new)
    ledger = open_ledger(path, replace(info, schema=2))
    try:
        n_entries = ledger.count({})
        ledger.optimize()
        if ledger.count({}) != n_entries:
            raise CollectionError(f"the engine lost entries of the ledger of index {path}; nothing was changed")
    finally:
        ledger.close()


def _read_vectors_where_needed(path: Path, info: CollectionInfo) -> None:
    """Have the engine write the seconds anew, with vectors and payload indexes that are not read at opening."""
    seconds = open_seconds(path, info)
    try:
        seconds.renew(PAYLOAD_INDEXES)
    finally:
        seconds.close()


STEPS: Mapping[int, Step] = {1: Step(_keep_the_ledger_apart, (LEDGERS[1],)), 2: Step(_read_vectors_where_needed, ())}
"""Schema -> the step from it to the next."""
