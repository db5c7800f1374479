"""`visxp index snapshot` and `visxp index restore`: an index on a server packed into a folder, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.shared import IndexOption, JsonOption, QuietOption, default_index, print_json

if TYPE_CHECKING:
    from visxp_search.store_admin import Snapshot


def index_snapshot(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the snapshot.")],
    index: IndexOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Let the server pack an index, graphs included, and fetch it: a backup that is in service again at once.

    Nothing should be indexed meanwhile. For an index in a directory, or spread over several nodes, use `visxp index
    export` or `visxp index push`.

    Example: `visxp index snapshot backups/2026-11-22 --index http://host:6333/tapes`
    """
    from visxp_search.console import StepProgress
    from visxp_search.store import ServerSettings
    from visxp_search.store_admin import take_snapshot

    location = index or default_index()
    with StepProgress(quiet=quiet or as_json) as progress:
        taken = take_snapshot(location, folder, server=ServerSettings.from_environment(), progress=progress)
    _report(taken, {"index": location, "folder": str(folder)}, f"are in {folder}", as_json=as_json, quiet=quiet)


def index_restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of `visxp index snapshot`.")],
    index: IndexOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make an index of a snapshot, on a server and at a place where there is none.

    Example: `visxp index restore backups/2026-11-22 --index http://host:6333/restored`
    """
    from visxp_search.console import StepProgress
    from visxp_search.store import ServerSettings
    from visxp_search.store_admin import restore_snapshot

    location = index or default_index()
    with StepProgress(quiet=quiet or as_json) as progress:
        restored = restore_snapshot(folder, location, server=ServerSettings.from_environment(), progress=progress)
    _report(restored, {"index": location, "folder": str(folder)}, f"are at {location}", as_json=as_json, quiet=quiet)


def _report(snapshot: "Snapshot", places: dict[str, str], where: str, *, as_json: bool, quiet: bool) -> None:
    from visxp_search.clips import format_bytes
    from visxp_search.console import say

    if as_json:
        found = {"checkpoint": snapshot.info.checkpoint, "videos": snapshot.videos, "bytes": snapshot.n_bytes}
        print_json({**places, **found})
    elif not quiet:
        size = format_bytes(snapshot.n_bytes)
        say(f"{snapshot.videos} videos of checkpoint {snapshot.info.checkpoint} ({size}) {where}")
