"""One contract for all stores: Qdrant Edge, the client's local mode, the same behind REST and a Qdrant server.

The server is the one at VISXP_QDRANT_URL; its tests make collections of their own and remove them.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from tests.qdrant_loopback import LOCAL_MODE, LoopbackQdrant
from visxp_search import store_collection, store_edge, store_edge_files, store_server
from visxp_search.errors import CollectionError
from visxp_search.store import (
    API_KEY_VARIABLE,
    DONE,
    FAILED,
    PENDING,
    CollectionInfo,
    Filter,
    SecondPoint,
    Store,
    VideoRecord,
    make_payload,
    open_store,
    video_point_id,
)
from visxp_search.store_edge import open_edge_store
from visxp_search.store_server import open_client_store, open_server_store

pytestmark = LOCAL_MODE

DIMS = {"visual": 4, "audio": 3, "joint": 2}
SERVER_URL = os.environ.get("VISXP_QDRANT_URL")
Open = Callable[..., Store]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, in memory where there is room: making an Edge index syncs to the disk a hundred times."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 2**30:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="visxp-test-") as name:
        yield Path(name)


@pytest.fixture(
    params=[
        "edge",
        "memory",
        "loopback",
        pytest.param(
            "server",
            marks=[
                pytest.mark.server,
                pytest.mark.skipif(
                    SERVER_URL is None, reason="needs a Qdrant server; give its URL in VISXP_QDRANT_URL"
                ),
            ],
        ),
    ]
)
def opened(request: pytest.FixtureRequest, folder: Path) -> Iterator[Open]:
    """A function that opens one and the same index of this test, again and again; whatever it opened is closed."""
    stores: list[Store] = []
    loopback = LoopbackQdrant() if request.param == "loopback" else None
    client = QdrantClient(":memory:")
    close_client, client.close = client.close, lambda **_: None  # type: ignore[method-assign]
    prefix = f"test{uuid.uuid4().hex}"

    def open_again(checkpoint: str | None = "c1", create: dict[str, int] | None = DIMS) -> Store:
        if request.param == "edge":
            store: Store = open_edge_store(folder / "index", checkpoint=checkpoint, create=create)
        elif request.param == "memory":
            store = open_client_store(client, location="memory", checkpoint=checkpoint, create=create)
        else:
            url = loopback.url if loopback is not None else SERVER_URL
            store = open_server_store(f"{url}/{prefix}", checkpoint=checkpoint, create=create)
        stores.append(store)
        return store

    yield open_again

    for store in stores:
        store.close()
    close_client()
    if loopback is not None:
        loopback.stop()
    if request.param == "server":
        with closing(QdrantClient(url=SERVER_URL)) as remote:
            for collection in remote.get_collections().collections:
                if collection.name.startswith(prefix):
                    remote.delete_collection(collection.name)


@pytest.fixture
def store(opened: Open) -> Store:
    """A new, empty index."""
    return opened()


def unit(*values: float) -> npt.NDArray[np.float32]:
    """Values scaled to norm 1."""
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def point(
    video_id: str = "v1", second: int = 0, *, flags: Sequence[str] = (), path: Sequence[str] = (), **kw: Any
) -> SecondPoint:
    """A second with the vectors and clusters given by name."""
    vectors = {name: kw.pop(name) for name in DIMS if name in kw}
    payload = make_payload(
        video_id=video_id, second=second, has_audio="audio" in vectors, flags=flags, checkpoint="c1", path=path, **kw
    )
    return SecondPoint(video_id, second, vectors, payload)


def assert_same_points(found: Sequence[SecondPoint], expected: Sequence[SecondPoint]) -> None:
    """Same ids, payloads and vectors, in any order."""

    def by_id(points: Sequence[SecondPoint]) -> dict[tuple[str, int], SecondPoint]:
        assert len({(p.video_id, p.second) for p in points}) == len(points)
        return {(p.video_id, p.second): p for p in points}

    assert by_id(found).keys() == by_id(expected).keys()
    for key, wanted in by_id(expected).items():
        got = by_id(found)[key]
        assert got.payload == wanted.payload
        assert got.vectors.keys() == wanted.vectors.keys()
        for name, vector in wanted.vectors.items():
            np.testing.assert_allclose(got.vectors[name], vector, atol=1e-6)
            assert got.vectors[name].dtype == np.float32


# --- seconds -----------------------------------------------------------------------------------------------------

SUBSETS: list[dict[str, Any]] = [
    {},
    {"visual": unit(1, 2, 3, 4)},
    {"audio": unit(1, 0, -1)},
    {"visual": unit(1, 0, 0, 0), "joint": unit(1, 1)},
    {"visual": unit(0, 1, 0, 0), "audio": unit(1, 1, 1), "joint": unit(0, 1)},
]


def test_points_with_any_subset_of_vectors_come_back(store: Store) -> None:
    """What is stored is what is read: payload, and exactly the vectors that a second has."""
    points = [
        point("v1", i, flags=["black"] * (i % 2), path=["r", "r/1"], cluster=i, confidence=0.5, **vectors)
        for i, vectors in enumerate(SUBSETS)
    ]
    store.upsert_seconds(points)
    assert_same_points(list(store.seconds(with_vectors=tuple(DIMS))), points)
    assert store.seconds_of("v1", with_vectors=["audio"])[4].vectors.keys() == {"audio"}
    assert all(not p.vectors for p in store.seconds())


def test_storing_twice_changes_nothing(store: Store) -> None:
    """A second upsert of the same points leaves the same index."""
    points = [point("v1", i, cluster=i, visual=unit(1, i, 0, 0)) for i in range(5)]
    store.upsert_seconds(points)
    store.upsert_seconds(points)
    assert_same_points(list(store.seconds(with_vectors=["visual"])), points)


def test_many_payloads_are_merged_at_once(store: Store) -> None:
    """Each second gets its own values and keeps its other ones, its vectors and its neighbours their payload."""
    n_points = 2 * store_collection.PAYLOAD_BATCH // 100 + 3
    store.upsert_seconds([point("v1", i, visual=unit(1, i, 0, 0), confidence=0.5) for i in range(n_points)])
    store.set_payloads([("v1", i, {"cluster": i % 7, "path": ["b0", f"c{i % 7}"]}) for i in range(1, n_points)])
    found = store.seconds_of("v1", with_vectors=["visual"])
    assert "cluster" not in found[0].payload
    assert [p.payload["cluster"] for p in found[1:]] == [i % 7 for i in range(1, n_points)]
    assert all(p.payload["confidence"] == 0.5 and "visual" in p.vectors for p in found)
    assert (
        store.count(Filter(branch="c3"))
        == store.count(Filter(clusters=(3,)))
        == sum(i % 7 == 3 for i in range(1, n_points))
    )
    store.set_payloads([])


def test_bulk_payloads_are_refused_where_single_ones_are(store: Store) -> None:
    """Identity keys set nothing at all, and a second that is not stored is named."""
    store.upsert_seconds([point("v1", 0)])
    with pytest.raises(ValueError, match="second"):
        store.set_payloads([("v1", 0, {"cluster": 1}), ("v1", 0, {"second": 3})])
    assert "cluster" not in store.seconds_of("v1")[0].payload
    if "memory" not in store.location and "127.0.0.1" not in store.location:  # the client's local mode ignores such ids
        with pytest.raises(CollectionError, match="second 9 of video v1 is not stored"):
            store.set_payloads([("v1", 9, {"cluster": 1})])


def test_documents_are_kept_with_the_index(opened: Open) -> None:
    """A document is read back after opening again, replaced whole, and no video of the ledger."""
    store = opened()
    assert store.read_document("clusters") is None
    store.write_document("clusters", {"a": 1, "names": {"c1": "Ünïcode"}})
    store.write_document("clusters", {"names": {"c1": "Ünïcode"}})
    store.close()
    again = opened()
    assert again.read_document("clusters") == {"names": {"c1": "Ünïcode"}}
    assert list(again.videos()) == []
    assert again.count_videos() == 0
    with pytest.raises(ValueError, match="unknown"):
        again.read_document("index")


def test_upsert_replaces_a_point_whole(store: Store) -> None:
    """Vectors and payload keys that the new version of a second lacks are gone."""
    store.upsert_seconds([point("v1", 0, cluster=3, visual=unit(1, 0, 0, 0), audio=unit(1, 0, 0))])
    new = point("v1", 0, audio=unit(0, 1, 0))
    store.upsert_seconds([new])
    assert_same_points(list(store.seconds(with_vectors=tuple(DIMS))), [new])
    assert store.query("visual", unit(1, 0, 0, 0)[None], top=5) == [[]]


@pytest.mark.parametrize("page", [1, 3, 7, 100])
def test_seconds_are_streamed_completely_at_any_page_size(store: Store, page: int) -> None:
    """Pages neither lose nor repeat a second, and the order is the same every time."""
    store.upsert_seconds([point(f"v{i % 3}", i) for i in range(7)])
    found = [(p.video_id, p.second) for p in store.seconds(page=page)]
    assert sorted(found) == sorted((f"v{i % 3}", i) for i in range(7))
    assert found == [(p.video_id, p.second) for p in store.seconds(page=page)]


def test_more_points_than_one_batch(store: Store) -> None:
    """An upsert larger than one write to the engine stores every point, and they come back sorted by second."""
    n = 2 * store_collection.UPSERT_BATCH + 1
    store.upsert_seconds([point("v1", second) for second in reversed(range(n))])
    assert [p.second for p in store.seconds_of("v1")] == list(range(n))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"visual": np.full(4, np.nan, dtype=np.float32)}, "norm nan"),
        ({"visual": np.array([np.inf, 0, 0, 0], dtype=np.float32)}, "norm inf"),
        ({"visual": np.zeros(4, dtype=np.float32)}, r"norm 0\.0"),
        ({"visual": np.array([1, 1, 0, 0], dtype=np.float32)}, r"norm 1\.41"),
        ({"visual": unit(1, 0, 0)}, r"shape \(3,\); expected \(4,\)"),
        ({"smell": unit(1, 0, 0)}, "'smell' is unknown"),
    ],
)
def test_vectors_that_would_poison_the_index_are_refused(
    store: Store, vectors: dict[str, npt.NDArray[np.float32]], message: str
) -> None:
    """One bad vector refuses the whole call, for seconds and for videos, and nothing is stored."""
    good = point("v1", 0, visual=unit(1, 0, 0, 0))
    with pytest.raises(ValueError, match=message):
        store.upsert_seconds([good, SecondPoint("v1", 1, vectors, good.payload)])
    with pytest.raises(ValueError, match=message):
        store.upsert_videos([VideoRecord("v1", ("/a.mp4",), vectors=vectors)])
    assert store.count() == 0
    assert list(store.videos()) == []


def test_set_payload_merges(store: Store) -> None:
    """Values are added or replaced, everything else stays, and filters see them."""
    before = point("v1", 7, cluster=1, flags=["black"], visual=unit(1, 0, 0, 0))
    store.upsert_seconds([before, point("v1", 8, cluster=1)])
    store.set_payload("v1", 7, {"cluster": 2, "path": ["r", "r/2"]})
    after = replace(before, payload={**before.payload, "cluster": 2, "path": ["r", "r/2"]})
    assert_same_points(list(store.seconds(Filter(clusters=(2,)), with_vectors=["visual"])), [after])
    assert store.count(Filter(clusters=(1,))) == 1


def test_set_payload_refuses_what_it_cannot_do(store: Store) -> None:
    """A second that is not stored and a change of identity are errors."""
    store.upsert_seconds([point("v1", 0)])
    with pytest.raises(CollectionError, match="second 1 of video v1 is not stored in index"):
        store.set_payload("v1", 1, {"cluster": 2})
    with pytest.raises(ValueError, match=r"\['second'\] identify"):
        store.set_payload("v1", 0, {"second": 2, "cluster": 1})
    assert store.count() == 1


def test_delete_seconds_removes_one_video(store: Store) -> None:
    """All seconds of the video go, the other videos stay."""
    store.upsert_seconds([point(video, s, visual=unit(1, 0, 0, 0)) for video in ("v1", "v2") for s in range(3)])
    store.delete_seconds("v1")
    store.delete_seconds("never stored")
    assert {p.video_id for p in store.seconds()} == {"v2"}
    assert {hit.video_id for hit in store.query("visual", unit(1, 0, 0, 0)[None], top=9)[0]} == {"v2"}


# --- queries, against a slow and obvious reference ---------------------------------------------------------------


def passes(p: SecondPoint, where: Filter) -> bool:
    """What `Filter` says, in plain Python."""
    cluster = p.payload.get("cluster")
    return (
        (where.video_ids is None or p.video_id in where.video_ids)
        and p.video_id not in where.not_video_ids
        and (where.clusters is None or cluster in where.clusters)
        and cluster not in where.not_clusters
        and (where.branch is None or where.branch in p.payload["path"])
        and all(flag in p.payload["flags"] for flag in where.flags)
        and not any(flag in p.payload["flags"] for flag in where.not_flags)
        and (where.seconds is None or where.seconds[0] <= p.second < where.seconds[1])
        and (where.has_vector is None or where.has_vector in p.vectors)
    )


def reference_query(
    points: Sequence[SecondPoint], vector: str, query: npt.NDArray[np.float32], *, top: int, where: Filter
) -> list[tuple[float, str, int]]:
    """(score, video_id, second) of the best points, in the order that the contract wants."""
    found = []
    for p in points:
        if vector in p.vectors and passes(p, where):
            a, b = p.vectors[vector].astype(float), query.astype(float)
            found.append((round(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 6), p.video_id, p.second))
    return sorted(found, key=lambda hit: (-hit[0], *hit[1:]))[:top]


VIDEOS, FLAGS, PATHS = ("v1", "v2", "v3"), ("black", "silent", "static"), ((), ("r",), ("r", "r/1"), ("r", "r/2"))


def vectors_of(dim: int) -> st.SearchStrategy[npt.NDArray[np.float32]]:
    """Directions of a small grid: many equal scores, and none that differ by rounding only."""
    return st.lists(st.integers(-1, 1), min_size=dim, max_size=dim).filter(any).map(lambda values: unit(*values))


@st.composite
def seconds_with_ties(draw: st.DrawFn) -> list[SecondPoint]:
    """A few seconds of three videos, with any subset of vectors and payload values."""
    keys = draw(st.lists(st.tuples(st.sampled_from(VIDEOS), st.integers(0, 9)), max_size=25, unique=True))
    return [
        point(
            video_id,
            second,
            flags=draw(st.lists(st.sampled_from(FLAGS), unique=True)),
            path=draw(st.sampled_from(PATHS)),
            cluster=draw(st.none() | st.integers(0, 3)),
            **{name: draw(vectors_of(DIMS[name])) for name in draw(st.sets(st.sampled_from(list(DIMS))))},
        )
        for video_id, second in keys
    ]


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Tuples of up to two values."""
    return st.lists(values, max_size=2).map(tuple)


FILTERS = st.builds(
    Filter,
    video_ids=st.none() | some(st.sampled_from((*VIDEOS, "other"))),
    not_video_ids=some(st.sampled_from(VIDEOS)),
    clusters=st.none() | some(st.integers(0, 4)),
    not_clusters=some(st.integers(0, 4)),
    branch=st.none() | st.sampled_from(("r", "r/1", "other")),
    flags=some(st.sampled_from(FLAGS)),
    not_flags=some(st.sampled_from(FLAGS)),
    seconds=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 10)),
    has_vector=st.none() | st.sampled_from(list(DIMS)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    points=seconds_with_ties(),
    where=FILTERS,
    vector=st.sampled_from(list(DIMS)),
    top=st.integers(0, 8),
    data=st.data(),
)
def test_reads_agree_with_the_reference(
    store: Store, points: list[SecondPoint], where: Filter, vector: str, top: int, data: st.DataObject
) -> None:
    """Query, scroll, count and facet give what a loop over all points gives, for any data and any filter."""
    for video_id in VIDEOS:
        store.delete_seconds(video_id)
    store.upsert_seconds(points)
    queries = data.draw(st.lists(vectors_of(DIMS[vector]), min_size=1, max_size=3))
    matching = [p for p in points if passes(p, where)]

    found = store.query(vector, np.stack(queries), top=top, where=where)
    got = [[(hit.score, hit.video_id, hit.second) for hit in row] for row in found]
    assert got == [reference_query(points, vector, query, top=top, where=where) for query in queries]

    assert_same_points(list(store.seconds(where, with_vectors=tuple(DIMS))), matching)
    assert store.count(where) == len(matching)
    flags = [flag for p in matching for flag in p.payload["flags"]]
    assert store.facet("flags", where) == {flag: flags.count(flag) for flag in set(flags)}


ONE_FIELD: list[Filter] = [
    Filter(),
    Filter(video_ids=("v1", "v3")),
    Filter(video_ids=()),
    Filter(not_video_ids=("v1",)),
    Filter(clusters=(0, 2)),
    Filter(clusters=()),
    Filter(not_clusters=(1, 2)),
    Filter(branch="r/1"),
    Filter(flags=("black",)),
    Filter(flags=("black", "static")),
    Filter(not_flags=("silent", "static")),
    Filter(seconds=(3, 5)),
    Filter(seconds=(5, 5)),
    Filter(has_vector="audio"),
]


@pytest.mark.parametrize("where", ONE_FIELD, ids=repr)
def test_each_field_of_a_filter(store: Store, where: Filter) -> None:
    """Every field alone selects what its description says."""
    points = [
        point(
            VIDEOS[i % 3],
            i // 3,
            flags=FLAGS[: i % 4],
            path=PATHS[i % 4],
            cluster=[None, 0, 1, 2, 3][i % 5],
            **SUBSETS[i % 5],
        )
        for i in range(24)
    ]
    store.upsert_seconds(points)
    query = unit(1, 2, -1, 1)
    got = [(hit.score, hit.video_id, hit.second) for hit in store.query("visual", query[None], top=50, where=where)[0]]
    assert got == reference_query(points, "visual", query, top=50, where=where)
    assert store.count(where) == sum(passes(p, where) for p in points)


def test_query_of_many_rows_over_many_points(store: Store) -> None:
    """Scores are cosine similarities to 1e-5, each row of a batch is as if asked alone, and optimizing changes none."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((800, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store.upsert_seconds([point("v1", second, visual=v) for second, v in enumerate(vectors)])
    queries = 3 * rng.standard_normal((5, 4)).astype(np.float32)
    rows = store.query("visual", queries, top=50)
    for query, row in zip(queries, rows, strict=True):
        exact = vectors @ (query / np.linalg.norm(query))
        np.testing.assert_allclose([hit.score for hit in row], np.sort(exact)[::-1][:50], atol=1e-5)
        np.testing.assert_allclose([exact[hit.second] for hit in row], [hit.score for hit in row], atol=1e-5)
        assert store.query("visual", query[None], top=50) == [row]
    store.optimize()
    assert store.query("visual", queries, top=50) == rows


def test_ties_beyond_the_cut_are_broken_by_video_and_second(store: Store) -> None:
    """Of a hundred equal seconds the first by (video_id, second) are returned, whatever the engine prefers."""
    same = [point(f"v{i % 10}", i // 10, visual=unit(1, 1, 0, 0)) for i in range(100)]
    random.Random(0).shuffle(same)
    store.upsert_seconds([*same, point("best", 0, visual=unit(1, 0, 0, 0))])
    row = store.query("visual", unit(1, 0, 0, 0)[None], top=13)[0]
    assert [(hit.video_id, hit.second) for hit in row] == [
        ("best", 0),
        *(("v0", second) for second in range(10)),
        ("v1", 0),
        ("v1", 1),
    ]


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((1, 3), dtype=np.float32), r"shape \(1, 3\); expected \(Q, 4\)"),
        (np.ones(4, dtype=np.float32), r"shape \(4,\)"),
        (np.zeros((1, 4), dtype=np.float32), r"embedding 0 has norm 0\.0"),
        (np.array([[1, 0, 0, 0], [np.nan, 0, 0, 0]], dtype=np.float32), "embedding 1 has norm nan"),
    ],
)
def test_queries_without_a_direction_are_refused(
    store: Store, embeddings: npt.NDArray[np.float32], message: str
) -> None:
    """A query of a wrong shape, a zero vector or NaN is an error of the caller, not an arbitrary ranking."""
    with pytest.raises(ValueError, match=message):
        store.query("visual", embeddings, top=1)


def test_unknown_names_are_refused(store: Store) -> None:
    """A vector or facet key that the schema does not have is an error, not an empty answer."""
    with pytest.raises(ValueError, match="'smell' is unknown"):
        store.query("smell", unit(1, 0)[None], top=1)
    with pytest.raises(ValueError, match="'smell' is unknown"):
        list(store.seconds(with_vectors=["smell"]))
    with pytest.raises(ValueError, match="'smell' is unknown"):
        store.count(Filter(has_vector="smell"))
    with pytest.raises(ValueError, match="'confidence' is not indexed"):
        store.facet("confidence")


def test_facets_count_every_kind_of_value(store: Store) -> None:
    """Integers, booleans and members of lists are counted exactly, the most frequent first; a limit keeps those."""
    store.upsert_seconds(
        [point("v1", i, cluster=min(i, 2), flags=FLAGS[: i % 3], audio=unit(1, 0, 0)) for i in range(6)]
        + [point("v2", 0, path=["r", "r/1"])]
    )
    assert list(store.facet("cluster").items()) == [(2, 4), (0, 1), (1, 1)]
    assert store.facet("has_audio") == {True: 6, False: 1}
    assert store.facet("flags") == {"black": 4, "silent": 2}
    assert store.facet("path") == {"r": 1, "r/1": 1}
    assert store.facet("video_id", Filter(seconds=(0, 2))) == {"v1": 2, "v2": 1}
    assert store.facet("cluster", limit=1) == {2: 4}
    assert store.facet("cluster_visual") == {}


def test_facets_keep_the_form_of_video_ids(store: Store) -> None:
    """Ids of 32 hexadecimal digits, and those of files that could not be read, are counted as they are stored."""
    ids = {"4a67b8d6d064f909d0fa24f27ed5d81c": 2, "path-4a67b8d6d064f909d0fa24f27ed5": 1}
    store.upsert_seconds([point(video_id, second) for video_id, n in ids.items() for second in range(n)])
    assert store.facet("video_id") == ids


# --- the ledger --------------------------------------------------------------------------------------------------

FULL = VideoRecord(
    "v1",
    ("/media/a.b/Één film.mp4", "/backup/a [1].mp4"),
    status=FAILED,
    kind="audio",
    duration_seconds=12.5,
    seconds_expected=13,
    seconds_done=7,
    checkpoint="c1",
    error="no such frame; try again",
    tries=2,
    stats={"/media/a.b/Één film.mp4": [2**40, 1_700_000_000_123_456_789]},
    facts={"codecs": ["h264", "aac"], "fps": 29.97, "size": {"width": 1920, "height": 1080}, "rotation": None},
    vectors={"visual": unit(1, 2, 0, 0), "joint": unit(1, 1)},
)


def test_ledger_entries_come_back(store: Store) -> None:
    """Every field but the vectors is read as it was written, one by one, all, and by status."""
    other = VideoRecord("v2", ("/b.mp4",))
    store.upsert_videos([FULL, other])
    assert store.video("v1") == replace(FULL, vectors={})
    assert store.video("none") is None
    assert sorted(store.videos(), key=lambda r: r.video_id) == [replace(FULL, vectors={}), other]
    assert [r.video_id for r in store.videos(FAILED)] == ["v1"]
    assert [r.video_id for r in store.videos(PENDING)] == ["v2"]
    assert list(store.videos(DONE)) == []


def test_brief_entries_lack_what_a_listing_does_not_show(store: Store) -> None:
    """Brief entries are the whole ones without stats and facts."""
    record = VideoRecord("v1", ("/a.mp4",), status=FAILED, error="torn", stats={"/a.mp4": [1, 2]}, facts={"width": 3})
    store.upsert_videos([record])
    assert list(store.videos()) == [record]
    assert list(store.videos(brief=True)) == [replace(record, stats={}, facts={})]


def test_paths_that_are_not_text_come_back(store: Store) -> None:
    """A path with undecodable bytes is kept exactly, so that its file can be opened again."""
    odd = os.fsdecode(b"/media/caf\xe9 100%25.mp4")
    store.upsert_videos([VideoRecord("v1", (odd, "/plain%20.mp4"), stats={odd: [1, 2]}, error=f"cannot read {odd}")])
    found = store.video("v1")
    assert found is not None
    assert found.paths == (odd, "/plain%20.mp4")
    assert found.stats == {odd: [1, 2]}
    assert found.error == r"cannot read /media/caf\udce9 100%25.mp4"


def test_writing_an_entry_again_keeps_its_vectors(store: Store) -> None:
    """An entry that was read (without vectors) and is written with another status still has its mean vectors."""
    store.upsert_videos([FULL])
    found = store.video("v1")
    assert found is not None
    store.upsert_videos([replace(found, status=DONE)])
    videos: store_collection.Collection = store._videos  # type: ignore[attr-defined]
    kept = videos.retrieve([video_point_id("v1")], with_vectors=["visual", "joint"])[0].vectors
    np.testing.assert_allclose(kept["visual"], FULL.vectors["visual"], atol=1e-6)
    assert kept.keys() == FULL.vectors.keys()
    assert [r.status for r in store.videos()] == [DONE]


def test_an_unknown_status_is_refused(store: Store) -> None:
    """A status that no listing would show cannot be written."""
    with pytest.raises(ValueError, match="status 'dnoe' of video v1 unknown"):
        store.upsert_videos([VideoRecord("v1", (), status="dnoe")])


def test_delete_video_removes_entry_and_seconds(store: Store) -> None:
    """Nothing of the video is left, nothing of the others is touched."""
    store.upsert_videos([FULL, VideoRecord("v2", ("/b.mp4",))])
    store.upsert_seconds([point("v1", 0), point("v2", 0)])
    store.delete_video("v1")
    store.delete_video("never stored")
    assert [r.video_id for r in store.videos()] == ["v2"]
    assert [p.video_id for p in store.seconds()] == ["v2"]


# --- opening -----------------------------------------------------------------------------------------------------


def test_what_was_stored_is_there_after_reopening(opened: Open) -> None:
    """Closing and opening again, with or without a checkpoint, shows the same index."""
    points = [point("v1", i, cluster=i, **vectors) for i, vectors in enumerate(SUBSETS)]
    first = opened()
    first.upsert_seconds(points)
    first.upsert_videos([FULL])
    first.close()
    first.close()
    for checkpoint, create in (("c1", None), (None, None), ("c1", DIMS)):
        again = opened(checkpoint, create)
        assert again.info == CollectionInfo("c1", DIMS)
        assert_same_points(list(again.seconds(with_vectors=tuple(DIMS))), points)
        assert again.video("v1") == replace(FULL, vectors={})
        assert again.facet("cluster") == dict.fromkeys(range(5), 1)
        again.close()


def test_another_checkpoint_is_refused(opened: Open) -> None:
    """The message names the index, both checkpoints and what to do; the index can still be opened rightly."""
    opened().close()
    with pytest.raises(CollectionError, match=r"was made by checkpoint c1, not c2; pass the checkpoint .* --model"):
        opened("c2")
    with pytest.raises(CollectionError, match=r"has vectors .*'visual': 4.* the checkpoint makes \{'visual': 8\}"):
        opened("c1", {"visual": 8})
    opened("c1", None)


def test_another_schema_is_refused(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of a later schema says which version it has and which this program reads."""
    for module in (store_edge, store_server):
        monkeypatch.setattr(module, "new_info", lambda _, create: CollectionInfo("c1", create, schema=99))
    with pytest.raises(CollectionError, match="schema version 99"):
        opened()
    monkeypatch.undo()
    with pytest.raises(
        CollectionError, match="has schema version 99, this program reads versions 1 to 3; use the visxp"
    ):
        opened(None, None)


def test_an_index_that_is_not_there_is_not_created_by_looking(opened: Open) -> None:
    """Without `create` a missing index is an error that says how to make one, and stays missing."""
    for _ in range(2):
        with pytest.raises(CollectionError, match=r"there is no index at .*visxp index add"):
            opened("c1", None)


@pytest.mark.parametrize("create", [{}, {"smell": 4}, {"visual": 0}])
def test_dims_that_make_no_index_are_refused(opened: Open, create: dict[str, int]) -> None:
    """Dims without a known vector of positive length are an error of the caller, and leave nothing behind."""
    with pytest.raises(ValueError, match="unsupported; expected positive lengths"):
        opened("c1", create)
    opened()


# --- Edge: directories, locks, crashes ---------------------------------------------------------------------------


def tree(path: Path) -> dict[str, bytes]:
    """All files below a directory with their contents."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_open_store_chooses_by_location(folder: Path) -> None:
    """A path opens an embedded index, a URL a server's."""
    with closing(open_store(folder / "index", checkpoint="c1", create=DIMS)) as store:
        assert store.location == str(folder / "index")
    with pytest.raises(CollectionError, match="no Qdrant server answers"):
        open_store("http://127.0.0.1:1", checkpoint="c1")


@pytest.mark.parametrize("create", [DIMS, None])
@pytest.mark.parametrize("name", ["holiday.mp4", "videos/a.mp4", "index.json.bak"])
def test_a_directory_of_something_else_is_not_touched(folder: Path, name: str, create: dict[str, int] | None) -> None:
    """A directory with files but no index is refused by name, also where a folder is called like one of ours."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"mine")
    before = tree(folder)
    with pytest.raises(CollectionError, match=r"is not a visxp index .* nothing was changed"):
        open_edge_store(folder, checkpoint="c1", create=create)
    assert tree(folder) == before


def test_a_file_is_not_an_index(folder: Path) -> None:
    """A path to a file says that a directory was expected."""
    (folder / "a.mp4").write_bytes(b"mine")
    with pytest.raises(CollectionError, match="is a file; expected a directory"):
        open_edge_store(folder / "a.mp4", checkpoint="c1", create=DIMS)
    with pytest.raises(CollectionError, match="cannot be opened"):
        open_edge_store(folder / "a.mp4" / "index", checkpoint="c1", create=DIMS)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"name": "my-web-site"}',
        '{"format": "visxp-index"}',
        '{"format": "visxp-index", "schema": 1}',
    ],
)
def test_a_damaged_description_is_reported(folder: Path, content: str) -> None:
    """An index.json that is not ours or is cut off gives one clear error and releases the lock."""
    open_edge_store(folder, checkpoint="c1", create=DIMS).close()
    good = (folder / "index.json").read_text()
    (folder / "index.json").write_text(content)
    with pytest.raises(CollectionError, match="damaged or not that of a visxp index"):
        open_edge_store(folder, checkpoint="c1", create=DIMS)
    (folder / "index.json").write_text(good)
    open_edge_store(folder, checkpoint="c1", create=None).close()


def test_a_description_of_another_schema_need_not_be_readable(folder: Path) -> None:
    """Of another schema only the version number is read, so the message is right whatever else has changed."""
    open_edge_store(folder, checkpoint="c1", create=DIMS).close()
    (folder / "index.json").write_text('{"format": "visxp-index", "schema": 4, "vectors": []}')
    with pytest.raises(CollectionError, match="has schema version 4, this program reads versions 1 to 3"):
        open_edge_store(folder, checkpoint="c1", create=None)


def test_a_damaged_shard_is_reported(folder: Path) -> None:
    """A shard that lacks files gives one clear error that names the index."""
    open_edge_store(folder, checkpoint="c1", create=DIMS).close()
    for segment in (folder / "ledger" / "segments").glob("*/segment.json"):
        segment.write_bytes(b"\0")
    with pytest.raises(CollectionError, match=f"the engine of index {folder} failed"):
        open_edge_store(folder, checkpoint="c1", create=None)


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A second process that runs code with this project importable and prints to a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )


HOLD = """
import sys, time
from pathlib import Path
from visxp_search.store_edge import open_edge_store
store = open_edge_store(Path(sys.argv[1]), checkpoint=None, create=None)
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_told_who_has_the_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the directory, the process and the way out; after kill -9 of that process the index opens."""
    monkeypatch.setattr(store_edge_files, "LOCK_TIMEOUT_SECONDS", 0.1)
    open_edge_store(folder, checkpoint="c1", create=DIMS).close()
    with run_python(HOLD, folder) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"
            with pytest.raises(CollectionError) as error:
                open_edge_store(folder, checkpoint="c1", create=None)
        finally:
            holder.kill()
    assert f"index {folder} is in use by another visxp process (pid {holder.pid} on " in str(error.value)
    assert "wait until it ends or stop it" in str(error.value)
    open_edge_store(folder, checkpoint="c1", create=None).close()


def test_one_process_opens_an_index_once_and_may_close_it_in_a_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock also holds within a process, and is freed by whichever thread closes the store."""
    monkeypatch.setattr(store_edge_files, "LOCK_TIMEOUT_SECONDS", 0.1)
    store = open_edge_store(folder, checkpoint="c1", create=DIMS)
    with pytest.raises(CollectionError, match=f"pid {os.getpid()} on"):
        open_edge_store(folder, checkpoint="c1", create=None)
    closer = threading.Thread(target=store.close)
    closer.start()
    closer.join()
    open_edge_store(folder, checkpoint="c1", create=None).close()
    with pytest.raises(CollectionError):
        store.count()


KILLED_IN_CREATION = """
import os, signal, sys
from pathlib import Path
from visxp_search.store_edge import open_edge_store
path, left = sys.argv[1], int(sys.argv[2])
def strike(event, arguments):
    global left
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.scandir") and str(arguments[0]).startswith(path):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(strike)
open_edge_store(Path(path), checkpoint="c1", create={"visual": 4, "audio": 3, "joint": 2})
left = -1
"""


@pytest.mark.parametrize("other_model", [False, True])
def test_a_creation_that_was_killed_is_begun_again(folder: Path, other_model: bool) -> None:
    """After kill -9 before any of its file operations the next open with `create` gives a working index."""
    dims = {"visual": 8} if other_model else DIMS
    steps = range(1, 30) if not other_model else range(3, 30, 4)
    for step in steps:
        path = folder / str(step)
        with run_python(KILLED_IN_CREATION, path, step) as victim:
            status = victim.wait(30)
        complete = (path / "index.json").exists()
        if complete and other_model:
            break
        with closing(open_edge_store(path, checkpoint="c1", create=dims)) as store:
            store.upsert_seconds([point("v1", 0, visual=np.eye(dims["visual"], dtype=np.float32)[0])])
            assert store.count() == 1
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert step > 6


@pytest.mark.parametrize("marker", ["", "{", '{"format": "visxp-index"'])
def test_half_a_creation_is_no_index_to_readers(folder: Path, marker: str) -> None:
    """Opening a half-made index without `create` says that there is none; with it the index is made."""
    (folder / "index.json.new").write_text(marker)
    (folder / "seconds" / "segments").mkdir(parents=True)
    (folder / "seconds" / "edge_config.json").write_text("{")
    with pytest.raises(CollectionError, match="there is no index at"):
        open_edge_store(folder, checkpoint=None, create=None)
    open_edge_store(folder, checkpoint="c1", create=DIMS).close()
    open_edge_store(folder, checkpoint="c1", create=None).close()


WRITE_UNTIL_KILLED = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from visxp_search.store import SecondPoint, VideoRecord, make_payload
from visxp_search.store_edge import open_edge_store
path, video_id = Path(sys.argv[1]), sys.argv[2]
store = open_edge_store(path, checkpoint="c1", create={"visual": 4, "audio": 3, "joint": 2})
for batch in count():
    seconds = range(batch * 20, batch * 20 + 20)
    store.upsert_seconds([
        SecondPoint(
            video_id, s, {"visual": np.eye(4, dtype=np.float32)[s % 4]},
            make_payload(video_id=video_id, second=s, has_audio=False, flags=[], checkpoint="c1", cluster=s % 7),
        )
        for s in seconds
    ])
    store.upsert_videos([VideoRecord(video_id, ("/a.mp4",), seconds_done=seconds.stop)])
    store.flush()
    if batch % 5 == 4:
        store.optimize()
    print(seconds.stop, flush=True)
"""


def kill_while_writing(path: Path, rounds: int) -> None:
    """Kill a writer at random times; after each every acknowledged second must be there, whole and findable."""
    delays = random.Random(rounds)
    acknowledged: dict[str, int] = {}
    for round_number in range(rounds):
        video_id = f"v{round_number}"
        with run_python(WRITE_UNTIL_KILLED, path, video_id) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline()]
            time.sleep(delays.uniform(0, 0.5))
            writer.kill()
            lines += [line for line in writer.stdout if line.endswith("\n")]
        acknowledged[video_id] = int(lines[-1])

        with closing(open_edge_store(path, checkpoint="c1", create=None)) as store:
            for video, stop in acknowledged.items():
                seconds = store.seconds_of(video, with_vectors=["visual"])
                assert [p.second for p in seconds[:stop]] == list(range(stop))
                for p in seconds:
                    np.testing.assert_array_equal(p.vectors["visual"], np.eye(4)[p.second % 4])
                    assert p.payload["cluster"] == p.second % 7
                record = store.video(video)
                assert record is not None
                assert record.seconds_done >= stop
                where = Filter(video_ids=(video,))
                assert sum(store.facet("cluster", where).values()) == store.count(where) == len(seconds)
                assert len(store.query("visual", np.eye(4, dtype=np.float32)[:1], top=10**5, where=where)[0]) == len(
                    seconds
                )


def test_flushed_writes_survive_kill(folder: Path) -> None:
    """After kill -9 at a random time every flushed second and ledger entry is there and no point is half."""
    kill_while_writing(folder / "index", 5)


@pytest.mark.slow
def test_flushed_writes_survive_kill_many_times(folder: Path) -> None:
    """The same index survives fifteen kills in a row."""
    kill_while_writing(folder / "index", 15)


# --- server: what answers there ----------------------------------------------------------------------------------


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], tuple[str, list[str | None]]]]:
    """A function that starts a server that answers everything alike; gives its URL and the API keys it got."""
    servers: list[HTTPServer] = []

    def start(status: int, body: str) -> tuple[str, list[str | None]]:
        keys: list[str | None] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.append(self.headers.get("api-key"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", keys

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, "Must provide an API key", f"refused the request .status 401.; set its API key in .* {API_KEY_VARIABLE}"),
        (403, "Invalid API key", f"refused the request .status 403.; set its API key in .* {API_KEY_VARIABLE}"),
        (404, "<html>not here</html>", "status 404: <html>not here</html>; check that this is the URL of a Qdrant"),
        (200, "<html>a web page</html>", "check that this is the URL of a Qdrant server"),
        (200, json.dumps({"title": "qdrant", "version": "1.9.2"}), r"is version 1\.9\.2; expected 1\.13 or newer"),
        (200, json.dumps({"title": "other", "version": "six"}), "is version six; expected"),
    ],
)
def test_wrong_servers_are_told_apart(
    answering: Callable[[int, str], tuple[str, list[str | None]]], status: int, body: str, message: str
) -> None:
    """Each way in which a server is not ours to use gives one clear error with the next step."""
    url, _ = answering(status, body)
    with pytest.raises(CollectionError, match=message):
        open_server_store(url, checkpoint="c1", create=DIMS)


def test_the_api_key_comes_from_the_environment(
    answering: Callable[[int, str], tuple[str, list[str | None]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The key of the environment is sent, and that it goes unencrypted over http is logged."""
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    url, keys = answering(401, "")
    with pytest.raises(CollectionError):
        open_server_store(url, checkpoint="c1", create=None)
    assert keys == ["secret"]
    assert f"the API key goes to {url} unencrypted" in caplog.text
    assert "secret" not in caplog.text


def test_no_server_and_wrong_urls() -> None:
    """A server that does not answer and a URL of two words say what to check."""
    with pytest.raises(
        CollectionError, match=r"no Qdrant server answers at http://127.0.0.1:1 \(.*\); check that it runs"
    ):
        open_server_store("http://127.0.0.1:1", checkpoint="c1", create=None)
    with pytest.raises(CollectionError, match="has the path 'a/b'; expected one word"):
        open_server_store("http://127.0.0.1:1/a/b", checkpoint="c1", create=None)


def test_indexes_of_different_prefix_do_not_meet() -> None:
    """Two indexes on one server are told apart by the path of their URL."""
    client = QdrantClient(":memory:")
    a = open_client_store(client, location="a", prefix="a", checkpoint="c1", create=DIMS)
    b = open_client_store(client, location="b", prefix="b", checkpoint="c2", create={"visual": 4})
    a.upsert_seconds([point("v1", 0)])
    assert (a.count(), b.count()) == (1, 0)
    assert {c.name for c in client.get_collections().collections} == {
        f"{p}_visxp_{kind}_{checkpoint}"
        for p, checkpoint in (("a", "c1"), ("b", "c2"))
        for kind in ("seconds", "videos")
    }
    client.close()


def test_a_creation_cut_short_on_a_server_is_completed() -> None:
    """Collections without the description of the index are no index, and are completed by the next `create`."""
    client = QdrantClient(":memory:")
    vectors = {n: models.VectorParams(size=d, distance=models.Distance.COSINE) for n, d in DIMS.items()}
    client.create_collection("visxp_seconds", vectors_config=vectors)
    client.create_collection("visxp_videos", vectors_config=vectors)
    with pytest.raises(CollectionError, match="there is no index at memory"):
        open_client_store(client, location="memory", checkpoint="c1", create=None)
    with closing(open_client_store(client, location="memory", checkpoint="c1", create=DIMS)) as store:
        assert store.info == CollectionInfo("c1", DIMS)


@pytest.mark.parametrize(("size", "points"), [(4, 1), (5, 0)])
def test_foreign_collections_on_a_server_are_not_touched(size: int, points: int) -> None:
    """A collection of our name with points or other vectors in it is refused and left as it is."""
    client = QdrantClient(":memory:")
    vectors = {"visual": models.VectorParams(size=size, distance=models.Distance.COSINE)}
    client.create_collection("visxp_seconds", vectors_config=vectors)
    if points:
        client.upsert("visxp_seconds", [models.PointStruct(id=1, vector={}, payload={})])
    with pytest.raises(CollectionError, match="collection visxp_seconds at memory is not part of a visxp index"):
        open_client_store(client, location="memory", checkpoint="c1", create={"visual": 4})
    assert client.count("visxp_seconds").count == points
    client.close()
