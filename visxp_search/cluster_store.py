"""An archive's clusters as its index keeps them: the document, and the payloads of seconds.

The document `clusters` holds prototypes, tree, names and edits, and is replaced at once; only then do payloads follow,
and when all are set the document says so. Whoever finds it saying otherwise sets them again: the labels depend on the
document and the stored vectors alone, so the end is the same however often it was cut short.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from visxp_search.cluster_book import ClusterBook, book_from_json
from visxp_search.cluster_model import ClusterModel
from visxp_search.errors import CollectionError
from visxp_search.store import Filter, SecondPoint, Store

DOCUMENT = "clusters"
FORMAT = 1
PAGE = 4096
"""Seconds that are read, assigned and written together."""
FLUSH_SECONDS = 50_000
"""Seconds after which payloads are flushed: an engine keeps its log, and what is not flushed, in memory."""

OnSeconds = Callable[[int], None]
"""Told how many more seconds are done."""


@dataclass(frozen=True)
class FitFacts:
    """How clusters were fitted.

    Attributes:
        fit_id: hash of what was fitted.
        n_clusters: prototypes asked for, or found by the criterion.
        sizes: wanted sizes, see `cluster_fit.FitOptions`.
        seed: of everything random.
        n_seconds: seconds that were there.
        size_error: largest relative deviation of a prototype's size from the wanted one.
        curve: K, criterion and its standard error of the K that were tried; empty if K was given.
        stability: NMI of the labels of a sample with those of another fit, that began elsewhere; None if not measured.
        wanted: seconds that each prototype should have, of those that sizes are balanced on.
        obtained: seconds that it has of them.
    """

    fit_id: str
    n_clusters: int
    sizes: str
    seed: int
    n_seconds: int
    size_error: float
    curve: tuple[tuple[int, float, float], ...] = ()
    stability: float | None = None
    wanted: tuple[int, ...] = ()
    obtained: tuple[int, ...] = ()


@dataclass(frozen=True)
class Clustering:
    """All that an index knows of its clusters.

    Attributes:
        model: says which prototype a second belongs to.
        book: says which cluster a prototype is, and where in the tree.
        fit: how it was fitted.
        applied: whether every stored second's payload agrees.
    """

    model: ClusterModel
    book: ClusterBook
    fit: FitFacts
    applied: bool = False

    def label(self, points: Sequence[SecondPoint]) -> list[dict[str, Any]]:
        """The payload values of seconds: `cluster`, `path`, `confidence`, and `cluster_visual` and `cluster_audio`.

        The last two are what picture and sound alone point to, where they are there.
        """
        if not points:
            return []
        features, clusters = self.model.features(points), self.book.rows
        rows, confidence = self.model.assign(features)
        paths = self.book.paths()
        labels: list[dict[str, Any]] = [
            {"cluster": clusters[row], "path": paths[clusters[row]], "confidence": round(sure, 4)} if row >= 0 else {}
            for row, sure in zip(rows.tolist(), confidence.astype(np.float64).tolist(), strict=True)
        ]
        for name, alone in self.model.assign_alone(features).items():
            for values, row in zip(labels, alone.tolist(), strict=True):
                if row >= 0:
                    values[f"cluster_{name}"] = clusters[row]
        return labels


def read_clustering(store: Store) -> Clustering | None:
    """The clusters of an index; None if none were fitted.

    Raises:
        CollectionError: If the document is of another format.
    """
    data = store.read_document(DOCUMENT)
    if data is None:
        return None
    if data.get("format") != FORMAT:
        raise CollectionError(
            f"the clusters of index {store.location} have format {data.get('format')!r}, this program reads {FORMAT}; "
            f"use the visxp release that made them"
        )
    # Clusters of earlier releases have no errors.
    curve = tuple((int(k), float(value), float(rest[0]) if rest else 0.0) for k, value, *rest in data["fit"]["curve"])
    return Clustering(
        model=ClusterModel.from_json(data["model"]),
        book=book_from_json(data["book"]),
        fit=FitFacts(
            **{
                **data["fit"],
                "curve": curve,
                "wanted": tuple(data["fit"].get("wanted", ())),
                "obtained": tuple(data["fit"].get("obtained", ())),
            }
        ),
        applied=bool(data["applied"]),
    )


def require_clustering(store: Store) -> Clustering:
    """The clusters of an index.

    Raises:
        CollectionError: If none were fitted.
    """
    clustering = read_clustering(store)
    if clustering is None:
        learned = " of its own yet, only those that its checkpoint learned" if store.facet("cluster") else " yet"
        raise CollectionError(f"index {store.location} has no clusters{learned}; make them with: visxp clusters fit")
    return clustering


def write_clustering(store: Store, clustering: Clustering) -> None:
    """Keep clusters with the index, replacing those before."""
    store.write_document(
        DOCUMENT,
        {
            "format": FORMAT,
            "model": clustering.model.to_json(),
            "book": clustering.book.to_json(),
            "fit": asdict(clustering.fit),
            "applied": clustering.applied,
        },
    )


def label_points(points: Sequence[SecondPoint], clustering: Clustering | None) -> list[SecondPoint]:
    """New seconds with the payload of the clusters that they belong to, if clusters were fitted."""
    if clustering is None:
        return list(points)
    labels = clustering.label(points)
    return [replace(point, payload={**point.payload, **values}) for point, values in zip(points, labels, strict=True)]


def apply_clustering(
    store: Store,
    clustering: Clustering,
    *,
    clusters: Sequence[int] | None = None,
    on_seconds: OnSeconds = lambda n: None,
) -> Clustering:
    """Write the document, then the payloads of the seconds that it changes, then that this is done.

    Args:
        store: an index open for writing.
        clustering: what should hold.
        clusters: only the seconds whose payload says one of these, by both modalities or one; None for all. What an
            edit can not change need not be read again.
        on_seconds: told how many more seconds are done.

    Returns:
        The clustering, applied.
    """
    before = read_clustering(store)
    whole = clusters is None or before is None or not before.applied
    write_clustering(store, replace(clustering, applied=False))
    wanted: list[Filter | None] = [None]
    if not whole and clusters is not None:
        some = tuple(clusters)
        wanted = [Filter(clusters=some), Filter(clusters_visual=some), Filter(clusters_audio=some)]
    with store.bulk_load():
        for where in wanted:
            _set_labels(store, clustering, where, on_seconds)
    store.flush()
    done = replace(clustering, applied=True)
    write_clustering(store, done)
    return done


def _set_labels(store: Store, clustering: Clustering, where: Filter | None, on_seconds: OnSeconds) -> None:
    """Set the payloads of the seconds that match and have others."""
    n_unflushed = 0
    for points in pages(store.seconds(where, with_vectors=clustering.model.modalities, page=PAGE)):
        updates = [
            (point.video_id, point.second, values)
            for point, values in zip(points, clustering.label(points), strict=True)
            if _differs(point.payload, values)
        ]
        store.set_payloads(updates)
        n_unflushed += len(updates)
        if n_unflushed >= FLUSH_SECONDS:
            store.flush()
            n_unflushed = 0
        on_seconds(len(points))


def pages(points: Iterator[SecondPoint], size: int = PAGE) -> Iterator[list[SecondPoint]]:
    """Lists of at most `size` seconds."""
    while page := list(islice(points, size)):
        yield page


def _differs(payload: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return any(payload.get(key) != value for key, value in values.items())
