"""The server: the page, its media and the guard in one ASGI application, run by uvicorn on one address."""

import asyncio
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visxp_search.api import Index
from visxp_search.errors import UsageError
from visxp_search.store import Store
from webui.guard import AsgiApp, Guard, Login, own_names
from webui.starting import quick_import

if TYPE_CHECKING:
    from webui.parts import Site

MAX_UPLOAD_BYTES = 500_000_000
CACHE_BYTES = 2_000_000_000
LOAD_AFTER_SECONDS = 2.0
"""After this the encoders of an index that exists are loaded: a page that is opened at once is there by then."""


@dataclass(frozen=True)
class Address:
    """Where the page is served, and to whom.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        login: name and password; None asks for none.
        allow_hosts: further names that the page may be called by.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    login: Login | None = None
    allow_hosts: tuple[str, ...] = ()


def parse_login(text: str | None) -> Login | None:
    """Name and password from `USER:PASS`.

    Raises:
        UsageError: If one of them is missing.
    """
    if text is None:
        return None
    user, _, password = text.partition(":")
    if not user or not password:
        raise UsageError("--auth is written USER:PASS, neither of them empty")
    return Login(user, password)


def serve(
    store: Store | None,
    load: Callable[[], Index],
    *,
    address: Address,
    roots: Sequence[Path],
    read_only: bool,
    cache_folder: Path,
    workers: int,
    model: str | None,
    on_start: Callable[[str], None],
) -> None:
    """Serve the page until the process is interrupted; the index is closed at the end.

    Args:
        store: the index, if it exists.
        load: see `webui.archive.Archive`.
        address: where and to whom.
        roots: folders that may be added from.
        read_only: nothing can be changed.
        cache_folder: for thumbnails and proxies.
        workers: decoding processes while adding.
        model: the checkpoint as `--model` names it, for its card.
        on_start: told the page's URL when it can be opened.

    Raises:
        UsageError: If the address cannot be listened on.
    """
    with upload_folder() as uploads:
        with quick_import():
            import uvicorn

            from webui.adding import Adder, Roots
            from webui.archive import Archive
            from webui.asking import Uploads
            from webui.parts import Site

            archive = Archive(store, load)
            adder = Adder(archive, workers=workers)
            limits = Uploads(uploads, max_bytes=MAX_UPLOAD_BYTES)
            site = Site(archive, adder, Roots(roots), limits, read_only=read_only, model=model)
            bound = listen(address.host, address.port)
            port = bound.getsockname()[1]
            app = make_asgi(site, address=address, cache_folder=cache_folder)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
        )

        class Server(uvicorn.Server):
            """Begins to load the encoders once the page was opened, since both want the processor."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                asyncio.get_running_loop().call_later(0 if store is None else LOAD_AFTER_SECONDS, archive.start)
                on_start(f"http://{'localhost' if address.host in ('0.0.0.0', '::') else address.host}:{port}/")

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                # Pages that are still open are cut off; each would be reported as a cancelled task.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
                await super().shutdown(sockets)

        try:
            Server(config).run(sockets=[bound])
        finally:
            site.searches.stop()
            adder.stop()
            archive.close()


def make_asgi(site: "Site", *, address: Address, cache_folder: Path) -> AsgiApp:
    """The guarded application of a site."""
    import gradio as gr
    from fastapi import FastAPI

    from webui.app import build_app, page_css, page_head, theme
    from webui.beside import find_media
    from webui.cache import FileCache
    from webui.card import read_card
    from webui.media import Media
    from webui.routes import media_routes

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    media = Media(
        lambda media_id: find_media(site.archive.store, site.uploads, media_id),
        FileCache(cache_folder, max_bytes=CACHE_BYTES),
        passing=FileCache(site.uploads.folder / "shown", max_bytes=CACHE_BYTES // 10),
    )
    app.router.routes.extend(media_routes(media, site.exports, card=lambda: read_card(site.model)))
    blocks = build_app(site)
    # Gradio lets what was not launched by itself take any file of the server for an upload.
    blocks.has_launched = True
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=address.host,
        footer_links=["api"],
        run_history=False,
        show_error=False,
        max_file_size=site.uploads.max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        theme=theme(),
        css=page_css(),
        head=page_head(max_bytes=site.uploads.max_bytes),
        blocked_paths=["/proc", "/sys", "/dev", "/etc"],
    )
    return Guard(
        app,
        hosts=own_names(address.host, more=address.allow_hosts),
        login=address.login,
        max_body_bytes=site.uploads.max_bytes + 1_000_000,
    )


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder of its own for uploads, deleted at the end, in an environment that Gradio reads as it is imported.

    Gradio asks for matplotlib's backend at each event where there is a matplotlib; the name of one spares loading it.
    """
    folder = Path(tempfile.mkdtemp(prefix="visxp-ui-"))
    wanted = {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    try:
        yield folder
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        UsageError: If the address is taken or not ours.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as exc:
        raise UsageError(
            f"cannot listen on {host} port {port} ({exc.strerror}); choose another --port or --host"
        ) from exc
    return bound
