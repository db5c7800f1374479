"""`visxp ui`: the page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.shared import (
    DEFAULT_WORKERS,
    DeviceOption,
    IndexOption,
    ModelOption,
    QuietOption,
    ReplicasOption,
    ShardsOption,
    WorkersOption,
    default_index,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from visxp_search.api import Index
    from visxp_search.store import ServerSettings, Store

    Loader = Callable[[], Index]


def ui(
    index: IndexOption = None,
    model: ModelOption = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    auth: Annotated[
        str | None,
        typer.Option("--auth", envvar="VISXP_AUTH", metavar="USER:PASS", help="Ask for this name and password."),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Search only: nothing is added or removed.")] = False,
    root: Annotated[
        list[Path] | None,
        typer.Option("--root", metavar="FOLDER", help="Folder that videos may be added from. Repeatable."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Another name that the page is reached by. Repeatable."),
    ] = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    device: DeviceOption = None,
    shards: ShardsOption = None,
    replicas: ReplicasOption = None,
    quiet: QuietOption = False,
) -> None:
    """Open the page: find, watch, browse, collect and manage in a browser.

    The index is held by this process; with an index in a directory, other `visxp` commands wait until it ends. Anyone
    who reaches the page can search and watch the indexed videos, so give --auth with any other --host.

    Examples: `visxp ui` · `visxp ui --root ~/Videos` · `visxp ui --host 0.0.0.0 --auth anna:secret --read-only`
    """
    from platformdirs import user_cache_path

    from visxp_search.errors import UsageError
    from visxp_search.store import ServerSettings
    from webui.serve import Address, parse_login, serve

    for folder in root or []:
        if not folder.is_dir():
            raise UsageError(f"--root {folder} is not a folder")
    server = ServerSettings.from_environment(shards=shards, replicas=replicas)
    store, load = _open(index or default_index(), model, device, server, read_only=read_only)
    login = parse_login(auth)

    def tell(url: str) -> None:
        if not quiet:
            typer.echo(f"{url}  (Ctrl-C ends it)", err=True)

    serve(
        store,
        load,
        address=Address(host, port, login, tuple(allow_host or ())),
        roots=root or [],
        read_only=read_only,
        cache_folder=user_cache_path("visxp") / "ui",
        workers=workers,
        model=model,
        on_start=tell,
    )


def _open(
    location: str, model: str | None, device: str | None, server: "ServerSettings", *, read_only: bool
) -> "tuple[Store | None, Loader]":
    """An existing index is opened at once, so that a lock or damage is said here; the encoders follow in `load`."""
    from visxp_search.api import Index, open_index
    from visxp_search.embed import load_embedder, load_now
    from visxp_search.errors import MissingIndexError
    from visxp_search.store import check_info, open_store

    try:
        store = open_store(location, checkpoint=None, server=server)
    except MissingIndexError:
        if read_only:
            raise

        def make() -> Index:
            index = open_index(location, model=model, device=device, create=True, server=server)
            try:
                load_now(index.embedder)
            except BaseException:
                index.close()
                raise
            return index

        return None, make

    def load() -> Index:
        embedder = load_embedder(model, device=device)
        check_info(store.info, wanted_checkpoint=embedder.checkpoint_id, location=location)
        load_now(embedder)
        return Index(store, embedder)

    return store, load
