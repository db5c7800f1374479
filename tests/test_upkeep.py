"""Looking after an index: trying failures again, finding and mending drift, saying beforehand what a run takes."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from indexer import watch
from indexer.estimate import Rate, estimate
from indexer.pipeline import add_files
from indexer.plan import failed_paths, make_plan
from indexer.verify import Drift, find_drift, repair_drift
from tests.conftest import write_film
from tests.indexes import contents_of, open_index_of
from visxp_search.cli import main
from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import DONE, FAILED, SecondPoint, Store, make_payload


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder of three films."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for seed, name in enumerate(("a.mp4", "b.mp4", "c.mp4"), start=50):
        write_film(folder / name, seed=seed, n_seconds=3)
    return folder


@pytest.fixture
def store(index_folder: Path, tiny_embedder: L3NetEmbedder, archive: Path) -> Iterator[Store]:
    """An index of the three films."""
    store = open_index_of(index_folder, tiny_embedder)
    assert add_files(store, tiny_embedder, [archive]).indexed == 3
    yield store
    store.close()


def _id_of(store: Store, name: str) -> str:
    return next(record.video_id for record in store.videos() if Path(record.paths[0]).name == name)


def _kinds(drifts: list[Drift]) -> dict[str, str]:
    return {Path(drift.path).name or drift.video_id: drift.kind for drift in drifts}


def _mend(store: Store, embedder: L3NetEmbedder, drifts: list[Drift]) -> None:
    assert add_files(store, embedder, repair_drift(store, drifts)).failures == []


def test_retry_takes_failures_only(
    index_folder: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What failed is tried again from any folder, by its path alone; what is new or done is left alone."""
    options = ["--index", str(index_folder), "--model", str(tiny_checkpoint), "--json"]
    (tmp_path / "x.mp4").write_text("no film")
    (tmp_path / "y.mp4").write_text("no film either")
    assert main(["index", "add", str(tmp_path), *options]) == 1
    write_film(tmp_path / "x.mp4", seed=1, n_seconds=2)
    write_film(tmp_path / "new.mp4", seed=2, n_seconds=2)
    capsys.readouterr()
    assert main(["index", "retry", *options]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["indexed"], report["skipped"]) == (1, 0)
    assert [Path(failure["path"]).name for failure in report["failures"]] == ["y.mp4"]
    assert main(["index", "ls", "--status", "failed", "--json", "--index", str(index_folder)]) == 0
    (failed,) = json.loads(capsys.readouterr().out)
    assert (Path(failed["paths"][0]).name, failed["tries"]) == ("y.mp4", 2)
    assert main(["index", "ls", "--status", "odd", "--index", str(index_folder)]) == 2


def test_a_file_that_cannot_be_read_now_keeps_what_is_indexed(
    store: Store, tiny_embedder: L3NetEmbedder, archive: Path
) -> None:
    """A disk that fails while a changed file is read costs nothing that was indexed before."""
    before = contents_of(store)
    path = archive / "a.mp4"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # a file whose first byte gives EIO, as on a bad disk
    report = add_files(store, tiny_embedder, [path])
    assert [reason for _, reason in report.failures] == ["cannot be read: Input/output error"]
    assert contents_of(store) == before
    assert store.count_videos(FAILED) == 0


def test_an_index_that_agrees_has_no_drift(store: Store) -> None:
    """Nothing is found where nothing is wrong, with and without reading all."""
    assert find_drift(store) == find_drift(store, read_all=True) == []


def test_missing_surplus_and_orphaned_seconds_are_mended_exactly(store: Store, tiny_embedder: L3NetEmbedder) -> None:
    """Seconds that were lost come back to the bit, seconds too many and seconds of nobody go."""
    wanted = contents_of(store)
    lost, crowded = _id_of(store, "a.mp4"), _id_of(store, "b.mp4")
    kept = store.seconds_of(lost, with_vectors=tuple(store.info.dims))[:1]
    store.delete_seconds(lost)
    store.upsert_seconds(kept)
    for video_id in (crowded, "f" * 32):
        payload = make_payload(video_id=video_id, second=99, has_audio=False, flags=[], checkpoint="")
        store.upsert_seconds([SecondPoint(video_id, 99, {}, payload)])
    drifts = find_drift(store)
    assert {drift.video_id: drift.kind for drift in drifts} == {
        lost: "missing",
        crowded: "surplus",
        "f" * 32: "orphan",
    }
    _mend(store, tiny_embedder, drifts)
    assert contents_of(store) == wanted
    assert find_drift(store) == []


def test_files_that_moved_changed_or_vanished_are_mended(
    store: Store, tiny_embedder: L3NetEmbedder, archive: Path
) -> None:
    """A moved file keeps its seconds, a changed one gets new ones, a vanished one leaves; nothing moved is embedded."""
    moved, before = _id_of(store, "a.mp4"), contents_of(store)
    (archive / "deeper").mkdir()
    (archive / "a.mp4").rename(archive / "deeper" / "other.mp4")
    write_film(archive / "b.mp4", seed=60, n_seconds=2)
    (archive / "c.mp4").unlink()
    drifts = find_drift(store)
    assert _kinds(drifts) == {"a.mp4": "moved", "b.mp4": "changed", "c.mp4": "vanished"}
    paths = repair_drift(store, drifts)
    assert [path.name for path in paths] == ["b.mp4"]
    add_files(store, tiny_embedder, paths)
    after = contents_of(store)
    assert {key: value for key, value in after.items() if key[0] == moved} == {
        key: value for key, value in before.items() if key[0] == moved
    }
    names = {Path(path).name: record.seconds_done for record in store.videos() for path in record.paths}
    assert names == {"other.mp4": 3, "b.mp4": 2}
    assert len(after) == 5
    assert find_drift(store, read_all=True) == []


def test_a_file_that_failed_and_vanished_leaves_the_ledger(
    store: Store, tiny_embedder: L3NetEmbedder, archive: Path
) -> None:
    """What failed and is still there is no drift; when it is deleted it is, and mending forgets it."""
    (archive / "bad.mp4").write_text("no film")
    assert len(add_files(store, tiny_embedder, [archive]).failures) == 1
    assert find_drift(store) == []
    (archive / "bad.mp4").unlink()
    drifts = find_drift(store)
    assert _kinds(drifts) == {"bad.mp4": "vanished"}
    assert repair_drift(store, drifts) == []
    assert (find_drift(store), store.count_videos(FAILED), store.count_videos()) == ([], 0, 3)


def test_a_file_that_was_only_touched_is_not_indexed_again(
    store: Store, tiny_embedder: L3NetEmbedder, archive: Path
) -> None:
    """Another time stamp on the same content is noted; a next run skips the file without reading it."""
    os.utime(archive / "a.mp4", (1, 1))
    drifts = find_drift(store)
    assert _kinds(drifts) == {"a.mp4": "touched"}
    assert repair_drift(store, drifts) == []
    assert make_plan([archive], store.videos()).n_done == 3


def test_content_that_changed_unseen_is_found_by_reading_all(store: Store, archive: Path) -> None:
    """Other bytes of the same size and time are found only by reading."""
    path = archive / "a.mp4"
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find_drift(store) == []
    assert _kinds(find_drift(store, read_all=True)) == {"a.mp4": "changed"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_files_that_may_not_be_looked_at_are_kept(store: Store, archive: Path) -> None:
    """Below a folder whose permission was lost all is unreachable, neither vanished nor an error."""
    archive.chmod(0o700)
    os.seteuid(65534)
    try:
        drifts = find_drift(store)
        n_forgotten = watch._forget_deleted(store, [archive])
    finally:
        os.seteuid(0)
    assert {(drift.kind, drift.what) for drift in drifts} == {("unreachable", "cannot be looked at: Permission denied")}
    assert (n_forgotten, store.count_videos(DONE)) == (0, 3)


@pytest.mark.parametrize("empty_folder_stays", [True, False])
def test_an_archive_whose_disk_is_gone_is_not_forgotten(
    store: Store, tiny_embedder: L3NetEmbedder, archive: Path, empty_folder_stays: bool
) -> None:
    """Files below an empty mount point are unreachable: repairing keeps every second and every path."""
    before, records = contents_of(store), list(store.videos())
    archive.rename(archive.parent.parent / f"{archive.parent.name}-unmounted")
    if empty_folder_stays:
        archive.mkdir()
    drifts = find_drift(store)
    assert set(_kinds(drifts).values()) == {"unreachable"}
    _mend(store, tiny_embedder, drifts)
    assert (contents_of(store), list(store.videos())) == (before, records)
    shutil.rmtree(archive.parent.parent / f"{archive.parent.name}-unmounted")


def test_removing_and_adding_again_gives_the_same_bits(
    store: Store, tiny_embedder: L3NetEmbedder, archive: Path
) -> None:
    """A video that is removed is gone with all its seconds, no other loses any, and it comes back as it was."""
    before, removed = contents_of(store), _id_of(store, "b.mp4")
    store.delete_video(removed)
    assert contents_of(store) == {key: value for key, value in before.items() if key[0] != removed}
    assert store.video(removed) is None
    assert add_files(store, tiny_embedder, [archive]).indexed == 1
    assert contents_of(store) == before


def test_verify_on_the_command_line(
    store: Store, index_folder: Path, tiny_checkpoint: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drift is said and exits 1; --repair mends it and exits 0; then there is none."""
    video_id = _id_of(store, "a.mp4")
    store.delete_seconds(video_id)
    shutil.copy(archive / "b.mp4", archive / "copy.mp4")
    (archive / "b.mp4").unlink()
    store.close()
    where = ["--index", str(index_folder)]
    assert main(["index", "verify", *where]) == 1
    printed = capsys.readouterr()
    assert f"missing     {video_id}: 0 seconds stored, 3 were" in printed.out
    assert f"is now {archive / 'copy.mp4'}" in printed.out
    assert "--repair" in printed.err
    assert main(["index", "verify", "--repair", "--json", *where, "--model", str(tiny_checkpoint)]) == 0
    kinds = sorted(drift["kind"] for drift in json.loads(capsys.readouterr().out)["drift"])
    assert kinds == ["missing", "moved"]
    assert main(["index", "verify", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["drift"] == []


def test_copies_are_listed_with_both_paths(
    store: Store, index_folder: Path, tiny_embedder: L3NetEmbedder, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copied file adds a path and no second, and `ls` shows both paths."""
    shutil.copy(archive / "a.mp4", archive / "twin.mp4")
    assert add_files(store, tiny_embedder, [archive]).duplicates == 1
    assert store.count() == 9
    store.close()
    assert main(["index", "ls", "--index", str(index_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if "a.mp4" in line)
    assert str(archive / "twin.mp4") in lines[first + 1]


def test_failed_paths_are_one_of_each_failure(store: Store) -> None:
    """Only failed entries count, each once."""
    record = next(store.videos())
    broken = replace(record, status=FAILED, paths=("/b", "/a"))
    assert failed_paths([broken, replace(record, status=DONE)]) == [Path("/b")]


def test_the_slowest_stage_decides_how_long_a_run_takes() -> None:
    """More decoders help until embedding, or the number of cores, is the bottleneck; hashing counts by bytes."""
    rate = Rate(seconds=1, decode=1.0, embed=0.2, cores=1.1, hash=1e-6, disk=3000)
    assert rate.wall_seconds(100, workers=1, n_cores=64) == pytest.approx(100)
    assert rate.wall_seconds(100, workers=2, n_cores=64) == pytest.approx(50)
    assert rate.wall_seconds(100, workers=64, n_cores=64) == pytest.approx(20)
    assert rate.wall_seconds(100, workers=64, n_cores=2) == pytest.approx(55)
    assert rate.wall_seconds(100, n_bytes=1e8, workers=1, n_cores=64) == pytest.approx(200)


def test_an_estimate_is_of_what_is_missing(tiny_embedder: L3NetEmbedder, store: Store, archive: Path) -> None:
    """Files, bytes and seconds are exact where all are in the sample; what cannot be read is said; nothing is done."""
    write_film(archive / "new.mp4", seed=70, n_seconds=7)
    (archive / "broken.mp4").write_text("no film")
    found = estimate(make_plan([archive], store.videos()), tiny_embedder, workers=2)
    assert (found.files, found.done, found.media_seconds, found.unreadable) == (2, 3, 7, 0.5)
    assert (found.sampled_files, found.measured_seconds) == (2, 7)
    assert 0 < found.wall_seconds < 60
    assert found.index_bytes >= 2 * 7 * 4 * sum(store.info.dims.values())
    assert store.count() == 9


def test_a_dry_run_makes_no_index(
    index_folder: Path, tiny_checkpoint: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`add --dry-run` prints what would be done and leaves no trace; with nothing to do it says so."""
    command = ["index", "add", str(archive), "--dry-run", "--index", str(index_folder), "--model", str(tiny_checkpoint)]
    assert main(command) == 0
    assert "3 to index" in capsys.readouterr().out
    assert not index_folder.exists()
    assert main([*command[:2], str(archive / "none.mp4"), *command[3:], "--json"]) == 0
    nothing = json.loads(capsys.readouterr().out)
    assert (nothing["files"], nothing["wall_seconds"]) == (0, 0)
