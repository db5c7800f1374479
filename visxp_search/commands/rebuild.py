"""`visxp index rebuild | diff | swap`: another model for an index, while it is in use."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from visxp_search.commands.shared import (
    DEFAULT_WORKERS,
    DeviceOption,
    IndexOption,
    JsonOption,
    QuietOption,
    WorkersOption,
    default_index,
    print_json,
    report_added,
)
from visxp_search.errors import UsageError


def index_rebuild(
    model: Annotated[str, typer.Option("--model", metavar="PATH", help="The new checkpoint folder or encoder plugin.")],
    index: IndexOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Embed all videos of an index again with another model, beside it: in INDEX.rebuild, on a server at URL-rebuild.

    The index can be used meanwhile, and the same command goes on after an interruption. Then compare both with
    `visxp index diff` and change to the new one with `visxp index swap`. Clusters are to be fitted anew.

    Example: `visxp index rebuild --model checkpoints/newer`
    """
    from indexer.rebuild import rebuild
    from visxp_search.console import IndexProgress, say
    from visxp_search.embed import load_embedder

    location, beside, _ = _places(index)
    with IndexProgress(quiet=quiet, silent=as_json) as progress:
        embedder = load_embedder(model, device=device)
        report = rebuild(location, beside, embedder, workers=workers, progress=progress)
    if not quiet and not as_json:
        say(f"{beside} is of checkpoint {embedder.checkpoint_id}; compare: visxp index diff; use it: visxp index swap")
    report_added(report, as_json=as_json, quiet=quiet)


def index_diff(
    other: Annotated[
        str | None, typer.Argument(metavar="OTHER", help="Another index. Default: what `visxp index rebuild` made.")
    ] = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two indexes of the same videos: what is missing, and how many neighbours of a sample they agree on.

    Example: `visxp index diff`
    """
    from indexer.rebuild import compare
    from visxp_search.console_ledger import print_difference
    from visxp_search.store import open_store

    location, beside, _ = _places(index)
    with (
        closing(open_store(location, checkpoint=None)) as store,
        closing(open_store(other or beside, checkpoint=None)) as new,
    ):
        found = compare(store, new)
    if as_json:
        print_json({"index": str(location), "other": str(other or beside), **vars(found)})
    else:
        print_difference(found)


def index_swap(
    drop: Annotated[bool, typer.Option("--drop", help="Remove the old index instead of keeping it.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the old index back.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Although videos of the old index are missing.")] = False,
    index: IndexOption = None,
    quiet: QuietOption = False,
) -> None:
    """Put what `visxp index rebuild` made in the place of the index; the old one stays as INDEX.old.

    It takes the time of two renames, on a server that of one request, while whoever has the old index open there goes
    on with it until it is opened again. It is refused while an index in a directory is in use, and while videos that
    are done in the old index are not in the new one.

    Examples: `visxp index swap` · `visxp index swap --drop` · `visxp index swap --undo`
    """
    from indexer.rebuild import find_missing
    from visxp_search.terminal import say

    if undo and drop:
        raise UsageError("--undo brings the old index back, --drop removes it; give one of them")
    location, beside, old = _places(index)
    incoming, outgoing = (old, beside) if undo else (beside, old)
    missing = [] if undo or force else find_missing(location, incoming)
    if missing:
        raise UsageError(
            f"{len(missing)} videos are not in {incoming}, e.g. {missing[0]}; go on with visxp index rebuild, "
            f"or pass --force"
        )
    _swap(location, incoming, outgoing, drop=drop)
    if not quiet:
        say(f"{location} is now what was {incoming}" + ("" if drop else f"; what it was is {outgoing}"))


def _swap(location: str, incoming: str, outgoing: str, *, drop: bool) -> None:
    import shutil

    from visxp_search.store import ServerSettings, is_url

    if is_url(location):
        from visxp_search.store_admin import swap_server_indexes

        swap_server_indexes(location, incoming, outgoing, server=ServerSettings.from_environment(), drop=drop)
        return
    from visxp_search.store_edge_files import swap_edge_indexes

    swap_edge_indexes(Path(location), Path(incoming), Path(outgoing))
    if drop:
        shutil.rmtree(outgoing)


def _places(index: str | None) -> tuple[str, str, str]:
    """The index, the one beside it, and where the old one goes."""
    from visxp_search.store import is_url

    location = index or default_index()
    if is_url(location):
        from visxp_search.store_admin import neighbour_url

        return location, neighbour_url(location, "rebuild"), neighbour_url(location, "old")
    return location, f"{Path(location)}.rebuild", f"{Path(location)}.old"
