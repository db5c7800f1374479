"""An index that follows a folder: real files, real notices of the file system."""

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.plan import FoundFile
from indexer.report import AddReport
from indexer.watch import Rest, watch_folders
from tests.conftest import write_film
from tests.indexes import open_index_of
from visxp_search.api import _make_then_open
from visxp_search.cli import main
from visxp_search.errors import MissingIndexError
from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import VideoRecord

REST_SECONDS = 1.0
PATIENCE_SECONDS = 120


class Watched:
    """A folder that is watched by a thread; `totals` are what its rounds of work have done so far."""

    def __init__(self, folder: Path, index: Path, embedder: L3NetEmbedder) -> None:
        self.folder = folder
        self.totals = {"indexed": 0, "duplicates": 0, "failed": 0, "forgotten": 0}
        self._index, self._embedder = index, embedder
        self._rounds: queue.SimpleQueue[tuple[AddReport, int]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        watch_folders(
            lambda: open_index_of(self._index, self._embedder),
            self._embedder,
            [self.folder],
            workers=1,
            rest_seconds=REST_SECONDS,
            on_work=lambda report, n_forgotten: self._rounds.put((report, n_forgotten)),
            stop=self._stop,
        )

    def wait_for(self, **wanted: int) -> None:
        """Wait until the totals are at least so much."""
        while any(self.totals[name] < number for name, number in wanted.items()):
            report, n_forgotten = self._rounds.get(timeout=PATIENCE_SECONDS)
            for name, number in (
                ("indexed", report.indexed),
                ("duplicates", report.duplicates),
                ("failed", len(report.failures)),
                ("forgotten", n_forgotten),
            ):
                self.totals[name] += number

    def end(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()

    def ledger(self) -> dict[str, VideoRecord]:
        """File name -> entry; also while it watches, as the index is free between rounds."""
        with closing(open_index_of(self._index, self._embedder)) as store:
            return {Path(path).name: record for record in store.videos() for path in record.paths}


@pytest.fixture
def watched(index_folder: Path, tiny_embedder: L3NetEmbedder, tmp_path: Path) -> Iterator[Watched]:
    """A watched folder with one film, which is indexed already."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    write_film(folder / "first.mp4", seed=1, n_seconds=2)
    watched = Watched(folder, index_folder, tiny_embedder)
    watched.wait_for(indexed=1)
    yield watched
    watched.end()


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Puts a finished film at a path, at once, as a rename does."""

    def put(path: Path, seed: int) -> Path:
        return write_film(tmp_path / f"rendered{seed}.mp4", seed=seed, n_seconds=2).replace(path)

    return put


@pytest.mark.slow
def test_new_changed_moved_and_deleted_files(watched: Watched, put: Callable[..., Path]) -> None:
    """Each change of the folder reaches the index; a moved file is not embedded again, a broken one is tried once."""
    folder = watched.folder
    put(folder / "second.mp4", 2)
    watched.wait_for(indexed=2)
    old = watched.ledger()["second.mp4"].video_id
    put(folder / "second.mp4", 3)
    watched.wait_for(indexed=3)
    assert watched.ledger()["second.mp4"].video_id != old
    (folder / "sub").mkdir()
    (folder / "first.mp4").rename(folder / "sub" / "moved.mp4")
    watched.wait_for(duplicates=1, forgotten=1)
    (folder / "broken.mp4").write_text("no film")
    watched.wait_for(failed=1)
    (folder / "second.mp4").unlink()
    watched.wait_for(forgotten=2)
    ledger = watched.ledger()
    assert set(ledger) == {"moved.mp4", "broken.mp4"}
    assert ledger["moved.mp4"].seconds_done == 2
    assert (watched.totals["indexed"], watched.totals["failed"], ledger["broken.mp4"].tries) == (3, 1, 1)


@pytest.mark.slow
def test_a_half_copied_file_waits_until_it_rests(watched: Watched, tmp_path: Path) -> None:
    """A file that grows piece by piece is read once, when it is whole, and never fails."""
    data = write_film(tmp_path / "whole.mp4", seed=4, n_seconds=3).read_bytes()
    n_pieces = 12
    with (watched.folder / "slow.mp4").open("wb", buffering=0) as stream:
        for piece in range(n_pieces):
            stream.write(data[piece * len(data) // n_pieces : (piece + 1) * len(data) // n_pieces])
            time.sleep(REST_SECONDS / 4)
    watched.wait_for(indexed=2)
    assert (watched.totals["failed"], watched.ledger()["slow.mp4"].seconds_done) == (0, 3)
    assert watched.ledger()["slow.mp4"].tries == 1


@pytest.mark.slow
def test_a_folder_that_is_emptied_at_once_is_not_forgotten(watched: Watched, put: Callable[..., Path]) -> None:
    """A watched folder that is empty may be a disk that went away; when files are there again, they are known."""
    (watched.folder / "first.mp4").rename(watched.folder.parent / "kept.mp4")
    time.sleep(3 * REST_SECONDS)
    assert set(watched.ledger()) == {"first.mp4"}
    (watched.folder.parent / "kept.mp4").rename(watched.folder / "first.mp4")
    put(watched.folder / "second.mp4", 5)
    watched.wait_for(indexed=2)
    assert watched.totals["forgotten"] == 0


@pytest.mark.slow
def test_ctrl_c_ends_watching_well(
    index_folder: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command indexes, goes on, leaves the index free to others meanwhile, and ends with 0 at Ctrl-C."""
    write_film(tmp_path / "film.mp4", seed=1, n_seconds=2)
    command = [sys.executable, "-m", "visxp_search.cli", "index", "add", str(tmp_path), "--watch", "--rest", "0.5"]
    command += ["--index", str(index_folder), "--model", str(tiny_checkpoint)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("1 files indexed" in line for line in process.stderr)
    assert main(["index", "info", "--index", str(index_folder)]) == 0
    assert "2 of 2" in capsys.readouterr().out
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "what is stored stays" in errors
    assert "Traceback" not in errors


def test_an_index_that_vanishes_while_it_is_watched_is_not_made_anew(
    tmp_path: Path, tiny_embedder: L3NetEmbedder
) -> None:
    """The index is made at the first opening only: later its disk is gone, and nothing is written in its place."""
    open_again = _make_then_open(tmp_path / "disk" / "index", tiny_embedder, None)
    for _ in range(2):
        open_again().close()
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    (tmp_path / "disk").mkdir()  # the mount point
    with pytest.raises(MissingIndexError, match="there is no index at"):
        open_again()
    assert not list((tmp_path / "disk").iterdir())


def test_files_rest_when_size_and_time_stay_the_same() -> None:
    """A file rests so long after its last change; one that disappears meanwhile is forgotten."""
    rest = Rest(seconds=10)
    small, grown = FoundFile(Path("/a.mp4"), 1, 1), FoundFile(Path("/a.mp4"), 2, 1)
    other = FoundFile(Path("/b.mp4"), 1, 1)
    assert rest.choose([small, other], now=0) == []
    assert rest.choose([grown, other], now=9) == []
    assert rest.choose([grown, other], now=10) == [other]
    assert rest.choose([grown], now=18.9) == []
    assert rest.choose([grown], now=19) == [grown]
    assert set(rest.seen) == {Path("/a.mp4")}


@pytest.mark.parametrize("option", ["--dry-run", "--json"])
def test_watching_has_no_end_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    """--watch with what needs an end is wrong use; so is a folder that is not there."""
    assert main(["index", "add", str(tmp_path), "--watch", option]) == 2
    assert "--watch" in capsys.readouterr().err
    assert main(["index", "add", str(tmp_path / "none"), "--watch", "--index", str(tmp_path / "i")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
