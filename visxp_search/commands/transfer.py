"""`visxp index push` and `visxp index pull`: an index copied between places, embedded or on a server."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.shared import (
    IndexOption,
    JsonOption,
    QuietOption,
    ReplicasOption,
    ShardsOption,
    default_index,
    open_bare_store,
    print_json,
)
from visxp_search.errors import MissingIndexError, UsageError

if TYPE_CHECKING:
    from visxp_search.store import CollectionInfo, ServerSettings, Store

OtherArgument = Annotated[str, typer.Argument(metavar="PATH|URL", help="The other index: a directory, or a URL.")]


def index_push(
    target: OtherArgument,
    index: IndexOption = None,
    shards: ShardsOption = None,
    replicas: ReplicasOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy all of an index into another one of the same checkpoint, which is made if it does not exist.

    What is there already is not sent again, so the same command goes on after an interruption. At the end the copy is
    checked: the number of seconds of every video, the ledger, and payloads and vectors of a sample.

    Examples: `visxp index push http://host:6333/tapes --index tapes.index` · `visxp index push /mnt/usb/tapes.index`
    """
    from visxp_search.store import ServerSettings

    _copy(
        index or default_index(),
        target,
        ServerSettings.from_environment(shards=shards, replicas=replicas),
        what="push",
        as_json=as_json,
        quiet=quiet,
    )


def index_pull(
    source: OtherArgument,
    index: IndexOption = None,
    shards: ShardsOption = None,
    replicas: ReplicasOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy all of another index into this one; the other direction of `visxp index push`.

    Example: `visxp index pull http://host:6333/tapes --index tapes.index`
    """
    from visxp_search.store import ServerSettings

    _copy(
        source,
        index or default_index(),
        ServerSettings.from_environment(shards=shards, replicas=replicas),
        what="pull",
        as_json=as_json,
        quiet=quiet,
    )


def _copy(source: str, target: str, server: "ServerSettings", *, what: str, as_json: bool, quiet: bool) -> None:
    from visxp_search.console import StepProgress, say
    from visxp_search.exchange.transfer import copy_index

    if _place(source) == _place(target):
        raise UsageError(f"{source} and {target} are the same index; name another one")
    with (
        open_bare_store(source) as from_store,
        closing(_open_target(target, from_store.info, server)) as to_store,
        StepProgress(quiet=quiet or as_json) as progress,
    ):
        copied = copy_index(from_store, to_store, what=what, progress=progress)
    if as_json:
        print_json({"from": source, "to": target, **vars(copied)})
    elif not quiet:
        say(
            f"{copied.seconds} seconds of {copied.videos} videos are in {target} as in {source}: all counts agree, and "
            f"the payloads and vectors of {copied.sampled} seconds"
        )


def _open_target(location: str, info: "CollectionInfo", server: "ServerSettings") -> "Store":
    """The index that is there, whatever its checkpoint (which is compared later), or a new one like the source."""
    from visxp_search.store import open_store

    try:
        return open_store(location, checkpoint=None)
    except MissingIndexError:
        return open_store(location, checkpoint=info.checkpoint, create=info.dims, server=server)


def _place(location: str) -> str:
    from visxp_search.store import is_url

    return location.rstrip("/") if is_url(location) else str(Path(location).resolve())
