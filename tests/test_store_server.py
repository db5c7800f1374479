"""What is sent to a Qdrant server: settings of collections, bulk loads, and requests again after faults."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from tests.qdrant_loopback import LOCAL_MODE
from visxp_search import store_server
from visxp_search.errors import CollectionError
from visxp_search.store import API_KEY_VARIABLE, PAYLOAD_INDEXES, ServerSettings
from visxp_search.store_retries import Retries, RetryPolicy
from visxp_search.store_server import INDEXING_THRESHOLD_KILOBYTES, open_client_store

pytestmark = LOCAL_MODE

DIMS = {"visual": 4, "audio": 3, "joint": 2}
QUICK = RetryPolicy(first_pause_seconds=0.01, longest_pause_seconds=0.05, total_seconds=30.0)
SHORT = replace(QUICK, total_seconds=0.6)


class RecordingClient(QdrantClient):
    """The client's local mode, which notes what a server would be told, and keeps the indexing threshold like one."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.created: dict[str, dict[str, Any]] = {}
        self.indexed: dict[str, dict[str, Any]] = {}
        self.thresholds: list[int | None] = []
        self.threshold: int | None = INDEXING_THRESHOLD_KILOBYTES

    def create_collection(self, collection_name: str, *args: Any, **kwargs: Any) -> bool:
        """Notes the settings."""
        self.created[collection_name] = kwargs
        return super().create_collection(collection_name, *args, **kwargs)

    def create_payload_index(self, collection_name: str, field_name: str, *args: Any, **kwargs: Any) -> Any:
        """Notes key and type."""
        self.indexed.setdefault(collection_name, {})[field_name] = args[0]
        return super().create_payload_index(collection_name, field_name, *args, **kwargs)

    def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        """Says the threshold that was set last."""
        info = super().get_collection(collection_name, **kwargs)
        info.config.optimizer_config.indexing_threshold = self.threshold
        return info

    def update_collection(self, collection_name: str, *args: Any, **kwargs: Any) -> bool:
        """Sets the threshold."""
        assert collection_name == "visxp_seconds_c1"
        self.threshold = kwargs["optimizers_config"].indexing_threshold
        self.thresholds.append(self.threshold)
        return True


def test_collections_are_created_for_tens_of_millions_of_points() -> None:
    """Vectors, graphs and payloads on disk, int8 in RAM, payload indexes, and the shards and replicas asked for."""
    client = RecordingClient()
    settings = ServerSettings(shards=6, replicas=2)
    with closing(open_client_store(client, location="memory", checkpoint="c1", create=DIMS, server=settings)):
        assert set(client.created) == {"visxp_seconds_c1", "visxp_videos_c1"}
        for sent in client.created.values():
            assert {name: (p.size, p.on_disk) for name, p in sent["vectors_config"].items()} == {
                name: (dim, True) for name, dim in DIMS.items()
            }
            int8 = sent["quantization_config"].scalar
            assert (int8.type, int8.always_ram) == (models.ScalarType.INT8, True)
            assert sent["hnsw_config"].on_disk is True and sent["on_disk_payload"] is True
            assert (sent["shard_number"], sent["replication_factor"]) == (6, 2)
            assert sent["optimizers_config"].indexing_threshold == INDEXING_THRESHOLD_KILOBYTES
        assert {key: kind.value for key, kind in client.indexed["visxp_seconds_c1"].items()} == PAYLOAD_INDEXES


def test_shards_and_replicas_are_the_servers_choice_by_default() -> None:
    """Nothing is sent for what nobody asked for."""
    client = RecordingClient()
    with closing(open_client_store(client, location="memory", checkpoint="c1", create=DIMS)):
        sent = client.created["visxp_seconds_c1"]
        assert (sent["shard_number"], sent["replication_factor"]) == (None, None)


@pytest.mark.parametrize(
    ("before", "after"), [(20_000, 20_000), (50_000, 50_000), (0, INDEXING_THRESHOLD_KILOBYTES), (None, 20_000)]
)
def test_bulk_loads_put_indexing_off_and_on_again(before: int | None, after: int) -> None:
    """The threshold is 0 inside and what it was afterwards, also after Ctrl-C; a 0 left by kill -9 is mended."""
    client = RecordingClient()
    with closing(open_client_store(client, location="memory", checkpoint="c1", create=DIMS)) as store:
        client.threshold = before
        with store.bulk_load():
            assert client.threshold == 0
        assert client.thresholds == [0, after]
        with pytest.raises(KeyboardInterrupt), store.bulk_load():
            raise KeyboardInterrupt
        assert client.thresholds == [0, after, 0, after]


class Faulty:
    """A server on loopback that fails as it is told, then answers as an empty Qdrant.

    Attributes:
        url: where it listens.
        faults: what is done to the next requests: a status to answer, "cut" the connection, "stall" until the end.
        keys: API keys that it got.
        requests: number of requests.
    """

    def __init__(self) -> None:
        self.faults: list[int | str] = []
        self.keys: list[str | None] = []
        self.requests = 0
        self.end = threading.Event()
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                faulty.requests += 1
                faulty.keys.append(self.headers.get("api-key"))
                fault = faulty.faults.pop(0) if faulty.faults else 200
                if fault == "cut":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                elif fault == "stall":
                    faulty.end.wait(20)
                else:
                    self.answer(int(fault))

            def answer(self, status: int) -> None:
                body = {"title": "qdrant", "version": "1.15.0"}
                if self.path != "/":
                    found: dict[str, Any] = {"aliases": []} if self.path == "/aliases" else {"exists": False}
                    body = {"result": found, "status": "ok", "time": 0}  # type: ignore[dict-item]
                text = json.dumps(body) if status == 200 else "out of service"
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Let stalled requests go and listen no more."""
        self.end.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A faulty server, and retries that do not take long."""
    monkeypatch.setattr(store_server, "RETRY_POLICY", QUICK)
    server = Faulty()
    yield server
    server.stop()


def open_missing(url: str) -> None:
    """Look for an index on a server that has none."""
    store_server.open_server_store(url, checkpoint="c1", create=None)


@pytest.mark.parametrize("faults", [["cut", "cut"], [503, 502, 500], [200, "cut", 503]])
def test_faults_that_pass_are_survived(
    faulty: Faulty, faults: list[int | str], caplog: pytest.LogCaptureFixture
) -> None:
    """Cut connections and 5xx are tried again, each said in the log, until the server answers: here, no index."""
    faulty.faults = list(faults)
    with pytest.raises(CollectionError, match="there is no index at"):
        open_missing(faulty.url)
    n_failed = sum(fault != 200 for fault in faults)
    assert faulty.requests == n_failed + 3
    assert caplog.text.count("trying again in") == n_failed


def test_a_server_that_stalls_is_asked_again(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request over its time limit is sent again."""
    monkeypatch.setattr(store_server, "TIMEOUT_SECONDS", 1)
    faulty.faults = ["stall"]
    with pytest.raises(CollectionError, match="there is no index at"):
        open_missing(faulty.url)
    assert faulty.requests == 4


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (503, r"no Qdrant server answers at .*status 503: out of service; tried \d+ times in \d+ s"),
        ("cut", r"no Qdrant server answers at .*Error: .*; tried \d+ times in \d+ s"),
    ],
)
def test_faults_that_stay_end_with_the_last_of_them(
    faulty: Faulty, fault: int | str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the total limit the last fault is said, with how often and how long it was tried."""
    monkeypatch.setattr(store_server, "RETRY_POLICY", SHORT)
    faulty.faults = [fault] * 1000
    with pytest.raises(CollectionError, match=message):
        open_missing(faulty.url)
    assert 2 <= faulty.requests < 100


@pytest.mark.parametrize("status", [400, 401, 404, 409])
def test_refusals_are_not_repeated(faulty: Faulty, status: int) -> None:
    """A 4xx is an error at once."""
    faulty.faults = [status]
    with pytest.raises(CollectionError, match=f"status {status}"):
        open_missing(faulty.url)
    assert faulty.requests == 1


def test_a_server_that_goes_away_is_waited_for_and_none_is_not(faulty: Faulty) -> None:
    """A refused connection is an error at once before the first answer, and tried again after it."""
    url = faulty.url
    client = QdrantClient(url=url, check_compatibility=False)
    client.http.client.add_middleware(Retries(SHORT))
    client.info()
    faulty.stop()
    with closing(client), pytest.raises(Exception, match=r"ConnectError: .*; tried \d+ times"):
        client.info()
    with pytest.raises(CollectionError, match="no Qdrant server answers") as caught:
        open_missing(url)
    assert "tried" not in str(caught.value)


def test_https_is_spoken_with_the_api_key(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An https URL means TLS: a server without it gets neither request nor key, and nothing is said of unencrypted."""
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    with pytest.raises(CollectionError, match=r"no Qdrant server answers at https://.*SSL"):
        open_missing(faulty.url.replace("http://", "https://"))
    assert faulty.keys == [] and "unencrypted" not in caplog.text
    with pytest.raises(CollectionError, match="there is no index at"):
        open_missing(faulty.url)
    assert set(faulty.keys) == {"secret"} and "unencrypted" in caplog.text
