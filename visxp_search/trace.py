"""How a query runs along one video: the similarity of every second, for people to look at."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visxp_search.errors import UsageError
from visxp_search.search import Query
from visxp_search.store import Store

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Curve:
    """How much each second of a stretch of one video resembles a query: its best similarity with any second of it.

    Attributes:
        seconds: (T,) the seconds, ascending; those that are not stored are left out.
        score: (T,) the modalities by the query's weights, those that a second lacks left out; NaN where it has none.
        by_modality: name of a stored vector -> (T,) cosine similarity, NaN where either side has none.
    """

    seconds: npt.NDArray[np.int64]
    score: FloatArray
    by_modality: Mapping[str, FloatArray]


def trace_video(store: Store, query: Query, video_id: str, *, start: int, end: int) -> Curve:
    """Compare a query with every second in `[start, end)` of a video.

    Raises:
        UsageError: If none of these seconds is stored.
    """
    names = tuple(query.weights)
    points = store.get([(video_id, second) for second in range(start, end)], with_vectors=names)
    if not points:
        raise UsageError(f"seconds {start} to {end} of video {video_id} are not indexed; see: visxp index ls")
    by_modality = {
        name: best_similarities(query.vectors[name], [point.vectors.get(name) for point in points]) for name in names
    }
    return Curve(
        seconds=np.array([point.second for point in points], dtype=np.int64),
        score=fuse(by_modality, query.weights),
        by_modality=by_modality,
    )


def best_similarities(rows: FloatArray, vectors: list[FloatArray | None]) -> FloatArray:
    """(T,) best cosine similarity of each vector with any of the (Q, D) rows that are not NaN; NaN without a vector."""
    asking = rows[~np.isnan(rows).any(axis=1)]
    best = [np.nan if vector is None or not len(asking) else float((asking @ vector).max()) for vector in vectors]
    return np.array(best, dtype=np.float32)


def fuse(by_modality: Mapping[str, FloatArray], weights: Mapping[str, float]) -> FloatArray:
    """(T,) weighted mean over the modalities that are there; NaN where none is."""
    values = np.stack([by_modality[name] for name in weights])  # (M, T)
    shares = np.array([[weights[name]] for name in weights]) * ~np.isnan(values)
    total = shares.sum(axis=0)
    fused = np.nansum(values * shares, axis=0) / np.where(total > 0, total, 1)
    return np.where(total > 0, fused, np.nan).astype(np.float32)
