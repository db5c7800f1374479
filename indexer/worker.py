"""A decoding process: files in, clips out, one decode thread. It never loads torch.

The parent and a worker talk over one pipe, in this order for each file:

    parent -> Job(path)
    worker -> Opened(video id, media facts)       or Failed(reason)
    parent -> first second wanted, or None to skip the file
    worker -> Clips(block) ...                    blocks of `BLOCK_SECONDS`, aligned to multiples of it
    worker -> Finished(complaint)                 or Failed(reason)

A pipe holds little, so a worker waits while the parent is busy: memory stays flat however long the video.
"""

import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from visxp_search.clips import Clip
from visxp_search.decode import ClipReader, MediaInfo, decode_clips, probe
from visxp_search.errors import DecodeError
from visxp_search.store import hash_file

BLOCK_SECONDS = 32
"""Seconds that are decoded, embedded and stored together. Blocks begin at multiples of it, so that a second is always
embedded in the same company and an interrupted run ends with the same bits as an undisturbed one."""


@dataclass(frozen=True)
class Job:
    """One file to decode, and what the encoders want."""

    path: Path
    frame_size: int
    sample_rate_hz: int


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


def run_worker(pipe: Connection) -> None:
    """Serve jobs until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    logging.disable(logging.WARNING)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            _serve(pipe, job)
        except BrokenPipeError:
            return


def _serve(pipe: Connection, job: Job) -> None:
    video_id = None
    try:
        video_id = hash_file(job.path)
        info = probe(job.path)
        if info.kind == "image":
            raise DecodeError(f"{job.path} is a picture; only videos and sounds are indexed")
        pipe.send(Opened(video_id, info))
        first = pipe.recv()
        if first is None:
            return
        with decode_clips(
            job.path, frame_size=job.frame_size, sample_rate_hz=job.sample_rate_hz, start_second=first
        ) as reader:
            for block in _blocks(reader):
                pipe.send(Clips(block))
            pipe.send(Finished(reader.complaint))
    except DecodeError as exc:
        pipe.send(Failed(video_id, str(exc)))
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        pipe.send(Failed(video_id, f"cannot be read: {exc.strerror or exc}"))


def _blocks(clips: ClipReader) -> Iterator[tuple[Clip, ...]]:
    block: list[Clip] = []
    for clip in clips:
        if block and clip.second % BLOCK_SECONDS == 0:
            yield tuple(block)
            block = []
        block.append(clip)
    if block:
        yield tuple(block)
