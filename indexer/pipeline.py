"""Read, embed, write: from media files to a complete index.

Worker processes decode (`indexer.worker`); this process embeds and stores block by block, and keeps the ledger. A block
that is stored is never decoded again; the ledger says `done` once all blocks of a video are safely on the disk.
"""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from indexer.plan import FoundFile, id_of_unreadable, make_plan, records_by_path, with_path, without_path
from indexer.worker import BLOCK_SECONDS, Alive, Clips, Failed, Finished, Job, Opened, WorkerLimits, run_worker
from visxp_search.clips import Clip
from visxp_search.cluster_store import label_points, read_clustering
from visxp_search.embed import Embedder, SelfLabelled
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


def add_files(
    store: Store,
    embedder: Embedder,
    paths: Sequence[Path],
    *,
    workers: int = 2,
    limits: WorkerLimits | None = None,
    progress: Progress | None = None,
) -> AddReport:
    """Index files and folders; what is done is skipped, what was begun is completed.

    Interrupting it (Ctrl-C, kill) leaves an index that a further call completes.

    Args:
        store: an index open for writing, of the embedder's checkpoint.
        embedder: makes the embeddings.
        paths: files and folders; folders are walked recursively.
        workers: decoding processes.
        limits: what one file may cost; defaults to `WorkerLimits()`.
        progress: told what happens.

    Raises:
        CollectionError: If the store fails.
    """
    limits = limits or WorkerLimits()
    run = _Run(store, embedder, progress or Silent())
    queue = run.plan(paths)
    pool = [_Worker(limits) for _ in range(min(workers, len(queue)))]
    try:
        while queue or any(worker.file for worker in pool):
            for worker in pool:
                if worker.file is None and queue:
                    worker.begin(queue.popleft(), embedder)
            busy = {worker.pipe: worker for worker in pool if worker.file is not None}
            started = time.perf_counter()
            ready = wait(list(busy), timeout=min(worker.seconds_left() for worker in busy.values()))
            run.report.stage_seconds["wait"] += time.perf_counter() - started
            for pipe, worker in busy.items():
                if pipe in ready:
                    run.handle(worker, worker.receive())
                elif worker.seconds_left() <= 0:
                    run.handle(worker, worker.give_up())
            run.settle()
    finally:
        for worker in pool:
            worker.stop()
        run.settle(now=True)
    return run.report


SETTLE_SECONDS = 20.0
"""Seconds between syncs to the disk; a sync takes up to a second, however little there is to do."""


class _Worker:
    """The parent's end of one decoding process."""

    def __init__(self, limits: WorkerLimits) -> None:
        self.file: FoundFile | None = None
        self.record: VideoRecord | None = None
        self._limits = limits
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
        self.send(Job(file.path, frame_size=embedder.frame_size, sample_rate_hz=embedder.sample_rate_hz))

    def send(self, message: Job | int | None) -> None:
        """Answer the process. If it has died, `receive` says so next."""
        with suppress(BrokenPipeError):
            self.pipe.send(message)

    def receive(self) -> Alive | Opened | Clips | Finished | Failed:
        """The next message; a process that died is a failed file, and is replaced."""
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

    def give_up(self) -> Failed:
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

    def handle(self, worker: _Worker, message: Alive | Opened | Clips | Finished | Failed) -> None:
        """Act on one message of a worker."""
        file = worker.file
        if file is None:
            raise AssertionError("a message came from a worker without a file")
        if isinstance(message, Alive):
            return
        if isinstance(message, Opened):
            self._opened(worker, file, message)
        elif isinstance(message, Clips):
            self._store(worker, file, message.clips)
        elif isinstance(message, Finished):
            self._finish(worker, file, message.complaint)
        else:
            self._failed(worker, file, message)

    def _opened(self, worker: _Worker, file: FoundFile, message: Opened) -> None:
        """Decide where to begin: nowhere if this content is done or another worker has it."""
        known = self.records.get(message.video_id)
        if message.video_id in self.in_work or (known is not None and known.status == DONE):
            worker.send(None)
            if known is not None:
                self.report.duplicates += str(file.path) not in known.paths
                self.report.skipped += str(file.path) in known.paths
                self._write_record(with_path(known, file))
            self._release_path(file, keep=message.video_id)
            self.progress.finished(file.path)
            worker.end()
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
        worker.record = record
        self._write_record(record)
        self.progress.opened(file.path, message.info.n_seconds, first)
        worker.send(first)

    def _store(self, worker: _Worker, file: FoundFile, clips: Sequence[Clip]) -> None:
        record = _record_of(worker)
        started = time.perf_counter()
        embeddings = self.embedder.embed(clips)
        # Clusters that were fitted to this archive take the place of those that the checkpoint learned.
        labels = None
        if self.clustering is None and isinstance(self.embedder, SelfLabelled):
            labels = self.embedder.pseudo_labels(embeddings)
        embedded = time.perf_counter()
        points = [
            SecondPoint(
                video_id=record.video_id,
                second=clip.second,
                vectors=embeddings.vectors(row),
                payload=make_payload(
                    video_id=record.video_id,
                    second=clip.second,
                    has_audio=clip.has_audio,
                    flags=clip.flags,
                    checkpoint=self.embedder.checkpoint_id,
                    **(labels.payload(row) if labels is not None else {}),
                ),
            )
            for row, clip in enumerate(clips)
        ]
        self.store.upsert_seconds(label_points(points, self.clustering))
        self.report.stage_seconds["embed"] += embedded - started
        self.report.stage_seconds["write"] += time.perf_counter() - embedded
        self.report.seconds += len(clips)
        self.progress.stored(file.path, len(clips))

    def _finish(self, worker: _Worker, file: FoundFile, complaint: str) -> None:
        """The file was read to its end; with a complaint it is done as far as it goes, and the run says so."""
        record = self.records[_record_of(worker).video_id]  # another path may have been added meanwhile
        points = self.store.seconds_of(record.video_id, with_vectors=tuple(self.embedder.specs))
        self.records[record.video_id] = replace(
            record, status=DONE, seconds_done=len(points), error=complaint, vectors=mean_vectors(points)
        )
        self.unsettled.append(record.video_id)
        self._release_path(file, keep=record.video_id)
        if complaint:
            self._fail(file.path, complaint)
        else:
            self.report.indexed += 1
        self._leave(worker, file)

    def _failed(self, worker: _Worker, file: FoundFile, message: Failed) -> None:
        old = self.by_path.get(str(file.path))
        if message.video_id is None and worker.record is None and old is not None and old.status == DONE:
            self._fail(
                file.path, message.reason
            )  # not readable now: no proof that what is indexed is not there any more
            self._leave(worker, file)
            return
        known = worker.record
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
        self._leave(worker, file)

    def settle(self, *, now: bool = False) -> None:
        """Sync what is stored, and only then let the ledger say that videos are done; from time to time, or now."""
        if now or time.monotonic() - self.settled_at > SETTLE_SECONDS:
            self.store.flush()
            self.store.upsert_videos([self.records[video_id] for video_id in self.unsettled])
            self.unsettled.clear()
            self.settled_at = time.monotonic()

    def _leave(self, worker: _Worker, file: FoundFile) -> None:
        if worker.record is not None:
            self.in_work.discard(worker.record.video_id)
        worker.end()
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


def _record_of(worker: _Worker) -> VideoRecord:
    if worker.record is None:
        raise AssertionError("clips came from a file that was not opened")
    return worker.record
