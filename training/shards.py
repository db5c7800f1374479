"""Shards: 1-second clips in WebDataset tar files, written a shard at a time and read by offset.

A clip is three members, `<video>_<second>.jpg` (the frame, square), `.npy` (24 000 int16 samples) and `.json` (video,
second, group, label, flags), so any WebDataset reader takes them. The index `shards.npz` says where each clip lies: any
rows can be read at any time. Memory is that of the index alone: 44 bytes a clip and 4 a letter of its video's, group's
and label's names, about 350 bytes for VGGSound (0.7 GB for 2 M clips); writing shards takes no memory to speak of.
"""

import io
import json
import os
import tarfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import webdataset
from PIL import Image

from training.pairs import Pairs, Rows
from visxp_search.clips import Clip
from visxp_search.errors import UsageError

SHARD_INDEX = "shards.npz"
JPEG_QUALITY = 90
SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class ShardedClip:
    """One clip on its way into a shard.

    Attributes:
        clip: the media; at least one modality.
        video: name of the video.
        group: group of the video.
        label: for evaluation only.
    """

    clip: Clip
    video: str
    group: str
    label: str


class ShardWriter:
    """Writes one shard a split under temporary names; they appear when the block ends well."""

    def __init__(self, folder: Path, number: int) -> None:
        self.paths = {split: folder / f"{split}-{number:06d}.tar" for split in SPLITS}
        self.writers: dict[str, Any] = {}
        self.count = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for split, writer in self.writers.items():
            writer.close()
            partial = _partial(self.paths[split])
            if kind is None:
                os.replace(partial, self.paths[split])
            else:
                partial.unlink()

    def write(self, item: ShardedClip, *, split: str) -> None:
        """Append a clip to the shard of its split."""
        if split not in self.writers:
            self.writers[split] = webdataset.TarWriter(str(_partial(self.paths[split])), encoder=False, mtime=0)
        self.writers[split].write(_encode(item, key=f"{self.count:08d}"))
        self.count += 1


def _encode(item: ShardedClip, *, key: str) -> dict[str, Any]:
    clip = item.clip
    facts = {
        "video": item.video,
        "second": clip.second,
        "group": item.group,
        "label": item.label,
        "flags": list(clip.flags),
    }
    sample: dict[str, Any] = {"__key__": key, "json": json.dumps(facts).encode()}
    if clip.frame is not None:
        picture = io.BytesIO()
        Image.fromarray(clip.frame.transpose(1, 2, 0)).save(picture, "JPEG", quality=JPEG_QUALITY)
        sample["jpg"] = picture.getvalue()
    if clip.waveform is not None:
        sound = io.BytesIO()
        np.save(sound, np.round(clip.waveform * 32767).clip(-32768, 32767).astype(np.int16), allow_pickle=False)
        sample["npy"] = sound.getvalue()
    return sample


def index_shards(folder: Path, *, excluded: set[str]) -> int:
    """Write the index of all clips that have a picture and a sound worth learning from; the number of them.

    Args:
        folder: with shards.
        excluded: videos to leave out, such as held-out copies of training videos.
    """
    columns = {name: array("q") for name in ("shard", "jpg", "jpg_bytes", "npy", "npy_bytes", "second")}
    names = {name: array("q") for name in ("video", "group", "label")}
    words: dict[str, dict[str, int]] = {name: {} for name in names}
    shards = sorted(path.name for split in SPLITS for path in folder.glob(f"{split}-*.tar"))
    for number, shard in enumerate(shards):
        for facts, members in _read_members(folder / shard):
            worthless = {"black", "silent"} & set(facts["flags"])
            if "jpg" in members and "npy" in members and not worthless and facts["video"] not in excluded:
                row = (number, *members["jpg"], *members["npy"], facts["second"])
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
                for name, codes in names.items():
                    codes.append(words[name].setdefault(facts[name], len(words[name])))
    partial = folder / "shards.partial.npz"
    tables: dict[str, npt.NDArray[Any]] = {name: np.array(values, dtype=np.int64) for name, values in columns.items()}
    for name, codes in names.items():
        tables[f"{name}_words"], tables[name] = np.array(list(words[name]), dtype=np.str_), np.array(codes, np.int32)
    np.savez(partial, allow_pickle=False, shards=np.array(shards, dtype=np.str_), **tables)
    os.replace(partial, folder / SHARD_INDEX)
    return len(columns["second"])


def _read_members(shard: Path) -> Iterator[tuple[dict[str, Any], dict[str, tuple[int, int]]]]:
    """Each clip's facts, and (offset, bytes) of its members."""
    key = ""
    facts: dict[str, Any] = {}
    members: dict[str, tuple[int, int]] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            stem, _, suffix = member.name.partition(".")
            if stem != key:
                if key:
                    yield facts, members
                key, facts, members = stem, {}, {}
            members[suffix] = (member.offset_data, member.size)
            if suffix == "json":
                content = tar.extractfile(member)
                if content is None:
                    raise UsageError(f"{shard} is damaged at {member.name}; prepare the shards anew")
                facts = json.loads(content.read())
    if key:
        yield facts, members


def pairs_of_shards(folder: Path, *, sample_rate_hz: int) -> Pairs:
    """The pairs of a folder of shards, media read when asked for.

    Raises:
        UsageError: If the shards hold another sample rate.
    """
    with np.load(folder / SHARD_INDEX, allow_pickle=False) as index:
        tables = {name: index[name] for name in index.files}
    paths = [folder / name for name in tables["shards"].tolist()]
    is_held_out = np.array([path.name.startswith("held_out") for path in paths], dtype=np.bool_)

    def read(rows: Rows, member: str) -> Iterator[bytes]:
        for row in rows.tolist():
            with paths[tables["shard"][row]].open("rb") as shard:
                shard.seek(tables[member][row])
                yield shard.read(tables[f"{member}_bytes"][row])

    def read_frames(rows: Rows) -> npt.NDArray[np.uint8]:
        pictures = (Image.open(io.BytesIO(data)).convert("RGB") for data in read(rows, "jpg"))
        return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])

    def read_waveforms(rows: Rows) -> npt.NDArray[np.int16]:
        return np.stack([np.load(io.BytesIO(data), allow_pickle=False) for data in read(rows, "npy")])

    n_rows = len(tables["second"])
    if n_rows:
        n_samples = read_waveforms(np.arange(1)).shape[1]
        if n_samples != sample_rate_hz:
            raise UsageError(
                f"{folder} holds sound at {n_samples} Hz, the networks take {sample_rate_hz}; prepare it anew"
            )
    return Pairs(
        files=tables["video_words"][tables["video"]],
        seconds=tables["second"].astype(np.int32),
        groups=tables["group_words"][tables["group"]],
        labels=tables["label_words"][tables["label"]],
        held_out=is_held_out[tables["shard"]],
        read_frames=read_frames,
        read_waveforms=read_waveforms,
    )


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")
