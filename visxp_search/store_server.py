"""The served store: a Qdrant server or cluster, through its client.

An index is two collections, `visxp_seconds_CHECKPOINT` and `visxp_videos_CHECKPOINT`. They are found by two aliases,
`visxp_seconds` and `visxp_videos`, when the index is opened, so that another index can take its place at one stroke
(`store_admin`) while those who have it open go on with what they opened. What an index says of itself is one point of
fixed id among the videos, written last: so it works on every server version, is copied by snapshots, and marks the
creation as complete.

Vectors, graphs and payloads lie on the server's disk, vectors as int8 in its RAM too; queries preselect by int8 and
rescore with the originals: what Qdrant advises for tens of millions of points. The server builds its HNSW graphs in the
background from 20 MB per segment on, so that rankings of larger indexes are approximate, and waits with them during
bulk loads.
"""

import logging
import re
import ssl
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from visxp_search.errors import CollectionError, MissingIndexError
from visxp_search.store import (
    API_KEY_VARIABLE,
    CA_VARIABLE,
    HIT_KEYS,
    PAYLOAD_INDEXES,
    VIDEO_PAYLOAD_INDEXES,
    CollectionInfo,
    ServerSettings,
    check_info,
    new_info,
)
from visxp_search.store_collection import CollectionStore, StoredPoint, Where, stored_point
from visxp_search.store_json import info_from_json, info_to_json
from visxp_search.store_retries import Retries, RetryPolicy

OLDEST_SERVER = (1, 13)
"""The first release that filters by the presence of a named vector."""
TIMEOUT_SECONDS = 60
RETRY_POLICY = RetryPolicy()

INDEXING_THRESHOLD_KILOBYTES = 20_000
"""Size of one named vector in one segment from which the server builds a graph, as it does by default."""

_INFO_ID = str(uuid.uuid5(uuid.NAMESPACE_URL, "visxp-index"))

logger = logging.getLogger(__name__)


def open_server_store(
    url: str,
    *,
    checkpoint: str | None,
    create: Mapping[str, int] | None,
    server: ServerSettings | None = None,
) -> CollectionStore:
    """Open the index on a Qdrant server, or create it there; see `store.open_store`.

    Args:
        url: `http(s)://host:port`, with a path of one word to tell indexes on one server apart: that of
            `http://host:6333/news` lies behind the aliases `news_visxp_seconds` and `news_visxp_videos`.
        checkpoint: see `open_store`.
        create: see `open_store`.
        server: see `open_store`.

    Raises:
        CollectionError: If no server answers, is not trusted or refuses, there is no index and none is to be created,
            or it is of another checkpoint or schema.
    """
    server = server or ServerSettings.from_environment()
    client, prefix = connect(url, server)
    try:
        return open_client_store(
            client, location=url, prefix=prefix, checkpoint=checkpoint, create=create, server=server
        )
    except BaseException:
        client.close()
        raise


def connect(url: str, server: ServerSettings) -> tuple[QdrantClient, str]:
    """A client for the server of an index, and the word that tells the index apart there; nothing is sent yet.

    Raises:
        CollectionError: If the URL has a path of several words, or there are no certificates in `ca_file`.
    """
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", prefix):
        raise CollectionError(
            f"index {url} has the path {prefix!r}; expected one word of letters, digits, '-' and '_', or none"
        )
    if server.api_key and parts.scheme == "http":
        logger.warning("the API key goes to %s unencrypted; use https outside a trusted network", url)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection", category=UserWarning)
        client = QdrantClient(
            url=f"{parts.scheme}://{parts.netloc}",
            api_key=server.api_key,
            timeout=TIMEOUT_SECONDS,
            check_compatibility=False,  # it only warns; require_version says what to do
            **trusted(server),
        )
    client.http.client.add_middleware(Retries(RETRY_POLICY))
    return client, prefix


def request_headers(server: ServerSettings) -> dict[str, str]:
    """What every request to the server carries."""
    return {"api-key": server.api_key} if server.api_key else {}


def trusted(server: ServerSettings) -> dict[str, Any]:
    """Whose certificates are trusted, as an argument of httpx clients.

    Raises:
        CollectionError: If there are no certificates in `ca_file`.
    """
    if server.ca_file is None:
        return {}
    try:
        return {"verify": ssl.create_default_context(cafile=server.ca_file)}
    except OSError as exc:  # ssl.SSLError too
        raise CollectionError(
            f"{server.ca_file} holds no certificates ({exc.strerror or exc}); set {CA_VARIABLE} to a PEM file of the "
            f"authority that signed the server's certificate"
        ) from exc


def open_client_store(
    client: QdrantClient,
    *,
    location: str,
    checkpoint: str | None,
    create: Mapping[str, int] | None,
    prefix: str = "",
    server: ServerSettings = ServerSettings(),  # noqa: B008 (frozen)
) -> CollectionStore:
    """Open or create the index that a ready client reaches (in tests `QdrantClient(":memory:")`).

    The store owns the client, and closes it.

    Raises:
        CollectionError: See `open_server_store`.
    """
    require_version(client, location=location)
    names = find_collections(client, prefix, location=location)
    if names is None and create is not None:
        names = name_collections(prefix, new_info(checkpoint, create).checkpoint)
    if names is None:
        raise _missing(location)
    seconds, videos = (ServerCollection(client, name, location=location) for name in names)
    info = _read_info(videos, location=location)
    if info is None:
        if create is None:
            raise _missing(location)
        info = _create(seconds, videos, new_info(checkpoint, create), server, location=location)
        if names == name_collections(prefix, info.checkpoint):
            set_aliases(client, dict(zip(alias_names(prefix), names, strict=True)), location=location)
    check_info(info, wanted_checkpoint=checkpoint, wanted_dims=create, location=location)
    return CollectionStore(
        info=info,
        location=location,
        seconds=seconds,
        videos=videos,
        documents=PointDocuments(videos),
        let_go=client.close,
    )


def alias_names(prefix: str) -> tuple[str, str]:
    """The aliases of an index: of its seconds, of its videos."""
    start = f"{prefix}_" if prefix else ""
    return f"{start}visxp_seconds", f"{start}visxp_videos"


def name_collections(prefix: str, checkpoint: str) -> tuple[str, str]:
    """The collections of a new index; who creates the same index at the same time takes the same."""
    seconds, videos = (f"{name}_{re.sub(r'[^A-Za-z0-9_-]', '-', checkpoint)}" for name in alias_names(prefix))
    return seconds, videos


def find_collections(client: QdrantClient, prefix: str, *, location: str) -> tuple[str, str] | None:
    """The collections behind the aliases of an index, or those that bear the names themselves; None if neither is.

    Raises:
        CollectionError: If the server fails.
    """
    with translated_errors(location):
        aliases = {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}
    seconds, videos = alias_names(prefix)
    if seconds in aliases and videos in aliases:
        return aliases[seconds], aliases[videos]
    with translated_errors(location):
        return (seconds, videos) if client.collection_exists(seconds) else None


def set_aliases(client: QdrantClient, targets: Mapping[str, str | None], *, location: str) -> None:
    """Let aliases mean these collections, or none, all at one stroke.

    Raises:
        CollectionError: If the server fails.
    """
    operations: list[models.AliasOperations] = []
    for alias, collection in targets.items():
        operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        if collection is not None:
            new = models.CreateAlias(alias_name=alias, collection_name=collection)
            operations.append(models.CreateAliasOperation(create_alias=new))
    with translated_errors(location):
        client.update_collection_aliases(operations)


def _missing(location: str) -> MissingIndexError:
    return MissingIndexError(f"there is no index at {location}; make one with `visxp index add`, or pass --index")


def _create(
    seconds: "ServerCollection",
    videos: "ServerCollection",
    info: CollectionInfo,
    server: ServerSettings,
    *,
    location: str,
) -> CollectionInfo:
    """Create the index, or join in where another process (a worker of the same run) was faster."""
    try:
        seconds.create(info.dims, PAYLOAD_INDEXES, server)
        videos.create(info.dims, VIDEO_PAYLOAD_INDEXES, server)
    except CollectionError:
        found = _read_info(videos, location=location)
        if found is None:
            raise
        return found
    videos.upsert([StoredPoint(_INFO_ID, {}, {"index": info_to_json(info)})])
    return info


def require_version(client: QdrantClient, *, location: str) -> None:
    """Refuse a server that is too old.

    Raises:
        CollectionError: If it is, or does not answer.
    """
    with translated_errors(location):
        version = client.info().version
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_SERVER:
        raise CollectionError(
            f"the Qdrant server at {location} is version {version}; expected {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or "
            f"newer: upgrade the server"
        )


def _read_info(videos: "ServerCollection", *, location: str) -> CollectionInfo | None:
    if not videos.exists():
        return None
    found = videos.retrieve([_INFO_ID])
    return info_from_json(found[0].payload.get("index"), location=location) if found else None


@contextmanager
def translated_errors(location: str) -> Iterator[None]:
    """Translate the client's errors; its local mode raises built-in ones. Only calls of the client stand inside."""
    try:
        yield
    except UnexpectedResponse as exc:
        if exc.status_code in (401, 403):
            raise CollectionError(
                f"the Qdrant server at {location} refused the request (status {exc.status_code}); set its API key in "
                f"the environment variable {API_KEY_VARIABLE}"
            ) from exc
        if exc.status_code == 404 and b"Collection" in exc.content:
            raise CollectionError(
                f"a collection of index {location} is not on the server any more; if the index was swapped or removed "
                f"meanwhile, open it again"
            ) from exc
        raise CollectionError(
            f"the Qdrant server at {location} answered with status {exc.status_code}: "
            f"{exc.content.decode(errors='replace')[:500]}; check that this is the URL of a Qdrant server"
        ) from exc
    except ResponseHandlingException as exc:
        raise CollectionError(f"no Qdrant server answers at {location} ({exc}); {_advise(exc)}") from exc
    except (ApiException, QdrantException, ValueError, KeyError, RuntimeError) as exc:
        raise CollectionError(
            f"the Qdrant server at {location} failed: {exc}; check that this is the URL of a Qdrant server"
        ) from exc


def _advise(fault: ResponseHandlingException) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(fault):
        return f"set {CA_VARIABLE} to a PEM file of the authority that signed its certificate"
    return "check that it runs, and the host and port of the URL (the REST port is usually 6333)"


class ServerCollection:
    """One collection of a Qdrant server, as a `store_collection.Collection`.

    Args:
        client: reaches the server.
        name: of the collection.
        location: URL of the index, for messages.
    """

    def __init__(self, client: QdrantClient, name: str, *, location: str):
        self._client = client
        self._name = name
        self._location = location

    def exists(self) -> bool:
        """Whether the server has the collection."""
        with translated_errors(self._location):
            return self._client.collection_exists(self._name)

    def create(self, dims: Mapping[str, int], indexes: Mapping[str, str], server: ServerSettings) -> None:
        """Create the collection and its payload indexes, or complete a creation that was cut short.

        Raises:
            CollectionError: If a collection of this name holds points, or vectors of other lengths.
        """
        if not self.exists():
            self._create_collection(dims, server)
        with translated_errors(self._location):
            vectors = self._client.get_collection(self._name).config.params.vectors
        found = {name: params.size for name, params in vectors.items()} if isinstance(vectors, dict) else {}
        if found != dict(dims) or self.count({}) > 0:
            raise CollectionError(
                f"collection {self._name} at {self._location} is not part of a visxp index; nothing was changed; "
                f"delete or rename it, or tell the index apart by a path: {self._location.rstrip('/')}/NAME"
            )
        for key, kind in indexes.items():
            with translated_errors(self._location):
                self._client.create_payload_index(self._name, key, models.PayloadSchemaType(kind), wait=True)

    def _create_collection(self, dims: Mapping[str, int], server: ServerSettings) -> None:
        vectors = {
            name: models.VectorParams(size=dim, distance=models.Distance.COSINE, on_disk=True)
            for name, dim in dims.items()
        }
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        try:
            with translated_errors(self._location):
                self._client.create_collection(
                    self._name,
                    vectors_config=vectors,
                    quantization_config=models.ScalarQuantization(scalar=int8),
                    hnsw_config=models.HnswConfigDiff(on_disk=True),
                    optimizers_config=models.OptimizersConfigDiff(indexing_threshold=INDEXING_THRESHOLD_KILOBYTES),
                    on_disk_payload=True,
                    shard_number=server.shards,
                    replication_factor=server.replicas,
                )
        except CollectionError:
            if not self.exists():  # otherwise another process was faster, which is as good
                raise

    def upsert(self, points: Sequence[StoredPoint]) -> None:
        """See `Collection.upsert`."""
        structs = [
            models.PointStruct(
                id=p.point_id, vector={name: v.tolist() for name, v in p.vectors.items()}, payload=dict(p.payload)
            )
            for p in points
        ]
        with translated_errors(self._location):
            self._client.upsert(self._name, structs, wait=True)

    def set_payload(self, point_id: str, values: Mapping[str, Any]) -> None:
        """See `Collection.set_payload`."""
        with translated_errors(self._location):
            self._client.set_payload(self._name, dict(values), points=[point_id], wait=True)

    def set_payloads(self, updates: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """See `Collection.set_payloads`."""
        operations = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=dict(values), points=[point_id]))
            for point_id, values in updates
        ]
        with translated_errors(self._location):
            self._client.batch_update_points(self._name, operations, wait=True)

    def delete(self, where: Where) -> None:
        """See `Collection.delete`."""
        with translated_errors(self._location):
            self._client.delete(self._name, models.FilterSelector(filter=_server_filter(where)), wait=True)

    def search(
        self, vector: str, embeddings: npt.NDArray[np.float32], *, limit: int, where: Where
    ) -> list[list[tuple[float, Mapping[str, Any]]]]:
        """See `Collection.search`."""
        wanted = _server_filter(where)
        rescored = models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0))
        requests = [
            models.QueryRequest(
                query=row.tolist(),
                using=vector,
                filter=wanted,
                params=rescored,
                limit=limit,
                with_payload=list(HIT_KEYS),
            )
            for row in embeddings
        ]
        with translated_errors(self._location):
            found = self._client.query_batch_points(self._name, requests)
        return [[(point.score, point.payload or {}) for point in response.points] for response in found]

    def expect_search(self, vector: str) -> None:
        """See `Collection.expect_search`; a server keeps in memory what it searches."""

    def scroll(
        self, where: Where, *, with_vectors: Sequence[str], limit: int, after: Any
    ) -> tuple[list[StoredPoint], Any]:
        """See `Collection.scroll`."""
        records, after = self._scroll(where, payload=True, with_vectors=with_vectors, limit=limit, after=after)
        return [stored_point(r.id, r.vector, r.payload) for r in records], after

    def scroll_payloads(
        self, where: Where, *, without: Sequence[str], limit: int, after: Any
    ) -> tuple[list[Mapping[str, Any]], Any]:
        """See `Collection.scroll_payloads`."""
        payload = models.PayloadSelectorExclude(exclude=list(without)) if without else True
        records, after = self._scroll(where, payload=payload, with_vectors=(), limit=limit, after=after)
        return [r.payload or {} for r in records], after

    def _scroll(
        self,
        where: Where,
        *,
        payload: "bool | models.PayloadSelectorExclude",
        with_vectors: Sequence[str],
        limit: int,
        after: Any,
    ) -> "tuple[list[models.Record], Any]":
        with translated_errors(self._location):
            return self._client.scroll(
                self._name,
                scroll_filter=_server_filter(where),
                offset=after,
                limit=limit,
                with_payload=payload,
                with_vectors=list(with_vectors),
            )

    def retrieve(self, point_ids: Sequence[str], *, with_vectors: Sequence[str] = ()) -> list[StoredPoint]:
        """See `Collection.retrieve`."""
        if not point_ids:
            return []
        with translated_errors(self._location):
            records = self._client.retrieve(
                self._name, list(point_ids), with_payload=True, with_vectors=list(with_vectors)
            )
        return [stored_point(r.id, r.vector, r.payload) for r in records]

    def count(self, where: Where) -> int:
        """See `Collection.count`."""
        with translated_errors(self._location):
            return self._client.count(self._name, count_filter=_server_filter(where), exact=True).count

    def facet(self, key: str, where: Where, *, limit: int) -> dict[Any, int]:
        """See `Collection.facet`."""
        with translated_errors(self._location):
            found = self._client.facet(self._name, key, facet_filter=_server_filter(where), limit=limit, exact=True)
        return {_as_stored(hit.value): hit.count for hit in found.hits}

    @contextmanager
    def bulk_load(self) -> Iterator[None]:
        """See `Collection.bulk_load`: no graphs are built meanwhile.

        A threshold of 0 that is found was left by a process that was killed, or is that of one which is loading too;
        in both cases ours is set afterwards.
        """
        with translated_errors(self._location):
            found = self._client.get_collection(self._name).config.optimizer_config.indexing_threshold
        self._set_indexing_threshold(0)
        try:
            yield
        finally:
            self._set_indexing_threshold(found or INDEXING_THRESHOLD_KILOBYTES)

    def _set_indexing_threshold(self, kilobytes: int) -> None:
        threshold = models.OptimizersConfigDiff(indexing_threshold=kilobytes)
        with translated_errors(self._location):
            self._client.update_collection(self._name, optimizers_config=threshold)

    def flush(self) -> None:
        """Nothing to do: every write waits until the server has it in its log and applied."""

    def optimize(self) -> None:
        """Nothing to do: the server optimises in the background."""


class PointDocuments:
    """Documents as points of fixed id in the ledger's collection, as `store_collection.Documents`.

    A listing of the ledger asks for a status, which they lack. A server accepts 32 MB a request: 3000 clusters of 512
    numbers are 8 MB.

    Args:
        videos: the ledger's collection.
    """

    def __init__(self, videos: ServerCollection):
        self._videos = videos

    def read(self, name: str) -> str | None:
        """See `Documents.read`."""
        found = self._videos.retrieve([_document_id(name)])
        return str(found[0].payload["document"]) if found else None

    def write(self, name: str, text: str) -> None:
        """See `Documents.write`."""
        self._videos.upsert([StoredPoint(_document_id(name), {}, {"document": text})])


def _document_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"visxp-document/{name}"))


def _as_stored(value: Any) -> Any:
    """A facet's value. The client's local mode puts hyphens into 32 hexadecimal digits, which our video ids are."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
        return value.replace("-", "")
    return value


def _server_filter(where: Where) -> models.Filter:
    return models.Filter.model_validate(where)
