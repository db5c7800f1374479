"""An index leaves as Parquet and comes back the same."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qdrant_client import QdrantClient

from tests.qdrant_loopback import LOCAL_MODE
from visxp_search import cluster_edit
from visxp_search.cli import main
from visxp_search.cluster_fit import FitOptions, fit_clusters
from visxp_search.cluster_store import require_clustering
from visxp_search.errors import ExchangeError, UsageError
from visxp_search.exchange import parquet
from visxp_search.store import DONE, SecondPoint, Store, VideoRecord, make_payload, mean_vectors
from visxp_search.store_edge import open_edge_store
from visxp_search.store_server import open_client_store

pytestmark = LOCAL_MODE

DIMS = {"visual": 8, "audio": 6, "joint": 4}


def unit(rng: np.random.Generator, dim: int) -> npt.NDArray[np.float32]:
    """A random vector of norm 1."""
    vector = rng.standard_normal(dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def fill(store: Store, *, n_videos: int = 3, n_seconds: int = 40) -> None:
    """Points with every kind of payload, some without vectors, and a ledger with odd paths."""
    rng = np.random.default_rng(5)
    for number in range(n_videos):
        video_id = f"{number:032x}"
        points = []
        for second in range(n_seconds):
            names = [name for place, name in enumerate(DIMS) if (second + place) % 4]
            payload = make_payload(
                video_id=video_id,
                second=second,
                has_audio="audio" in names,
                flags=["silent"] if second % 3 else [],
                checkpoint="c1",
                cluster=second % 5 if second % 2 else None,
                path=["r", f"r.{second % 5}"] if second % 2 else (),
                confidence=second / 7 if second % 2 else None,
            )
            if second % 6 == 0:
                payload["shot_ms"] = [second, second + 1]
            vectors = {name: unit(rng, DIMS[name]) for name in names}
            points.append(SecondPoint(video_id, second, vectors, payload))
        store.upsert_seconds(points)
        paths = (f"/archive/tape {number}.mxf", f"/copy/b\udcff{number}.mp4")
        record = VideoRecord(video_id, paths, status=DONE, duration_seconds=39.7, seconds_expected=n_seconds)
        facts = {"width": 720, "codec": "dv"}
        store.upsert_videos(
            [
                replace(
                    record, seconds_done=n_seconds, facts=facts, stats={paths[0]: [1, 2]}, vectors=mean_vectors(points)
                )
            ]
        )
    store.flush()


Held = tuple[dict[Any, Any], dict[Any, Any], list[VideoRecord]]


def contents(store: Store) -> Held:
    """Payloads, vectors and ledger."""
    points = list(store.seconds(with_vectors=tuple(DIMS)))
    keys = [(point.video_id, point.second) for point in points]
    payloads = {key: dict(point.payload) for key, point in zip(keys, points, strict=True)}
    vectors = {key: dict(point.vectors) for key, point in zip(keys, points, strict=True)}
    return payloads, vectors, sorted(store.videos(), key=lambda record: record.video_id)


def assert_same_contents(found: Held, wanted: Held) -> None:
    """Equal payloads and ledger; vectors equal up to the scaling to norm 1 that engines repeat."""
    assert found[0] == wanted[0] and found[2] == wanted[2]
    assert found[1].keys() == wanted[1].keys()
    for key, named in found[1].items():
        assert named.keys() == wanted[1][key].keys()
        for name, vector in named.items():
            np.testing.assert_allclose(vector, wanted[1][key][name], atol=1e-6)


@pytest.fixture
def filled(index_folder: Path) -> Iterator[Store]:
    """An embedded index with something of everything."""
    index_folder.parent.mkdir(exist_ok=True)
    with closing(open_edge_store(index_folder, checkpoint="c1", create=DIMS)) as store:
        fill(store)
        yield store


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def test_import_is_the_inverse_of_export(
    filled: Store, tmp_path: Path, index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, payloads, vectors and ledger are equal after a way through Parquet, embedded and on a server, twice over."""
    monkeypatch.setattr(parquet, "BATCH", 16)
    assert parquet.export_parquet(filled, tmp_path / "out", progress=silent) == (120, 3)
    wanted = contents(filled)
    client = QdrantClient(":memory:")
    stores: list[Store] = [
        open_edge_store(index_folder.with_name("copy"), checkpoint="c1", create=DIMS),
        open_client_store(client, location="memory", checkpoint="c1", create=DIMS),
    ]
    for store in stores:
        with closing(store):
            for _ in range(2):
                assert parquet.import_parquet(store, tmp_path / "out", progress=silent) == (120, 3)
            assert_same_contents(contents(store), wanted)


def test_the_files_say_what_they_are(filled: Store, tmp_path: Path) -> None:
    """Any reader of Parquet sees typed columns, missing vectors as null, and the checkpoint in the metadata."""
    parquet.export_parquet(filled, tmp_path / "out", progress=silent)
    table = pq.read_table(tmp_path / "out" / "seconds.parquet")
    stated = json.loads(table.schema.metadata[b"visxp"])
    assert (stated["checkpoint"], stated["dims"], stated["format"]) == ("c1", DIMS, "visxp-index")
    assert table.schema.field("vector_visual").type == pa.list_(pa.float32(), 8)
    assert table.schema.field("flags").type == pa.list_(pa.string())
    assert table.column("vector_visual").null_count == 30 and table.num_rows == 120
    videos = pq.read_table(tmp_path / "out" / "videos.parquet")
    assert videos.column("seconds_done").to_pylist() == [40, 40, 40]


def test_exports_appear_whole_and_replace_nothing(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An existing name is refused; an export that fails half-way leaves nothing."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        parquet.export_parquet(filled, tmp_path / "taken", progress=silent)

    def interrupted(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parquet.export_parquet(filled, tmp_path / "out", progress=interrupted)
    assert [path.name for path in tmp_path.iterdir() if path.name != "indexes"] == ["taken"]


def test_foreign_and_damaged_files_are_refused(filled: Store, tmp_path: Path) -> None:
    """Parquet of others, torn files, poisoned vectors and other checkpoints are one clear error each."""
    out = tmp_path / "out"
    parquet.export_parquet(filled, out, progress=silent)
    seconds = out / "seconds.parquet"
    whole, table = seconds.read_bytes(), pq.read_table(seconds)
    pq.write_table(table.replace_schema_metadata({}), seconds)
    with pytest.raises(ExchangeError, match="was not written by"):
        parquet.read_info(out)
    seconds.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExchangeError, match="cannot be read as Parquet"):
        parquet.import_parquet(filled, out, progress=silent)
    bad = pa.FixedSizeListArray.from_arrays(pa.array(np.full(8 * 120, np.nan, dtype=np.float32)), 8)
    place = table.schema.get_field_index("vector_visual")
    pq.write_table(
        table.set_column(place, "vector_visual", bad).replace_schema_metadata(table.schema.metadata), seconds
    )
    with pytest.raises(ExchangeError, match="norm nan"):
        parquet.import_parquet(filled, out, progress=silent)
    stated = json.loads(table.schema.metadata[b"visxp"]) | {"checkpoint": "c2"}
    pq.write_table(table.replace_schema_metadata({b"visxp": json.dumps(stated)}), seconds)
    with pytest.raises(ExchangeError, match="is of checkpoint c2"):
        parquet.import_parquet(filled, out, progress=silent)


def test_commands_carry_an_index_from_place_to_place(
    index_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`index export` and `index import` together make a second index with the same facts."""
    index_folder.parent.mkdir(exist_ok=True)
    with closing(open_edge_store(index_folder, checkpoint="c1", create=DIMS)) as store:
        fill(store)
    copy = index_folder.with_name("copy")
    assert main(["index", "export", str(tmp_path / "out"), "--index", str(index_folder)]) == 0
    assert main(["index", "import", str(tmp_path / "out"), "--index", str(copy), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["seconds"], summary["videos"], summary["checkpoint"]) == (120, 3, "c1")
    facts = []
    for index in (index_folder, copy):
        assert main(["index", "info", "--index", str(index), "--json"]) == 0
        facts.append(json.loads(capsys.readouterr().out) | {"location": ""})
    assert facts[0] == facts[1]
    assert main(["index", "export", str(tmp_path / "out"), "--index", str(copy)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_clusters_travel_with_the_index(tmp_path: Path) -> None:
    """Names, tree and edits come back as they were; an index that has clusters labels what comes in by its own."""
    with closing(open_edge_store(tmp_path / "from", checkpoint="c1", create=DIMS)) as store:
        fill(store)
        clustering = fit_clusters(store, FitOptions(n_clusters=4)).clustering
        clustering = cluster_edit.name(store, clustering, "c1", "applause")
        clustering = cluster_edit.hide(store, clustering, "c2", hidden=True)
        before = contents(store)
        parquet.export_parquet(store, tmp_path / "out", progress=silent)
    with closing(open_edge_store(tmp_path / "to", checkpoint="c1", create=DIMS)) as store:
        parquet.import_parquet(store, tmp_path / "out", progress=silent)
        assert require_clustering(store).book == clustering.book
        assert require_clustering(store).applied
        assert contents(store)[0] == before[0]
    with closing(open_edge_store(tmp_path / "other", checkpoint="c1", create=DIMS)) as store:
        fill(store, n_videos=1)
        own = fit_clusters(store, FitOptions(n_clusters=2)).clustering
        parquet.import_parquet(store, tmp_path / "out", progress=silent)
        assert require_clustering(store).book == own.book
        assert set(store.facet("cluster")) <= {0, 1}
    with closing(open_edge_store(tmp_path / "full", checkpoint="c1", create=DIMS)) as store:
        fill(store, n_videos=1)
        parquet.import_parquet(store, tmp_path / "out", progress=silent)
        assert contents(store)[0] == before[0]
    (tmp_path / "out" / "clusters.json").write_text("{")
    with (
        closing(open_edge_store(tmp_path / "damaged", checkpoint="c1", create=DIMS)) as store,
        pytest.raises(ExchangeError, match=r"clusters\.json cannot be read"),
    ):
        parquet.import_parquet(store, tmp_path / "out", progress=silent)
