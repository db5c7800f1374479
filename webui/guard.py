"""What stands between the network and the page: hosts, origins, sign-in, sizes, headers.

One ASGI middleware around everything. Gradio alone answers to every `Host`, takes POSTs from every origin and compares
passwords with `==`; none of that is left to it.
"""

import base64
import binascii
import contextlib
import hmac
import ipaddress
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
REFUSED_PREFIXES = ("/gradio_api/proxy=", "/proxy=", "/gradio_api/deep_link", "/gradio_api/vibe", "/gradio_api/dev")
"""Parts of Gradio that fetch from elsewhere or change the page, which this page does not use."""
SECURITY_HEADERS = {
    # Gradio's templates and styles need inline code and eval; nothing may be fetched from or sent to another origin.
    b"content-security-policy": (
        b"default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        b"style-src 'self' 'unsafe-inline'; object-src 'none'; "
        b"frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
FILE_HEADERS = {b"content-security-policy": b"sandbox; default-src 'none'; style-src 'unsafe-inline'; media-src 'self'"}
"""Instead, for files: whatever they hold, it does not run as a page of ours."""
UPLOAD_PREFIX = "/gradio_api/file="
FILE_PREFIXES = ("/media/", UPLOAD_PREFIX)
PAGE_TYPES = (b"text/html", b"application/xhtml+xml", b"image/svg+xml", b"text/xml", b"application/xml")
"""Types that a browser runs code of; a file of such a type is offered for saving, as bytes."""


@dataclass(frozen=True)
class Login:
    """Name and password that are asked for; both non-empty."""

    user: str
    password: str


class FailureLimit:
    """Counts failed sign-ins of each client in a sliding window.

    Args:
        max_failures: so many within the window are answered; the next is not.
        window_seconds: how long a failure counts.
        clock: seconds, monotonic.
    """

    def __init__(
        self, *, max_failures: int = 5, window_seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_failures = max_failures
        self._window_seconds = window_seconds
        self._clock = clock
        self._failures: dict[str, deque[float]] = {}

    def is_over(self, client: str) -> bool:
        """Whether this client failed too often lately."""
        times = self._failures.get(client)
        now = self._clock()
        while times and now - times[0] > self._window_seconds:
            times.popleft()
        if times is not None and not times:
            del self._failures[client]
        return times is not None and len(times) >= self._max_failures

    def count(self, client: str) -> None:
        """One more failure of this client."""
        if len(self._failures) > 10_000:  # a flood from many addresses; the oldest count least
            self._failures.pop(next(iter(self._failures)))
        self._failures.setdefault(client, deque()).append(self._clock())


class Guard:
    """The middleware.

    Args:
        app: what is guarded.
        hosts: names, besides IP addresses, that the page may be called by.
        login: asked for by HTTP Basic if given.
        max_body_bytes: of one request.
        limit: of failed sign-ins.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        hosts: Iterable[str],
        login: Login | None,
        max_body_bytes: int,
        limit: FailureLimit | None = None,
    ) -> None:
        self._app = app
        self._hosts = {host.lower().rstrip(".") for host in hosts}
        self._login = login
        self._max_body_bytes = max_body_bytes
        self._limit = limit or FailureLimit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # this page has no web sockets
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refuse(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        limited = _LimitedBody(receive, self._max_body_bytes)
        answer = _with_headers(send, scope["path"])

        async def unless_too_large(message: Message) -> None:
            if not limited.is_over:  # else the application answers to our own exception
                await answer(message)

        with contextlib.suppress(BodyTooLargeError):
            await self._app(scope, limited, unless_too_large)
        if limited.is_over:
            await _answer(send, 413, _too_large(self._max_body_bytes))

    def _refuse(
        self, scope: Scope, headers: dict[str, str]
    ) -> tuple[int, str] | tuple[int, str, dict[bytes, bytes]] | None:
        """Status, words and headers of a refusal, or None."""
        host = headers.get("host", "")
        if not is_known_host(host, self._hosts):
            return 421, "This page is not served under that name. Start visxp ui with --allow-host NAME to allow it."
        if scope["method"] not in SAFE_METHODS and not is_same_origin(headers, host):
            return 403, "Requests from other web pages are not accepted."
        if scope["path"].startswith(REFUSED_PREFIXES):
            return 404, "There is nothing here."
        if int(headers.get("content-length") or 0) > self._max_body_bytes:
            return 413, _too_large(self._max_body_bytes)
        if self._login is None:
            return None
        client = scope["client"][0] if scope.get("client") else ""
        if self._limit.is_over(client):
            return 429, "Too many wrong passwords. Wait a minute and try again.", {b"retry-after": b"60"}
        if is_signed_in(headers.get("authorization", ""), self._login):
            return None
        if "authorization" in headers:
            self._limit.count(client)
        return 401, "Name and password, please.", {b"www-authenticate": b'Basic realm="VisXP search", charset="UTF-8"'}


class BodyTooLargeError(Exception):
    """A request without an honest Content-Length sent more than is allowed."""


class _LimitedBody:
    """Counts what comes in."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._left = max_bytes
        self.is_over = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self.is_over = True
                raise BodyTooLargeError
        return message


def own_names(host: str, *, more: Iterable[str] = ()) -> set[str]:
    """The names under which this machine may be called."""
    return {"localhost", host, socket.gethostname(), socket.getfqdn(), *more} - {""}


def is_known_host(header: str, hosts: Iterable[str]) -> bool:
    """Whether a `Host` header names an IP address or one of the hosts, with any port.

    Foreign names are how pages elsewhere reach a server on the visitor's machine (DNS rebinding); an address cannot be
    rebound.
    """
    try:
        name = urlsplit(f"//{header}").hostname
    except ValueError:
        return False
    if not name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.rstrip(".") in {host.lower().rstrip(".") for host in hosts}
    return True


def is_same_origin(headers: dict[str, str], host: str) -> bool:
    """Whether a request that may change something was sent by our own page, or by a program that is no browser."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def is_signed_in(authorization: str, login: Login) -> bool:
    """Whether an `Authorization` header holds the name and password; takes as long whatever they are."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True) if scheme.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        given = b""
    wanted = f"{login.user}:{login.password}".encode()
    return hmac.compare_digest(given, wanted)


def _with_headers(send: Send, path: str) -> Send:
    is_file = path.startswith(FILE_PREFIXES)
    refused = False

    async def guarded(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start":
            refused = path.startswith(UPLOAD_PREFIX) and message["status"] >= 400
            if refused:  # Gradio's own words repeat the path that was asked for
                await _answer(send, message["status"], "There is nothing here, or it cannot be shown.")
            ours = SECURITY_HEADERS | (FILE_HEADERS if is_file else {})
            if is_file:
                ours = ours | _as_attachment(message["headers"])
            theirs = [(name, value) for name, value in message["headers"] if name.lower() not in ours]
            message = {**message, "headers": [*theirs, *ours.items()]}
        if not refused:
            await send(message)

    return guarded


def _as_attachment(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers that make a browser save what it would otherwise run."""
    kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
    if kind.split(b";")[0].strip().lower() not in PAGE_TYPES:
        return {}
    return {b"content-type": b"application/octet-stream", b"content-disposition": b"attachment"}


async def _answer(send: Send, status: int, words: str, headers: dict[bytes, bytes] | None = None) -> None:
    start = {b"content-type": b"text/plain; charset=utf-8"} | SECURITY_HEADERS | (headers or {})
    await send({"type": "http.response.start", "status": status, "headers": list(start.items())})
    await send({"type": "http.response.body", "body": words.encode()})


def _too_large(max_bytes: int) -> str:
    return f"That is more than {max_bytes // 1_000_000} MB, the most this page takes."
