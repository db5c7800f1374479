"""Where the files of a run are read: a pool of seats, and what they have to say.

A `Pool` may be processes of this machine (`ProcessPool`), or tasks on many (`indexer.ray_cluster`), which also embed
and store. The ledger is not written here.
"""

import multiprocessing
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Protocol

import numpy as np
import numpy.typing as npt

from indexer.plan import FoundFile
from indexer.worker import Alive, Clips, Failed, Finished, Job, Opened, WorkerLimits, run_worker
from visxp_search.embed import Embedder, begin_loading
from visxp_search.store import VideoRecord


@dataclass(frozen=True)
class Stored:
    """Consecutive seconds were embedded and stored where they were decoded."""

    n_seconds: int
    embed_seconds: float
    write_seconds: float


@dataclass(frozen=True)
class Indexed:
    """A file was read to its end and all its seconds were stored where they were decoded.

    Attributes:
        complaint: what was missing in the file, if anything.
        n_seconds: number of its seconds that the store has.
        vectors: mean embedding per vector name.
    """

    complaint: str
    n_seconds: int
    vectors: Mapping[str, npt.NDArray[np.float32]]


Message = Alive | Opened | Clips | Stored | Finished | Indexed | Failed
"""What a seat says; a decoder here speaks of clips, a task elsewhere of what it stored."""


class Seat(Protocol):
    """Where one file after another is read.

    Attributes:
        file: the one that is read; None between files.
        record: its ledger entry, as soon as it was opened.
    """

    file: FoundFile | None
    record: VideoRecord | None

    def receive(self) -> Message:
        """What it has to say."""

    def send(self, message: int | None) -> None:
        """Answer that a file was opened: its first second that is wanted, or None to skip it."""

    def end(self) -> None:
        """Its file needs no more work."""


class Pool(Protocol):
    """The seats of a run."""

    def has_room(self) -> bool:
        """Whether one more file can begin."""

    def begin(self, file: FoundFile) -> None:
        """Begin with a file."""

    def is_busy(self) -> bool:
        """Whether a file is being read."""

    def wait(self) -> Iterable[Seat]:
        """The seats that have something to say, each as often as it has; waits a while for one."""

    def stop(self) -> None:
        """Stop all work at once."""


class ProcessPool:
    """Decoding processes of this machine, as a `Pool`."""

    def __init__(self, workers: int, n_files: int, limits: WorkerLimits, embedder: Embedder) -> None:
        n_processes = min(workers, n_files)
        threads = workers // max(1, n_processes)  # fewer files than workers: several decode one file
        self._workers = [Decoder(limits, threads=threads) for _ in range(n_processes)]
        self._embedder = embedder
        if n_files:
            begin_loading(embedder)

    def has_room(self) -> bool:
        """See `Pool.has_room`."""
        return any(worker.file is None for worker in self._workers)

    def begin(self, file: FoundFile) -> None:
        """See `Pool.begin`."""
        next(worker for worker in self._workers if worker.file is None).begin(file, self._embedder)

    def is_busy(self) -> bool:
        """See `Pool.is_busy`."""
        return any(worker.file is not None for worker in self._workers)

    def wait(self) -> list["Decoder"]:
        """See `Pool.wait`."""
        busy = [worker for worker in self._workers if worker.file is not None]
        ready = wait([worker.pipe for worker in busy], timeout=min(worker.seconds_left() for worker in busy))
        return [worker for worker in busy if worker.pipe in ready or worker.seconds_left() <= 0]

    def stop(self) -> None:
        """See `Pool.stop`."""
        for worker in self._workers:
            worker.stop()


class Decoder:
    """The parent's end of one decoding process, as a `Seat`."""

    def __init__(self, limits: WorkerLimits, *, threads: int = 1) -> None:
        self.file: FoundFile | None = None
        self.record: VideoRecord | None = None
        self._limits, self._threads = limits, threads
        self._n_seconds = 0
        self._began_at = self._heard_at = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=run_worker, args=(theirs, self._limits), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, file: FoundFile, embedder: Embedder) -> None:
        """Begin with a file."""
        if not self.process.is_alive():  # it died between files: that is no fault of this one
            self._restart()
        self.file = file
        self._n_seconds = 0
        self._began_at = self._heard_at = time.monotonic()
        wanted = {"frame_size": embedder.frame_size, "sample_rate_hz": embedder.sample_rate_hz}
        self.send(Job(file.path, **wanted, threads=self._threads))

    def send(self, message: Job | int | None) -> None:
        """Answer the process. If it has died, `receive` says so next."""
        with suppress(BrokenPipeError):
            self.pipe.send(message)

    def receive(self) -> Alive | Opened | Clips | Finished | Failed:
        """The next message; a process that died, or that has used up its time, is a failed file, and is replaced."""
        if self.seconds_left() <= 0 and not self.pipe.poll():
            return self._give_up()
        try:
            message: Alive | Opened | Clips | Finished | Failed = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            how = _how_it_ended(self.process.exitcode)
            self._restart()
            return Failed(None, f"the decoder died of it ({how}); the file may be damaged")
        self._heard_at = time.monotonic()
        if isinstance(message, Opened):
            self._n_seconds = message.info.n_seconds
        return message

    def seconds_left(self) -> float:
        """Time until the file has used up what it may."""
        now = time.monotonic()
        return min(self._heard_at + self._limits.stall_seconds, self._began_at + self._allowed_seconds()) - now

    def _give_up(self) -> Failed:
        """Kill the process, which has taken too long for its file, and start another."""
        silent, whole = time.monotonic() - self._heard_at, self._allowed_seconds()
        if silent >= self._limits.stall_seconds:
            reason = f"the decoder was stopped: not one packet was read in {silent:.0f} s"
        else:
            reason = f"the decoder was stopped: it took {whole:.0f} s, the most that a file of this length may"
        self.process.kill()
        self.process.join()
        self._restart()
        return Failed(None, f"{reason}; the file may be damaged")

    def _allowed_seconds(self) -> float:
        return self._limits.allowed_seconds(n_bytes=self.file.size if self.file else 0, n_seconds=self._n_seconds)

    def _restart(self) -> None:
        self.pipe.close()
        self._start()

    def end(self) -> None:
        """See `Seat.end`."""
        self.file = self.record = None

    def stop(self) -> None:
        """End the process at once."""
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _how_it_ended(exit_code: int | None) -> str:
    """The end of a process in words."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    if exit_code == -signal.SIGKILL:
        return "SIGKILL, perhaps because memory ran out"
    return signal.Signals(-exit_code).name
