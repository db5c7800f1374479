"""The training corpus as arrays: one row per (file, second) that the teachers describe.

A corpus folder holds media, `manifest.csv` (file, kind, source, licence, label, group) and `teachers.npz` (features of
pretrained networks per file and second). Its media are decoded once into two arrays in a cache folder.
Files of one *group* are versions of the same footage and stay on one side of every split.
"""

import csv
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visxp_search.decode import decode_clips
from visxp_search.errors import UsageError

CACHED_FRAME_SIZE = 144
"""Side of cached pictures: room for random crops above the encoder's own size."""
MOST_BYTES_IN_MEMORY = 4 << 30
"""Decoded media up to this size are read into memory; larger ones are memory-mapped."""
HELD_OUT_ONE_IN = 12
"""One group in so many is held out, decided by the hash of its name."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """One modality's examples; all arrays have N rows.

    Attributes:
        files: file names relative to the corpus.
        seconds: t of each row.
        groups: group of each file.
        labels: label of each file, for evaluation only.
        inputs: (N, 3, S, S) uint8 pictures or (N, sample_rate_hz) int16 waveforms.
        features: (N, T) float32 teacher features.
        classes: (N, R) int64 best classes of the picture teacher, or (N, C) uint8 scores times 255 of the sound
            teacher.
    """

    files: npt.NDArray[np.str_]
    seconds: npt.NDArray[np.int32]
    groups: npt.NDArray[np.str_]
    labels: npt.NDArray[np.str_]
    inputs: npt.NDArray[np.uint8] | npt.NDArray[np.int16]
    features: FloatArray
    classes: npt.NDArray[np.int64] | npt.NDArray[np.uint8]

    @property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the row's group is kept for validation."""
        return np.array([is_held_out(group) for group in self.groups.tolist()])

    @property
    def is_video(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the row comes from a video (and so has a picture and a sound)."""
        return np.char.startswith(self.files, "videos/")


def is_held_out(group: str) -> bool:
    """Whether a group is kept for validation; depends on nothing but its name."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:4]) % HELD_OUT_ONE_IN == 0


def load_examples(
    corpus: Path, *, modality: str, cache: Path, sample_rate_hz: int, progress: Callable[[str, int, int], None]
) -> Examples:
    """Read one modality of a corpus, decoding its media into the cache first if need be.

    Args:
        corpus: folder with `manifest.csv` and `teachers.npz`.
        modality: `visual` or `audio`.
        cache: folder for the decoded arrays; reused if complete.
        sample_rate_hz: of waveforms.
        progress: called with (what, done, total) while decoding.

    Raises:
        UsageError: If the corpus lacks a file that is needed.
    """
    for name in ("manifest.csv", "teachers.npz"):
        if not (corpus / name).is_file():
            raise UsageError(f"{corpus} has no {name}; a corpus folder needs manifest.csv and teachers.npz")
    with (corpus / "manifest.csv").open(newline="") as lines:
        manifest = {line["file"]: line for line in csv.DictReader(lines)}
    with np.load(corpus / "teachers.npz", allow_pickle=False) as teachers:
        files = teachers[f"{modality}_file"]
        seconds = teachers[f"{modality}_second"]
        features = teachers[modality].astype(np.float32)
        classes = teachers["visual_top5"].astype(np.int64) if modality == "visual" else teachers["audio_scores"]
    missing = sorted(set(files.tolist()) - set(manifest))
    if missing:
        raise UsageError(f"{corpus}/manifest.csv lacks {len(missing)} files of teachers.npz, the first is {missing[0]}")
    path = cache / ("frames.npy" if modality == "visual" else "waveforms.npy")
    if not path.is_file():
        _decode_rows(corpus, files, seconds, path, sample_rate_hz=sample_rate_hz, progress=progress)
    # A random order over a memory map reads the disk for every step once the system drops its pages.
    inputs = np.load(path, mmap_mode=None if path.stat().st_size <= MOST_BYTES_IN_MEMORY else "r")
    if len(inputs) != len(files):
        raise UsageError(f"{path} has {len(inputs)} rows, the corpus {len(files)}; delete the file to make it anew")
    return Examples(
        files=files,
        seconds=seconds,
        groups=np.array([manifest[file]["group"] for file in files.tolist()]),
        labels=np.array([manifest[file]["label"] for file in files.tolist()]),
        inputs=inputs,
        features=features,
        classes=classes,
    )


def match_pairs(visual: Examples, audio: Examples) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of the two modalities that are the same second of the same video: (P,) and (P,) indices."""
    audio_row = {key: row for row, key in enumerate(zip(audio.files.tolist(), audio.seconds.tolist(), strict=True))}
    keys = zip(visual.files.tolist(), visual.seconds.tolist(), strict=True)
    pairs = [(row, audio_row[key]) for row, key in enumerate(keys) if key in audio_row]
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return first, second


def _decode_rows(
    corpus: Path,
    files: npt.NDArray[np.str_],
    seconds: npt.NDArray[np.int32],
    path: Path,
    *,
    sample_rate_hz: int,
    progress: Callable[[str, int, int], None],
) -> None:
    """Write the decoded row of each (file, second) to `path`, which appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    visual = path.name == "frames.npy"
    side = CACHED_FRAME_SIZE
    partial = path.with_suffix(".partial.npy")
    rows = np.lib.format.open_memmap(
        partial,
        mode="w+",
        dtype=np.uint8 if visual else np.int16,
        shape=(len(files), 3, side, side) if visual else (len(files), sample_rate_hz),
    )
    done = 0
    for file, group in groupby(range(len(files)), key=lambda row: str(files[row])):
        wanted = {int(seconds[row]): row for row in group}
        for second, data in _decode_file(corpus / file, visual=visual, sample_rate_hz=sample_rate_hz):
            if second in wanted and data is not None:
                rows[wanted.pop(second)] = data
                done += 1
        if wanted:
            raise UsageError(f"{corpus / file} has no seconds {sorted(wanted)}, which teachers.npz describes")
        progress("decode", done, len(files))
    rows.flush()
    os.replace(partial, path)


def _decode_file(
    path: Path, *, visual: bool, sample_rate_hz: int
) -> Iterator[tuple[int, npt.NDArray[np.uint8] | npt.NDArray[np.int16] | None]]:
    for clip in decode_clips(path, frame_size=CACHED_FRAME_SIZE, sample_rate_hz=sample_rate_hz):
        if visual:
            yield clip.second, clip.frame
        elif clip.waveform is None:
            yield clip.second, None
        else:
            yield clip.second, np.round(clip.waveform * 32767).clip(-32768, 32767).astype(np.int16)
