"""`visxp index verify`: look after an index that is weeks old."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.shared import (
    DEFAULT_WORKERS,
    EXIT_SOME_FAILED,
    DeviceOption,
    IndexOption,
    JsonOption,
    ModelOption,
    QuietOption,
    WorkersOption,
    default_index,
    open_bare_store,
    open_searchable,
    print_json,
)
from visxp_search.errors import LedgerError

if TYPE_CHECKING:
    from indexer.verify import Drift


def index_verify(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Where to look for files that moved. Default: folders of known files."),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found; may index files again.")] = False,
    read_all: Annotated[
        bool, typer.Option("--read-all", help="Read every file and compare its content, not only size and time.")
    ] = False,
    index: IndexOption = None,
    model: ModelOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find where ledger, stored seconds and files disagree, and mend it with --repair.

    A ledger that cannot be read is put aside and made anew from what is stored; then add the folders once more: files
    are found again by their content.

    Found are missing and surplus seconds, seconds without a video, and files that changed, moved or vanished. A file
    whose folder is empty or gone may lie on a disk that is not mounted: it is reported and never forgotten. Exit code
    1 if something is wrong and was not mended.

    Examples: `visxp index verify` · `visxp index verify /archive --repair`
    """
    from indexer.verify import UNREACHABLE, find_drift
    from visxp_search.console import IndexProgress, StepProgress
    from visxp_search.console_ledger import print_drifts

    silent = quiet or as_json
    if not repair:
        with open_bare_store(index) as store, StepProgress(quiet=silent) as progress:
            drifts = find_drift(store, folders=folders or (), read_all=read_all, progress=progress)
        failures: list[tuple[Path, str]] = []
    else:
        _renew_unreadable_ledger(index or default_index())
        with open_searchable(index, model, device) as opened:
            with StepProgress(quiet=silent) as progress:
                drifts = find_drift(opened.store, folders=folders or (), read_all=read_all, progress=progress)
            with IndexProgress(quiet=quiet, silent=as_json) as indexing:
                failures = opened.repair(drifts, workers=workers, progress=indexing).failures
    if as_json:
        print_json(
            {
                "drift": [_as_json(drift) for drift in drifts],
                "repaired": repair,
                "failures": [{"path": str(path), "reason": reason} for path, reason in failures],
            }
        )
    else:
        n_unreachable = sum(drift.kind == UNREACHABLE for drift in drifts)
        print_drifts(drifts, repaired=repair, n_unreachable=n_unreachable)
    left = [drift for drift in drifts if not repair or drift.kind == UNREACHABLE]
    if left or failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _renew_unreadable_ledger(location: str) -> None:
    """Make a new ledger where the old one cannot be read, and say so."""
    from visxp_search.store_edge_ledger import renew_ledger

    try:
        with open_bare_store(location):
            return
    except LedgerError:
        renewed = renew_ledger(Path(location))
    kept = f" and is kept as {renewed.damaged}" if renewed.damaged else ""
    print(
        f"the ledger could not be read{kept}; a new one knows {renewed.n_videos} videos by what is stored, but not "
        f"their files: visxp index add FOLDER --index {location} finds them, and embeds only the end of each anew",
        file=sys.stderr,
    )


def _as_json(drift: "Drift") -> dict[str, object]:
    values: dict[str, object] = {"kind": drift.kind, "video_id": drift.video_id, "path": drift.path, "what": drift.what}
    return values if drift.file is None else {**values, "file": str(drift.file.path)}
