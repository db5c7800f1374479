"""Features of the VisXP workers become an index: yesterday's features are searched without extracting them again.

The vectors are theirs, so the index has a checkpoint name of its own (`dane-...`) and no encoder: it is asked with its
own moments (`visxp search moment VIDEO@S`). A keyframe stands for the second that it lies in; of several in one second
the one nearest the middle is taken.

What `dane_export` wrote is recognised by its provenance and becomes again what it was: the same checkpoint, video ids
and vectors, so that it is asked like the index that it came from.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visxp_search.clips import NO_AUDIO, NO_VIDEO
from visxp_search.embed import IMPORTED_PREFIX
from visxp_search.errors import ExchangeError, UsageError
from visxp_search.exchange.dane import (
    FRAMES_TEXT,
    KEYFRAMES,
    METADATA,
    PROVENANCE,
    SHOTS_TEXT,
    TIMES_TEXT,
    DaneSource,
    FeatureArray,
    Layout,
    check_spectrogram,
    find_sources,
    read_features,
    read_provenance,
    read_shots,
    read_times,
    stated_layout,
)
from visxp_search.store import DONE, SecondPoint, Store, VideoRecord, make_payload, mean_vectors

UNITS = ("auto", "ms", "s")
SMALLEST_STEP_MS = 20
"""Keyframes are never nearer to each other than a frame of 50 a second; numbers that are, count seconds."""
LARGEST_STEP_SECONDS = 500
"""Numbers at least this far apart are milliseconds."""
UNIT_NORM = 1e-6
"""Vectors whose norm is this near 1 are stored as they are, so that ours come back bit for bit."""
KEYFRAME_KEY, SHOT_KEY = "keyframe_ms", "shot_ms"
"""Payload keys that keep the keyframe's time and the bounds of its shot."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DaneVideo:
    """What one source gives to an index."""

    record: VideoRecord
    points: Sequence[SecondPoint]
    checkpoint: str
    dims: Mapping[str, int]


@dataclass
class DaneReport:
    """What came of an import.

    Attributes:
        videos: stored.
        seconds: stored.
        crowded: keyframes left out because another lay nearer the middle of the same second.
        spectrograms: files that were looked at and not loaded.
        own: sources that this program exported, whose columns are what their provenance says.
        failures: sources left out, with the reason.
    """

    videos: int = 0
    seconds: int = 0
    crowded: int = 0
    spectrograms: int = 0
    own: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)


def import_dane(
    root: Path,
    *,
    open_into: Callable[[str, Mapping[str, int]], Store],
    unit: str = "auto",
    progress: Progress,
) -> DaneReport:
    """Store the features of all sources below a folder.

    A source that is damaged or refused is left out and reported; so is one of another model than the first.

    Args:
        root: a source's folder, or one that holds many.
        open_into: opens the index for a checkpoint name and dims; the caller closes it.
        unit: of the time column, one of `UNITS`.
        progress: is told of the sources.

    Raises:
        ExchangeError: If there are no features, or none can be read.
        UsageError: If the unit is unknown.
    """
    if unit not in UNITS:
        raise UsageError(f"--timestamps {unit} is unknown; choose one of {', '.join(UNITS)}")
    sources = find_sources(root)
    report = DaneReport()
    store: Store | None = None
    for done, source in enumerate(sources, start=1):
        try:
            video = read_video(source, unit=unit, report=report)
            if store is None:
                store = open_into(video.checkpoint, video.dims)
            if video.checkpoint != store.info.checkpoint:
                raise ExchangeError(
                    f"{source.features}: made by another model ({video.checkpoint}) than the index "
                    f"({store.info.checkpoint}); import its folder into an --index of its own"
                )
            _store(store, video, report)
        except ExchangeError as exc:
            report.failures.append((source.features, str(exc)))
        progress("import sources", done, len(sources))
    if store is None:
        raise ExchangeError(report.failures[0][1])
    store.flush()
    return report


def _store(store: Store, video: DaneVideo, report: DaneReport) -> None:
    store.delete_seconds(video.record.video_id)  # an earlier import may have had other keyframes
    store.upsert_seconds(video.points)
    store.flush()
    store.upsert_videos([video.record])
    report.videos += 1
    report.seconds += len(video.points)


def read_video(source: DaneSource, *, unit: str, report: DaneReport) -> DaneVideo:
    """Read one source whole; `report` counts what was not used.

    Raises:
        ExchangeError: If any of its files is damaged or refused.
    """
    spectrograms = source.spectrograms
    for path in spectrograms:
        check_spectrogram(path)
    report.spectrograms += len(spectrograms)
    provenance = read_provenance(source.folder / PROVENANCE)
    stated = stated_layout(provenance, path=source.folder / PROVENANCE)
    features, layout = read_features(source.features, stated=stated)
    stamps = _read_stamps(features, source.features)
    times_ms, found_unit = find_times(stamps, source, unit=unit)
    there = {
        "visual": find_present(stamps, sorted((source.folder / KEYFRAMES).glob("*.jpg"))),
        "audio": find_present(stamps, spectrograms),
    }
    checkpoint = name_checkpoint(layout.dims, provenance)
    video_id = hashlib.blake2b(f"dane/{source.source_id}".encode(), digest_size=16).hexdigest()
    if stated is not None:
        checkpoint, video_id = _own_identity(provenance, path=source.folder / PROVENANCE)
        report.own += 1
    shots = read_shots(source.folder / METADATA / SHOTS_TEXT)
    points = []
    for row, second in choose_rows(times_ms):
        vectors = _vectors(features[row], layout, {name: bool(rows[row]) for name, rows in there.items()})
        flags = [flag for flag, name in ((NO_VIDEO, "visual"), (NO_AUDIO, "audio")) if name not in vectors]
        time_ms = int(times_ms[row])
        payload = make_payload(
            video_id=video_id, second=second, has_audio="audio" in vectors, flags=flags, checkpoint=checkpoint
        )
        payload[KEYFRAME_KEY] = time_ms
        shot = _shot_of(features[row], layout, shots, time_ms)
        if shot is not None:
            payload[SHOT_KEY] = shot
        points.append(SecondPoint(video_id, second, vectors, payload))
    report.crowded += len(features) - len(points)
    facts = {
        "source_id": source.source_id,
        "imported_from": str(source.features.absolute()),
        "columns": features.shape[1],
        "timestamps": found_unit,
    }
    end = max(point.second for point in points) + 1
    record = VideoRecord(
        video_id=video_id,
        paths=(_media_path(provenance) or str(source.folder.absolute()),),
        status=DONE,
        duration_seconds=float(end),
        seconds_expected=len(points),
        seconds_done=len(points),
        checkpoint=checkpoint,
        facts=facts,
        vectors=mean_vectors(points),
    )
    return DaneVideo(record, points, checkpoint, layout.dims)


def find_times(stamps: npt.NDArray[np.int64], source: DaneSource, *, unit: str) -> tuple[npt.NDArray[np.int64], str]:
    """Milliseconds of the time column, and the unit that it was in: `ms`, `s`, or `frame` by the metadata.

    Raises:
        ExchangeError: If the unit cannot be told, or metadata are damaged.
    """
    known_ms = read_times(source.folder / METADATA / TIMES_TEXT)
    known_frames = read_times(source.folder / METADATA / FRAMES_TEXT)
    wanted = set(stamps.tolist())
    if unit == "auto" and known_ms is not None and wanted <= set(known_ms):
        return stamps, "ms"
    is_paired = known_ms is not None and known_frames is not None and len(known_ms) == len(known_frames)
    if unit == "auto" and is_paired and wanted <= set(known_frames or ()):
        times = dict(zip(known_frames or (), known_ms or (), strict=True))
        return np.array([times[stamp] for stamp in stamps.tolist()], dtype=np.int64), "frame"
    unit = find_unit(stamps, path=source.features) if unit == "auto" else unit
    return (stamps, "ms") if unit == "ms" else (stamps * 1000 + 500, "s")


def find_unit(stamps: npt.NDArray[np.int64], *, path: Path) -> str:
    """`ms` or `s`, by how far apart (N,) time stamps lie.

    Raises:
        ExchangeError: If they could be either.
    """
    steps = np.diff(np.unique(stamps))
    if steps.size and steps.min() < SMALLEST_STEP_MS:
        return "s"
    if steps.size and steps.min() >= LARGEST_STEP_SECONDS:
        return "ms"
    raise ExchangeError(
        f"{path}: time stamps {stamps[:4].tolist()} could be milliseconds or seconds; say which: --timestamps ms or s"
    )


def find_present(stamps: npt.NDArray[np.int64], files: Sequence[Path]) -> npt.NDArray[np.bool_]:
    """Which of (N,) time stamps have a file named `<time>.jpg` or `<time>_<rate>.npz`; all, if there are no files.

    For a missing file the workers feed zeros to their network, and what comes out is worth nothing.
    """
    if not files:
        return np.ones(len(stamps), dtype=bool)
    names = {path.stem.split("_")[0] for path in files}
    return np.array([str(stamp) in names for stamp in stamps.tolist()])


def choose_rows(times_ms: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """(row, second) for each second that has a keyframe: the one nearest the second's middle, sorted by second."""
    chosen: dict[int, tuple[int, int]] = {}
    for row, time_ms in enumerate(times_ms.tolist()):
        second, rest = divmod(time_ms, 1000)
        distance = abs(rest - 500)
        if second not in chosen or distance < chosen[second][0]:
            chosen[second] = (distance, row)
    return [(row, second) for second, (_, row) in sorted(chosen.items())]


def name_checkpoint(dims: Mapping[str, int], provenance: Mapping[str, Any]) -> str:
    """The checkpoint name of features: the same for all that one model made, as far as their provenance tells."""
    parameters = provenance.get("parameters")
    model = {
        key: str(value)
        for key, value in (parameters.items() if isinstance(parameters, dict) else ())
        if str(key).upper().startswith("MODEL")
    }
    stated = json.dumps({"dims": dict(dims), "model": model}, sort_keys=True)
    return f"{IMPORTED_PREFIX}{hashlib.sha256(stated.encode()).hexdigest()[:12]}"


def _own_identity(provenance: Mapping[str, Any], *, path: Path) -> tuple[str, str]:
    """Checkpoint and video id that an export of ours states."""
    try:
        checkpoint, video_id = provenance["parameters"]["MODEL"], provenance["input_data"]["video_id"]
    except (KeyError, TypeError) as exc:
        raise ExchangeError(f"{path}: does not name the checkpoint and the video; export the index anew") from exc
    if not re.fullmatch(r"[\w.-]+", str(checkpoint)) or not re.fullmatch(r"[\w.-]+", str(video_id)):
        raise ExchangeError(f"{path}: checkpoint {checkpoint!r} of video {video_id!r} is no name that an export gives")
    return str(checkpoint), str(video_id)


def _read_stamps(features: FeatureArray, path: Path) -> npt.NDArray[np.int64]:
    """(N,) whole numbers of the first column."""
    if not len(features):
        raise ExchangeError(f"{path}: has no rows; there is nothing to import")
    stamps = features[:, 0].astype(np.float64)
    if not np.isfinite(stamps).all() or (stamps < 0).any() or (stamps != np.round(stamps)).any():
        raise ExchangeError(f"{path}: its first column holds no times (whole numbers from 0 on)")
    return stamps.astype(np.int64)


def _vectors(row: FeatureArray, layout: Layout, there: Mapping[str, bool]) -> dict[str, npt.NDArray[np.float32]]:
    """The embeddings of a row, norm 1; without those of a modality that is not there, not finite or zero."""
    vectors = {}
    start = layout.first_feature
    for name, length in layout.parts:
        part = np.asarray(row[start : start + length], dtype=np.float64)
        start += length
        norm = float(np.linalg.norm(part))
        if there.get(name, True) and np.isfinite(norm) and norm > 1e-6:
            vectors[name] = (part if abs(norm - 1) < UNIT_NORM else part / norm).astype(np.float32)
    return vectors


def _shot_of(
    row: FeatureArray, layout: Layout, shots: Sequence[tuple[int, int]], time_ms: int
) -> tuple[int, int] | None:
    """Start and end of the row's shot in ms, from its columns or else from the metadata."""
    if layout.has_shots:
        start, end = (float(value) for value in row[1:3])
        return (round(start), round(end)) if 0 <= start <= end < 1e12 else None
    return next((shot for shot in shots if shot[0] <= time_ms <= shot[1]), None)


def _media_path(provenance: Mapping[str, Any]) -> str | None:
    """The video that the workers read, if their provenance names a file of media that is still there."""
    pending: list[Any] = [provenance]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key in ("input_file_path", "input_file"):
                path = value.get(key)
                if isinstance(path, str) and "\0" not in path and not path.endswith(".tar.gz") and Path(path).is_file():
                    return str(Path(path).absolute())
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return None
