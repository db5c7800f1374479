"""An index as Parquet files, for other programs and for moving between stores; reading them back gives the same.

    OUT/seconds.parquet   one row a second: the payload's keys as columns, one column of float32 lists per named vector
    OUT/videos.parquet    one row a video: what a person wants to see, and the whole ledger entry as JSON
    OUT/clusters.json     the archive's clusters with their names, tree and edits, if it has any

The two tables carry in their schema, under the key `visxp`, the description of the index (checkpoint, dims, schema
version). They are written and read batch by batch, so memory does not grow with the index. The mean vectors of videos
are not written: they follow from the seconds. An index that has clusters keeps them when something is imported into it,
and the imported seconds get its labels.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from visxp_search.errors import ExchangeError, UsageError
from visxp_search.exchange.contents import BATCH, VIDEO_BATCH, Contents, Progress, contents_of, store_contents
from visxp_search.store import CollectionInfo, SecondPoint, Store, VideoRecord
from visxp_search.store_json import info_from_json, info_to_json, video_payload, video_record

SECONDS, VIDEOS, CLUSTERS = "seconds.parquet", "videos.parquet", "clusters.json"
FORMAT_VERSION = 1
METADATA_KEY = b"visxp"

PAYLOAD_TYPES = {
    "video_id": pa.string(),
    "second": pa.int64(),
    "start_ms": pa.int64(),
    "has_audio": pa.bool_(),
    "flags": pa.list_(pa.string()),
    "model": pa.string(),
    "path": pa.list_(pa.string()),
    "cluster": pa.int64(),
    "cluster_visual": pa.int64(),
    "cluster_audio": pa.int64(),
    "confidence": pa.float64(),
}
"""Payload keys that have a column of their own; whatever else a payload holds stands as JSON in `EXTRA`."""
EXTRA = "extra"

VIDEO_TYPES = {
    "video_id": pa.string(),
    "paths": pa.list_(pa.string()),
    "status": pa.string(),
    "kind": pa.string(),
    "duration_seconds": pa.float64(),
    "seconds_expected": pa.int64(),
    "seconds_done": pa.int64(),
    "error": pa.string(),
}
RECORD = "record"


def is_parquet_export(path: Path) -> bool:
    """Whether a folder holds what `export_parquet` writes."""
    return (path / SECONDS).is_file() and (path / VIDEOS).is_file()


def export_parquet(store: Store, out: Path, *, progress: Progress) -> tuple[int, int]:
    """Write an index to a new folder, which appears when it is complete.

    Returns:
        Numbers of seconds and videos.

    Raises:
        UsageError: If `out` exists.
        CollectionError: If the index fails.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; give the name of a new folder")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.absolute().parent}; make it first")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        contents = contents_of(store, batch=BATCH)
        n_seconds = _write_seconds(contents, partial / SECONDS, progress=progress)
        n_videos = _write_videos(contents, partial / VIDEOS)
        if contents.clusters is not None:
            (partial / CLUSTERS).write_text(json.dumps(contents.clusters), encoding="utf-8")
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return n_seconds, n_videos


def read_info(folder: Path) -> CollectionInfo:
    """What the exported index said of itself.

    Raises:
        ExchangeError: If the files are damaged or not of `export_parquet`.
        CollectionError: If they are of another schema version.
    """
    with _opened(folder / SECONDS) as seconds:
        stated = seconds.schema_arrow.metadata or {}
    try:
        description = json.loads(stated[METADATA_KEY])
        version = description["parquet_version"]
    except (KeyError, ValueError, TypeError) as exc:
        raise ExchangeError(f"{folder / SECONDS} was not written by `visxp index export` ({exc!r})") from exc
    if version != FORMAT_VERSION:
        raise ExchangeError(f"{folder / SECONDS} is of format {version}, this program reads {FORMAT_VERSION}")
    return info_from_json(description, location=str(folder))


def import_parquet(store: Store, folder: Path, *, progress: Progress) -> tuple[int, int]:
    """Store all that was exported; points of the same id are replaced, so that doing it twice changes nothing.

    Seconds come before the videos that promise them; an import that was cut short is begun again.

    Returns:
        Numbers of seconds and videos.

    Raises:
        ExchangeError: If the files are damaged, or the index is of another checkpoint.
    """
    info, clusters = read_info(folder), _read_clusters(folder / CLUSTERS)
    with _opened(folder / SECONDS) as seconds, _opened(folder / VIDEOS) as videos:
        contents = Contents(
            origin=str(folder),
            info=info,
            n_seconds=seconds.metadata.num_rows,
            n_videos=videos.metadata.num_rows,
            seconds=(_read_points(batch, info.dims, where=folder / SECONDS) for batch in seconds.iter_batches(BATCH)),
            videos=(
                [_read_record(text, where=folder / VIDEOS) for text in batch.column(RECORD).to_pylist()]
                for batch in videos.iter_batches(VIDEO_BATCH)
            ),
            clusters=clusters,
        )
        return store_contents(store, contents, what="import", progress=progress)


def _read_clusters(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
    except (OSError, ValueError, TypeError) as exc:
        raise ExchangeError(f"{path} cannot be read ({exc}); export it again") from exc


def _write_seconds(contents: Contents, path: Path, *, progress: Progress) -> int:
    dims = contents.info.dims
    vectors = {name: pa.list_(pa.float32(), dim) for name, dim in dims.items()}
    schema = _schema({**PAYLOAD_TYPES, EXTRA: pa.string(), **_prefixed(vectors)}, contents.info)
    done = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for points in contents.seconds:
            writer.write_batch(_points_batch(points, dims, schema))
            done += len(points)
            progress("export seconds", done, max(contents.n_seconds, done))
    return done


def _write_videos(contents: Contents, path: Path) -> int:
    schema = _schema({**VIDEO_TYPES, RECORD: pa.string()}, contents.info)
    done = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for records in contents.videos:
            payloads = [video_payload(record) for record in records]
            columns = [pa.array([payload[key] for payload in payloads], kind) for key, kind in VIDEO_TYPES.items()]
            texts = pa.array([json.dumps(payload) for payload in payloads], pa.string())
            writer.write_batch(pa.record_batch([*columns, texts], schema=schema))
            done += len(records)
    return done


def _schema(columns: Mapping[str, pa.DataType], info: CollectionInfo) -> pa.Schema:
    description = json.dumps({**info_to_json(info), "parquet_version": FORMAT_VERSION})
    return pa.schema(list(columns.items()), metadata={METADATA_KEY: description.encode()})


def _prefixed(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of vectors are called `vector_visual` and so on: payload keys may be called like vectors."""
    return {f"vector_{name}": column for name, column in columns.items()}


def _points_batch(points: Sequence[SecondPoint], dims: Mapping[str, int], schema: pa.Schema) -> pa.RecordBatch:
    columns = [pa.array([point.payload.get(key) for point in points], kind) for key, kind in PAYLOAD_TYPES.items()]
    rests = [{key: value for key, value in point.payload.items() if key not in PAYLOAD_TYPES} for point in points]
    columns.append(pa.array([json.dumps(rest) if rest else None for rest in rests], pa.string()))
    for name, dim in dims.items():
        missing = np.array([name not in point.vectors for point in points])
        rows = np.zeros((len(points), dim), dtype=np.float32)
        for row, point in enumerate(points):
            if name in point.vectors:
                rows[row] = point.vectors[name]
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim, mask=pa.array(missing)))
    return pa.record_batch(columns, schema=schema)


def _read_points(batch: pa.RecordBatch, dims: Mapping[str, int], *, where: Path) -> list[SecondPoint]:
    try:
        columns = {key: batch.column(key).to_pylist() for key in (*PAYLOAD_TYPES, EXTRA)}
        vectors = {name: _read_vectors(batch.column(f"vector_{name}"), dim) for name, dim in dims.items()}
        points = []
        for row in range(batch.num_rows):
            payload = {key: columns[key][row] for key in PAYLOAD_TYPES if columns[key][row] is not None}
            payload |= json.loads(columns[EXTRA][row] or "{}")
            here = {name: vector for name, rows in vectors.items() if (vector := rows[row]) is not None}
            points.append(SecondPoint(payload["video_id"], payload["second"], here, payload))
    except (KeyError, ValueError, TypeError, pa.ArrowException) as exc:
        raise ExchangeError(f"{where} is damaged ({exc!r}); export it again") from exc
    return points


def _read_vectors(column: pa.FixedSizeListArray, dim: int) -> list[npt.NDArray[np.float32] | None]:
    """For each row its vector, or None where it has none."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    rows = iter(np.asarray(column.flatten(), dtype=np.float32).reshape(-1, dim))  # flatten leaves missing rows out
    return [next(rows) if is_there else None for is_there in there]


def _read_record(text: str, *, where: Path) -> VideoRecord:
    try:
        return video_record(json.loads(text))
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        raise ExchangeError(f"{where} is damaged ({exc!r}); export it again") from exc


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file; Arrow's errors while it is open become ours."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as exc:
        raise ExchangeError(f"{path} cannot be read as Parquet ({exc}); export it again") from exc
