"""Disks that fill up, that may not be written and that go away: one clear line each, and nothing is lost."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from visxp_search import store_edge, store_edge_files
from visxp_search.cli import main
from visxp_search.demo.archive import render_archive
from visxp_search.errors import CollectionError
from visxp_search.store import DONE, PENDING, SecondPoint, VideoRecord, make_payload, open_store

DIMS = {"visual": 1024}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 480 MiB of its own, which only root may make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=480m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def _points(number: int) -> list[SecondPoint]:
    """256 seconds of one video, of random vectors."""
    vectors = np.random.default_rng(number).standard_normal((256, DIMS["visual"])).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    video_id = f"{number:032x}"
    return [
        SecondPoint(
            video_id,
            second,
            {"visual": vector},
            make_payload(video_id=video_id, second=second, has_audio=False, flags=[], checkpoint="c1"),
        )
        for second, vector in enumerate(vectors)
    ]


@pytest.mark.slow
def test_a_disk_that_fills_up(small_disk: Path) -> None:
    """Writing stops with one line before the disk is full; what was stored is there; with space it goes on."""
    stored = 0
    with (
        closing(open_store(small_disk / "index", checkpoint="c1", create=DIMS)) as store,
        pytest.raises(CollectionError, match=r"is full \(\d+ MiB are free.*run the same command again"),
    ):
        while True:
            store.upsert_seconds(_points(stored))
            stored += 1
    assert stored > 3
    subprocess.run(["mount", "-o", "remount,size=640m", small_disk], check=True)
    with closing(open_store(small_disk / "index", checkpoint="c1")) as store:
        assert store.count() == 256 * stored
        kept = store.seconds_of(f"{stored - 1:032x}", with_vectors=("visual",))
        np.testing.assert_allclose(kept[7].vectors["visual"], _points(stored - 1)[7].vectors["visual"], atol=1e-6)
        store.upsert_seconds(_points(stored))
        assert store.count() == 256 * (stored + 1)


@pytest.mark.slow
def test_a_disk_that_may_only_be_read(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An index on a read-only disk is refused in one line that says why; writable again, all is there."""
    subprocess.run(["mount", "-o", "remount,size=640m", small_disk], check=True)
    with closing(open_store(small_disk / "index", checkpoint="c1", create=DIMS)) as store:
        store.upsert_seconds(_points(0))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert main(["index", "info", "--index", str(small_disk / "index")]) == 3
    error = capsys.readouterr().err
    assert "Read-only file system" in error and "copy it to a disk that can be written to" in error
    assert len(error.strip().splitlines()) == 1
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    with closing(open_store(small_disk / "index", checkpoint="c1")) as store:
        assert store.count() == 256


def test_little_space_is_refused_before_the_engine_meets_it(
    index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the least free space nothing is written, neither seconds nor payloads nor the ledger; reading goes on."""
    with closing(open_store(index_folder, checkpoint="c1", create=DIMS)) as store:
        store.upsert_seconds(_points(0))
        monkeypatch.setattr(store_edge_files, "LEAST_FREE_BYTES", 2**60)
        with pytest.raises(CollectionError, match="is full"):
            store.upsert_seconds(_points(1))
        with pytest.raises(CollectionError, match="is full"):
            store.set_payloads([(f"{0:032x}", 0, {"cluster": 1})])
        with pytest.raises(CollectionError, match="is full"):
            store.upsert_videos([VideoRecord(f"{0:032x}", ("/a.mp4",), status=DONE)])
        assert (store.count(), store.count_videos()) == (256, 0)
        with pytest.raises(CollectionError, match="is full"):
            store.optimize()  # which writes segments anew before it removes the old ones
        with pytest.raises(CollectionError, match="is full"):
            open_store(index_folder.with_name("another"), checkpoint="c1", create=DIMS)
        store.delete_video(f"{0:032x}")  # which makes space
        assert store.count() == 0


def test_a_disk_that_is_gone(index_folder: Path) -> None:
    """What is written after the index's folder vanished is refused with a line that says so."""
    with closing(open_store(index_folder, checkpoint="c1", create=DIMS)) as store:
        store.upsert_seconds(_points(0))
        away = index_folder.rename(index_folder.with_name("away"))
        with pytest.raises(CollectionError, match=f"the disk of index {index_folder} is gone: .* bring it back"):
            store.upsert_seconds(_points(1))
        away.rename(index_folder)
        store.upsert_seconds(_points(1))
    with closing(open_store(index_folder, checkpoint="c1")) as store:
        assert store.count() == 512


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_permissions_that_were_lost(index_folder: Path) -> None:
    """Whoever may not write in an index's folder gets one line that says so; with the rights back all is there."""
    with closing(open_store(index_folder, checkpoint="c1", create=DIMS)) as store:
        store.upsert_seconds(_points(0))
    index_folder.parent.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(CollectionError, match=r"cannot be opened: .*Permission denied.*you may write to"):
            open_store(index_folder, checkpoint="c1")
    finally:
        os.seteuid(0)
    with closing(open_store(index_folder, checkpoint="c1")) as store:
        assert store.count() == 256


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_permissions_that_are_lost_while_an_index_is_open(index_folder: Path) -> None:
    """Closing says in one line what cannot be written any more, frees the index, and loses nothing."""
    store = open_store(index_folder, checkpoint="c1", create=DIMS)
    store.upsert_seconds(_points(0))
    index_folder.parent.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(CollectionError, match="Permission denied"):
            store.close()
    finally:
        os.seteuid(0)
    with closing(open_store(index_folder, checkpoint="c1")) as store:
        assert store.count() == 256


def test_a_disk_that_is_full_already(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the lock can be written, the message says that the disk is full, and that nothing is lost."""
    open_store(index_folder, checkpoint="c1", create=DIMS).close()

    def refuse(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_edge, "take_lock", refuse)
    with pytest.raises(CollectionError, match=r"cannot be opened: .*; the disk is full: free some space; what is"):
        open_store(index_folder, checkpoint="c1")


def test_nothing_that_decides_asks_the_wall_clock() -> None:
    """A clock that jumps back can confuse neither indexing nor stores: they measure with monotonic clocks alone."""
    root = Path(store_edge.__file__).parents[1]
    files = [*root.glob("indexer/*.py"), *root.glob("visxp_search/store*.py")]
    assert len(files) > 8
    for path in files:
        assert "time.time(" not in path.read_text(), path
        assert "datetime" not in path.read_text(), path


@pytest.mark.parametrize("shard", ["ledger", "seconds"])
def test_a_torn_shard_is_one_line(index_folder: Path, capsys: pytest.CaptureFixture[str], shard: str) -> None:
    """With files of a shard cut to half, the command ends with 3 and one line that says what to do."""
    with closing(open_store(index_folder, checkpoint="c1", create=DIMS)) as store:
        store.upsert_seconds(_points(0))
        store.upsert_videos([VideoRecord(f"{0:032x}", ("/a.mp4",), status=DONE)])
    for path in (index_folder / shard).rglob("*.json"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    capsys.readouterr()
    assert main(["index", "ls", "--index", str(index_folder)]) == 3
    error = capsys.readouterr().err
    assert "damaged" in error
    assert "restore it from a backup" in error


def test_a_shard_that_makes_the_engine_panic_is_one_line(index_folder: Path) -> None:
    """Of a panic, which prints hundreds of lines by itself, one line is seen: the index, the reason, what to do."""
    with closing(open_store(index_folder, checkpoint="c1", create=DIMS)) as store:
        store.upsert_videos([VideoRecord(f"{0:032x}", ("/a.mp4",), status=DONE)])
    for path in (index_folder / "ledger").rglob("is_null/status.dat"):
        path.write_bytes(b"")
    command = [sys.executable, "-m", "visxp_search.cli", "index", "ls", "--index", str(index_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "visxp index verify --repair" in done.stderr


def test_a_torn_ledger_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`verify --repair` keeps every second, puts the torn ledger aside, and adding again finds the files."""
    render_archive(tmp_path / "archive", only=["robin-in-spring.mp4", "rain-recording.m4a"])
    index = tmp_path / "index"
    add = ["index", "add", str(tmp_path / "archive"), "--index", str(index), "--quiet"]
    assert main(add) == 0
    before = _contents(index)
    for path in (index / "ledger").rglob("*.json"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (index / "ledger.new").mkdir()  # what a call that was killed left
    capsys.readouterr()
    assert main(["index", "ls", "--index", str(index)]) == 3
    assert "visxp index verify --repair" in capsys.readouterr().err
    assert main(["index", "verify", "--repair", "--index", str(index)]) == 0
    assert "knows 2 videos by what is stored" in capsys.readouterr().err
    after = _contents(index)
    assert after[0].keys() == before[0].keys()
    assert all(np.array_equal(after[0][key], before[0][key]) for key in before[0])
    assert [(record.paths, record.status) for record in after[1]] == [((), PENDING)] * 2
    assert main(["index", "verify", "--index", str(index)]) == 0  # and no seconds are orphans
    assert main(add) == 0
    again = _contents(index)
    assert all(np.array_equal(again[0][key], before[0][key]) for key in before[0])
    for record, known in zip(again[1], before[1], strict=True):
        assert (record.paths, record.status, record.seconds_done) == (known.paths, DONE, known.seconds_done)
    assert (index / "ledger.damaged-1").is_dir()


def _contents(index: Path) -> tuple[dict[tuple[str, int], np.ndarray], list[VideoRecord]]:
    """The vectors of all seconds, one behind the other, and the ledger by video."""
    with closing(open_store(index, checkpoint=None)) as store:
        seconds = {
            (point.video_id, point.second): np.concatenate([point.vectors[name] for name in sorted(point.vectors)])
            for point in store.seconds(with_vectors=tuple(store.info.dims))
            if point.vectors
        }
        return seconds, sorted(store.videos(), key=lambda record: record.video_id)
