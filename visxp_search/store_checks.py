"""What every store refuses: vectors and queries that would poison a collection, names that it does not have."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from visxp_search.store import SecondPoint

IDENTITY_KEYS = ("video_id", "second", "start_ms")
"""Payload keys that `set_payload` may not touch."""

DOCUMENTS = ("clusters",)
"""Names of the documents that an index can keep."""


def check_points(points: Iterable[SecondPoint], dims: Mapping[str, int]) -> None:
    """Refuse points that would poison a collection (Qdrant Edge accepts NaN).

    Raises:
        ValueError: If a vector's name, length, finiteness or norm is wrong.
    """
    for point in points:
        check_vectors(point.vectors, dims, owner=f"second {point.second} of {point.video_id}")


def check_vectors(vectors: Mapping[str, npt.NDArray[np.float32]], dims: Mapping[str, int], *, owner: str) -> None:
    """Refuse vectors of a wrong name, length, finiteness or norm; `owner` says in the message whose they are.

    Raises:
        ValueError: If one is wrong.
    """
    for name, vector in vectors.items():
        which = f"vector {name!r} of {owner}"
        check_vector_name(name, dims)
        if vector.shape != (dims[name],):
            raise ValueError(f"{which} has shape {vector.shape}; expected ({dims[name]},)")
        norm = float(np.linalg.norm(vector))
        if not np.isfinite(norm) or abs(norm - 1) > 1e-3:
            raise ValueError(f"{which} has norm {norm}; expected a finite vector of norm 1")


def check_vector_name(name: str, dims: Mapping[str, int]) -> None:
    """Refuse a vector name that the collection does not have.

    Raises:
        ValueError: If it has no such vector.
    """
    if name not in dims:
        raise ValueError(f"vector {name!r} is unknown; this collection has {sorted(dims)}")


def check_query(embeddings: npt.NDArray[np.float32], *, dim: int) -> None:
    """Refuse query embeddings that have no cosine similarity to anything.

    Raises:
        ValueError: If they are not (Q, dim), or a row is zero or not finite.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != dim:
        raise ValueError(f"query embeddings have shape {embeddings.shape}; expected (Q, {dim})")
    norms = np.linalg.norm(embeddings, axis=1)  # (Q, D) -> (Q,)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if bad.size:
        raise ValueError(
            f"query embedding {bad[0]} has norm {norms[bad[0]]}; expected a finite vector that is not zero"
        )


def check_document_name(name: str) -> None:
    """Refuse a document that an index does not have.

    Raises:
        ValueError: If it has none of this name.
    """
    if name not in DOCUMENTS:
        raise ValueError(f"document {name!r} is unknown; expected one of {DOCUMENTS}")
