"""Indexes of an older schema: they go on to work, are migrated with a backup, and survive a kill on the way."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge

from visxp_search import store_edge, store_edge_files, store_edge_shard
from visxp_search.cli import main
from visxp_search.errors import CollectionError
from visxp_search.store import DONE, PAYLOAD_INDEXES, SecondPoint, VideoRecord, make_payload, open_store
from visxp_search.store_edge_migrate import migrate_edge_index

DIMS = {"visual": 4, "audio": 3}
Everything = tuple[dict[str, Any], dict[tuple[str, int], Any]]


def _unit(number: int, dim: int) -> np.ndarray:
    """A vector of norm 1."""
    row = np.random.default_rng(number).standard_normal(dim).astype(np.float32)
    return row / np.float32(np.linalg.norm(row))


def _fill(path: Path, videos: range) -> None:
    """Two seconds and an entry of the ledger for each video."""
    with closing(open_store(path, checkpoint="c1", create=DIMS)) as store:
        for number in videos:
            video_id, vectors = f"{number:032x}", {name: _unit(number, dim) for name, dim in DIMS.items()}
            for second in range(2):
                payload = make_payload(video_id=video_id, second=second, has_audio=True, flags=[], checkpoint="c1")
                store.upsert_seconds([SecondPoint(video_id, second, vectors, payload)])
            store.upsert_videos([VideoRecord(video_id, (f"/{number}.mp4",), status=DONE, vectors=vectors)])


def _everything(path: Path) -> Everything:
    """All that an index holds, the ledger's vectors included."""
    with closing(open_store(path, checkpoint="c1")) as store:
        seconds = {(p.video_id, p.second): dict(p.payload) for p in store.seconds()}
        ledger = {
            str(p.payload["video_id"]): (p.payload, {name: vector.tolist() for name, vector in p.vectors.items()})
            for p in store._videos.scroll({}, with_vectors=tuple(DIMS), limit=1000, after=None)[0]  # type: ignore[attr-defined]
        }
    return ledger, seconds


def _vectors_of_schema_2(dims: Mapping[str, int]) -> dict[str, edge.EdgeVectorParams]:
    """Vectors that the engine reads whole when an index is opened."""
    return {name: edge.EdgeVectorParams(size=dim, distance=edge.Distance.Cosine) for name, dim in dims.items()}


def _payload_indexes_of_schema_2(indexes: Mapping[str, str]) -> list[edge.UpdateOperation]:
    """Payload indexes that the engine builds up in memory."""
    kinds = {"keyword": "Keyword", "integer": "Integer", "bool": "Bool"}
    return [
        edge.UpdateOperation.create_field_index(key, getattr(edge, f"{kinds[kind]}IndexParams")())
        for key, kind in indexes.items()
    ]


@pytest.fixture
def old_index(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An index of 40 videos as releases of schema 1 made it; seconds are sealed from a few on, now and later."""
    monkeypatch.setattr(store_edge_shard, "SEALED_SECONDS", 40)
    with monkeypatch.context() as patch:
        patch.setattr(
            store_edge, "ledger_config", lambda dims: edge.EdgeConfig(vectors=store_edge_shard._vectors(dims))
        )
        patch.setattr(store_edge_shard, "_vectors", _vectors_of_schema_2)
        patch.setattr(store_edge_shard, "_payload_indexes", _payload_indexes_of_schema_2)
        _fill(index_folder, range(40))
    (index_folder / "ledger").rename(index_folder / "videos")
    description = json.loads((index_folder / "index.json").read_text())
    (index_folder / "index.json").write_text(json.dumps({**description, "schema": 1}))
    yield index_folder


def _payload_storages(shard: Path) -> set[str]:
    """How the segments of a shard keep payloads."""
    segments = [json.loads(path.read_text()) for path in shard.glob("segments/*/segment.json")]
    return {segment["config"]["payload_storage_type"]["type"] for segment in segments}


def _read_at_opening(shard: Path) -> set[str]:
    """What of the sealed segments of a shard the engine has in memory once it is open."""
    found = set()
    for file in shard.glob("segments/*/segment.json"):
        vectors = json.loads(file.read_text())["config"]["vector_data"].values()
        if any(vector["quantization_config"] is not None for vector in vectors):
            found |= {"vectors" for vector in vectors if vector["storage_type"] != "Mmap"}
            fields = json.loads((file.parent / "payload_index" / "config.json").read_text())["indexed_fields"]
            found |= {key for key, how in fields.items() if not (isinstance(how, dict) and how.get("memory") == "cold")}
    return found


def test_an_old_index_works_and_says_what_to_do(old_index: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An index of schema 1 is read and written as it is; each opening names the command that migrates it."""
    _fill(old_index, range(38, 42))
    assert len(_everything(old_index)[0]) == 42
    assert f"visxp index migrate --index {old_index}" in caplog.text
    assert json.loads((old_index / "index.json").read_text())["schema"] == 1
    assert not (old_index / "ledger").exists()


def test_a_migration_changes_nothing_but_the_form(old_index: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All is the same afterwards; the ledger is in the page cache, vectors and indexes are not; no message is left."""
    assert _payload_storages(old_index / "videos") == {"mmap"}
    assert _read_at_opening(old_index / "seconds") == {"vectors", *PAYLOAD_INDEXES}
    before = _everything(old_index)
    caplog.clear()
    done = migrate_edge_index(old_index)
    assert (done.before, done.after) == (1, 3)
    assert _everything(old_index) == before
    assert not caplog.records
    assert _payload_storages(old_index / "ledger") == {"in_ram_mmap"}
    assert _read_at_opening(old_index / "seconds") == set()
    assert migrate_edge_index(old_index).backups == ()
    _fill(old_index, range(40, 42))
    assert len(_everything(old_index)[0]) == 42


def test_a_backup_can_be_taken_back(old_index: Path) -> None:
    """With the files of the backup in their old place the index is of schema 1 again, and whole."""
    before = _everything(old_index)
    (backup,) = migrate_edge_index(old_index).backups
    for path in list(backup.iterdir()):
        path.rename(old_index / path.name)
    assert _everything(old_index) == before
    assert json.loads((old_index / "index.json").read_text())["schema"] == 1
    assert migrate_edge_index(old_index).backups == (backup,)  # the ledger that was left over is made anew
    assert _everything(old_index) == before


@pytest.mark.parametrize(
    ("module", "function", "after"),
    [
        ("shutil", "copytree", False),
        ("shutil", "copytree", True),
        ("visxp_search.store_edge_shard.EdgeCollection", "optimize", True),
        ("visxp_search.store_edge_shard.EdgeCollection", "_update", True),
        ("visxp_search.store_edge_shard.EdgeCollection", "renew", True),
        ("visxp_search.store_edge_migrate", "write_info", False),
        ("visxp_search.store_edge_migrate", "write_info", True),
        ("visxp_search.store_edge_migrate", "_put_away", True),
    ],
)
def test_a_killed_migration_is_completed(old_index: Path, module: str, function: str, after: bool) -> None:
    """Killed (SIGKILL) before or after any of its steps, the index is whole at once, and the next run completes it."""
    before = _everything(old_index)
    program = f"""
import os, pkgutil, signal, sys
from pathlib import Path
from visxp_search import store_edge_migrate
owner = pkgutil.resolve_name({module!r})
whole = owner.{function}
def killed(*args, **kwargs):
    if {after}:
        whole(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
owner.{function} = killed
store_edge_migrate.migrate_edge_index(Path(sys.argv[1]))
"""
    child = subprocess.run([sys.executable, "-c", program, old_index], check=False)
    assert child.returncode == -9
    assert _everything(old_index) == before
    migrate_edge_index(old_index)
    assert _everything(old_index) == before
    assert sorted(path.name for path in (old_index / "backup-schema1").iterdir()) == ["index.json", "videos"]
    assert not (old_index / "videos").exists()


def test_a_migration_on_a_full_disk(old_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without space for the copy nothing is changed, and the message says how to go on."""
    before = _everything(old_index)
    with monkeypatch.context() as patch:
        patch.setattr(store_edge_files, "LEAST_FREE_BYTES", 2**60)
        with pytest.raises(CollectionError, match=r"is full .* free some space and run the same command again"):
            migrate_edge_index(old_index)
    assert _everything(old_index) == before
    assert migrate_edge_index(old_index).after == 3


def test_an_earlier_backup_is_not_overwritten(old_index: Path) -> None:
    """A ledger that lies in the backup stays there; the message says to move it away."""
    (old_index / "backup-schema1" / "videos").mkdir(parents=True)
    with pytest.raises(CollectionError, match="holds an earlier backup; move it away"):
        migrate_edge_index(old_index)
    assert (old_index / "videos").exists()


def test_the_command(old_index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`visxp index migrate` says what it did and where the backup is; again it says that there is nothing to do."""
    assert main(["index", "migrate", "--index", str(old_index), "--json"]) == 0
    backup = str(old_index / "backup-schema1")
    assert json.loads(capsys.readouterr().out) == {
        "index": str(old_index),
        "before": 1,
        "schema": 3,
        "backups": [backup],
    }
    assert main(["index", "migrate", "--index", str(old_index)]) == 0
    assert "has schema version 3 already" in capsys.readouterr().err
    assert main(["index", "migrate", "--index", "http://localhost:1"]) == 2
    assert main(["index", "migrate", "--index", str(old_index / "none")]) == 3
    assert "there is no index" in capsys.readouterr().err


def test_an_index_in_use_is_not_migrated(old_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is open elsewhere a migration is refused with the message that names who has it."""
    monkeypatch.setattr(store_edge_files, "LOCK_TIMEOUT_SECONDS", 0.1)
    with (
        closing(open_store(old_index, checkpoint="c1")),
        pytest.raises(CollectionError, match=r"in use by another visxp process \(pid"),
    ):
        migrate_edge_index(old_index)
