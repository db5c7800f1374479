"""From videos to shards of 1-second clips, with a report of what is in them.

Videos are taken in runs of `VIDEOS_PER_SHARD`; each run makes one shard a split and a small JSON file, so an
interrupted preparation goes on with the runs that have none, and several processes share the work. Memory does not grow
with the number of videos but for the prints of frames (150 bytes a clip, 0.3 GB for 2 M), when near-duplicates are
looked for at the end.
"""

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.corpus import CACHED_FRAME_SIZE, is_held_out
from training.shards import ShardedClip, ShardWriter, index_shards
from training.sources import Video
from visxp_search.clips import BLACK, NO_AUDIO, NO_VIDEO, SILENT, STATIC, Clip
from visxp_search.decode import decode_clips
from visxp_search.errors import DecodeError, UsageError

VIDEOS_PER_SHARD = 100
MIN_CONTRAST = 12.0
"""Frames whose grey levels deviate less than this are too plain to be told from others by their print."""
MIN_COMMON = 0.5
"""A video with this share of its prints in one other group is a near-duplicate of it."""
Progress = Callable[[str, int, int], None]


def prepare_shards(
    videos: list[Video],
    out: Path,
    *,
    sample_rate_hz: int,
    workers: int,
    videos_per_shard: int = VIDEOS_PER_SHARD,
    progress: Progress,
) -> dict[str, Any]:
    """Write shards of all videos, then the index and the report.

    Args:
        videos: in a stable order; an interrupted call must be repeated with the same ones.
        out: folder for shards, `shards.npz` and `report.json`.
        sample_rate_hz: of the waveforms.
        workers: processes; each writes shards of its own.
        videos_per_shard: videos to a run.
        progress: called with (what, videos done, videos in all).

    Returns:
        The report: videos, seconds, flags, splits, refused files with their reasons, near-duplicates.

    Raises:
        UsageError: If there are no videos, or the folder holds shards of other videos.
    """
    if not videos:
        raise UsageError("no videos to prepare; give a folder with media, or choose another --layout")
    out.mkdir(parents=True, exist_ok=True)
    runs = [videos[start : start + videos_per_shard] for start in range(0, len(videos), videos_per_shard)]
    missing = [number for number, run in enumerate(runs) if not _is_done(out, number, run)]
    done = len(videos) - sum(len(runs[number]) for number in missing)
    progress("prepare", done, len(videos))
    for number in _write_all(runs, missing, out, sample_rate_hz=sample_rate_hz, workers=workers):
        done += len(runs[number])
        progress("prepare", done, len(videos))
    return _summarise(out, len(runs))


def _write_all(
    runs: list[list[Video]], missing: list[int], out: Path, *, sample_rate_hz: int, workers: int
) -> Iterator[int]:
    """Write the missing runs, several at a time, and give the number of each that is done."""
    if workers == 1 or len(missing) < 2:
        for number in missing:
            write_shard(runs[number], out, number, sample_rate_hz)
            yield number
        return
    with ProcessPoolExecutor(max_workers=workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(write_shard, runs[number], out, number, sample_rate_hz): number for number in missing}
        try:
            for future in as_completed(waiting):
                future.result()
                yield waiting[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_shard(videos: list[Video], out: Path, number: int, sample_rate_hz: int) -> None:
    """Decode a run of videos into one shard a split; its JSON file, written last, says that it is complete."""
    counts: Counter[str] = Counter()
    refused, prints = [], {}
    with ShardWriter(out, number) as shards:
        for video in videos:
            split = video.split or ("held_out" if is_held_out(video.group) else "train")
            found = []
            try:
                for item in _read_clips(video, sample_rate_hz):
                    shards.write(item, split=split)
                    counts.update([f"seconds/{split}", *(f"flag/{flag}" for flag in item.clip.flags)])
                    mark = _print_frame(item.clip)
                    if mark is not None:
                        found.append(mark)
                counts[f"videos/{split}"] += 1
            except DecodeError as exc:  # one bad file stops nothing and does not vanish; what it gave so far is kept
                refused.append({"video": video.name, "reason": str(exc)})
            prints[video.name] = {"group": video.group, "split": split, "prints": [f"{mark:016x}" for mark in found]}
    facts = {"videos": [video.name for video in videos], "counts": counts, "refused": refused, "prints": prints}
    partial = out / f"run-{number:06d}.partial"
    partial.write_text(json.dumps(facts))
    os.replace(partial, _run_file(out, number))


def _read_clips(video: Video, sample_rate_hz: int) -> Iterator[ShardedClip]:
    for clip in decode_clips(video.path, frame_size=CACHED_FRAME_SIZE, sample_rate_hz=sample_rate_hz):
        yield ShardedClip(clip, video.name, video.group, video.label)


def _print_frame(clip: Clip) -> int | None:
    """A 64-bit print of the frame that survives re-encoding, scaling and brightness; None for a plain frame or none.

    The signs of differences of neighbours in a 9 x 8 grey thumbnail ("difference hash").
    """
    if clip.frame is None:
        return None
    grey = Image.fromarray(clip.frame.transpose(1, 2, 0)).convert("L")
    if np.asarray(grey).std() < MIN_CONTRAST:
        return None
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).flatten()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def _summarise(out: Path, n_runs: int) -> dict[str, Any]:
    """Near-duplicates over all runs, the index without held-out copies of training videos, and the report."""
    counts: Counter[str] = Counter()
    refused: list[dict[str, str]] = []
    owner: dict[str, str] = {}  # print -> the group that had it first, training groups before held-out ones
    facts = [json.loads(_run_file(out, number).read_text()) for number in range(n_runs)]
    for run in facts:
        counts.update(run["counts"])
        refused += run["refused"]
    duplicates = []
    for split in ("train", "held_out"):
        for run in facts:
            for name, video in run["prints"].items():
                if video["split"] == split:
                    like = _most_common_owner(video, owner)
                    if like is not None:
                        duplicates.append({"video": name, "group": video["group"], "like_group": like, "split": split})
    excluded = {entry["video"] for entry in duplicates if entry["split"] == "held_out"}
    n_pairs = index_shards(out, excluded=excluded)
    report = {
        "videos": sum(count for name, count in counts.items() if name.startswith("videos/")),
        "seconds": sum(count for name, count in counts.items() if name.startswith("seconds/")),
        "splits": {
            split: {"videos": counts[f"videos/{split}"], "seconds": counts[f"seconds/{split}"]}
            for split in ("train", "held_out")
        },
        "flags": {flag: counts[f"flag/{flag}"] for flag in (SILENT, BLACK, STATIC, NO_AUDIO, NO_VIDEO)},
        "pairs": n_pairs,
        "near_duplicates": duplicates,
        "excluded_from_held_out": sorted(excluded),
        "refused": refused,
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _most_common_owner(video: dict[str, Any], owner: dict[str, str]) -> str | None:
    """The other group that has most of a video's prints, if it is enough of them; takes the prints nobody had."""
    own, common = video["group"], Counter[str]()
    marks = set(video["prints"])
    for mark in marks:
        if owner.setdefault(mark, own) != own:
            common[owner[mark]] += 1
    if not common:
        return None
    like = max(common, key=lambda group: common[group])
    return like if common[like] >= MIN_COMMON * len(marks) else None


def _is_done(out: Path, number: int, run: list[Video]) -> bool:
    path = _run_file(out, number)
    if not path.is_file():
        return False
    if json.loads(path.read_text())["videos"] != [video.name for video in run]:
        raise UsageError(f"{out} holds shards of other videos (see {path.name}); take an empty folder")
    return True


def _run_file(out: Path, number: int) -> Path:
    return out / f"run-{number:06d}.json"
