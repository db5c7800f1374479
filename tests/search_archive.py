"""A made-up archive for tests of the search: embeddings with shots, related videos and copies, without any media."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient

from visxp_search.queries import Query
from visxp_search.store import DONE, SecondPoint, Store, VideoRecord, make_payload
from visxp_search.store_server import open_client_store

FloatArray = npt.NDArray[np.float32]
DIM = 32
DIMS = {"visual": DIM, "audio": DIM, "joint": DIM}


def normalise(rows: npt.NDArray[np.floating]) -> FloatArray:
    """Rows of norm 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def make_seconds(rng: np.random.Generator, n_seconds: int, *, shot_length: int = 4, change: float = 0.5) -> FloatArray:
    """(n, DIM) embeddings: shots of random looks, within which every second differs by `change`."""
    n_shots = -(-n_seconds // shot_length)
    shots = np.repeat(normalise(rng.standard_normal((n_shots, DIM))), shot_length, axis=0)[:n_seconds]
    return normalise(shots + change * normalise(rng.standard_normal((n_seconds, DIM))))


def between(rows: FloatArray, positions: npt.NDArray[np.floating]) -> FloatArray:
    """What a copy shows that begins between whole seconds: mixtures of both neighbours."""
    low = np.clip(np.floor(positions).astype(int), 0, len(rows) - 1)
    high = np.minimum(low + 1, len(rows) - 1)
    part = (positions - np.floor(positions))[:, None]
    return normalise((1 - part) * rows[low] + part * rows[high])


def add_noise(rng: np.random.Generator, rows: FloatArray, *, amount: float) -> FloatArray:
    """Rows turned away from where they were by about atan(amount)."""
    return normalise(rows + amount * normalise(rng.standard_normal(rows.shape)))


@contextmanager
def open_archive(
    videos: dict[str, dict[str, FloatArray]],
    *,
    clusters: Mapping[str, Sequence[int]] | None = None,
    flags: Mapping[str, Sequence[Sequence[str]]] | None = None,
    paths: dict[str, str] | None = None,
    changed: dict[str, float] | None = None,
) -> Iterator[Store]:
    """A store in memory of these videos: video id -> vector name -> (n, DIM); rows of NaN are seconds without it."""
    store = open_client_store(QdrantClient(":memory:"), location="memory", checkpoint="made-up", create=DIMS)
    for video_id, vectors in videos.items():
        n_seconds = len(next(iter(vectors.values())))
        points = []
        for second in range(n_seconds):
            present = {name: rows[second] for name, rows in vectors.items() if not np.isnan(rows[second]).any()}
            payload = make_payload(
                video_id=video_id,
                second=second,
                has_audio="audio" in present,
                flags=(flags or {}).get(video_id, [()] * n_seconds)[second],
                checkpoint="made-up",
                cluster=(clusters or {}).get(video_id, [0] * n_seconds)[second],
            )
            points.append(SecondPoint(video_id, second, present, payload))
        store.upsert_seconds(points)
        path = (paths or {}).get(video_id, f"/archive/{video_id}.mp4")
        record = VideoRecord(
            video_id=video_id,
            paths=(path,),
            status=DONE,
            duration_seconds=float(n_seconds),
            seconds_expected=n_seconds,
            seconds_done=n_seconds,
            checkpoint="made-up",
            stats={path: [1, int(1e9 * (changed or {}).get(video_id, 0.0))]},
        )
        store.upsert_videos([record])
    try:
        # The client's local mode takes long for each hit; so few videos need no more of them.
        with patch("visxp_search.candidates.CANDIDATES", 150):
            yield store
    finally:
        store.close()


def make_videos(seed: int, *, n_videos: int = 12, n_seconds: int = 40) -> dict[str, dict[str, FloatArray]]:
    """Videos that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    return {
        f"video{number:02d}": {
            "visual": make_seconds(rng, n_seconds, shot_length=5, change=0.3),
            "audio": make_seconds(rng, n_seconds, shot_length=3, change=0.8),
        }
        for number in range(n_videos)
    }


def make_query(vectors: dict[str, FloatArray], *, duration: float | None = None) -> Query:
    """A query of these rows, all modalities counting alike."""
    return Query(
        kind="clip",
        vectors=vectors,
        weights=dict.fromkeys(vectors, 1 / len(vectors)),
        origin={"path": "query.mp4", "start": 0},
        duration_seconds=duration,
    )


def copy_of(
    seconds: dict[str, FloatArray],
    *,
    start: float,
    length: int,
    rng: np.random.Generator,
    speed: float = 1.0,
    noise: float = 0.3,
) -> Query:
    """A worse copy of a stretch of a video, as a query."""
    positions = start + speed * np.arange(length)
    return make_query({name: add_noise(rng, between(rows, positions), amount=noise) for name, rows in seconds.items()})
