"""A decoding process: files in, clips out. It never loads torch.

The parent and a worker talk over one pipe, in this order for each file:

    parent -> Job(path)
    worker -> Alive() ...                         at any time: it reads on
    worker -> Opened(video id, media facts)       or Failed(reason)
    parent -> first second wanted, or None to skip the file
    worker -> Clips(block) ...                    blocks of `BLOCK_SECONDS`, aligned to multiples of it
    worker -> Finished(complaint)                 or Failed(reason)

A pipe holds little, so a worker waits while the parent is busy: memory stays flat however long the video.

A hostile file costs itself only: the worker limits its own memory, the parent kills it when it is silent or takes too
long, and a worker that dies is a failed file.
"""

import ctypes
import logging
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from visxp_search.clips import Clip, format_bytes
from visxp_search.decode import ClipReader, DecodeLimits, MediaInfo, decode_clips, probe
from visxp_search.errors import DecodeError
from visxp_search.store import hash_file

BLOCK_SECONDS = 32
"""Seconds that are decoded, embedded and stored together. Blocks begin at multiples of it, so that a second is always
embedded in the same company and an interrupted run ends with the same bits as an undisturbed one."""


M_MMAP_THRESHOLD = -3
"""Of glibc's `mallopt`: blocks from this size on are mapped one by one, and given back when they are freed."""
LARGE_BYTES = 2**20
"""Fixed, as glibc otherwise raises it when such blocks are freed, and keeps the holes: 100 MB at 3 hours of video."""

PULSE_SECONDS = 1.0
"""A worker that reads on says so this often."""


@dataclass(frozen=True)
class WorkerLimits:
    """What one file may cost; a file that asks for more fails, and the run goes on.

    Attributes:
        memory_bytes: address space of a decoding process, beyond what it has when it starts (on Linux).
        stall_seconds: longest time in which not one more packet, or MiB to hash, is read.
        file_seconds: time for any file, to which come
        seconds_per_byte: for each byte of it, as all of them are read, and
        seconds_per_second: for each second it has; it includes waiting for the encoders.
        decode: pixels and seconds, see `DecodeLimits`.
    """

    memory_bytes: int = 4 * 2**30
    stall_seconds: float = 300.0
    file_seconds: float = 600.0
    seconds_per_byte: float = 1e-6
    seconds_per_second: float = 60.0
    decode: DecodeLimits = field(default_factory=DecodeLimits)

    def allowed_seconds(self, *, n_bytes: int, n_seconds: int) -> float:
        """Longest time for a file."""
        return self.file_seconds + self.seconds_per_byte * n_bytes + self.seconds_per_second * n_seconds


@dataclass(frozen=True)
class Job:
    """One file to decode, and what the encoders want."""

    path: Path
    frame_size: int
    sample_rate_hz: int
    threads: int


@dataclass(frozen=True)
class Alive:
    """The file is being read."""


@dataclass(frozen=True)
class Opened:
    """The file could be opened."""

    video_id: str
    info: MediaInfo


@dataclass(frozen=True)
class Clips:
    """Consecutive clips of one block."""

    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Finished:
    """The file was read to its end; the complaint says what was missing in it, if anything."""

    complaint: str


@dataclass(frozen=True)
class Failed:
    """The file could not be read."""

    video_id: str | None
    reason: str


Message = Alive | Opened | Clips | Finished | Failed
"""What a worker says."""


def run_worker(pipe: Connection, limits: WorkerLimits) -> None:
    """Serve jobs until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    logging.disable(logging.WARNING)
    _limit_process(limits.memory_bytes)
    line = _Line(pipe)
    limits = replace(limits, decode=replace(limits.decode, on_packet=line.pulse))
    while True:
        try:
            job = line.receive()
        except EOFError:
            return
        try:
            _serve(line, job, limits)
        except BrokenPipeError:
            return


def _limit_process(memory_bytes: int) -> None:
    """Limit what this process may allocate from now on, have it give back what it frees, and leave no memory dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    c_library = ctypes.CDLL(None)
    if hasattr(c_library, "mallopt"):  # glibc
        c_library.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    if sys.platform == "linux":  # elsewhere the kernel knows no such limit
        n_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        allowed = n_pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))


class _Line:
    """The worker's end of the pipe, on which the threads that read a file may all speak."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._told_at = time.monotonic()

    def receive(self) -> Any:
        return self._pipe.recv()

    def send(self, message: Message) -> None:
        with self._lock:
            self._pipe.send(message)

    def pulse(self) -> None:
        """Tell the parent now and then that the file is being read; called as often as one likes."""
        now = time.monotonic()
        if now - self._told_at < PULSE_SECONDS or not self._lock.acquire(blocking=False):
            return  # told lately, or something is being told just now
        try:
            self._told_at = now
            self._pipe.send(Alive())
        finally:
            self._lock.release()


def _serve(line: _Line, job: Job, limits: WorkerLimits) -> None:
    video_id = None
    try:
        video_id = hash_file(job.path, on_block=limits.decode.on_packet)
        info = probe(job.path, limits=limits.decode)
        if info.kind == "image":
            raise DecodeError(f"{job.path} is a picture; only videos and sounds are indexed")
        line.send(Opened(video_id, info))
        first = line.receive()
        if first is None:
            return
        with decode_clips(
            job.path,
            frame_size=job.frame_size,
            sample_rate_hz=job.sample_rate_hz,
            start_second=first,
            limits=limits.decode,
            threads=job.threads,
        ) as reader:
            for block in _blocks(reader):
                line.send(Clips(block))
            line.send(Finished(reader.complaint))
    except DecodeError as exc:
        line.send(Failed(video_id, str(exc)))
    except MemoryError:
        allowed = format_bytes(limits.memory_bytes)
        line.send(Failed(video_id, f"needs more than {allowed} of memory to decode; allowed by WorkerLimits"))
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        line.send(Failed(video_id, f"cannot be read: {exc.strerror or exc}"))


def _blocks(clips: ClipReader) -> Iterator[tuple[Clip, ...]]:
    block: list[Clip] = []
    for clip in clips:
        if block and clip.second % BLOCK_SECONDS == 0:
            yield tuple(block)
            block = []
        block.append(clip)
    if block:
        yield tuple(block)
