"""Read, embed, write: from media files to a complete index.

Worker processes decode (`indexer.worker`); this process embeds and stores block by block, and keeps the ledger. A block
that is stored is never decoded again; the ledger says `done` once all blocks of a video are safely on the disk.

Where the files are read is a `Pool` of seats: processes of this machine, or tasks on many (`indexer.ray_cluster`),
which also embed and store. The ledger is written here in both cases.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

from indexer.plan import FoundFile, id_of_unreadable, make_plan, records_by_path, with_path, without_path
from indexer.report import AddReport, Progress, Silent
from indexer.seats import Decoder, Indexed, Message, Pool, ProcessPool, Seat, Stored
from indexer.worker import BLOCK_SECONDS, Alive, Clips, Failed, Finished, Opened, WorkerLimits
from visxp_search.clips import Clip
from visxp_search.cluster_store import Clustering, label_points, read_clustering
from visxp_search.embed import Embedder, SelfLabelled, Threaded
from visxp_search.store import (
    DONE,
    FAILED,
    PENDING,
    Filter,
    SecondPoint,
    Store,
    VideoRecord,
    make_payload,
    mean_vectors,
)

SETTLE_SECONDS = 20.0
"""Seconds between syncs to the disk; a sync takes up to a second, however little there is to do."""

SUMMED_SECONDS = 256
"""Seconds that are read at once where a whole video is gone through."""


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
    pool = pool or ProcessPool(workers, len(queue), limits or WorkerLimits(), embedder)
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
    worker = Decoder(limits)
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
            # Not readable now: no proof that what is indexed is not there any more.
            self._fail(file.path, message.reason)
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
    own = Filter(video_ids=(video_id,))
    points = store.seconds(own, with_vectors=tuple(embedder.specs), page=SUMMED_SECONDS)
    return Indexed(complaint, store.count(own), mean_vectors(points))


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
