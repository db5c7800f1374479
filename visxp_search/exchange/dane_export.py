"""An index in the layout of the VisXP workers (see `dane`), for programs that read theirs.

Written are the features, the texts of metadata and the provenance. Not written are keyframes and spectrograms: an index
holds neither pictures nor sounds, and spectrograms would have to be pickled. A modality that a second lacks is NaN in
its columns. The features are of norm 1.

Their embeddings have 512 numbers, ours another length, and 256 and 256 are as many as theirs of the picture alone. So
the provenance states the columns, and `dane_import` goes by it.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visxp_search import __version__
from visxp_search.errors import UsageError
from visxp_search.exchange.dane import (
    EXPORT_ACTIVITY,
    FEATURES,
    FRAMES_TEXT,
    METADATA,
    PROVENANCE,
    SHOTS_TEXT,
    TIMES_TEXT,
    FeatureArray,
)
from visxp_search.exchange.dane_import import KEYFRAME_KEY, SHOT_KEY
from visxp_search.export.files import unique_names
from visxp_search.store import DONE, SecondPoint, Store, VideoRecord

MODALITIES = ("audio", "visual")
"""In the order of the columns."""


def export_dane(store: Store, out: Path, *, progress: Callable[[str, int, int], None]) -> tuple[int, int]:
    """Write one folder a video into a new folder, which appears when it is complete.

    Returns:
        Numbers of seconds and videos.

    Raises:
        UsageError: If `out` exists, or the index has no visual vectors.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; give the name of a new folder")
    if "visual" not in store.info.dims:
        raise UsageError(f"index {store.location} has no visual vectors, without which the layout makes no sense")
    records = sorted(store.videos(DONE), key=lambda record: (record.paths, record.video_id))
    names = unique_names(_source_id(record) for record in records)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    n_seconds = 0
    try:
        partial.mkdir()
        for done, (record, name) in enumerate(zip(records, names, strict=True), start=1):
            n_seconds += _write_source(store, record, partial / name)
            progress("export videos", done, len(records))
        partial.rename(out)
    except FileNotFoundError as exc:
        raise UsageError(f"{out}: there is no folder {out.absolute().parent}; make it first") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return n_seconds, len(records)


def make_features(points: Sequence[SecondPoint], dims: Mapping[str, int]) -> FeatureArray:
    """(N, 3 + sum of dims) float32: time in ms, bounds of the shot (-1 where unknown), audio, visual."""
    rows = np.full((len(points), 3 + sum(dims.values())), np.nan, dtype=np.float32)
    for row, point in zip(rows, points, strict=True):
        row[:3] = (_time_ms(point), *_shot(point))
        start = 3
        for name, dim in dims.items():
            if name in point.vectors:
                row[start : start + dim] = point.vectors[name]
            start += dim
    return rows


def _write_source(store: Store, record: VideoRecord, folder: Path) -> int:
    started = time.time()
    dims = {name: store.info.dims[name] for name in MODALITIES if name in store.info.dims}
    points = store.seconds_of(record.video_id, with_vectors=tuple(dims))
    (folder / METADATA).mkdir(parents=True)
    times = [_time_ms(point) for point in points]
    shots = sorted({shot for shot in map(_shot, points) if shot[0] >= 0})
    (folder / METADATA / TIMES_TEXT).write_text(str(times))
    (folder / METADATA / SHOTS_TEXT).write_text(str(shots))
    rate = record.facts.get("frames_per_second")
    if rate:
        (folder / METADATA / FRAMES_TEXT).write_text(str([round(time_ms * rate / 1000) for time_ms in times]))
    features = folder / f"{FEATURES}{folder.name}.pt"
    torch.save(torch.from_numpy(make_features(points, dims)), features)
    provenance = _provenance(store, record, dims, features=features.name, started=started)
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=4) + "\n")
    return len(points)


def _provenance(
    store: Store, record: VideoRecord, dims: Mapping[str, int], *, features: str, started: float
) -> dict[str, Any]:
    """The keys are those of the workers' own provenance."""
    return {
        "activity_name": EXPORT_ACTIVITY,
        "activity_description": "Write the embeddings of an index in the layout of the VisXP workers",
        "start_time_unix": started,
        "processing_time_ms": (time.time() - started) * 1000,
        "parameters": {
            "MODEL": store.info.checkpoint,
            "layout": {
                "columns": ["timestamp_ms", "shot_start_ms", "shot_end_ms", "parts one after the other"],
                "has_shots": True,
                "parts": [{"vector": name, "length": dim} for name, dim in dims.items()],
            },
            "norm": "embeddings have norm 1; NaN where a second lacks the modality; shots -1 where unknown",
        },
        "software_version": {"visxp-search": __version__},
        "input_data": {"input_file_path": record.paths[0] if record.paths else "", "video_id": record.video_id},
        "output_data": {"features": features},
        "steps": [],
    }


def _source_id(record: VideoRecord) -> str:
    stated = record.facts.get("source_id")
    return str(stated) if stated else Path(record.paths[0]).stem if record.paths else record.video_id


def _time_ms(point: SecondPoint) -> int:
    """When the second's frame is on display: the keyframe's own time if it was imported, else the second's middle."""
    return int(point.payload.get(KEYFRAME_KEY, point.second * 1000 + 500))


def _shot(point: SecondPoint) -> tuple[int, int]:
    shot = point.payload.get(SHOT_KEY) or (-1, -1)
    return int(shot[0]), int(shot[1])
