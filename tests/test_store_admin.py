"""Whole indexes on a server: another takes the place of one, snapshots, and settings beside what the size needs."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer.pipeline import add_files
from tests.conftest import write_film
from tests.indexes import assert_nearly_same, contents_of, silent_second
from tests.qdrant_loopback import LOCAL_MODE, LoopbackQdrant
from tests.test_rebuild import newer_checkpoint as newer_checkpoint
from visxp_search.cli import main
from visxp_search.errors import CollectionError
from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import (
    API_KEY_VARIABLE,
    DONE,
    PAYLOAD_INDEXES,
    ServerSettings,
    Store,
    VideoRecord,
    open_store,
)
from visxp_search.store_admin import inspect_settings, neighbour_url

pytestmark = LOCAL_MODE
DIMS = {"visual": 4}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackQdrant]:
    """A server with an API key, which the environment holds."""
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    (tmp_path / "snapshots").mkdir()
    with LoopbackQdrant(snapshots=tmp_path / "snapshots", api_key="secret") as loopback:
        yield loopback


def fill(url: str, *, checkpoint: str = "c1", n_seconds: int = 6) -> Store:
    """An index of one video."""
    store = open_store(url, checkpoint=checkpoint, create=DIMS)
    rows = np.eye(4, dtype=np.float32)
    store.upsert_seconds([silent_second("v1", n, rows[n % 4], checkpoint=checkpoint) for n in range(n_seconds)])
    store.upsert_videos([VideoRecord("v1", ("/films/v1.mp4",), status=DONE, seconds_done=n_seconds)])
    return store


def checkpoint_of(url: str) -> str:
    """Of the index that is opened there now."""
    with closing(open_store(url, checkpoint=None)) as store:
        return store.info.checkpoint


def test_names_of_indexes_beside_one() -> None:
    """What is rebuilt or put aside lies on the same server, under a word of its own."""
    assert neighbour_url("https://host:6333/news", "rebuild") == "https://host:6333/news-rebuild"
    assert (
        neighbour_url("http://host:6333", "old") == neighbour_url("http://host:6333/", "old") == "http://host:6333/old"
    )


@pytest.mark.slow
def test_rebuild_compare_swap_undo_drop_on_a_server(
    server: LoopbackQdrant,
    tiny_embedder: L3NetEmbedder,
    newer_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole change of models by the commands; who has the old index open searches it on, until it is dropped."""
    films = tmp_path / "films"
    films.mkdir()
    for seed in range(2):
        write_film(films / f"{seed}.mp4", seed=seed, n_seconds=3)
    url = f"{server.url}/tapes"
    where = ["--index", url]
    dims = {name: spec.length for name, spec in tiny_embedder.specs.items()}
    reader = open_store(url, checkpoint=tiny_embedder.checkpoint_id, create=dims)
    add_files(reader, tiny_embedder, [films])
    wanted, before = contents_of(reader), reader.info.checkpoint
    assert main(["index", "rebuild", "--model", str(newer_checkpoint), *where]) == 0
    capsys.readouterr()
    assert main(["index", "diff", "--json", *where]) == 0
    difference = json.loads(capsys.readouterr().out)
    assert (difference["seconds"], difference["videos_missing"]) == ([6, 6], [])
    assert main(["index", "swap", *where]) == 0
    assert f"{url} is now what was {url}-rebuild; what it was is {url}-old" in capsys.readouterr().err
    new = checkpoint_of(url)
    assert (new != before, checkpoint_of(f"{url}-old")) == (True, before)
    assert_nearly_same(contents_of(reader), wanted)  # but for the last bit: the double normalises
    assert main(["index", "swap", *where]) == 3
    assert f"there is no index at {url}-rebuild" in capsys.readouterr().err
    assert main(["index", "swap", "--undo", *where]) == 0
    assert (checkpoint_of(url), checkpoint_of(f"{url}-rebuild")) == (before, new)
    assert main(["index", "swap", "--drop", *where]) == 0
    assert checkpoint_of(url) == new
    assert len(server.client.get_collections().collections) == 2
    with (
        closing(reader),
        pytest.raises(CollectionError, match="is not on the server any more; if the index was swapped"),
    ):
        reader.count()


def test_swapping_is_one_request(server: LoopbackQdrant) -> None:
    """All aliases change together, so that no moment has half of an index."""
    url = f"{server.url}/tapes"
    for place, checkpoint in ((url, "c1"), (f"{url}-rebuild", "c2")):
        fill(place, checkpoint=checkpoint).close()
    server.requests.clear()
    assert main(["index", "swap", "--index", url, "-q"]) == 0
    (changed,) = [body["actions"] for _, path, body in server.requests if path == "/collections/aliases"]
    created = {
        a["create_alias"]["alias_name"]: a["create_alias"]["collection_name"] for a in changed if "create_alias" in a
    }
    assert created == {
        f"{place}_visxp_{kind}": f"{behind}_visxp_{kind}_{checkpoint}"
        for kind in ("seconds", "videos")
        for place, behind, checkpoint in (("tapes", "tapes-rebuild", "c2"), ("tapes-old", "tapes", "c1"))
    }


def test_what_an_earlier_swap_left_is_not_lost_silently(
    server: LoopbackQdrant, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second swap is refused while the first one's old index is there, and --drop removes both."""
    url = f"{server.url}/tapes"
    for place, checkpoint in ((url, "c1"), (f"{url}-rebuild", "c2"), (f"{url}-old", "c0")):
        fill(place, checkpoint=checkpoint).close()
    assert main(["index", "swap", "--index", url]) == 3
    assert "is there already, from an earlier swap; pass --drop" in capsys.readouterr().err
    assert (checkpoint_of(url), checkpoint_of(f"{url}-old")) == ("c1", "c0")
    assert main(["index", "swap", "--drop", "--index", url]) == 0
    assert checkpoint_of(url) == "c2"
    assert len(server.client.get_collections().collections) == 2


def test_snapshot_and_restore(server: LoopbackQdrant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is restored elsewhere is the same index; nothing stays on the server; an index in place is not touched."""
    folder = tmp_path / "backup"
    with closing(fill(f"{server.url}/tapes")) as store:
        wanted, videos = contents_of(store), list(store.videos())
    assert main(["index", "snapshot", str(folder), "--index", f"{server.url}/tapes", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["checkpoint"], said["videos"]) == ("c1", 1)
    assert sorted(path.name for path in folder.iterdir()) == ["seconds.snapshot", "snapshot.json", "videos.snapshot"]
    assert list((tmp_path / "snapshots").iterdir()) == []
    assert main(["index", "restore", str(folder), "--index", f"{server.url}/again"]) == 0
    with closing(open_store(f"{server.url}/again", checkpoint="c1")) as store:
        assert (contents_of(store), list(store.videos())) == (wanted, videos)
    capsys.readouterr()
    assert main(["index", "restore", str(folder), "--index", f"{server.url}/tapes"]) == 3
    assert "there is an index at" in capsys.readouterr().err
    assert main(["index", "snapshot", str(folder), "--index", f"{server.url}/tapes"]) == 3
    assert "is not empty; give a new folder" in capsys.readouterr().err


def test_damaged_and_foreign_snapshots_are_refused(
    server: LoopbackQdrant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flipped byte, a lost file and a folder of something else are one line each, and nothing is made of them."""
    folder, again = tmp_path / "backup", ["--index", f"{server.url}/again"]
    fill(f"{server.url}/tapes").close()
    assert main(["index", "snapshot", str(folder), "--index", f"{server.url}/tapes", "-q"]) == 0
    whole = bytearray((folder / "videos.snapshot").read_bytes())
    (folder / "videos.snapshot").write_bytes(bytes([whole[0] ^ 1]) + bytes(whole[1:]))
    assert main(["index", "restore", str(folder), *again]) == 3
    assert "videos.snapshot is damaged" in capsys.readouterr().err
    (folder / "videos.snapshot").unlink()
    assert main(["index", "restore", str(folder), *again]) == 3
    assert "videos.snapshot cannot be read" in capsys.readouterr().err
    (folder / "snapshot.json").write_text('{"format": "other", "version": 1}')
    assert main(["index", "restore", str(folder), *again]) == 3
    assert "holds no snapshot that this release reads" in capsys.readouterr().err
    assert main(["index", "ls", *again]) == 3


def test_indexes_without_snapshots_say_what_to_use(
    server: LoopbackQdrant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One in a directory, and one whose shards lie on several nodes."""
    assert main(["index", "snapshot", str(tmp_path / "out"), "--index", str(tmp_path / "index")]) == 3
    assert "use visxp index export" in capsys.readouterr().err
    assert main(["index", "restore", str(tmp_path / "out"), "--index", str(tmp_path / "index")]) == 3
    assert "use visxp index import" in capsys.readouterr().err
    fill(f"{server.url}/tapes").close()
    server.nodes = 3
    assert main(["index", "snapshot", str(tmp_path / "out"), "--index", f"{server.url}/tapes"]) == 3
    assert "is spread over several nodes" in capsys.readouterr().err


def advice_of(url: str, *, points: int = 0) -> dict[str, str]:
    """Setting -> what to do about it; only those that want something done."""
    settings = inspect_settings(url, server=ServerSettings.from_environment(), points=points)
    assert all(setting.wanted and setting.found for setting in settings)
    return {setting.name: setting.advice for setting in settings if setting.advice}


def test_an_index_of_ours_has_what_its_size_needs(server: LoopbackQdrant) -> None:
    """Nothing is to be done about an index as it is created, for few seconds and for 36 million."""
    fill(f"{server.url}/tapes").close()
    assert advice_of(f"{server.url}/tapes") == {}
    assert advice_of(f"{server.url}/tapes", points=36_000_000) == {}


def test_settings_that_do_not_fit_are_told(server: LoopbackQdrant) -> None:
    """Shards and replicas for a cluster, what lies in memory, payload indexes, and a bulk load that was cut short."""
    url = f"{server.url}/tapes"
    fill(url).close()
    name = "tapes_visxp_seconds_c1"
    settings = server.settings[name]
    settings["vectors"]["visual"]["on_disk"] = False
    settings.pop("quantization_config")
    settings["hnsw_config"]["on_disk"] = settings["on_disk_payload"] = False
    settings["optimizers_config"]["indexing_threshold"] = 0
    settings["shard_number"] = 1
    del server.indexed[name]["cluster"]
    server.nodes = 3
    small, large = advice_of(url), advice_of(url, points=36_000_000)
    assert set(small) == {"shards", "replicas", "payload indexes", "graphs are built"}
    assert set(large) == {*small, "vectors", "quantisation", "graphs", "payloads"}
    assert "visxp index push URL --shards 6" in large["shards"] and "--replicas 2" in large["replicas"]
    assert large["vectors"] == f'PATCH {server.url}/collections/{name} {{"vectors": {{"visual": {{"on_disk": true}}}}}}'
    assert "cluster (integer)" in large["payload indexes"] and PAYLOAD_INDEXES["cluster"] == "integer"


def test_doctor_shows_the_table(
    server: LoopbackQdrant, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wanted beside found for an index on a server, also as JSON; none for one that is not there."""
    url = f"{server.url}/tapes"
    words = ["doctor", "--model", str(tiny_checkpoint), "--index", url]
    assert main([*words, "--json"]) == 0
    assert "server" not in json.loads(capsys.readouterr().out)
    fill(url).close()
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["server", "wanted", "found"] for line in lines)
    assert any(line.split() == ["quantisation", "int8", "in", "memory", "int8", "in", "memory"] for line in lines)
    assert main([*words, "--json"]) == 0
    names = [setting["name"] for setting in json.loads(capsys.readouterr().out)["server"]]
    assert {"shards", "replicas", "vectors", "graphs", "payload indexes"} <= set(names)
