"""Who may talk to the page, what is served, and how little a stranger learns."""

import asyncio
import base64
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from tests.webui_site import make_archive, moved, record_named
from visxp_search.errors import UsageError
from visxp_search.store import VideoRecord
from webui.archive import Archive
from webui.cache import FileCache
from webui.exporting import Exports
from webui.guard import FailureLimit, Guard, Login, is_known_host
from webui.media import Media, NotServedError, checked_path, playable_type, proxy_start
from webui.routes import media_routes
from webui.serve import parse_login


class Answer:
    """What one request got back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


def ask(
    app: Callable[..., Any], path: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
) -> Answer:
    """One request to an ASGI application, without a network."""
    given = {"host": "127.0.0.1:7860"} | (headers or {})
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7860),
    }
    sent: list[dict[str, Any]] = []
    parts = [body[start : start + 100] for start in range(0, len(body), 100)] or [b""]

    async def receive() -> dict[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        await asyncio.Event().wait()  # the client stays until it is answered
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    answered = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:]))


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


INNER = Starlette(
    routes=[
        Route("/", _echo, methods=["GET", "POST"]),
        Route("/gradio_api/file={path:path}", lambda request: HTMLResponse("<script>alert(1)</script>")),
        Route("/gradio_api/proxy={path:path}", _echo),
    ]
)


def guarded(**changes: Any) -> Guard:
    """A guard around an application that answers with the size of what it was sent."""
    options: dict[str, Any] = {"hosts": ["localhost", "archive.example"], "login": None, "max_body_bytes": 1000}
    return Guard(INNER, **(options | changes))


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost:7860", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("[::1]:7860", True),
        ("192.168.1.4:80", True),
        ("archive.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[::1", False),
        ("a@localhost:1@evil.example", False),
    ],
)
def test_foreign_hosts_are_refused(host: str, known: bool) -> None:
    """Only addresses and names that were allowed are answered, so no page elsewhere can rebind its name to ours."""
    assert is_known_host(host, ["localhost", "archive.example"]) is known
    assert (ask(guarded(), "/", headers={"host": host}).status == 200) is known


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:7860"}, 200),
    ],
)
def test_posts_of_other_pages_are_refused(headers: dict[str, str], status: int) -> None:
    """A form or script of another origin cannot make the page do anything."""
    assert ask(guarded(), "/", method="POST", headers=headers, body=b"x").status == status


def test_large_bodies_are_refused_whatever_they_say() -> None:
    """The limit holds with an honest Content-Length and without one."""
    assert ask(guarded(), "/", method="POST", headers={"content-length": "1001"}, body=b"").status == 413
    answer = ask(guarded(), "/", method="POST", body=b"x" * 1001)
    assert answer.status == 413 and b"MB" in answer.body
    assert ask(guarded(), "/", method="POST", body=b"x" * 1000).body == b"1000"


def test_login_is_asked_for_and_limited() -> None:
    """The right password opens, wrong ones do not, and after five of them nothing does for a minute."""
    now = [0.0]
    app = guarded(login=Login("anna", "öl:x"), limit=FailureLimit(clock=lambda: now[0]))

    def attempt(text: str) -> int:
        return ask(app, "/", headers={"authorization": "Basic " + base64.b64encode(text.encode()).decode()}).status

    assert ask(app, "/").status == 401 and "www-authenticate" in ask(app, "/").headers
    assert attempt("anna:öl:x") == 200
    assert [attempt("anna:wrong") for _ in range(5)] == [401] * 5
    assert attempt("anna:öl:x") == 429
    now[0] = 61.0
    assert attempt("anna:öl:x") == 200
    assert ask(app, "/", headers={"authorization": "Basic ###"}).status == 401


@pytest.mark.parametrize("text", ["anna", "anna:", ":secret", ""])
def test_auth_needs_both_halves(text: str) -> None:
    """`--auth` without a name or a password is wrong use."""
    with pytest.raises(UsageError, match="USER:PASS"):
        parse_login(text)


def test_files_never_run_as_pages() -> None:
    """An uploaded HTML file is bytes to save, in a sandbox; pages carry a policy that keeps everything here."""
    answer = ask(guarded(), "/gradio_api/file=/tmp/x.html")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert "default-src 'self'" in ask(guarded(), "/").headers["content-security-policy"]


def test_the_fetching_proxy_is_closed() -> None:
    """Gradio's route that fetches other servers' files is not there."""
    assert ask(guarded(), "/gradio_api/proxy=http://evil.example/").status == 404


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive that no test changes."""
    made = make_archive(tmp_path_factory.mktemp("archive"))
    yield made
    made.close()


def media_app(find: Callable[[str], VideoRecord | None], folder: Path) -> Starlette:
    """The media routes over a ledger."""
    exports = Exports(folder / "exports", find=find, texts={"csv": lambda basket: f"{len(basket)} moments"})
    media = Media(find, FileCache(folder, max_bytes=10_000_000))
    return Starlette(routes=list(media_routes(media, exports, card=lambda: None)))


def test_videos_are_served_by_range(archive: Archive, tmp_path: Path) -> None:
    """A player gets the bytes it asks for, of the file that was indexed, as a video."""
    record = record_named(archive, "warm.mp4")
    app = media_app(archive.store.video, tmp_path)
    answer = ask(app, f"/media/video/{record.video_id}", headers={"range": "bytes=10-19"})
    assert answer.status == 206 and answer.headers["content-type"] == "video/mp4"
    assert answer.body == Path(record.paths[0]).read_bytes()[10:20]


@pytest.mark.parametrize("what", ["sheet/{}/0-5.jpg", "strip/{}/0-5.jpg", "sound/{}/0-5.jpg", "still/{}/2.jpg"])
def test_pictures_are_made(archive: Archive, tmp_path: Path, what: str) -> None:
    """Every picture that the page shows is a JPEG."""
    record = record_named(archive, "warm.mp4")
    answer = ask(media_app(archive.store.video, tmp_path), "/media/" + what.format(record.video_id))
    assert (answer.status, answer.headers["content-type"], answer.body[:2]) == (200, "image/jpeg", b"\xff\xd8")


def test_a_proxy_is_a_small_mp4_from_its_start(archive: Archive, tmp_path: Path) -> None:
    """What browsers cannot play is converted once and kept."""
    record = record_named(archive, "warm.mp4")
    app = media_app(archive.store.video, tmp_path)
    answer = ask(app, f"/media/proxy/{record.video_id}/0")
    assert answer.status == 200 and answer.headers["content-type"] == "video/mp4" and answer.body[4:8] == b"ftyp"
    assert len(list(tmp_path.glob("*.mp4"))) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/media/video/../../../etc/passwd",
        "/media/video/%2e%2e%2fetc%2fpasswd",
        "/media/video//etc/passwd",
        "/media/video/proc",
        "/media/still/{}/99.jpg",
        "/media/sheet/{}/3-2.jpg",
        "/media/sheet/{}/0-999999999.jpg",
        "/media/proxy/{}/99999",
        "/media/video/",
        "/media/export/..%2f..%2fetc%2fpasswd",
        "/media/export/unknown",
        "/media/report",
    ],
)
def test_nothing_else_is_served(archive: Archive, tmp_path: Path, path: str) -> None:
    """Paths, unknown ids and spans outside a video are not found, and the words name no folder."""
    record = record_named(archive, "warm.mp4")
    answer = ask(media_app(archive.store.video, tmp_path), path.format(record.video_id))
    assert answer.status == 404 and str(Path(record.paths[0]).parent).encode() not in answer.body


def test_only_the_file_that_was_indexed_is_served(archive: Archive, tmp_path: Path) -> None:
    """A link laid at its place, a changed file and a device are refused; a link to the very file is not."""
    record = record_named(archive, "warm.mp4")
    original = Path(record.paths[0])
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    link = tmp_path / "video.mp4"
    link.symlink_to(original)
    assert checked_path(moved(record, link)) == original.resolve()
    indexed = moved(record, link)
    link.unlink()
    link.symlink_to(secret)
    for bad in (indexed, replace(record, paths=("/proc/self/environ",), stats={}), replace(record, paths=())):
        with pytest.raises(NotServedError, match="moved or changed"):
            checked_path(bad)
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(original.read_bytes())
    entry = moved(record, copy)
    os.utime(copy, ns=(1, 1))
    with pytest.raises(NotServedError):
        checked_path(entry)
    loop = tmp_path / "loop.mp4"
    loop.symlink_to(loop)
    with pytest.raises(NotServedError):
        checked_path(replace(record, paths=(str(loop),)))


@pytest.mark.parametrize(
    ("facts", "content_type"),
    [
        ({"container": "mov,mp4,m4a,3gp,3g2,mj2", "video_codec": "h264", "audio_codec": "aac"}, "video/mp4"),
        ({"container": "matroska,webm", "video_codec": "vp9", "audio_codec": "opus"}, "video/webm"),
        ({"container": "mov,mp4,m4a,3gp,3g2,mj2", "video_codec": "mpeg4", "audio_codec": "aac"}, None),
        ({"container": "mxf", "video_codec": "mpeg2video", "audio_codec": "pcm_s16le"}, None),
        ({"container": "mp3", "video_codec": "", "audio_codec": "mp3float"}, "audio/mpeg"),
        ({"container": "wav", "video_codec": "", "audio_codec": "pcm_s16le"}, "audio/wav"),
        ({}, None),
    ],
)
def test_what_browsers_play(facts: dict[str, str], content_type: str | None) -> None:
    """A file is served as it is only as a type that browsers play, never as a page."""
    assert playable_type(facts) == content_type


def test_near_seconds_share_a_proxy() -> None:
    """The stretch begins before the second asked for, on a multiple of ten, and never before the video."""
    assert [proxy_start(second) for second in (0, 4, 17, 24.9, 25)] == [0, 0, 10, 10, 20]


def test_the_cache_makes_once_and_stays_small(tmp_path: Path) -> None:
    """A key is made once; failures leave nothing; what was not used for longest goes first."""
    cache = FileCache(tmp_path / "cache", max_bytes=1000)
    made: list[str] = []

    def write(name: str) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            made.append(name)
            path.write_bytes(b"x" * 400)

        return make

    first = cache.fetch("a", ".bin", write("a"))
    assert cache.fetch("a", ".bin", write("a")) == first and made == ["a"]
    os.utime(first, ns=(1, 1))
    cache.fetch("b", ".bin", write("b"))
    cache.fetch("c", ".bin", write("c"))
    assert not first.exists() and len(list((tmp_path / "cache").iterdir())) == 2

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise NotServedError("no")

    with pytest.raises(NotServedError):
        cache.fetch("d", ".bin", fail)
    assert len(list((tmp_path / "cache").iterdir())) == 2
