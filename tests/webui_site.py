"""A small site for tests of the page: rendered videos, a real embedded index, and an embedder that looks at colours."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from visxp_search.api import Index
from visxp_search.clips import Clip
from visxp_search.decode import probe
from visxp_search.embed import Embeddings, VectorSpec
from visxp_search.render import write_video
from visxp_search.store import DONE, SecondPoint, Store, VideoRecord, hash_file, make_payload, open_store
from webui.archive import Archive

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 200, 40), (30, 40, 210), (210, 200, 30)
RATE_HZ = 24_000
DIMS = {"visual": 3, "audio": 2, "joint": 2}


class ColourEmbedder:
    """A picture's embedding is its mean colour; a sound's says how often it crosses zero."""

    checkpoint_id = "colours"
    specs: Mapping[str, VectorSpec] = {name: VectorSpec(length, (name,)) for name, length in DIMS.items()}
    frame_size = 16
    sample_rate_hz = RATE_HZ

    def embed(self, clips: Sequence[Clip]) -> Embeddings:
        """See `visxp_search.embed.Embedder`."""
        visual = np.full((len(clips), 3), np.nan, dtype=np.float32)
        audio = np.full((len(clips), 2), np.nan, dtype=np.float32)
        for row, clip in enumerate(clips):
            if clip.frame is not None and clip.has_visual:
                visual[row] = unit(clip.frame.mean(axis=(1, 2)) - 60)
            if clip.waveform is not None and clip.has_audio:
                crossings = float((np.diff(np.sign(clip.waveform)) != 0).mean())
                angle = min(1.0, crossings * 10) * np.pi / 2
                audio[row] = (np.cos(angle), np.sin(angle))
        return Embeddings(visual, audio, joint_visual=audio.copy(), joint_audio=audio.copy())


def unit(values: np.ndarray) -> np.ndarray:
    """The vector of norm 1 in this direction."""
    return np.asarray(values / np.linalg.norm(values), dtype=np.float32)


def tone(frequency_hz: float, seconds: int) -> np.ndarray:
    """(n,) float32 sine."""
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(seconds * RATE_HZ) / RATE_HZ)).astype(np.float32)


def write_colours(
    path: Path, colours: Sequence[tuple[int, int, int]], *, frequency_hz: float = 300.0, frames_per_second: int = 5
) -> Path:
    """A video with one second of each colour and one tone."""
    frames = [np.full((48, 64, 3), colour, dtype=np.uint8) for colour in colours for _ in range(frames_per_second)]
    write_video(
        path,
        frames=frames,
        frames_per_second=frames_per_second,
        waveform=tone(frequency_hz, len(colours)),
        sample_rate_hz=RATE_HZ,
    )
    return path


def index_colours(store: Store, path: Path, colours: Sequence[tuple[int, int, int]]) -> VideoRecord:
    """Store a video as the indexer would, without decoding it."""
    info, status = probe(path), path.stat()
    video_id = hash_file(path)
    store.upsert_seconds(
        [
            SecondPoint(
                video_id,
                second,
                {
                    "visual": unit(np.array(colour, dtype=np.float32) - 60),
                    "audio": np.array([1, 0], dtype=np.float32),
                    "joint": np.array([1, 0], dtype=np.float32),
                },
                make_payload(video_id=video_id, second=second, has_audio=True, flags=(), checkpoint="colours"),
            )
            for second, colour in enumerate(colours)
        ]
    )
    record = VideoRecord(
        video_id,
        (str(path),),
        status=DONE,
        duration_seconds=info.duration_seconds,
        seconds_expected=len(colours),
        seconds_done=len(colours),
        checkpoint="colours",
        stats={str(path): [status.st_size, status.st_mtime_ns]},
        facts={
            "container": info.container,
            "video_codec": info.video_codec,
            "audio_codec": info.audio_codec,
            "width": info.width,
            "height": info.height,
        },
    )
    store.upsert_videos([record])
    return record


def make_archive(folder: Path, *, frames_per_second: int = 5) -> Archive:
    """An archive of two videos, loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store(folder / "index", checkpoint="colours", create=DIMS)
    for name, colours in (("warm.mp4", [RED, RED, YELLOW, BLUE, BLUE]), ("cool.mp4", [BLUE, GREEN, GREEN, RED])):
        path = write_colours(folder / name, colours, frames_per_second=frames_per_second)
        index_colours(store, path, colours)
    store.flush()
    archive = Archive(store, lambda: Index(store, ColourEmbedder()))
    archive.start()
    archive.wait(10)
    return archive


def record_named(archive: Archive, name: str) -> VideoRecord:
    """The ledger's entry of a file name."""
    return next(record for record in archive.store.videos() if os.path.basename(record.paths[0]) == name)


def moved(record: VideoRecord, path: Path) -> VideoRecord:
    """The entry as if the file had been indexed at another path, with its present size and time."""
    status = path.stat()
    return replace(record, paths=(str(path),), stats={str(path): [status.st_size, status.st_mtime_ns]})
