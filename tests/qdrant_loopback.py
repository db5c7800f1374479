"""A server on loopback that speaks Qdrant's REST interface, for tests of what several processes do with one server.

Behind it is the client's own local mode, which keeps points, filters, aliases and rankings; what that lacks is here:
settings of collections as they were sent, snapshots (files in a folder) and the API key. It is no Qdrant: that a real
one takes the same requests is shown by the tests with VISXP_QDRANT_URL.
"""

import json
import pickle
import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models

VERSION = "1.15.0"

LOCAL_MODE = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact .* search:UserWarning"),
]
"""For tests of a served index: the client's local mode says which of our settings only a server heeds."""


class LoopbackQdrant:
    """The server; a context manager.

    Args:
        snapshots: folder for snapshots.
        api_key: what requests must carry; None: nothing.
        tls: certificate and key files; None: plain http.

    Attributes:
        url: where it listens, on 127.0.0.1.
        requests: (method, path, body) of all requests that were answered, the key not included.
        settings: collection -> what it was created with, and later changes.
        indexed: collection -> payload key -> type.
        nodes: of the cluster that it says it is.
    """

    def __init__(
        self, *, snapshots: Path | None = None, api_key: str | None = None, tls: tuple[Path, Path] | None = None
    ) -> None:
        self.client = QdrantClient(":memory:")
        self.snapshots = snapshots
        self.api_key = api_key
        self.requests: list[tuple[str, str, Any]] = []
        self.settings: dict[str, dict[str, Any]] = {}
        self.indexed: dict[str, dict[str, str]] = {}
        self.nodes = 1
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> "LoopbackQdrant":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Listen no more, and forget everything."""
        self.server.shutdown()
        self.server.server_close()
        self.client.close()

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The `result` of a request.

        Raises:
            KeyError: If there is no such request, or no such thing.
            ValueError: If the client refuses it.
        """
        for route_method, pattern, act in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == route_method:
                with self.lock:
                    self.requests.append((method, path, body))
                    return act(self, body or {}, *match.groups())
        raise KeyError(f"no route for {method} {path}")

    def described(self, name: str) -> dict[str, Any]:
        """A collection as the server describes it: the settings it was given, and what is in it."""
        real = self.resolved(name)
        info = self.client.get_collection(real).model_dump(mode="json", exclude_none=True)
        sent = self.settings[real]
        config = info["config"]
        config["params"].update({key: sent[key] for key in ("on_disk_payload", "vectors") if key in sent})
        config["params"]["shard_number"] = sent.get("shard_number") or self.nodes
        config["params"]["replication_factor"] = sent.get("replication_factor") or 1
        config["hnsw_config"] = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "on_disk": False}
        config["hnsw_config"].update(sent.get("hnsw_config") or {})
        config["optimizer_config"].update(sent.get("optimizers_config") or {})
        config["quantization_config"] = sent.get("quantization_config")
        info["points_count"] = self.client.count(real).count
        info["payload_schema"] = {
            key: {"data_type": kind, "points": info["points_count"]} for key, kind in self.indexed.get(real, {}).items()
        }
        return info

    def resolved(self, name: str) -> str:
        """The collection that a name or an alias means."""
        aliases = {alias.alias_name: alias.collection_name for alias in self.client.get_aliases().aliases}
        return aliases.get(name, name)


def _handler(loopback: LoopbackQdrant) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            path = urlsplit(self.path).path
            if loopback.api_key is not None and self.headers.get("api-key") != loopback.api_key:
                self.say(401, b"Must provide an API key or an Authorization bearer token")
                return
            if path.endswith(".snapshot") and self.command == "GET":
                assert loopback.snapshots is not None
                self.say(200, (loopback.snapshots / Path(path).name).read_bytes())
                return
            try:
                if path.endswith("/snapshots/upload"):
                    body: Any = text.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
                else:
                    body = json.loads(text) if text else None
                result = loopback.answer(self.command, path, body)
            except KeyError as exc:
                self.say(404, json.dumps({"status": {"error": str(exc)}}).encode())
            except ValueError as exc:
                missing = re.search("not found|does not exist", str(exc), re.IGNORECASE)
                self.say(404 if missing else 400, json.dumps({"status": {"error": str(exc)}}).encode())
            else:
                whole = result if path == "/" else {"result": result, "status": "ok", "time": 0.0}
                self.say(200, json.dumps(whole, default=_plain).encode())

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do

        def say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    raise TypeError(f"{type(value)} cannot be sent")


def _create(server: LoopbackQdrant, body: Any, name: str) -> bool:
    request = models.CreateCollection.model_validate(body)
    server.client.create_collection(name, vectors_config=request.vectors)
    server.settings[name] = body
    return True


def _update(server: LoopbackQdrant, body: Any, name: str) -> bool:
    settings = server.settings[server.resolved(name)]
    for part, values in body.items():
        settings[part] = {**(settings.get(part) or {}), **values}
    return True


def _delete(server: LoopbackQdrant, body: Any, name: str) -> bool:
    server.settings.pop(name, None)
    server.indexed.pop(name, None)
    return server.client.delete_collection(name)


def _index(server: LoopbackQdrant, body: Any, name: str) -> dict[str, Any]:
    server.indexed.setdefault(server.resolved(name), {})[body["field_name"]] = body["field_schema"]
    return _done()


def _upsert(server: LoopbackQdrant, body: Any, name: str) -> dict[str, Any]:
    server.client.upsert(name, models.PointsList.model_validate(body).points)
    return _done()


def _set_payload(server: LoopbackQdrant, body: Any, name: str) -> dict[str, Any]:
    request = models.SetPayload.model_validate(body)
    assert request.points is not None
    server.client.set_payload(name, request.payload, points=request.points)
    return _done()


def _batch(server: LoopbackQdrant, body: Any, name: str) -> list[dict[str, Any]]:
    server.client.batch_update_points(name, models.UpdateOperations.model_validate(body).operations)
    return [_done() for _ in body["operations"]]


def _remove(server: LoopbackQdrant, body: Any, name: str) -> dict[str, Any]:
    selector: Any = TypeAdapter(models.PointsSelector).validate_python(body)
    server.client.delete(name, selector)
    return _done()


def _query(server: LoopbackQdrant, body: Any, name: str) -> Any:
    return server.client.query_batch_points(name, models.QueryRequestBatch.model_validate(body).searches)


def _scroll(server: LoopbackQdrant, body: Any, name: str) -> dict[str, Any]:
    request = models.ScrollRequest.model_validate(body)
    points, after = server.client.scroll(
        name,
        scroll_filter=request.filter,
        limit=request.limit or 10,
        offset=request.offset,
        with_payload=request.with_payload if request.with_payload is not None else True,
        with_vectors=request.with_vector or False,
    )
    return {"points": points, "next_page_offset": after}


def _retrieve(server: LoopbackQdrant, body: Any, name: str) -> Any:
    request = models.PointRequest.model_validate(body)
    return server.client.retrieve(name, request.ids, with_payload=True, with_vectors=request.with_vector or False)


def _count(server: LoopbackQdrant, body: Any, name: str) -> Any:
    return server.client.count(name, count_filter=models.CountRequest.model_validate(body).filter)


def _facet(server: LoopbackQdrant, body: Any, name: str) -> Any:
    request = models.FacetRequest.model_validate(body)
    return server.client.facet(name, request.key, facet_filter=request.filter, limit=request.limit or 10)


def _alias(server: LoopbackQdrant, body: Any) -> bool:
    actions = models.ChangeAliasesOperation.model_validate(body).actions
    return server.client.update_collection_aliases(actions)


def _snapshot(server: LoopbackQdrant, body: Any, name: str) -> dict[str, Any]:
    """All of a collection in one file."""
    assert server.snapshots is not None
    real = server.resolved(name)
    points, _ = server.client.scroll(real, limit=10**9, with_vectors=True, with_payload=True)
    whole = server.settings[real], server.indexed.get(real, {}), points
    file = server.snapshots / f"{real}-{len(list(server.snapshots.iterdir()))}.snapshot"
    file.write_bytes(pickle.dumps(whole))
    return {"name": file.name, "size": file.stat().st_size, "creation_time": "2026-01-01T00:00:00"}


def _recover(server: LoopbackQdrant, body: bytes, name: str) -> bool:
    """A collection from the bytes of a snapshot, which take the place of what it held."""
    settings, indexed, points = pickle.loads(body)
    if server.client.collection_exists(name):
        server.client.delete_collection(name)
    _create(server, settings, name)
    server.indexed[name] = indexed
    server.client.upsert(name, [models.PointStruct(id=p.id, vector=p.vector, payload=p.payload) for p in points])
    return True


def _remove_snapshot(server: LoopbackQdrant, body: Any, name: str, snapshot: str) -> bool:
    assert server.snapshots is not None
    (server.snapshots / snapshot).unlink()
    return True


def _cluster(server: LoopbackQdrant, body: Any) -> dict[str, Any]:
    if server.nodes == 1:
        return {"status": "disabled"}
    return {
        "status": "enabled",
        "peer_id": 1,
        "peers": {str(node): {"uri": f"http://qdrant-{node}:6335/"} for node in range(1, server.nodes + 1)},
        "raft_info": {"term": 1, "commit": 1, "pending_operations": 0, "is_voter": True},
        "consensus_thread_status": {"consensus_thread_status": "working", "last_update": "2026-01-01T00:00:00"},
        "message_send_failures": {},
    }


def _shards(server: LoopbackQdrant, body: Any, name: str) -> dict[str, Any]:
    """Where the shards of a collection are: one on each node."""
    remote = [{"shard_id": n, "peer_id": n + 1, "state": "Active"} for n in range(1, server.nodes)]
    local = [{"shard_id": 0, "points_count": 0, "state": "Active"}]
    return {
        "peer_id": 1,
        "shard_count": server.nodes,
        "local_shards": local,
        "remote_shards": remote,
        "shard_transfers": [],
    }


def _done() -> dict[str, Any]:
    return {"operation_id": 0, "status": "completed"}


_NAME = r"/collections/([^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/", lambda server, body: {"title": "qdrant - vector search engine", "version": VERSION}),
    ("GET", "/cluster", _cluster),
    ("GET", "/aliases", lambda server, body: server.client.get_aliases()),
    ("POST", "/collections/aliases", _alias),
    ("GET", "/collections", lambda server, body: server.client.get_collections()),
    (
        "GET",
        f"{_NAME}/exists",
        lambda server, body, name: {"exists": server.client.collection_exists(server.resolved(name))},
    ),
    ("GET", f"{_NAME}/cluster", _shards),
    ("GET", _NAME, lambda server, body, name: server.described(name)),
    ("PUT", _NAME, _create),
    ("PATCH", _NAME, _update),
    ("DELETE", _NAME, _delete),
    ("PUT", f"{_NAME}/index", _index),
    ("PUT", f"{_NAME}/points", _upsert),
    ("POST", f"{_NAME}/points", _retrieve),
    ("POST", f"{_NAME}/points/payload", _set_payload),
    ("POST", f"{_NAME}/points/batch", _batch),
    ("POST", f"{_NAME}/points/delete", _remove),
    ("POST", f"{_NAME}/points/query/batch", _query),
    ("POST", f"{_NAME}/points/scroll", _scroll),
    ("POST", f"{_NAME}/points/count", _count),
    ("POST", f"{_NAME}/facet", _facet),
    ("POST", f"{_NAME}/snapshots", _snapshot),
    ("POST", f"{_NAME}/snapshots/upload", _recover),
    ("DELETE", f"{_NAME}/snapshots/([^/]+)", _remove_snapshot),
]
