"""The served store through a bad line: a proxy that delays, cuts and corrupts; and through TLS with an API key."""

import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.indexes import Contents, assert_nearly_same, contents_of, silent_second
from tests.qdrant_loopback import LOCAL_MODE, LoopbackQdrant
from visxp_search import store_server
from visxp_search.cli import main
from visxp_search.errors import CollectionError
from visxp_search.store import (
    API_KEY_VARIABLE,
    CA_VARIABLE,
    DONE,
    ServerSettings,
    Store,
    VideoRecord,
    open_store,
)
from visxp_search.store_admin import take_snapshot
from visxp_search.store_retries import RetryPolicy

pytestmark = LOCAL_MODE
DIMS = {"visual": 8}
FAULTS = ("delay", "cut before", "cut in the answer", "reset", "corrupt the status line", "corrupt the JSON")


class BadLine:
    """A TCP proxy on loopback that does harm to some connections.

    Each connection carries one request, since the proxy asks for it to be closed.

    Attributes:
        url: where it listens.
        faults: what is done to the next connections; "" is nothing.
        done: what was done.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.faults: list[str] = []
        self.done: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with closing(client), suppress(OSError):
            request = _read_message(client)
            if not request:
                return
            fault = self.faults.pop(0) if self.faults else ""
            self.done.append(fault)
            if fault == "cut before":
                return
            if fault == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                return
            with closing(socket.create_connection(self._target)) as server:
                server.sendall(request)
                answer = _read_message(server)
            client.sendall(
                _harm(answer.replace(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n"), fault)
            )


def _harm(answer: bytes, fault: str) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    if fault == "delay":
        time.sleep(0.3)
    elif fault == "cut in the answer":
        return head + b"\r\n\r\n" + body[: len(body) // 2]
    elif fault == "corrupt the status line":
        return b"\x00\xff" + answer[2:]
    elif fault == "corrupt the JSON":
        return head + b"\r\n\r\n" + b"\x00" + body[1:]
    return answer


def _read_message(connection: socket.socket) -> bytes:
    """One whole HTTP message with a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = connection.recv(2**16)
        if not block:
            return data
        data += block
    head = data.partition(b"\r\n\r\n")[0]
    lengths = [
        int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    ]
    wanted = len(head) + 4 + sum(lengths)
    while len(data) < wanted:
        data += connection.recv(2**16)
    return data


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[BadLine]:
    """A bad line to an empty server, and retries that do not take long."""
    monkeypatch.setattr(store_server, "RETRY_POLICY", RetryPolicy(0.01, 0.05, 30.0))
    with LoopbackQdrant() as server:
        proxy = BadLine(server.url)
        yield proxy
        proxy.stop()


def work(store: Store) -> Contents:
    """Everything that indexing, searching and looking after does to a store; what is in it at the end."""
    generator = np.random.default_rng(1)
    for video in ("v1", "v2", "v3"):
        vectors = generator.normal(size=(5, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        store.upsert_videos([VideoRecord(video, (f"/{video}.mp4",))])
        store.upsert_seconds([silent_second(video, second, vector) for second, vector in enumerate(vectors)])
        store.upsert_videos([VideoRecord(video, (f"/{video}.mp4",), status=DONE, seconds_done=5)])
        assert store.query("visual", vectors[2:3], top=1)[0][0].video_id == video
    store.set_payload("v1", 1, {"cluster": 4})
    store.set_payloads([("v2", second, {"cluster": 5}) for second in range(5)])
    assert store.facet("cluster") == {5: 5, 4: 1}
    store.write_document("clusters", {"a": 1})
    assert store.read_document("clusters") == {"a": 1}
    store.delete_video("v3")
    assert store.count_videos(DONE) == 2
    return contents_of(store)


@pytest.fixture(scope="module")
def undisturbed() -> Contents:
    """What `work` leaves where the line is good."""
    with LoopbackQdrant() as server, closing(open_store(server.url, checkpoint="c1", create=DIMS)) as store:
        return work(store)


@pytest.mark.parametrize("fault", [*FAULTS[:4], "corrupt the status line"])
def test_a_fault_in_any_request_changes_nothing(line: BadLine, undisturbed: Contents, fault: str) -> None:
    """Whatever is delayed, cut, reset or made unreadable is sent again, and the index ends as without faults."""
    line.faults = [fault, ""] * 200
    with closing(open_store(line.url, checkpoint="c1", create=DIMS)) as store:
        assert_nearly_same(work(store), undisturbed)
    assert line.done.count(fault) > 20


def test_faults_of_all_kinds_at_random(line: BadLine, undisturbed: Contents) -> None:
    """Half of all requests fail in a random way."""
    generator = random.Random(7)
    line.faults = [generator.choice([*FAULTS[:5], "", "", "", "", ""]) for _ in range(1000)]
    with closing(open_store(line.url, checkpoint="c1", create=DIMS)) as store:
        assert_nearly_same(work(store), undisturbed)
    assert set(line.done) == {*FAULTS[:5], ""}


def test_an_answer_that_is_corrupt_is_an_error_and_no_result(line: BadLine) -> None:
    """Bytes that are no JSON are one clear error: they are neither believed nor asked for again and again."""
    with closing(open_store(line.url, checkpoint="c1", create=DIMS)) as store:
        line.faults = ["corrupt the JSON"]
        with pytest.raises(CollectionError, match="Qdrant server"):
            store.count()
        assert store.count() == 0


def test_a_snapshot_that_is_cut_is_no_snapshot(line: BadLine, tmp_path: Path) -> None:
    """A download that ends too soon is an error, and leaves no folder that could be taken for a whole one."""
    (tmp_path / "server").mkdir()
    with LoopbackQdrant(snapshots=tmp_path / "server") as server:
        proxy = BadLine(server.url)
        with closing(open_store(proxy.url, checkpoint="c1", create=DIMS)) as store:
            work(store)
        snapshot_requests = len(proxy.done)
        with closing(open_store(proxy.url, checkpoint=None)) as store:
            store.count_videos(DONE)
        n_before = len(proxy.done) - snapshot_requests
        proxy.faults = [""] * (n_before + 3) + ["cut in the answer"] * 2
        with pytest.raises(CollectionError, match="broke while a snapshot was carried"):
            take_snapshot(proxy.url, tmp_path / "out", server=ServerSettings(), progress=lambda *_: None)
        proxy.stop()
    assert not (tmp_path / "out" / "snapshot.json").exists()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signed itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def secure(certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[LoopbackQdrant]:
    """A server that speaks TLS only, and asks for an API key."""
    (tmp_path / "snapshots").mkdir()
    with LoopbackQdrant(tls=certificate, api_key="secret", snapshots=tmp_path / "snapshots") as server:
        yield server


def test_everything_works_through_tls(
    secure: LoopbackQdrant,
    certificate: tuple[Path, Path],
    undisturbed: Contents,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the server's certificate and key in the environment: the whole work, a snapshot, and no word of caution."""
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    monkeypatch.setenv(CA_VARIABLE, str(certificate[0]))
    assert secure.url.startswith("https://")
    with closing(open_store(secure.url, checkpoint="c1", create=DIMS)) as store:
        assert_nearly_same(work(store), undisturbed)
    assert main(["index", "snapshot", str(tmp_path / "out"), "--index", secure.url, "-q"]) == 0
    assert main(["index", "restore", str(tmp_path / "out"), "--index", f"{secure.url}/again", "-q"]) == 0
    assert "unencrypted" not in caplog.text


def test_who_is_not_trusted_gets_no_request(
    secure: LoopbackQdrant,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without its certificate, with a wrong key and with a file of no certificates: one line each with what to set."""
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    assert main(["index", "ls", "--index", secure.url]) == 3
    assert f"set {CA_VARIABLE} to a PEM file" in capsys.readouterr().err
    assert secure.requests == []
    monkeypatch.setenv(CA_VARIABLE, str(certificate[1].with_name("none.pem")))
    assert main(["index", "ls", "--index", secure.url]) == 3
    assert "none.pem holds no certificates" in capsys.readouterr().err
    monkeypatch.setenv(CA_VARIABLE, str(certificate[0]))
    monkeypatch.setenv(API_KEY_VARIABLE, "wrong")
    assert main(["index", "ls", "--index", secure.url]) == 3
    assert f"set its API key in the environment variable {API_KEY_VARIABLE}" in capsys.readouterr().err


def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of `VISXP_QDRANT_*` are heeded, what is given goes before, nonsense is wrong use, and no key is printed."""
    monkeypatch.setenv("VISXP_QDRANT_SHARDS", "6")
    monkeypatch.setenv("VISXP_QDRANT_REPLICAS", "2")
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    monkeypatch.setenv(CA_VARIABLE, "ca.pem")
    assert ServerSettings.from_environment() == ServerSettings(6, 2, "secret", "ca.pem")
    assert ServerSettings.from_environment(shards=3).shards == 3
    assert "secret" not in repr(ServerSettings.from_environment())
    monkeypatch.setenv("VISXP_QDRANT_SHARDS", "many")
    assert main(["index", "ls", "--index", "http://127.0.0.1:1"]) == 2
    assert "VISXP_QDRANT_SHARDS is 'many'; expected a number" in capsys.readouterr().err
