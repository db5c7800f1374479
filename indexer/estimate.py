"""How long an indexing run will take and how large the index will get, measured on a sample of the files themselves.

A sample is hashed, decoded, embedded and stored into a throw-away index, as a run would do it; each stage is timed. A
run overlaps the stages: decoders work side by side, one process embeds and stores, and all share the machine's cores.
Whichever of these three is the bottleneck decides.
"""

import hashlib
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from indexer.plan import FoundFile, Plan
from indexer.worker import BLOCK_SECONDS
from visxp_search.clips import Clip
from visxp_search.decode import decode_clips, probe
from visxp_search.embed import Embedder, FloatArray
from visxp_search.errors import DecodeError
from visxp_search.render import write_video
from visxp_search.store import SecondPoint, Store, make_payload, open_store

PROBED_FILES = 64
"""Files whose length is read from their header, to learn how many seconds a byte holds."""
MEASURED_FILES = 6
MEASURED_SECONDS = 2 * BLOCK_SECONDS
"""Seconds of each measured file that are indexed; together they are some hundred seconds."""
HASHED_BYTES = 64_000_000
"""So much of each measured file is read and hashed, as the run will do with all of it."""
SAMPLE_SECONDS = 48
"""Length of the film that is rendered where there is no other."""
WEIGHED_POINTS = 2048
LOG_BYTES = 100_000_000
"""The embedded engine's write-ahead log, which is as large in every index of more than 40,000 seconds."""

Progress = Callable[[str, int, int], None]
"""Called with (what, number done, number in all)."""


@dataclass(frozen=True)
class Rate:
    """What indexing costs on this machine, per second of media or per byte of a file.

    Attributes:
        seconds: media seconds that were measured.
        decode: wall time of one decoding process, per second of media.
        embed: wall time of the process that embeds and stores, per second of media.
        cores: processor time of both, per second of media.
        hash: wall time to read and hash a byte.
        disk: bytes of the index, per second of media, without the engine's log.
    """

    seconds: int
    decode: float
    embed: float
    cores: float
    hash: float
    disk: float

    def wall_seconds(self, media_seconds: float, *, n_bytes: float = 0, workers: int, n_cores: int) -> float:
        """How long a run over so many seconds of media, in so many bytes of files, takes."""
        decoders = (media_seconds * self.decode + n_bytes * self.hash) / workers
        return max(decoders, media_seconds * self.embed, (media_seconds * self.cores + n_bytes * self.hash) / n_cores)

    def index_bytes(self, media_seconds: float) -> int:
        """How large an embedded index of so many seconds of media gets."""
        points = media_seconds * self.disk
        return round(points + min(LOG_BYTES, points))


@dataclass(frozen=True)
class Estimate:
    """What a run will do.

    Attributes:
        files: that need work.
        done: files that are indexed already.
        bytes: size of the files that need work.
        media_seconds: their length together, as far as a sample of them tells.
        unreadable: share of the sample that could not be read, in [0, 1].
        wall_seconds: how long the run will take.
        index_bytes: how much larger the index will get.
        sampled_files: files that were looked at.
        measured_seconds: seconds of media that were indexed on trial.
    """

    files: int
    done: int
    bytes: int
    media_seconds: float
    unreadable: float
    wall_seconds: float
    index_bytes: int
    sampled_files: int
    measured_seconds: int


def estimate(
    plan: Plan, embedder: Embedder, *, workers: int, seed: int = 0, progress: Progress = lambda what, done, total: None
) -> Estimate:
    """Say what a run of a plan takes; nothing of any index is touched.

    Args:
        plan: what is to be done.
        embedder: would embed.
        workers: decoding processes of the run.
        seed: of the choice of the sample.
        progress: told what happens.
    """
    sample = random.Random(seed).sample(plan.files, min(PROBED_FILES, len(plan.files)))
    lengths: dict[FoundFile, int] = {}
    for number, file in enumerate(sample, start=1):
        lengths[file] = _length_of(file)
        progress("look into files", number, len(sample))
    sampled_bytes = sum(file.size for file in sample)
    media_seconds = sum(lengths.values()) * (plan.n_bytes / sampled_bytes) if sampled_bytes else 0.0
    readable = [file.path for file, length in lengths.items() if length]
    rate = measure_rate(readable[:MEASURED_FILES], embedder, progress=progress)
    n_cores = os.cpu_count() or 1
    return Estimate(
        files=len(plan.files),
        done=plan.n_done,
        bytes=plan.n_bytes,
        media_seconds=media_seconds,
        unreadable=1 - len(readable) / len(sample) if sample else 0.0,
        wall_seconds=(
            rate.wall_seconds(media_seconds, n_bytes=plan.n_bytes, workers=workers, n_cores=n_cores) if rate else 0.0
        ),
        index_bytes=rate.index_bytes(media_seconds) if rate else 0,
        sampled_files=len(sample),
        measured_seconds=rate.seconds if rate else 0,
    )


def measure_rate(
    paths: Sequence[Path], embedder: Embedder, *, progress: Progress = lambda what, done, total: None
) -> Rate | None:
    """Index the beginnings of some files into an index that is thrown away; None if none of them could be read."""
    clips: list[tuple[Path, list[Clip]]] = []
    hashed, n_bytes = 0.0, 0
    decode, cores = -time.perf_counter(), -time.process_time()
    for number, path in enumerate(paths, start=1):
        try:
            clips.append((path, _read_beginning(path, embedder)))
        except DecodeError:
            continue  # the run will report it
        progress("decode on trial", number, len(paths))
    decode += time.perf_counter()
    cores += time.process_time()
    for path, _ in clips:
        started = time.perf_counter()
        n_bytes += _hash_beginning(path)
        hashed += time.perf_counter() - started
    blocks = [
        (path, found[first : first + BLOCK_SECONDS])
        for path, found in clips
        for first in range(0, len(found), BLOCK_SECONDS)
    ]
    n_seconds = sum(len(block) for _, block in blocks)
    if not n_seconds:
        return None
    embedder.embed(blocks[0][1])  # the first call of an encoder is slow, and no other
    with TemporaryDirectory(prefix="visxp-estimate-") as folder:
        dims = {name: spec.length for name, spec in embedder.specs.items()}
        location = Path(folder, "index")
        with closing(open_store(location, checkpoint=embedder.checkpoint_id, create=dims)) as store:
            points: list[SecondPoint] = []
            embed = -time.perf_counter()
            cores -= time.process_time()
            for number, (path, block) in enumerate(blocks, start=1):
                embeddings = embedder.embed(block)
                stored = [_point(path, clip, embeddings.vectors(row), embedder) for row, clip in enumerate(block)]
                store.upsert_seconds(stored)
                points += stored
                progress("embed on trial", number, len(blocks))
            embed += time.perf_counter()
            cores += time.process_time()
            disk = _measure_disk(store, location, points)
    return Rate(
        seconds=n_seconds,
        decode=decode / n_seconds,
        embed=embed / n_seconds,
        cores=cores / n_seconds,
        hash=hashed / max(n_bytes, 1),
        disk=disk,
    )


def render_sample(folder: Path) -> Path:
    """A film to measure on where there is no other: 640 x 360, 25 pictures a second, noise that moves and sounds."""
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (SAMPLE_SECONDS, 9, 16, 3), dtype=np.uint8)
    pictures = (
        np.roll(np.kron(block, np.ones((40, 40, 1), dtype=np.uint8)), 2 * number, axis=1)
        for block in blocks
        for number in range(25)
    )
    waveform = generator.uniform(-0.3, 0.3, SAMPLE_SECONDS * 24_000).astype(np.float32)
    path = folder / "sample.mp4"
    write_video(path, frames=pictures, frames_per_second=25, waveform=waveform, sample_rate_hz=24_000)
    return path


def _length_of(file: FoundFile) -> int:
    """Seconds of a file by its header; 0 if it cannot be indexed."""
    try:
        info = probe(file.path)
    except DecodeError:
        return 0
    return 0 if info.kind == "image" else info.n_seconds


def _read_beginning(path: Path, embedder: Embedder) -> list[Clip]:
    with decode_clips(
        path,
        frame_size=embedder.frame_size,
        sample_rate_hz=embedder.sample_rate_hz,
        stop_second=MEASURED_SECONDS,
    ) as reader:
        return list(reader)


def _hash_beginning(path: Path) -> int:
    """Number of bytes that were hashed."""
    with path.open("rb") as stream:
        data = stream.read(HASHED_BYTES)
    hashlib.blake2b(data, digest_size=16).hexdigest()
    return len(data)


def _point(path: Path, clip: Clip, vectors: Mapping[str, FloatArray], embedder: Embedder) -> SecondPoint:
    payload = make_payload(
        video_id=hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest(),
        second=clip.second,
        has_audio=clip.has_audio,
        flags=clip.flags,
        checkpoint=embedder.checkpoint_id,
    )
    return SecondPoint(payload["video_id"], clip.second, vectors, payload)


def _measure_disk(store: Store, location: Path, points: Sequence[SecondPoint]) -> float:
    """Bytes a second takes, from copies of some points: so few fill no page of the engine's files."""
    store.flush()
    before, n_copies = _bytes_of_points(location), -(-WEIGHED_POINTS // len(points))
    for copy in range(n_copies):
        store.upsert_seconds([replace(point, video_id=f"{point.video_id}/{copy}") for point in points])
    store.flush()
    return (_bytes_of_points(location) - before) / (n_copies * len(points))


def _bytes_of_points(location: Path) -> int:
    """Disk space of an embedded index without its log, whose size is bounded."""
    files = (path for path in location.rglob("*") if path.is_file() and path.parent.name != "wal")
    return sum(path.stat().st_blocks * 512 for path in files)
