"""Indexing: every second once, whatever happens in between."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer import pipeline
from indexer.pipeline import add_files
from indexer.plan import FoundFile, Refusal, find_files
from indexer.report import AddReport
from indexer.seats import Decoder
from tests.conftest import RATE, make_film, write_film
from tests.indexes import contents_of, open_index_of
from tests.media import truncate
from visxp_search.l3net import L3NetEmbedder
from visxp_search.render import write_audio, write_video
from visxp_search.store import DONE, FAILED, PENDING, Store


@pytest.fixture
def store(index_folder: Path, tiny_embedder: L3NetEmbedder) -> Iterator[Store]:
    """A new embedded index of the tiny checkpoint."""
    store = open_index_of(index_folder, tiny_embedder)
    yield store
    store.close()


def _add(store: Store, embedder: L3NetEmbedder, *paths: Path, workers: int = 2) -> AddReport:
    return add_files(store, embedder, paths, workers=workers)


def test_every_second_is_stored_with_what_it_has(store: Store, tiny_embedder: L3NetEmbedder, films: Path) -> None:
    """Videos, mute videos and sounds give one point a second, with vectors for what there is and flags for the rest."""
    report = _add(store, tiny_embedder, films)
    assert (report.indexed, report.seconds, report.failures) == (4, 55, [])
    records = {Path(record.paths[0]).name: record for record in store.videos()}
    assert {name: (record.kind, record.status, record.seconds_done) for name, record in records.items()} == {
        "long.mp4": ("video", DONE, 40),
        "short.mp4": ("video", DONE, 5),
        "mute.mp4": ("video", DONE, 4),
        "sound.wav": ("audio", DONE, 6),
    }
    mute = store.seconds_of(records["mute.mp4"].video_id, with_vectors=("visual", "audio", "joint"))
    assert all(set(point.vectors) == {"visual", "joint"} for point in mute)
    assert all("no_audio" in point.payload["flags"] and not point.payload["has_audio"] for point in mute)
    sound = store.seconds_of(records["sound.wav"].video_id, with_vectors=("visual", "audio", "joint"))
    assert all(set(point.vectors) == {"audio", "joint"} for point in sound)
    assert sound[3].payload["start_ms"] == 3000
    assert records["long.mp4"].facts["width"] == 96


def test_indexing_twice_changes_nothing(store: Store, tiny_embedder: L3NetEmbedder, films: Path) -> None:
    """The second run skips everything and the points are the same."""
    _add(store, tiny_embedder, films)
    before = contents_of(store)
    report = _add(store, tiny_embedder, films)
    assert (report.indexed, report.skipped, report.seconds) == (0, 4, 0)
    assert contents_of(store) == before


def test_one_or_two_workers_give_the_same_bits(
    store: Store, index_folder: Path, tiny_embedder: L3NetEmbedder, films: Path
) -> None:
    """The order in which files are read does not reach the embeddings."""
    _add(store, tiny_embedder, films, workers=1)
    other = open_index_of(index_folder.with_name("other"), tiny_embedder)
    _add(other, tiny_embedder, films, workers=2)
    assert contents_of(other) == contents_of(store)
    other.close()


def test_black_and_silent_seconds_have_no_vector(store: Store, tiny_embedder: L3NetEmbedder, tmp_path: Path) -> None:
    """Seconds of black and of silence are stored with their flags and without these vectors."""
    frames, waveform = make_film(7, 4)
    frames[10:20] = [np.zeros_like(frames[0])] * 10
    waveform[2 * RATE : 3 * RATE] = 0
    path = tmp_path / "dark.mp4"
    write_video(path, frames=frames, frames_per_second=10, waveform=waveform, sample_rate_hz=RATE)
    _add(store, tiny_embedder, path)
    points = store.seconds_of(next(store.videos()).video_id, with_vectors=("visual", "audio"))
    assert "black" in points[1].payload["flags"]
    assert set(points[1].vectors) == {"audio"}
    assert "visual" in points[2].vectors


def test_a_moved_or_copied_file_is_the_same_video(store: Store, tiny_embedder: L3NetEmbedder, tmp_path: Path) -> None:
    """Equal content is indexed once, under all its paths."""
    first = write_film(tmp_path / "first.mp4", seed=5, n_seconds=3)
    _add(store, tiny_embedder, first)
    shutil.copy(first, tmp_path / "second.mp4")
    report = _add(store, tiny_embedder, tmp_path)
    assert (report.indexed, report.duplicates, report.skipped) == (0, 1, 1)
    (record,) = store.videos()
    assert {Path(path).name for path in record.paths} == {"first.mp4", "second.mp4"}
    assert store.count() == 3


def test_copies_found_in_one_run_are_one_video(store: Store, tiny_embedder: L3NetEmbedder, tmp_path: Path) -> None:
    """Two workers that get the same content at the same time store it once."""
    first = write_film(tmp_path / "a.mp4", seed=5, n_seconds=3)
    shutil.copy(first, tmp_path / "b.mp4")
    report = _add(store, tiny_embedder, tmp_path)
    assert (report.indexed, report.duplicates) == (1, 1)
    (record,) = store.videos()
    assert len(record.paths) == 2
    assert _add(store, tiny_embedder, tmp_path).skipped == 2


def test_a_file_that_changed_replaces_what_it_was(store: Store, tiny_embedder: L3NetEmbedder, tmp_path: Path) -> None:
    """New content under a known path takes the place of the old, whose points are removed."""
    path = write_film(tmp_path / "film.mp4", seed=5, n_seconds=3)
    _add(store, tiny_embedder, path)
    write_film(path, seed=6, n_seconds=4)
    _add(store, tiny_embedder, path)
    (record,) = store.videos()
    assert (record.seconds_done, store.count()) == (4, 4)


def test_failures_are_recorded_and_the_rest_goes_on(store: Store, tiny_embedder: L3NetEmbedder, tmp_path: Path) -> None:
    """Unreadable files fail with a reason, also in the ledger; a truncated one keeps the seconds that are there."""
    write_film(tmp_path / "good.mp4", seed=8, n_seconds=3)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("these are words, not pictures\n" * 50)
    long = tmp_path / "cut.mkv"
    frames, waveform = make_film(9, 20)
    write_video(long, frames=frames, frames_per_second=10, waveform=waveform, sample_rate_hz=RATE)
    truncate(long, 0.5)
    secret = tmp_path.parent / f"{tmp_path.name}-outside.mp4"
    write_film(secret, seed=10, n_seconds=2)
    (tmp_path / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    (tmp_path / "link.mp4").symlink_to(secret)

    report = _add(store, tiny_embedder, tmp_path)

    reasons = {path.name: reason for path, reason in report.failures}
    assert set(reasons) == {"empty.mp4", "text.mp4", "cut.mkv", "playlist.mp4", "concat.mp4", "link.mp4"}
    assert all("\n" not in reason and reason for reason in reasons.values())
    records = {Path(path).name: record for record in store.videos() for path in record.paths}
    assert records["good.mp4"].status == DONE
    assert records["text.mp4"].status == FAILED
    assert records["text.mp4"].error
    assert records["cut.mkv"].status == DONE
    assert 5 <= records["cut.mkv"].seconds_done < 20
    assert store.count() == 3 + records["cut.mkv"].seconds_done


@pytest.mark.parametrize("moment", ["_opened", "_leave"])
def test_a_worker_that_dies_costs_at_most_its_file(
    store: Store, tiny_embedder: L3NetEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A decoder killed while it waits for an answer fails its file; one killed between files fails none."""
    for name, seed in (("a.mp4", 1), ("b.mp4", 2), ("c.mp4", 3)):
        write_film(tmp_path / name, seed=seed, n_seconds=3)
    act = getattr(pipeline._Run, moment)

    def kill_at_the_second(run: object, worker: Decoder, file: FoundFile, *message: object) -> None:
        if file.path.name == "b.mp4":
            assert worker.process.pid is not None
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.process.join()
        act(run, worker, file, *message)

    monkeypatch.setattr(pipeline._Run, moment, kill_at_the_second)
    report = _add(store, tiny_embedder, tmp_path, workers=1)
    failed = [path.name for path, reason in report.failures if "decoder died" in reason]
    assert failed == (["b.mp4"] if moment == "_opened" else [])
    assert report.indexed == 3 - len(failed)
    assert store.count_videos(DONE) == report.indexed
    monkeypatch.undo()
    assert _add(store, tiny_embedder, tmp_path).failures == []
    assert (store.count_videos(DONE), store.count()) == (3, 9)


def test_what_was_begun_is_completed(store: Store, tiny_embedder: L3NetEmbedder, films: Path) -> None:
    """A video with some blocks missing gets exactly those, bit for bit as in one go."""
    _add(store, tiny_embedder, films / "long.mp4")
    whole = contents_of(store)
    record = next(store.videos())
    points = store.seconds_of(record.video_id, with_vectors=("visual", "audio", "joint"))
    store.delete_seconds(record.video_id)
    store.upsert_seconds(points[:35])
    store.upsert_videos([replace(record, status=PENDING)])
    report = _add(store, tiny_embedder, films / "long.mp4")
    assert report.seconds == 8  # the second block, [32, 40), anew
    assert contents_of(store) == whole


def test_killed_in_the_middle_and_run_again(
    index_folder: Path, tiny_embedder: L3NetEmbedder, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """After kill -9 and another run, ids, payloads and vectors equal those of an undisturbed run."""
    for seed in range(6):
        write_film(tmp_path / f"film{seed}.mp4", seed=20 + seed, n_seconds=40)
    undisturbed = open_index_of(index_folder.with_name("undisturbed"), tiny_embedder)
    _add(undisturbed, tiny_embedder, tmp_path)
    wanted = contents_of(undisturbed)
    undisturbed.close()

    command = [sys.executable, "-m", "visxp_search.cli", "index", "add", str(tmp_path)]
    command += ["--index", str(index_folder), "--model", str(tiny_checkpoint), "--workers", "2"]
    kills = 0
    for delay in (0.0, 0.3):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stderr is not None
        process.stderr.readline()  # the first file is done
        time.sleep(delay)
        kills += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert kills
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    again = open_index_of(index_folder, tiny_embedder)
    assert contents_of(again) == wanted
    assert again.count_videos(DONE) == 6
    again.close()


def test_interrupted_and_run_again(
    index_folder: Path, tiny_embedder: L3NetEmbedder, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Ctrl-C ends with exit code 130 and one line; the next run completes the index."""
    for seed in range(4):
        write_film(tmp_path / f"film{seed}.mp4", seed=30 + seed, n_seconds=40)
    command = [sys.executable, "-m", "visxp_search.cli", "index", "add", str(tmp_path)]
    command += ["--index", str(index_folder), "--model", str(tiny_checkpoint), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "run the same command again" in errors
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    store = open_index_of(index_folder, tiny_embedder)
    assert store.count() == 160
    store.close()


def test_found_files(tmp_path: Path) -> None:
    """Folders give their media sorted and once; other files in them are left alone; what is missing is refused."""
    (tmp_path / "b").mkdir()
    for name in ("z.MP4", "b/a.mkv", "notes.txt", "b/sound.flac"):
        (tmp_path / name).write_bytes(b"x")
    found = list(find_files([tmp_path, tmp_path / "z.MP4", tmp_path / "nothing", tmp_path / "notes.txt"]))
    names = [item.path.name for item in found if isinstance(item, FoundFile)]
    assert names == ["z.MP4", "a.mkv", "sound.flac", "notes.txt"]
    assert [item.path.name for item in found if isinstance(item, Refusal)] == ["nothing"]


def test_links_that_stay_inside_are_followed(tmp_path: Path) -> None:
    """A link inside the folder is taken, one that leads out is refused by name."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "film.mp4").write_bytes(b"x")
    (outside / "film.mp4").write_bytes(b"x")
    (inside / "near.mp4").symlink_to(inside / "film.mp4")
    (inside / "far.mp4").symlink_to(outside / "film.mp4")
    found = {item.path.name: item for item in find_files([inside])}
    assert isinstance(found["near.mp4"], FoundFile)
    assert isinstance(found["far.mp4"], Refusal)


def test_a_folder_without_rights_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be listed is refused with its reason and the rest is found."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "film.mp4").write_bytes(b"x")
    scandir = os.scandir

    def deny(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    found = list(find_files([tmp_path]))
    assert [type(item).__name__ for item in found] == ["FoundFile", "Refusal"]
    assert "Permission denied" in next(item.reason for item in found if isinstance(item, Refusal))


def test_sounds_alone_are_indexed(store: Store, tiny_embedder: L3NetEmbedder, tmp_path: Path) -> None:
    """Audio files of several formats give audio vectors."""
    for name in ("a.mp3", "b.flac", "c.ogg", "d.m4a"):
        write_audio(tmp_path / name, waveform=make_film(len(name), 3)[1], sample_rate_hz=48_000)
    report = _add(store, tiny_embedder, tmp_path)
    assert (report.indexed, report.failures) == (4, [])
    assert {record.kind for record in store.videos()} == {"audio"}
