"""How a visitor looks at the clusters: which view, which node, in which order. Pure functions of what is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from visxp_search.cluster_book import ROOT
from visxp_search.errors import UsageError
from webui.clusters import Known, is_hidden, title_of, walk
from webui.disk import lay_out

if TYPE_CHECKING:
    from visxp_search.cluster_describe import Description

TREE, LIST, MAP = "tree", "list", "map"
PAGE = 60
"""Clusters of a list that are shown at once."""
SORT_WORDS = {
    "size": "largest first",
    "tree": "as in the tree",
    "same-sound": "same sound, different pictures",
    "same-picture": "same pictures, different sound",
    "picture": "pictures most alike",
    "sound": "sounds most alike",
    "videos": "in most videos",
    "confidence": "surest first",
}


@dataclass(frozen=True)
class Browsing:
    """What one visitor looks at.

    Attributes:
        view: `tree`, `list` or `map`.
        node: the branch or cluster that is open.
        sort: order of the list, a key of `SORT_WORDS`.
        with_hidden: whether hidden nodes are shown.
        page: of the list, from 0.
    """

    view: str = TREE
    node: str = ROOT
    sort: str = "size"
    with_hidden: bool = False
    page: int = 0


def choose_view(browsing: Browsing, view: str) -> Browsing:
    """Another view; the tree begins at its root again.

    Raises:
        UsageError: If there is no such view.
    """
    if view not in (TREE, LIST, MAP):
        raise UsageError(f"there is no view {view!r}; choose tree, list or map")
    return replace(browsing, view=view, node=ROOT, page=0)


def choose_sort(browsing: Browsing, sort: str) -> Browsing:
    """The list in another order.

    Raises:
        UsageError: If there is no such order.
    """
    if sort not in SORT_WORDS:
        raise UsageError(f"there is no order {sort!r}; choose one of the list")
    return replace(browsing, sort=sort, page=0)


def open_node(browsing: Browsing, node: str) -> Browsing:
    """One branch or cluster, in the tree; the empty text is the root."""
    return replace(browsing, view=TREE, node=node or ROOT)


def settle(browsing: Browsing, known: Known) -> Browsing:
    """The same, at the root if the open node is no longer there."""
    return browsing if browsing.node in known.descriptions else replace(browsing, node=ROOT)


def children(browsing: Browsing, known: Known) -> "list[Description]":
    """What hangs from the open branch, largest first."""
    found = [known.descriptions[child] for child in known.book.tree.get(browsing.node, ())]
    shown = [d for d in found if browsing.with_hidden or not d.hidden]
    return sorted(shown, key=lambda d: -d.seconds)


def listing(browsing: Browsing, known: Known) -> "list[Description]":
    """All clusters in the chosen order."""
    from visxp_search.cluster_describe import SORTS

    nodes = [f"c{cluster}" for cluster in known.book.below(ROOT)]
    shown = [known.descriptions[node] for node in nodes if browsing.with_hidden or not is_hidden(known.book, node)]
    order: Callable[[Description], Any] | None = SORTS.get(browsing.sort)
    return shown if order is None else sorted(shown, key=order)


def make_map(browsing: Browsing, known: Known) -> list[dict[str, Any]]:
    """The nodes of the map, parents first: place in the disk, size, name, hue, and the second that stands for each."""
    book = known.book
    places = lay_out(book.tree, ROOT, {node: float(d.seconds) for node, d in known.descriptions.items()})
    parents = book.parents()
    nodes = []
    for node in walk(book):
        description = known.descriptions[node]
        if not browsing.with_hidden and is_hidden(book, node):
            continue
        nodes.append(
            {
                "id": node,
                "parent": parents.get(node, ""),
                "x": round(places[node].real, 5),
                "y": round(places[node].imag, 5),
                "name": title_of(book, node),
                "named": node in book.names,
                "seconds": description.seconds,
                "hue": known.hues[node],
                "leaf": node.startswith("c"),
                "stands": [(e.video_id, e.second) for e in description.nearest[:1]],
            }
        )
    return nodes
