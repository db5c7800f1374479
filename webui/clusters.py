"""The archive's clusters as the page knows them: descriptions kept until something changes, and edits one at a time.

The library that fits clusters needs torch, so it is imported when clusters are first looked at, not at the start.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from visxp_search.cluster_book import ROOT, ClusterBook
from visxp_search.errors import UsageError
from webui.adding import Adder
from webui.archive import Archive

if TYPE_CHECKING:
    from visxp_search.cluster_describe import Description
    from visxp_search.cluster_store import Clustering

MAX_NAME = 80
N_BUCKETS = 400
"""Parts of a long video's strip; each shows the cluster that most of its seconds have."""


@dataclass(frozen=True)
class Known:
    """The clusters at one moment.

    Attributes:
        book: tree, names and edits.
        descriptions: node -> what is known of it; the root and all branches and clusters.
        hues: node -> degree on the colour circle, near each other for nodes near each other in the tree.
    """

    book: ClusterBook
    descriptions: "dict[str, Description]"
    hues: dict[str, int]


@dataclass(frozen=True)
class Run:
    """Neighbouring seconds `[start, end)` of one video in one cluster; None for seconds without a cluster."""

    start: int
    end: int
    cluster: int | None


class Clusters:
    """Reads and edits the clusters of one archive.

    Args:
        archive: the index.
        adder: no edit that changes seconds is made while it adds some.
    """

    def __init__(self, archive: Archive, adder: Adder) -> None:
        self._archive = archive
        self._adder = adder
        self._reading = threading.Lock()
        self._editing = threading.Lock()
        self._described: tuple[object, dict[str, Description]] | None = None

    def book(self) -> ClusterBook | None:
        """Tree, names and edits; None if no clusters were fitted."""
        clustering = self._clustering()
        return None if clustering is None else clustering.book

    def known(self) -> Known | None:
        """Everything about all nodes; the first call after a change reads all seconds."""
        from visxp_search.cluster_describe import describe_nodes

        clustering = self._clustering()
        if clustering is None:
            return None
        book, store = clustering.book, self._archive.store
        key = (clustering.fit, clustering.applied, book.rows, tuple(book.tree.items()), store.count())
        with self._reading:
            if self._described is None or self._described[0] != key:
                nodes = [ROOT, *book.parents()]
                described = describe_nodes(store, clustering, nodes)
                self._described = (key, dict(zip(nodes, described, strict=True)))
            found = self._described[1]
        named = {
            node: replace(description, name=book.names.get(node, ""), hidden=node in book.hidden)
            for node, description in found.items()
        }
        return Known(book, named, choose_hues(book))

    def require(self) -> Known:
        """As `known`.

        Raises:
            UsageError: If no clusters were fitted.
        """
        known = self.known()
        if known is None:
            raise UsageError("this index has no clusters yet; make them with: visxp clusters fit")
        return known

    def below(self, nodes: Sequence[str]) -> tuple[int, ...]:
        """The clusters of several nodes together; none for no node.

        Raises:
            UsageError: If a node is unknown.
        """
        book = self.book() if nodes else None
        if book is None:
            if nodes:
                raise UsageError("this index has no clusters yet; make them with: visxp clusters fit")
            return ()
        return tuple(sorted({cluster for node in nodes for cluster in book.below(book.find(node))}))

    def choices(self) -> list[tuple[str, str]]:
        """(title, node) of all that can be named in a filter, in the order of the tree."""
        book = self.book()
        if book is None:
            return []
        return [(title_of(book, node), node) for node in walk(book) if node != ROOT]

    def strip(self, video_id: str) -> tuple[Run, ...]:
        """A video from end to end as runs of clusters; of a long one the parts are coarse."""
        points = self._archive.store.seconds_of(video_id)
        if not any("cluster" in point.payload for point in points):
            return ()
        return gather_runs([(point.second, point.payload.get("cluster")) for point in points])

    def rename(self, node: str, name: str) -> None:
        """Give a node a name; an empty one takes it away."""
        from visxp_search import cluster_edit

        with self._editing:
            clustering = self._changeable(node)
            cluster_edit.name(self._archive.store, clustering, node, " ".join(name.split())[:MAX_NAME])

    def hide(self, node: str, *, hidden: bool) -> None:
        """Leave a node out of tree, list and map, or show it again."""
        from visxp_search import cluster_edit

        with self._editing:
            cluster_edit.hide(self._archive.store, self._changeable(node), node, hidden=hidden)

    def merge(self, kept: str, merged: str) -> None:
        """Make two clusters one; the first keeps its name and place."""
        from visxp_search import cluster_edit

        with self._editing:
            clustering = self._relabelled(kept)
            find = clustering.book.find_cluster
            cluster_edit.merge(self._archive.store, clustering, find(kept), find(merged))

    def split(self, cluster: str) -> list[str]:
        """Split a cluster in two, or into what was merged; the new clusters."""
        from visxp_search import cluster_edit

        with self._editing:
            clustering = self._relabelled(cluster)
            after = cluster_edit.split(self._archive.store, clustering, clustering.book.find_cluster(cluster))
            return [f"c{new}" for new in sorted(set(after.book.clusters()) - set(clustering.book.clusters()))]

    def move(self, node: str, branch: str) -> None:
        """Hang a node below another branch."""
        from visxp_search import cluster_edit

        with self._editing:
            clustering = self._relabelled(node)
            cluster_edit.move(self._archive.store, clustering, node, clustering.book.find(branch))

    def _clustering(self) -> "Clustering | None":
        from visxp_search.cluster_store import read_clustering

        return read_clustering(self._archive.store)

    def _changeable(self, node: str) -> "Clustering":
        clustering = self._clustering()
        if clustering is None or node not in {ROOT, *clustering.book.parents()}:
            raise UsageError(f"there is no cluster or branch {node!r} any more; open Browse again")
        return clustering

    def _relabelled(self, node: str) -> "Clustering":
        """For edits that write into seconds: an indexing run labels by the clusters it began with."""
        if self._adder.is_busy:
            raise UsageError("videos are being added; change the clusters when that has ended, or cancel it first")
        return self._changeable(node)


def title_of(book: ClusterBook, node: str) -> str:
    """What people are shown: the name, or what it is with its id."""
    if node == ROOT:
        return "All"
    kind = "cluster" if node.startswith("c") else "branch"
    return book.names.get(node) or f"{kind} {node[1:]}"


def walk(book: ClusterBook, node: str = ROOT) -> list[str]:
    """A node and all below it, from the top down."""
    return [node, *(below for child in book.tree.get(node, ()) for below in walk(book, child))]


def is_hidden(book: ClusterBook, node: str) -> bool:
    """Whether a node or a branch that it is in is left out."""
    return bool(set(book.path(node)) & set(book.hidden))


def choose_hues(book: ClusterBook) -> dict[str, int]:
    """Node -> hue: clusters share the circle in the order of the tree, a branch has the middle of its own."""
    clusters = book.below(ROOT)
    place = {cluster: 360 * at // max(len(clusters), 1) for at, cluster in enumerate(clusters)}
    hues = {}
    for node in walk(book):
        own = [place[cluster] for cluster in book.below(node)]
        hues[node] = own[len(own) // 2] if own else 0
    return hues


def gather_runs(labels: Sequence[tuple[int, int | None]]) -> tuple[Run, ...]:
    """Runs of equal clusters of (second, cluster), ascending; long videos in `N_BUCKETS` parts by majority."""
    if not labels:
        return ()
    length = labels[-1][0] + 1
    width = max(1, -(-length // N_BUCKETS))
    buckets: dict[int, list[int | None]] = {}
    for second, cluster in labels:
        buckets.setdefault(second // width, []).append(cluster)
    runs: list[Run] = []
    for bucket in range(-(-length // width)):
        found = buckets.get(bucket, [None])
        most = max(dict.fromkeys(found), key=found.count)
        start, end = bucket * width, min(length, (bucket + 1) * width)
        if runs and runs[-1].cluster == most:
            runs[-1] = replace(runs[-1], end=end)
        else:
            runs.append(Run(start, end, most))
    return tuple(runs)
