"""Read, embed, write: from media files to a complete index.

Worker processes decode (`indexer.worker`); this process embeds and stores block by block, and keeps the ledger. A block
that is stored is never decoded again; the ledger says `done` once all blocks of a video are safely on the disk.

Where the files are read is a `Pool` of seats: processes of this machine, or tasks on many (`indexer.ray_cluster`),
which also embed and store. The ledger is written here in both cases.
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from indexer.plan import FoundFile, id_of_unreadable, make_plan, records_by_path, with_path, without_path
from indexer.worker import BLOCK_SECONDS, Alive, Clips, Failed, Finished, Job, Opened, WorkerLimits, run_worker
from visxp_search.clips import Clip
from visxp_search.cluster_store import Clustering, label_points, read_clustering
from visxp_search.embed import Embedder, SelfLabelled, Threaded, begin_loading
from visxp_search.store import DONE, FAILED, PENDING, SecondPoint, Store, VideoRecord, make_payload, mean_vectors


class Progress(Protocol):
    """What a caller may want to know while indexing runs."""

    def found(self, path: Path, size: int) -> None:
        """A file needs work."""

    def opened(self, path: Path, n_seconds: int, n_done: int) -> None:
        """A file was opened; so many of its seconds are stored already."""

    def stored(self, path: Path, n_seconds: int) -> None:
        """So many more seconds of it are stored."""

    def finished(self, path: Path) -> None:
        """A file needs no more work."""

    def failed(self, path: Path, reason: str) -> None:
        """A file could not be indexed, or not wholly."""


class Silent:
    """Progress that tells nobody."""

    def found(self, path: Path, size: int) -> None:
        """Nothing."""

    def opened(self, path: Path, n_seconds: int, n_done: int) -> None:
        """Nothing."""

    def stored(self, path: Path, n_seconds: int) -> None:
        """Nothing."""

    def finished(self, path: Path) -> None:
        """Nothing."""

    def failed(self, path: Path, reason: str) -> None:
        """Nothing."""


@dataclass
class AddReport:
    """What an indexing run did.

    Attributes:
        indexed: files that are now complete.
        skipped: files that were complete already.
        duplicates: files whose content was indexed under another path; the path was added.
        failures: (path, reason) of files that could not be indexed wholly.
        seconds: seconds stored by this run.
        stage_seconds: stage -> wall time spent in it, seconds (`wait` is waiting for the decoders).
    """

    indexed: int = 0
    skipped: int = 0
    duplicates: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)
    seconds: int = 0
    stage_seconds: dict[str, float] = field(default_factory=lambda: {"wait": 0.0, "embed": 0.0, "write": 0.0})


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


def add_files(
    store: Store,
    embedder: Embedder,
    paths: Sequence[Path],
    *,
    workers: int = 2,
    limits: WorkerLimits | None = None,
    progress: Progress | None = None,
    pool: Pool | None = None,
) -> AddReport:
    """Index files and folders; what is done is skipped, what was begun is completed.

    Interrupting it (Ctrl-C, kill) leaves an index that a further call completes.

    Args:
        store: an index open for writing, of the embedder's checkpoint.
        embedder: makes the embeddings.
        paths: files and folders; folders are walked recursively.
        workers: decoding processes; if there are fewer files, as many threads in all.
        limits: what one file may cost; defaults to `WorkerLimits()`.
        progress: told what happens.
        pool: where files are read; None: in `workers` processes of this machine, within `limits`.

    Raises:
        CollectionError: If the store fails.
    """
    run = _Run(store, embedder, progress or Silent())
    queue = run.plan(paths)
    pool = pool or _ProcessPool(workers, len(queue), limits or WorkerLimits(), embedder)
    with embedder.limit_threads(_embedding_threads(workers)) if isinstance(embedder, Threaded) else nullcontext():
        return _work_through(run, queue, pool)


def _embedding_threads(workers: int) -> int:
    """Threads that embed while others decode: too many wait for a core, and what waits spins and slows all down."""
    n_cores = os.cpu_count() or 1
    return max(1, n_cores - workers, n_cores // 4)


def _work_through(run: "_Run", queue: deque[FoundFile], pool: Pool) -> AddReport:
    try:
        while queue or pool.is_busy():
            while queue and pool.has_room():
                pool.begin(queue.popleft())
            started = time.perf_counter()
            ready = pool.wait()
            run.report.stage_seconds["wait"] += time.perf_counter() - started
            for seat in ready:
                run.handle(seat, seat.receive())
            run.settle()
    finally:
        pool.stop()
        run.settle(now=True)
    return run.report


def index_file(
    store: Store,
    embedder: Embedder,
    file: FoundFile,
    *,
    limits: WorkerLimits,
    ask: Callable[[Opened], int | None],
    tell: Callable[[Stored], None],
) -> Indexed | Failed | None:
    """Decode, embed and store one file, apart from the process that keeps the ledger.

    Args:
        store: an index open for writing, of the embedder's checkpoint; its ledger is left alone.
        embedder: makes the embeddings.
        file: what to index.
        limits: what it may cost.
        ask: given what the file is, says from which second it is wanted, or None to skip it.
        tell: told of each block that is stored.

    Returns:
        How it ended; None if it was skipped.

    Raises:
        CollectionError: If the store fails.
    """
    clustering = read_clustering(store)
    worker = _Worker(limits)
    video_id = ""
    try:
        worker.begin(file, embedder)
        while True:
            wait([worker.pipe], timeout=worker.seconds_left())
            message = worker.receive()
            if isinstance(message, Opened):
                video_id, first = message.video_id, ask(message)
                worker.send(first)
                if first is None:
                    return None
            elif isinstance(message, Clips):
                tell(_store_clips(store, embedder, clustering, video_id, message.clips))
            elif isinstance(message, Finished):
                return _summarise(store, embedder, video_id, message.complaint)
            elif isinstance(message, Failed):
                return message
    finally:
        worker.stop()


SETTLE_SECONDS = 20.0
"""Seconds between syncs to the disk; a sync takes up to a second, however little there is to do."""


class _ProcessPool:
    """Decoding processes of this machine, as a `Pool`."""

    def __init__(self, workers: int, n_files: int, limits: WorkerLimits, embedder: Embedder) -> None:
        n_processes = min(workers, n_files)
        threads = workers // max(1, n_processes)  # fewer files than workers: several decode one file
        self._workers = [_Worker(limits, threads=threads) for _ in range(n_processes)]
        self._embedder = embedder
        if n_files:
            begin_loading(embedder)

    def has_room(self) -> bool:
        return any(worker.file is None for worker in self._workers)

    def begin(self, file: FoundFile) -> None:
        next(worker for worker in self._workers if worker.file is None).begin(file, self._embedder)

    def is_busy(self) -> bool:
        return any(worker.file is not None for worker in self._workers)

    def wait(self) -> list["_Worker"]:
        busy = [worker for worker in self._workers if worker.file is not None]
        ready = wait([worker.pipe for worker in busy], timeout=min(worker.seconds_left() for worker in busy))
        return [worker for worker in busy if worker.pipe in ready or worker.seconds_left() <= 0]

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()


class _Worker:
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
        self.file = self.record = None

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


class _Run:
    """One call of `add_files`: the ledger's view and what has happened so far."""

    def __init__(self, store: Store, embedder: Embedder, progress: Progress) -> None:
        self.store = store
        self.embedder = embedder
        self.progress = progress
        self.report = AddReport()
        self.clustering = read_clustering(store)
        self.records = {record.video_id: record for record in store.videos()}
        self.by_path = records_by_path(self.records.values())
        self.in_work: set[str] = set()
        self.unsettled: list[str] = []
        self.settled_at = time.monotonic()

    def plan(self, paths: Iterable[Path]) -> deque[FoundFile]:
        """The files that need work; refusals are reported at once."""
        plan = make_plan(paths, self.records.values())
        for refusal in plan.refusals:
            self._fail(refusal.path, refusal.reason)
        self.report.skipped += plan.n_done
        for file in plan.files:
            self.progress.found(file.path, file.size)
        return deque(plan.files)

    def handle(self, seat: Seat, message: Message) -> None:
        """Act on one message of a seat."""
        file = seat.file
        if file is None:
            raise AssertionError("a message came from a seat without a file")
        if isinstance(message, Alive):
            return
        if isinstance(message, Opened):
            self._opened(seat, file, message)
        elif isinstance(message, Clips):
            video_id = _record_of(seat).video_id
            self._stored(file, _store_clips(self.store, self.embedder, self.clustering, video_id, message.clips))
        elif isinstance(message, Stored):
            self._stored(file, message)
        elif isinstance(message, Finished):
            video_id = _record_of(seat).video_id
            self._finish(seat, file, _summarise(self.store, self.embedder, video_id, message.complaint))
        elif isinstance(message, Indexed):
            self._finish(seat, file, message)
        else:
            self._failed(seat, file, message)

    def _opened(self, seat: Seat, file: FoundFile, message: Opened) -> None:
        """Decide where to begin: nowhere if this content is done or another seat has it."""
        if seat.record is not None:  # the file is begun anew, as the machine that read it was lost
            self.in_work.discard(seat.record.video_id)
        known = self.records.get(message.video_id)
        if message.video_id in self.in_work or (known is not None and known.status == DONE):
            seat.send(None)
            if known is not None:
                self.report.duplicates += str(file.path) not in known.paths
                self.report.skipped += str(file.path) in known.paths
                self._write_record(with_path(known, file))
            self._release_path(file, keep=message.video_id)
            self.progress.finished(file.path)
            seat.end()
            return
        record = replace(
            with_path(known or VideoRecord(message.video_id, ()), file),
            status=PENDING,
            kind=message.info.kind,
            duration_seconds=message.info.duration_seconds,
            seconds_expected=message.info.n_seconds,
            checkpoint=self.embedder.checkpoint_id,
            facts=message.info.facts,
            error="",
            tries=(known.tries if known else 0) + 1,
        )
        stored = {point.second for point in self.store.seconds_of(record.video_id)}
        first = _first_missing_block(stored)
        self.in_work.add(record.video_id)
        seat.record = record
        self._write_record(record)
        self.progress.opened(file.path, message.info.n_seconds, first)
        seat.send(first)

    def _stored(self, file: FoundFile, stored: Stored) -> None:
        self.report.stage_seconds["embed"] += stored.embed_seconds
        self.report.stage_seconds["write"] += stored.write_seconds
        self.report.seconds += stored.n_seconds
        self.progress.stored(file.path, stored.n_seconds)

    def _finish(self, seat: Seat, file: FoundFile, indexed: Indexed) -> None:
        """The file was read to its end; with a complaint it is done as far as it goes, and the run says so."""
        record = self.records[_record_of(seat).video_id]  # another path may have been added meanwhile
        self.records[record.video_id] = replace(
            record, status=DONE, seconds_done=indexed.n_seconds, error=indexed.complaint, vectors=indexed.vectors
        )
        self.unsettled.append(record.video_id)
        self._release_path(file, keep=record.video_id)
        if indexed.complaint:
            self._fail(file.path, indexed.complaint)
        else:
            self.report.indexed += 1
        self._leave(seat, file)

    def _failed(self, seat: Seat, file: FoundFile, message: Failed) -> None:
        old = self.by_path.get(str(file.path))
        if message.video_id is None and seat.record is None and old is not None and old.status == DONE:
            self._fail(
                file.path, message.reason
            )  # not readable now: no proof that what is indexed is not there any more
            self._leave(seat, file)
            return
        known = seat.record
        video_id = known.video_id if known else message.video_id or id_of_unreadable(file.path)
        before = self.records.get(video_id) or VideoRecord(video_id, ())
        stored = self.store.seconds_of(video_id) if known else []
        self._write_record(
            replace(
                with_path(before, file),
                status=FAILED,
                error=message.reason,
                seconds_done=len(stored),
                checkpoint=self.embedder.checkpoint_id,
                tries=before.tries + (known is None),
            )
        )
        self._release_path(file, keep=video_id)
        self._fail(file.path, message.reason)
        self._leave(seat, file)

    def settle(self, *, now: bool = False) -> None:
        """Sync what is stored, and only then let the ledger say that videos are done; from time to time, or now."""
        if now or time.monotonic() - self.settled_at > SETTLE_SECONDS:
            self.store.flush()
            self.store.upsert_videos([self.records[video_id] for video_id in self.unsettled])
            self.unsettled.clear()
            self.settled_at = time.monotonic()

    def _leave(self, seat: Seat, file: FoundFile) -> None:
        if seat.record is not None:
            self.in_work.discard(seat.record.video_id)
        seat.end()
        self.progress.finished(file.path)

    def _fail(self, path: Path, reason: str) -> None:
        self.report.failures.append((path, reason))
        self.progress.failed(path, reason)

    def _write_record(self, record: VideoRecord) -> None:
        self.records[record.video_id] = record
        if record.video_id not in self.unsettled:
            self.store.upsert_videos([record])

    def _release_path(self, file: FoundFile, *, keep: str) -> None:
        """Take the path away from other content that it used to hold; content without a path leaves the index."""
        path = str(file.path)
        old = self.by_path.get(path)
        if old is not None and old.video_id != keep:
            current = without_path(self.records[old.video_id], path)
            if current.paths:
                self._write_record(current)
            else:
                self.store.delete_video(old.video_id)
                del self.records[old.video_id]
                self.unsettled = [video_id for video_id in self.unsettled if video_id != old.video_id]
        self.by_path[path] = self.records[keep]


def _store_clips(
    store: Store, embedder: Embedder, clustering: Clustering | None, video_id: str, clips: Sequence[Clip]
) -> Stored:
    """Embed and store consecutive seconds of a video."""
    started = time.perf_counter()
    embeddings = embedder.embed(clips)
    # Clusters that were fitted to this archive take the place of those that the checkpoint learned.
    labels = None
    if clustering is None and isinstance(embedder, SelfLabelled):
        labels = embedder.pseudo_labels(embeddings)
    embedded = time.perf_counter()
    points = [
        SecondPoint(
            video_id=video_id,
            second=clip.second,
            vectors=embeddings.vectors(row),
            payload=make_payload(
                video_id=video_id,
                second=clip.second,
                has_audio=clip.has_audio,
                flags=clip.flags,
                checkpoint=embedder.checkpoint_id,
                **(labels.payload(row) if labels is not None else {}),
            ),
        )
        for row, clip in enumerate(clips)
    ]
    store.upsert_seconds(label_points(points, clustering))
    return Stored(len(clips), embedded - started, time.perf_counter() - embedded)


def _summarise(store: Store, embedder: Embedder, video_id: str, complaint: str) -> Indexed:
    """What the ledger is to say of a video whose seconds are all stored."""
    points = store.seconds_of(video_id, with_vectors=tuple(embedder.specs))
    return Indexed(complaint, len(points), mean_vectors(points))


def _how_it_ended(exit_code: int | None) -> str:
    """The end of a process in words."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    if exit_code == -signal.SIGKILL:
        return "SIGKILL, perhaps because memory ran out"
    return signal.Signals(-exit_code).name


def _first_missing_block(stored: set[int]) -> int:
    """First second of the first block that is not stored whole."""
    first = 0
    while all(second in stored for second in range(first, first + BLOCK_SECONDS)):
        first += BLOCK_SECONDS
    return first


def _record_of(seat: Seat) -> VideoRecord:
    if seat.record is None:
        raise AssertionError("clips came from a file that was not opened")
    return seat.record
