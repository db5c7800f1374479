"""What a hostile file may cost: memory, silence and time of its decoder; and what a decoder's death costs."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer import pipeline, worker
from indexer.pipeline import add_files
from indexer.plan import FoundFile
from indexer.seats import Decoder
from indexer.worker import Alive, Opened, WorkerLimits
from tests.conftest import write_film
from tests.indexes import open_index_of
from tests.media import Pictures, constant_rate, write_media
from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import DONE, FAILED, Store


@pytest.fixture
def store(index_folder: Path, tiny_embedder: L3NetEmbedder) -> Iterator[Store]:
    """A new embedded index of the tiny checkpoint."""
    store = open_index_of(index_folder, tiny_embedder)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("sent", "limits", "reason"),
    [
        (signal.SIGSEGV, WorkerLimits(), "died of it (SIGSEGV)"),
        (signal.SIGKILL, WorkerLimits(), "SIGKILL, perhaps because memory ran out"),
        (signal.SIGSTOP, WorkerLimits(stall_seconds=4), "not one packet was read in 4 s"),
        (signal.SIGSTOP, WorkerLimits(file_seconds=4, seconds_per_second=0), "it took 4 s, the most"),
    ],
    ids=["crashes", "out of memory", "hangs", "takes too long"],
)
def test_a_decoder_that_ends_badly_costs_its_file_only(
    store: Store,
    tiny_embedder: L3NetEmbedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals,
    limits: WorkerLimits,
    reason: str,
) -> None:
    """A decoder that crashes, is killed, hangs or takes too long fails its file with that reason; the rest is done."""
    for seed, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_film(tmp_path / name, seed=seed, n_seconds=2)
    act = pipeline._Run._opened

    def strike_at_b(run: pipeline._Run, decoder: Decoder, file: FoundFile, message: Opened) -> None:
        if file.path.name == "b.mp4":
            assert decoder.process.pid is not None
            os.kill(decoder.process.pid, sent)
        act(run, decoder, file, message)

    monkeypatch.setattr(pipeline._Run, "_opened", strike_at_b)
    report = add_files(store, tiny_embedder, [tmp_path], workers=1, limits=limits)
    ((failed, said),) = report.failures
    assert failed.name == "b.mp4"
    assert reason in said
    assert (report.indexed, store.count_videos(DONE), store.count_videos(FAILED)) == (2, 2, 1)


def test_a_file_that_needs_too_much_memory_fails_alone(
    store: Store, tiny_embedder: L3NetEmbedder, tmp_path: Path
) -> None:
    """A file of pictures too large for the decoder's memory is reported; a small one passes the same decoder."""
    write_film(tmp_path / "small.mp4", seed=1, n_seconds=2)
    large = Pictures(constant_rate(1, 1), codec="mjpeg", size=(8000, 7000), rate=1)
    write_media(tmp_path / "large.avi", large)
    limits = WorkerLimits(memory_bytes=80 * 2**20)
    report = add_files(store, tiny_embedder, [tmp_path], workers=1, limits=limits)
    ((failed, said),) = report.failures
    assert failed.name == "large.avi"
    assert "memory" in said or "could not be decoded" in said
    assert [Path(record.paths[0]).name for record in store.videos(DONE) if not record.error] == ["small.mp4"]


def test_memory_is_limited_in_the_decoder_only(tmp_path: Path) -> None:
    """The limit holds in a process that sets it: what is larger cannot be allocated; this process is not limited."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            worker._limit_process(64 * 2**20)
            np.zeros(16 * 2**20, dtype=np.uint8)
            try:
                np.zeros(512 * 2**20, dtype=np.uint8)
            except MemoryError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    np.zeros(512 * 2**20, dtype=np.uint8)


def test_a_decoder_that_reads_on_says_so_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is called, a pulse is sent once a second."""
    sent: list[object] = []
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    line = worker._Line(type("Pipe", (), {"send": lambda self, message: sent.append(message)})())
    for step in range(35):
        now = 100.0 + step / 10
        line.pulse()
    assert sent == [Alive()] * 3


def test_longer_and_larger_files_may_take_longer() -> None:
    """Time is allowed for any file, for each byte and for each second."""
    limits = WorkerLimits(file_seconds=10, seconds_per_byte=1e-3, seconds_per_second=2)
    assert limits.allowed_seconds(n_bytes=0, n_seconds=0) == 10
    assert limits.allowed_seconds(n_bytes=1000, n_seconds=4) == 10 + 1 + 8
