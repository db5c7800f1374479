"""What is known of an archive's clusters beside their prototypes: the tree, names, edits; and how all that survives.

A *node* is a cluster (`c7`, the payload's `cluster` 7) or a branch of the tree (`b3`); `b0` is the root. Edits return a
new book. When clusters are fitted anew, old and new ones are matched by the seconds they share (Hungarian method), and
matched ones keep their ids, so names, merges, moves and hiding go on to hold. What was edited and is not found again is
listed in `lost`, never dropped, until a person gives the name again.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from visxp_search.errors import UsageError

ROOT = "b0"
ENOUGH_SHARED = 0.3
"""Old and new are the same node if of the seconds that either has they share at least this (Jaccard index)."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClusterBook:
    """Everything a person sees or says of the clusters.

    Attributes:
        rows: cluster id of each prototype; merged clusters have several.
        tree: branch -> children, in order; every cluster and branch but the root is a child exactly once.
        names: node -> name given by a person.
        hidden: nodes that lists and trees leave out.
        moves: node -> branch it was moved to by a person.
        merges: cluster -> clusters that were merged into it.
        origins: cluster id that each prototype would have without merges; empty if there are none.
        lost: edits that a refit could not carry over: `{"node", "name", "edits"}`.
        next_cluster: id of the next new cluster.
        next_branch: id of the next new branch.
    """

    rows: tuple[int, ...]
    tree: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    moves: Mapping[str, str] = field(default_factory=dict)
    merges: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    origins: tuple[int, ...] = ()
    lost: tuple[Mapping[str, Any], ...] = ()
    next_cluster: int = 0
    next_branch: int = 1

    def clusters(self) -> list[int]:
        """The ids of all clusters, in order."""
        return sorted(set(self.rows))

    def parents(self) -> dict[str, str]:
        """Node -> the branch it hangs from."""
        return {child: branch for branch, children in self.tree.items() for child in children}

    def path(self, node: str) -> list[str]:
        """The nodes from the root to this one, both included: the payload's `path`."""
        parents = self.parents()
        path = [node]
        while path[-1] in parents:
            path.append(parents[path[-1]])
        return path[::-1]

    def paths(self) -> dict[int, list[str]]:
        """Cluster -> path."""
        return {int(node[1:]): path for node, path in self._walk(ROOT, []) if node.startswith("c")}

    def below(self, node: str) -> list[int]:
        """The clusters of a branch, or the one that the node is."""
        if node.startswith("c"):
            return [int(node[1:])]
        return [int(found[1:]) for found, _ in self._walk(node, []) if found.startswith("c")]

    def title(self, node: str) -> str:
        """The node's name, or its id."""
        return self.names.get(node, node)

    def find(self, text: str) -> str:
        """The node that a person means by an id, a cluster's number, or a name.

        Raises:
            UsageError: If there is none, or several.
        """
        nodes = {ROOT, *self.parents()}
        if text in nodes:
            return text
        if f"c{text}" in nodes:
            return f"c{text}"
        named = [node for node, name in self.names.items() if name.casefold() == text.casefold()]
        if len(named) == 1:
            return named[0]
        if named:
            raise UsageError(f"{text!r} is the name of {', '.join(sorted(named))}; give one of these ids")
        raise UsageError(f"no cluster or branch has the id or name {text!r}; see: visxp clusters tree")

    def find_cluster(self, text: str) -> int:
        """The cluster that a person means; a branch is refused.

        Raises:
            UsageError: If there is none.
        """
        node = self.find(text)
        if not node.startswith("c"):
            raise UsageError(f"{text!r} is a branch of {len(self.below(node))} clusters; name one cluster")
        return int(node[1:])

    def to_json(self) -> dict[str, Any]:
        """As JSON data; `book_from_json` is the inverse."""
        return asdict(self)

    def _walk(self, node: str, above: list[str]) -> Iterator[tuple[str, list[str]]]:
        path = [*above, node]
        yield node, path
        for child in self.tree.get(node, ()):
            yield from self._walk(child, path)


def book_from_json(data: Mapping[str, Any]) -> ClusterBook:
    """What `ClusterBook.to_json` wrote."""
    return ClusterBook(
        rows=tuple(data["rows"]),
        tree={branch: tuple(children) for branch, children in data["tree"].items()},
        names=dict(data["names"]),
        hidden=tuple(data["hidden"]),
        moves=dict(data["moves"]),
        merges={node: tuple(ids) for node, ids in data["merges"].items()},
        origins=tuple(data.get("origins", ())),  # books of earlier releases have none
        lost=tuple(data["lost"]),
        next_cluster=data["next_cluster"],
        next_branch=data["next_branch"],
    )


def name_node(book: ClusterBook, node: str, name: str) -> ClusterBook:
    """Give a node a name, which is then no longer a lost one; an empty one takes it away.

    Raises:
        UsageError: If the name is what ids look like.
    """
    if re.fullmatch(r"[bc]?\d+", name, re.IGNORECASE):
        raise UsageError(f"{name!r} looks like the id of a cluster or branch; give a name that says what it shows")
    names = {other: given for other, given in book.names.items() if other != node}
    found_again = {"name": name, "edits": ["name"]}
    lost = tuple(edit for edit in book.lost if {key: edit[key] for key in found_again} != found_again)
    return replace(book, names={**names, node: name} if name else names, lost=lost)


def hide_node(book: ClusterBook, node: str, *, hidden: bool) -> ClusterBook:
    """Leave a node out of lists and trees, or show it again."""
    others = tuple(other for other in book.hidden if other != node)
    return replace(book, hidden=(*others, node) if hidden else others)


def merge_clusters(book: ClusterBook, kept: int, merged: int) -> ClusterBook:
    """Make two clusters one: the first keeps its id, name and place. If both have names, the second's is lost.

    Raises:
        UsageError: If they are the same.
    """
    if kept == merged:
        raise UsageError(f"cluster {kept} cannot be merged with itself; name two clusters")
    gone, node = f"c{merged}", f"c{kept}"
    names, lost = dict(book.names), book.lost
    old_name = names.pop(gone, None)
    if old_name is not None and names.setdefault(node, old_name) != old_name:
        lost = (*lost, {"node": gone, "name": old_name, "edits": ["name"]})
    merges = {other: ids for other, ids in book.merges.items() if other != gone}
    merges[node] = (*merges.get(node, ()), merged, *book.merges.get(gone, ()))
    return replace(
        book,
        rows=tuple(kept if row == merged else row for row in book.rows),
        tree=_tidy(book, _without(book.tree, gone)),
        names=names,
        hidden=tuple(other for other in book.hidden if other != gone),
        moves={other: branch for other, branch in book.moves.items() if other != gone},
        merges=merges,
        origins=book.origins or book.rows,
        lost=lost,
    )


def merged_rows(book: ClusterBook, cluster: int) -> list[int]:
    """The prototypes of a cluster that merging brought to it."""
    own = [row for row, owner in enumerate(book.rows) if owner == cluster]
    origins = book.origins or book.rows
    first = next((row for row in own if origins[row] == cluster), own[0])
    return [row for row in own if row != first]


def split_cluster(book: ClusterBook, cluster: int, rows: Sequence[int]) -> ClusterBook:
    """Give prototypes of a cluster ids of their own, beside it in the tree; the cluster keeps the others.

    What was merged gets back the id that it had.

    Args:
        book: whose `rows` already has an entry for each prototype.
        cluster: id.
        rows: indices into `book.rows` that leave it.
    """
    taken, new = {cluster, *book.rows}, {}
    following = book.next_cluster
    for row in rows:
        new[row] = book.origins[row] if row < len(book.origins) else cluster
        if new[row] in taken:
            new[row], following = following, following + 1
        taken.add(new[row])
    node = f"c{cluster}"
    parent = book.parents()[node]
    beside = tuple(f"c{new_id}" for new_id in new.values())
    at = book.tree[parent].index(node) + 1
    return replace(
        book,
        rows=tuple(new.get(row, old) for row, old in enumerate(book.rows)),
        tree={**book.tree, parent: (*book.tree[parent][:at], *beside, *book.tree[parent][at:])},
        merges={other: ids for other, ids in book.merges.items() if other != node},
        origins=tuple(new.get(row, old) for row, old in enumerate(book.origins)),
        next_cluster=following,
    )


def move_node(book: ClusterBook, node: str, branch: str) -> ClusterBook:
    """Hang a cluster or a branch below another branch.

    Raises:
        UsageError: If the target is a cluster, the root is moved, or a branch below itself.
    """
    if not branch.startswith("b"):
        raise UsageError(f"{branch} is a cluster; things are moved to a branch, see: visxp clusters tree")
    if node == ROOT or node in book.path(branch):
        raise UsageError(f"{node} cannot be moved to {branch}, which is in it; name a branch outside it")
    tree = _without(book.tree, node)
    tree[branch] = (*tree[branch], node)
    moved = replace(book, moves={**book.moves, node: branch})
    return replace(moved, tree=_tidy(moved, tree))


@dataclass(frozen=True)
class Matching:
    """Which new label is which old one.

    Attributes:
        old_of: new label -> old label.
        shared: new label -> Jaccard index with it.
    """

    old_of: Mapping[int, int]
    shared: Mapping[int, float]


def match_labels(old: Labels, new: Labels, *, enough: float = ENOUGH_SHARED) -> Matching:
    """Match two labellings of the same seconds one to one, so that they share the most (Hungarian method).

    Args:
        old: (N,) labels, -1 for none.
        new: (N,) labels, -1 for none.
        enough: least Jaccard index of a match.
    """
    from scipy.optimize import linear_sum_assignment

    both = (old >= 0) & (new >= 0)
    old_ids, old_at = np.unique(old[both], return_inverse=True)
    new_ids, new_at = np.unique(new[both], return_inverse=True)
    shared = np.zeros((len(new_ids), len(old_ids)))
    np.add.at(shared, (new_at, old_at), 1)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    jaccard = shared / np.maximum(union, 1)
    pairs = [(i, j) for i, j in zip(*linear_sum_assignment(-jaccard), strict=True) if jaccard[i, j] >= enough]
    return Matching(
        old_of={int(new_ids[i]): int(old_ids[j]) for i, j in pairs},
        shared={int(new_ids[i]): float(jaccard[i, j]) for i, j in pairs},
    )


def carry_rows(book: ClusterBook, old_clusters: Labels, new_rows: Labels, n_rows: int) -> ClusterBook:
    """The old book with cluster ids for new prototypes: those of matched clusters, else new ones.

    Prototypes that no old cluster matches one to one, but most of whose seconds belong to a cluster that a person
    merged, join it: so merges survive. The tree is still the old one; see `carry_tree`.

    Args:
        book: of the fit before.
        old_clusters: (N,) cluster id of each second of a sample by the fit before, -1 for none, or if it is of a kind
            that was not there then.
        new_rows: (N,) index of the new prototype of the same seconds, -1 for none.
        n_rows: number of new prototypes.
    """
    matching = match_labels(old_clusters, new_rows)
    rows, origins, following = [], [], book.next_cluster
    for row in range(n_rows):
        cluster = matching.old_of.get(row)
        if cluster is None:
            cluster, following = following, following + 1
        origins.append(cluster)
        home = None if row in matching.old_of else _merged_home(book, old_clusters[new_rows == row])
        rows.append(cluster if home is None else home)
    return replace(book, rows=tuple(rows), origins=tuple(origins), next_cluster=following)


def carry_tree(book: ClusterBook, tree: Mapping[str, Sequence[str]], old_clusters: Labels, new: Labels) -> ClusterBook:
    """The book with a new tree: matched branches keep their ids, moves are made again, lost edits are listed.

    Args:
        book: with new `rows`, and the tree of the fit before.
        tree: new tree over its clusters, with any branch ids but the root's `b0`.
        old_clusters: (N,) see `carry_rows`.
        new: (N,) new cluster id of the same seconds, -1 for none.
    """
    fresh = ClusterBook(rows=book.rows, tree={branch: tuple(children) for branch, children in tree.items()})
    new = np.where(old_clusters >= 0, new, -1)  # what was not there before says nothing
    old_members = {b: np.isin(old_clusters, book.below(b)) for b in book.tree if b != ROOT}
    new_members = {b: np.isin(new, fresh.below(b)) for b in fresh.tree if b != ROOT}
    renamed, following = _match_branches(old_members, new_members, book.next_branch)
    carried = replace(
        book,
        tree={
            renamed.get(branch, branch): tuple(renamed.get(child, child) for child in children)
            for branch, children in fresh.tree.items()
        },
        next_branch=following,
    )
    there = {ROOT, *carried.parents()}
    moves = dict(book.moves)
    carried = replace(carried, moves={})
    for node, branch in moves.items():
        if node in there and branch in carried.tree and node not in carried.path(branch):
            carried = move_node(carried, node, branch)
    there = {ROOT, *carried.parents()}
    return replace(
        carried,
        names={node: name for node, name in book.names.items() if node in there},
        hidden=tuple(node for node in book.hidden if node in there),
        merges={node: ids for node, ids in book.merges.items() if node in there},
        lost=(*book.lost, *_lost_edits(book, there, carried.moves)),
    )


def _without(tree: Mapping[str, tuple[str, ...]], node: str) -> dict[str, tuple[str, ...]]:
    return {branch: tuple(child for child in children if child != node) for branch, children in tree.items()}


def _lost_edits(book: ClusterBook, there: set[str], moved: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    edited = [*book.names, *book.hidden, *book.moves, *book.merges]
    for node in dict.fromkeys(edited):
        edits = [] if node in there else [kind for kind in ("hidden", "merges") if node in getattr(book, kind)]
        edits += ["name"] if node in book.names and node not in there else []
        edits += [f"move to {book.moves[node]}"] if node in book.moves and node not in moved else []
        if edits:
            yield {"node": node, "name": book.names.get(node, ""), "edits": edits}


def _merged_home(book: ClusterBook, old_clusters: Labels) -> int | None:
    """The merged cluster that more than half of these seconds belonged to; -1 is of those that are new."""
    known = old_clusters[old_clusters >= 0]
    if not len(known):
        return None
    ids, counts = np.unique(known, return_counts=True)
    most = int(ids[counts.argmax()])
    return most if f"c{most}" in book.merges and counts.max() > len(known) / 2 else None


def _match_branches(
    old: Mapping[str, npt.NDArray[np.bool_]], new: Mapping[str, npt.NDArray[np.bool_]], following: int
) -> tuple[dict[str, str], int]:
    """New branch -> its id: that of the old branch with which it shares most seconds, or a new one."""
    from scipy.optimize import linear_sum_assignment

    old_ids, new_ids = list(old), list(new)
    renamed: dict[str, str] = {}
    if old_ids and new_ids:
        a = np.stack([new[branch] for branch in new_ids]).astype(np.float32)
        b = np.stack([old[branch] for branch in old_ids]).astype(np.float32)
        shared = a @ b.T
        union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - shared
        jaccard = shared / np.maximum(union, 1)
        for i, j in zip(*linear_sum_assignment(-jaccard), strict=True):
            if jaccard[i, j] >= ENOUGH_SHARED:
                renamed[new_ids[i]] = old_ids[j]
    for branch in new_ids:
        if branch not in renamed:
            renamed[branch], following = f"b{following}", following + 1
    return renamed, following


def _tidy(book: ClusterBook, tree: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """A tree without branches that an edit left with no child or one, but for the root and those a person edited."""
    tidy = dict(tree)
    kept = {ROOT, *book.names, *book.moves, *book.moves.values()}
    while thin := [branch for branch, children in tidy.items() if len(children) < 2 and branch not in kept]:
        branch = thin[0]
        instead = tidy.pop(branch)
        tidy = {
            other: tuple(c for child in children for c in (instead if child == branch else (child,)))
            for other, children in tidy.items()
        }
    return tidy
