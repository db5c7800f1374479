"""What is done to an index on a Qdrant server as a whole: change places, snapshots, a look at its settings.

An index is found by two aliases (`store_server`), so changing places is one request. A snapshot is a folder: two files
of the server's own format and `snapshot.json`, which says what they are. Each node of a cluster snapshots only its own
shards, so an index that is spread over several is refused here, and carried by `visxp index export` or `push`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient, models

from visxp_search.errors import CollectionError, ExchangeError, MissingIndexError
from visxp_search.store import DONE, PAYLOAD_INDEXES, CollectionInfo, ServerSettings, is_url
from visxp_search.store_collection import CollectionStore
from visxp_search.store_json import info_from_json, info_to_json
from visxp_search.store_server import (
    INDEXING_THRESHOLD_KILOBYTES,
    alias_names,
    connect,
    find_collections,
    name_collections,
    open_server_store,
    request_headers,
    require_version,
    set_aliases,
    translated_errors,
    trusted,
)

MANIFEST = "snapshot.json"
SNAPSHOT_FORMAT, SNAPSHOT_VERSION = "visxp-snapshot", 1
KINDS = ("seconds", "videos")
TRANSFER_TIMEOUT_SECONDS = 3600.0
"""A snapshot of 36 million seconds is 100 GB, which a server takes its time to pack and to unpack."""
BLOCK_BYTES = 2**20
LARGE_POINTS = 1_000_000
"""Seconds from which vectors and graphs in memory cost gigabytes, so that they should lie on the disk."""


class Progress(Protocol):
    """Told what is done, and how much of how much (bytes)."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say it."""


def neighbour_url(url: str, suffix: str) -> str:
    """The URL of another index on the same server: `http://host/news` gives `http://host/news-SUFFIX`."""
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    return f"{parts.scheme}://{parts.netloc}/{f'{prefix}-' if prefix else ''}{suffix}"


def swap_server_indexes(url: str, incoming: str, outgoing: str, *, server: ServerSettings, drop: bool = False) -> None:
    """Put one index in the place of another, which goes to a third place, in one request.

    Who has the old one open goes on with it until it is opened again.

    Args:
        url: the index.
        incoming: what takes its place; nothing is there afterwards.
        outgoing: where it goes.
        server: how the server is spoken to.
        drop: remove it instead, and what an earlier swap left at `outgoing`.

    Raises:
        CollectionError: If one of both is no index, something is at `outgoing` already, or the server fails.
    """
    with _connected(url, server) as (client, prefix):
        places = [prefix, *(urlsplit(other).path.strip("/") for other in (incoming, outgoing))]
        old, new, left = (find_collections(client, place, location=url) for place in places)
        if old is None or new is None:
            raise MissingIndexError(f"there is no index at {incoming if new is None else url}; nothing was changed")
        if set(old) & set(alias_names(prefix)):
            raise CollectionError(
                f"index {url} was made before indexes had aliases, so nothing can take its place; copy it first: "
                f"visxp index push {neighbour_url(url, 'copy')}, and use that from then on"
            )
        if left is not None and not drop:
            raise CollectionError(
                f"{outgoing} is there already, from an earlier swap; pass --drop to remove both old indexes"
            )
        targets: dict[str, str | None] = {}
        for kind in range(len(KINDS)):
            current, source, target = (alias_names(place)[kind] for place in places)
            targets |= {source: None, current: new[kind], target: None if drop else old[kind]}
        set_aliases(client, targets, location=url)
        for name in (*(old if drop else ()), *(left or ())):
            with translated_errors(url):
                client.delete_collection(name)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot folder: what index it is of, how many videos are done in it, and its size in bytes."""

    info: CollectionInfo
    videos: int
    n_bytes: int


def take_snapshot(url: str, folder: Path, *, server: ServerSettings, progress: Progress) -> Snapshot:
    """Have the server pack an index, and fetch what it packed.

    The ledger is packed first, so that it promises no seconds that are not there.

    Args:
        url: the index; embedded ones have no snapshots.
        folder: is made; must be empty if it is there.
        server: how the server is spoken to.
        progress: told of the bytes fetched.

    Raises:
        CollectionError: If there is no index, it is spread over several nodes, or the server fails.
        ExchangeError: If the folder cannot be written, or a file arrives damaged.
    """
    _require_server(url, instead=f"visxp index export {folder}")
    with closing(open_server_store(url, checkpoint=None, create=None, server=server)) as store:
        info, n_videos = store.info, store.count_videos(DONE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ExchangeError(f"{folder} is not empty; give a new folder for the snapshot")
        with _connected(url, server) as (client, prefix):
            names = find_collections(client, prefix, location=url)
            if names is None:
                raise MissingIndexError(f"there is no index at {url}")
            for name in names:
                _require_one_node(client, name, url)
            files = {
                kind: _fetch_snapshot(name, folder / f"{kind}.snapshot", url, server, progress)
                for kind, name in reversed(list(zip(KINDS, names, strict=True)))
            }
        manifest = {
            "format": SNAPSHOT_FORMAT,
            "version": SNAPSHOT_VERSION,
            "index": info_to_json(info),
            "videos": n_videos,
            "files": files,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))
    except OSError as exc:
        raise ExchangeError(f"snapshot {folder} cannot be written: {exc}; check the disk and its permissions") from exc
    return Snapshot(info, n_videos, sum(file["bytes"] for file in files.values()))


def restore_snapshot(folder: Path, url: str, *, server: ServerSettings, progress: Progress) -> Snapshot:
    """Make an index of a snapshot folder where there is none; cut short, it can be called again.

    Raises:
        CollectionError: If there is an index already, or the server fails.
        ExchangeError: If the folder holds no snapshot, or one that is damaged.
    """
    _require_server(url, instead=f"visxp index import, or visxp index pull URL --index {url}")
    info, n_videos, files = _read_manifest(folder)
    with _connected(url, server) as (client, prefix):
        require_version(client, location=url)
        if find_collections(client, prefix, location=url) is not None:
            raise CollectionError(
                f"there is an index at {url} already; restore into another place, e.g. {neighbour_url(url, 'restored')}"
            )
        names = name_collections(prefix, info.checkpoint)
        for kind, name in zip(KINDS, names, strict=True):
            _send_snapshot(folder / f"{kind}.snapshot", name, url, server, progress, wanted=files[kind])
        set_aliases(client, dict(zip(alias_names(prefix), names, strict=True)), location=url)
    with closing(open_server_store(url, checkpoint=info.checkpoint, create=None, server=server)) as store:
        _require_whole(store, n_videos, url)
    return Snapshot(info, n_videos, sum(file["bytes"] for file in files.values()))


@dataclass(frozen=True)
class Setting:
    """One setting of an index on a server beside what its size needs.

    Attributes:
        name: what.
        wanted: in words.
        found: in words.
        advice: what to do; empty where both agree.
    """

    name: str
    wanted: str
    found: str
    advice: str = ""


def inspect_settings(url: str, *, server: ServerSettings, points: int = 0) -> list[Setting]:
    """Compare the settings of an index's seconds with what its size needs.

    Args:
        url: the index.
        server: how the server is spoken to.
        points: seconds that it is to hold one day; those that it holds count if they are more.

    Raises:
        CollectionError: If there is no index, or the server fails.
    """
    with _connected(url, server) as (client, prefix):
        names = find_collections(client, prefix, location=url)
        if names is None:
            raise MissingIndexError(f"there is no index at {url}")
        with translated_errors(url):
            info = client.get_collection(names[0])
            cluster = client.http.distributed_api.cluster_status().result
    n_nodes = len(cluster.peers) if isinstance(cluster, models.ClusterStatusOneOf1) else 1
    size = max(points, info.points_count or 0)
    change = f"PATCH {url.rstrip('/').removesuffix('/' + prefix)}/collections/{names[0]}"
    return [*_spread(info.config.params, n_nodes), *_memory(info.config, size, change), *_health(info, size, change)]


def _spread(params: models.CollectionParams, n_nodes: int) -> Iterator[Setting]:
    """Shards and replicas for a number of nodes."""
    shards, replicas = params.shard_number or 1, params.replication_factor or 1
    again = "cannot be changed later; copy the index: visxp index push URL"
    fits = shards % n_nodes == 0
    wanted = "1 or more" if n_nodes == 1 else f"a multiple of {n_nodes}, the number of nodes"
    yield Setting("shards", wanted, str(shards), "" if fits else f"{again} --shards {2 * n_nodes}")
    wanted_replicas = min(2, n_nodes)
    lost = "each node that fails takes its seconds away"
    yield Setting(
        "replicas",
        f"{wanted_replicas} or more" if n_nodes > 1 else "1",
        str(replicas),
        "" if replicas >= wanted_replicas else f"{lost}; copy the index: visxp index push URL --replicas 2",
    )


def _memory(config: models.CollectionConfig, size: int, change: str) -> Iterator[Setting]:
    """What lies on the disk and what in memory."""
    vectors = config.params.vectors
    in_memory = [name for name, params in vectors.items() if not params.on_disk] if isinstance(vectors, dict) else []
    is_large = size >= LARGE_POINTS
    wanted = "on disk" if is_large else "anywhere, so few they are"
    body = json.dumps({"vectors": {name: {"on_disk": True} for name in in_memory}})
    found = f"in memory: {', '.join(in_memory)}" if in_memory else "on disk"
    yield Setting("vectors", wanted, found, f"{change} {body}" if in_memory and is_large else "")

    scalar = getattr(config.quantization_config, "scalar", None)
    is_int8 = scalar is not None and scalar.type == models.ScalarType.INT8 and bool(scalar.always_ram)
    body = json.dumps({"quantization_config": {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}})
    found = "int8 in memory" if is_int8 else "none" if config.quantization_config is None else "another kind"
    yield Setting("quantisation", "int8 in memory", found, "" if is_int8 or not is_large else f"{change} {body}")

    on_disk = bool(config.hnsw_config.on_disk)
    body = json.dumps({"hnsw_config": {"on_disk": True}})
    found = f"{'on disk' if on_disk else 'in memory'}, {config.hnsw_config.m} links"
    yield Setting("graphs", wanted, found, f"{change} {body}" if is_large and not on_disk else "")

    payloads_on_disk = bool(config.params.on_disk_payload)
    body = json.dumps({"params": {"on_disk_payload": True}})
    advice = f"{change} {body}" if is_large and not payloads_on_disk else ""
    yield Setting("payloads", wanted, "on disk" if payloads_on_disk else "in memory", advice)


def _health(info: models.CollectionInfo, size: int, change: str) -> Iterator[Setting]:
    """Payload indexes, graphs being built, and the server's own word."""
    found = {key: schema.data_type.value for key, schema in info.payload_schema.items()}
    missing = [key for key, kind in PAYLOAD_INDEXES.items() if found.get(key) != kind]
    fields = ", ".join(f"{key} ({PAYLOAD_INDEXES[key]})" for key in missing)
    yield Setting(
        "payload indexes",
        f"{len(PAYLOAD_INDEXES)}",
        f"{len(PAYLOAD_INDEXES) - len(missing)}",
        f"filters are slow without; PUT {change.removeprefix('PATCH ')}/index for each of {fields}" if missing else "",
    )
    threshold = info.config.optimizer_config.indexing_threshold
    body = json.dumps({"optimizers_config": {"indexing_threshold": INDEXING_THRESHOLD_KILOBYTES}})
    is_off = threshold is not None and (threshold == 0 or threshold > 100 * INDEXING_THRESHOLD_KILOBYTES)
    yield Setting(
        "graphs are built",
        f"from {INDEXING_THRESHOLD_KILOBYTES} kB on",
        "never" if threshold == 0 else f"from {threshold} kB on",
        f"if nothing is being indexed now, an interrupted bulk load left it so: {change} {body}" if is_off else "",
    )
    is_well = info.status in (models.CollectionStatus.GREEN, models.CollectionStatus.YELLOW)
    advice = "" if is_well else f"see the server's log; it says {info.optimizer_status}"
    yield Setting("state", "green", info.status.value, advice)
    yield Setting("seconds", f"room for {size:,}", f"{info.points_count or 0:,}")


def _require_server(url: str, *, instead: str) -> None:
    if not is_url(url):
        raise CollectionError(f"index {url} is embedded; snapshots are of an index on a server; use {instead}")


@contextmanager
def _connected(url: str, server: ServerSettings) -> Iterator[tuple[QdrantClient, str]]:
    client, prefix = connect(url, server)
    try:
        yield client, prefix
    finally:
        client.close()


def _require_one_node(client: QdrantClient, name: str, url: str) -> None:
    with translated_errors(url):
        cluster = client.http.distributed_api.collection_cluster_info(name).result
    if cluster is not None and cluster.remote_shards:
        raise CollectionError(
            f"index {url} is spread over several nodes, each of which snapshots its own shards only; "
            f"use visxp index export, or visxp index push to another place"
        )


def _fetch_snapshot(name: str, target: Path, url: str, server: ServerSettings, progress: Progress) -> dict[str, Any]:
    """Pack one collection, fetch it and remove it from the server; size and SHA-256 of what was fetched."""
    digest, n_bytes = hashlib.sha256(), 0
    with _transfer(url, server) as http:
        answer = http.post(f"/collections/{name}/snapshots", params={"wait": "true"})
        _require_success(answer, url)
        made = models.SnapshotDescription.model_validate(answer.json()["result"])
        place = f"/collections/{name}/snapshots/{made.name}"
        try:
            with http.stream("GET", place) as answer, target.open("xb") as file:
                _require_success(answer, url)
                for block in answer.iter_bytes(BLOCK_BYTES):
                    file.write(block)
                    digest.update(block)
                    n_bytes += len(block)
                    progress(f"fetch {target.name}", n_bytes, max(made.size, n_bytes))
        finally:
            http.delete(place)
    if n_bytes != made.size or (made.checksum and made.checksum != digest.hexdigest()):
        raise ExchangeError(
            f"{target} arrived damaged: {n_bytes} bytes of {made.size}; remove {target.parent} and take it again"
        )
    return {"bytes": n_bytes, "sha256": digest.hexdigest()}


def _send_snapshot(
    file: Path, name: str, url: str, server: ServerSettings, progress: Progress, *, wanted: Mapping[str, Any]
) -> None:
    """Make a collection of one file."""
    try:
        found = _sha256(file)
        if found != wanted["sha256"]:
            raise ExchangeError(f"{file} is damaged: its SHA-256 is {found}, not {wanted['sha256']}; fetch it again")
        progress(f"send {file.name}", 0, int(wanted["bytes"]))
        with _transfer(url, server) as http, file.open("rb") as stream:
            parameters = {"wait": "true", "priority": "snapshot"}
            files = {"snapshot": (file.name, stream, "application/octet-stream")}
            _require_success(http.post(f"/collections/{name}/snapshots/upload", params=parameters, files=files), url)
        progress(f"send {file.name}", int(wanted["bytes"]), int(wanted["bytes"]))
    except OSError as exc:
        raise ExchangeError(f"{file} cannot be read: {exc.strerror or exc}; is {file.parent} a snapshot?") from exc


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _transfer(url: str, server: ServerSettings) -> Iterator[httpx.Client]:
    """A client for bytes, which the ordinary one does not carry; its faults are those of the server."""
    parts = urlsplit(url)
    try:
        with httpx.Client(
            base_url=f"{parts.scheme}://{parts.netloc}",
            headers=request_headers(server),
            timeout=TRANSFER_TIMEOUT_SECONDS,
            **trusted(server),
        ) as http:
            yield http
    except httpx.HTTPError as exc:
        raise CollectionError(
            f"the connection to the Qdrant server at {url} broke while a snapshot was carried ({exc}); try again"
        ) from exc


def _require_success(answer: httpx.Response, url: str) -> None:
    if answer.status_code != httpx.codes.OK:
        said = answer.read().decode(errors="replace")[:500]
        raise CollectionError(f"the Qdrant server at {url} answered with status {answer.status_code}: {said}")


def _read_manifest(folder: Path) -> tuple[CollectionInfo, int, Mapping[str, Mapping[str, Any]]]:
    try:
        data = json.loads((folder / MANIFEST).read_text())
        if (data["format"], data["version"]) != (SNAPSHOT_FORMAT, SNAPSHOT_VERSION):
            raise ValueError(f"its format is {data['format']!r} version {data['version']!r}")
        files = {kind: {"bytes": int(f["bytes"]), "sha256": str(f["sha256"])} for kind, f in data["files"].items()}
        if set(files) != set(KINDS):
            raise ValueError(f"its files are {sorted(files)}")
        return info_from_json(data["index"], location=str(folder)), int(data["videos"]), files
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ExchangeError(
            f"{folder} holds no snapshot that this release reads ({exc}); expected a folder of visxp index snapshot"
        ) from exc


def _require_whole(store: CollectionStore, n_videos: int, url: str) -> None:
    found = store.count_videos(DONE)
    if found != n_videos:
        raise ExchangeError(
            f"index {url} has {found} videos that are done, the snapshot had {n_videos}; it was written to while the "
            f"snapshot was taken: look after it with visxp index verify --repair"
        )
