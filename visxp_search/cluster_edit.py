"""Edits of an index's clusters by a person: each changes the document, and the payloads of the seconds it concerns."""

from dataclasses import replace

import numpy as np
import torch

from visxp_search.cluster_book import (
    ClusterBook,
    hide_node,
    merge_clusters,
    merged_rows,
    move_node,
    name_node,
    split_cluster,
)
from visxp_search.cluster_model import measure_reach
from visxp_search.cluster_prototypes import fit_prototypes
from visxp_search.cluster_store import Clustering, apply_clustering, pages, write_clustering
from visxp_search.errors import UsageError
from visxp_search.store import Filter, Store

MOST_SPLIT = 20_000
"""Seconds of a cluster that its parts are fitted to."""


def name(store: Store, clustering: Clustering, node: str, text: str) -> Clustering:
    """Give a node a name; an empty one takes it away."""
    return _write(store, clustering, name_node(clustering.book, node, text.strip()))


def hide(store: Store, clustering: Clustering, node: str, *, hidden: bool) -> Clustering:
    """Leave a node out of lists and trees, or show it again. Searches are not touched."""
    return _write(store, clustering, hide_node(clustering.book, node, hidden=hidden))


def merge(store: Store, clustering: Clustering, kept: int, merged: int) -> Clustering:
    """Make two clusters one; see `cluster_book.merge_clusters`."""
    return _relabel(store, clustering, merge_clusters(clustering.book, kept, merged))


def move(store: Store, clustering: Clustering, node: str, branch: str) -> Clustering:
    """Hang a node below another branch; see `cluster_book.move_node`."""
    return _relabel(store, clustering, move_node(clustering.book, node, branch))


def split(store: Store, clustering: Clustering, cluster: int, *, parts: int = 2, seed: int = 0) -> Clustering:
    """Split a cluster: a merged one into what was merged, any other into parts of like seconds.

    All seconds are assigned anew, as the parts may be nearer to seconds of other clusters than the whole was.

    Raises:
        UsageError: If the cluster has too few different seconds.
    """
    book = clustering.book
    own = [row for row, owner in enumerate(book.rows) if owner == cluster]
    if len(own) > 1:
        return _relabel(store, clustering, split_cluster(book, cluster, merged_rows(book, cluster)))
    model = clustering.model
    seconds = store.seconds(Filter(clusters=(cluster,)), with_vectors=model.modalities)
    points = next(pages(seconds, MOST_SPLIT), [])
    features = model.features(points)
    if len(np.unique(features, axis=0)) < parts:
        raise UsageError(f"cluster {cluster} has fewer than {parts} different seconds; it cannot be split so")
    prototypes, _, offsets = fit_prototypes(torch.from_numpy(features), parts, sizes="natural", seed=seed)
    # The parts are nearer to the cluster's seconds than the whole was; as attractive as it was, they take no others.
    sample = torch.from_numpy(features)
    as_parts = (sample @ prototypes.T + offsets.float()).max(dim=1).values.mean()
    as_whole = (sample @ torch.from_numpy(model.prototypes[own[0]])).mean() + float(model.offsets[own[0]])
    offsets = offsets + float(as_whole - as_parts)
    at = own[0]
    reach = measure_reach(features, prototypes.numpy(), (sample @ prototypes.T + offsets.float()).argmax(dim=1).numpy())
    new_model = replace(
        model,
        prototypes=np.concatenate([model.prototypes, prototypes[1:].numpy()]),
        offsets=np.concatenate([model.offsets, offsets[1:].numpy()]),
        reach=np.concatenate([model.reach, reach[1:]]) if len(model.reach) else model.reach,
    )
    new_model.prototypes[at], new_model.offsets[at] = prototypes[0].numpy(), float(offsets[0])
    new_model.reach[at : at + 1] = reach[0]  # of none nothing
    new_rows = range(len(book.rows), len(book.rows) + parts - 1)
    more = (cluster,) * (parts - 1)
    longer = replace(book, rows=book.rows + more, origins=book.origins and book.origins + more)
    changed = replace(clustering, model=new_model, book=split_cluster(longer, cluster, list(new_rows)))
    return apply_clustering(store, changed)


def _write(store: Store, clustering: Clustering, book: ClusterBook) -> Clustering:
    changed = replace(clustering, book=book)
    write_clustering(store, changed)
    return changed


def _relabel(store: Store, clustering: Clustering, book: ClusterBook) -> Clustering:
    """Write the book, and the payloads of clusters whose path or id it changes."""
    before, after = clustering.book.paths(), book.paths()
    changed = [cluster for cluster, path in before.items() if after.get(cluster) != path]
    own = {cluster for row, cluster in enumerate(clustering.book.rows) if book.rows[row] != cluster}
    return apply_clustering(store, replace(clustering, book=book), clusters=sorted({*changed, *own}))
