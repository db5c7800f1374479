"""HTML of the Browse part: tree, list and map of the clusters. Everything that comes from outside is escaped here."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from visxp_search.clips import format_time
from visxp_search.cluster_book import ROOT
from webui.browse import LIST, MAP, PAGE, SORT_WORDS, TREE, Browsing, children, listing, make_map
from webui.clusters import Known, is_hidden, title_of, walk
from webui.views import bar, empty
from webui.views_watch import colour

if TYPE_CHECKING:
    from visxp_search.cluster_describe import Description, Example

N_ON_CARD = 4
N_NAMES = 3
"""Clusters named on the card of a branch that has no name itself."""
VIEWS = {TREE: "Tree", LIST: "List", MAP: "Map"}


def browse_view(browsing: Browsing, known: Known | None, names: Mapping[str, str], *, read_only: bool) -> str:
    """The whole tab.

    Args:
        browsing: what is looked at.
        known: the clusters; None if there are none.
        names: video id -> what people are shown.
        read_only: whether edits are offered.
    """
    if known is None:
        return empty(
            "No clusters yet",
            "Clusters group what looks and sounds alike, so that an archive can be looked through without a question. "
            "Make them with <code>visxp clusters fit</code> while this page is closed, then come back.",
        )
    parts = [_toolbar(browsing, known)]
    if browsing.view == MAP:
        parts.append(_map(browsing, known))
    elif browsing.view == LIST:
        parts.append(_list(browsing, known, names))
    else:
        parts.append(_tree(browsing, known, names, read_only=read_only))
    return "".join(parts)


def examples_of(known: Known) -> set[str]:
    """The ids of the videos that descriptions point to."""
    return {
        example.video_id
        for description in known.descriptions.values()
        for examples in (description.nearest, description.diverse, description.boundary)
        for example in examples
    }


def _toolbar(browsing: Browsing, known: Known) -> str:
    views = "".join(
        f'<button class="vx-tab" data-act="view" data-value="{view}" '
        f'aria-pressed="{"true" if view == browsing.view else "false"}">{word}</button>'
        for view, word in VIEWS.items()
    )
    sort = ""
    if browsing.view == LIST:
        options = "".join(
            f'<option value="{key}"{" selected" if key == browsing.sort else ""}>{word}</option>'
            for key, word in SORT_WORDS.items()
        )
        sort = f'<label class="vx-field">Order <select class="vx-select" data-change="sort">{options}</select></label>'
    hidden = ""
    if known.book.hidden:
        word = "Leave hidden ones out" if browsing.with_hidden else f"Show {len(known.book.hidden)} hidden"
        hidden = f'<button class="vx-quiet" data-act="hidden" data-value="">{word}</button>'
    n_clusters, total = len(known.book.clusters()), known.descriptions[ROOT].seconds
    facts = f'<span class="vx-hint">{n_clusters} clusters of {total:,} seconds</span>'
    tabs = f'<div class="vx-tabs" role="group" aria-label="View">{views}</div>'
    return f'<div class="vx-bar-top">{tabs}{sort}{hidden}{facts}</div>'


def _tree(browsing: Browsing, known: Known, names: Mapping[str, str], *, read_only: bool) -> str:
    book, node = known.book, browsing.node
    steps = [
        f'<button class="vx-link" data-act="open" data-value="{escape(above)}">{escape(title_of(book, above))}</button>'
        for above in book.path(node)[:-1]
    ]
    steps.append(f"<b>{escape(title_of(book, node))}</b>")
    parts = [f'<nav class="vx-trail" aria-label="Branch">{" / ".join(steps)}</nav>'] if node != ROOT else []
    shelves = _shelves(known.descriptions[node], names)
    if node != ROOT:
        # Of a branch what hangs from it matters most, and stands above its own pictures.
        inside = shelves if node.startswith("c") else ""
        parts.append(_detail(known, node, inside, read_only=read_only))
    below = children(browsing, known)
    if below:
        parts.append(f'<div class="vx-clusters">{"".join(_card(known, d, names) for d in below)}</div>')
    elif node.startswith("b"):
        parts.append('<p class="vx-hint">Nothing is shown below this branch.</p>')
    if node != ROOT and node.startswith("b"):
        parts.append(f'<section class="vx-detail" aria-label="Seconds of this branch">{shelves}</section>')
    return "".join(parts)


def _list(browsing: Browsing, known: Known, names: Mapping[str, str]) -> str:
    found = listing(browsing, known)
    if not found:
        return empty("All clusters are hidden", "Press <b>Show hidden</b> above to see them.")
    first = browsing.page * PAGE
    cards = "".join(_card(known, d, names) for d in found[first : first + PAGE])
    n_pages = -(-len(found) // PAGE)
    pager = ""
    if n_pages > 1:
        turn = "".join(
            f'<button class="vx-small" data-act="{act}" data-value=""{"" if allowed else " disabled"}>{word}</button>'
            for act, word, allowed in (
                ("up", "Previous", browsing.page > 0),
                ("down", "Next", browsing.page + 1 < n_pages),
            )
        )
        last = min(first + PAGE, len(found))
        pager = (
            f'<div class="vx-actions">{turn}<span class="vx-hint">{first + 1} to {last} of {len(found)}</span></div>'
        )
    return f'<div class="vx-clusters">{cards}</div>{pager}'


def _map(browsing: Browsing, known: Known) -> str:
    nodes = make_map(browsing, known)
    for node in nodes:
        node["colour"] = colour(node.pop("hue"))
        stands = node.pop("stands")
        if stands:
            (video_id, second) = stands[0]
            node["still"] = f"/media/still/{quote(video_id)}/{second}.jpg"
            node["play"] = f"{video_id}@{second}-{second + 1}"
    buttons = "".join(
        f'<button class="vx-small" data-zoom="{by}" aria-label="{label}" title="{label}">{sign}</button>'
        for by, sign, label in (
            ("1.4", "+", "Larger"),
            ("0.714", "&minus;", "Smaller"),
            ("0", "Centre", "Back to the whole"),
        )
    )
    return (
        '<div class="vx-map-frame"><div class="vx-map" tabindex="0" role="application" '
        'aria-label="Map of the clusters; arrow keys move it, Enter plays the circle in the middle, o opens it, '
        'plus and minus change the size" '
        f'data-nodes="{escape(json.dumps(nodes))}"></div><div class="vx-map-tools">{buttons}</div>'
        '<p class="vx-hint">What hangs together is alike. Drag, or use arrow keys, to bring something to the middle; '
        "turn the wheel to enlarge. Point at a circle to see it, click to play it, double-click to open it; a click on "
        "a knot brings it there. By keyboard, <b>Enter</b> plays and <b>o</b> opens what is in the middle.</p></div>"
    )


def _card(known: Known, description: "Description", names: Mapping[str, str]) -> str:
    node = description.node
    pictures = _pictures(description.nearest[:N_ON_CARD], names)
    inside = f" · {description.clusters} clusters{_named_inside(known, node)}" if node.startswith("b") else ""
    hidden = " vx-is-hidden" if is_hidden(known.book, node) else ""
    name = escape(title_of(known.book, node))
    return (
        f'<article class="vx-cluster{hidden}" data-node="{escape(node)}"><div class="vx-examples">{pictures}</div>'
        f'<div class="vx-cluster-foot"><h3><i class="vx-dot" style="background:{colour(known.hues[node])}"></i>'
        f'<span title="{name}">{name}</span></h3>'
        f'<button class="vx-small" data-act="open" data-value="{escape(node)}" aria-label="Open {name}">Open</button>'
        f'<p class="vx-hint">{_extent(description)}{inside}</p>{_purity(description)}</div></article>'
    )


def _named_inside(known: Known, node: str) -> str:
    """The names that people gave to clusters of a branch without a name, largest first."""
    book = known.book
    inside = sorted((f"c{cluster}" for cluster in book.below(node)), key=lambda c: -known.descriptions[c].seconds)
    names = [book.names[cluster] for cluster in inside if cluster in book.names and not is_hidden(book, cluster)]
    if node in book.names or not names:
        return ""
    return f": {escape(', '.join(names[:N_NAMES]))}{' …' if len(inside) > N_NAMES else ''}"


def _detail(known: Known, node: str, shelves: str, *, read_only: bool) -> str:
    book, description = known.book, known.descriptions[node]
    heading = (
        f'<div class="vx-detail-head"><i class="vx-dot" style="background:{colour(known.hues[node])}"></i>'
        f'<h2>{escape(title_of(book, node))}</h2><span class="vx-hint">{node}'
        f"{' · hidden' if is_hidden(book, node) else ''}</span></div>"
    )
    facts = (
        f'<p class="vx-hint">{_extent(description)} · {100 * description.share:.1f} % of the archive · '
        f"{100 * description.has_audio:.0f} % of it has sound · mean confidence {description.confidence:.2f}</p>"
    )
    uses = (
        f'<button class="vx-main" data-act="ask" data-value="{node}">Find more like these</button>'
        f'<button class="vx-small" data-act="within" data-value="{node}">Look only in here</button>'
    )
    near = "".join(
        f'<button class="vx-link" data-act="open" data-value="{escape(other)}">{escape(title_of(book, other))}</button>'
        for other in description.neighbours
    )
    beside = f'<p class="vx-hint vx-near">Near: {near}</p>' if near else ""
    edits = "" if read_only else _edits(known, node)
    return (
        f'<section class="vx-detail" aria-label="{escape(title_of(book, node))}">{heading}{facts}{_purity(description)}'
        f'<div class="vx-actions">{uses}</div>{shelves}{beside}{edits}</section>'
    )


def _shelves(description: "Description", names: Mapping[str, str]) -> str:
    """Its typical, different and doubtful seconds."""
    return "".join(
        f'<div class="vx-shelf"><b>{word}</b>'
        f'<div class="vx-shelf-row">{_pictures(examples, names, caption=True)}</div></div>'
        for word, examples in (
            ("Typical", description.nearest),
            ("Different", description.diverse),
            ("On the boundary", description.boundary),
        )
        if examples
    )


def _edits(known: Known, node: str) -> str:
    book = known.book
    name = escape(book.names.get(node, ""))
    parts = [
        f'<label class="vx-field">Name <input class="vx-note-field" type="text" maxlength="80" data-change="rename" '
        f'data-value="{node}" value="{name}" placeholder="give it a name"></label>'
    ]
    if node.startswith("c"):
        others = _options(known, [f"c{other}" for other in book.below(ROOT) if f"c{other}" != node])
        parts.append(
            f'<label class="vx-field">Same as <select class="vx-select vx-merge">{others}</select></label>'
            f'<button class="vx-small" data-act="merge" data-value="{node}" data-field=".vx-merge">Merge it into this'
            f'</button><button class="vx-small" data-act="split" data-value="{node}">Split</button>'
        )
    inside = set(walk(book, node))
    branches = [branch for branch in walk(book) if branch.startswith("b") and branch not in inside]
    homes = _options(known, [branch for branch in branches if branch != book.parents().get(node)])
    if homes:
        parts.append(
            f'<label class="vx-field">Move to <select class="vx-select vx-home">{homes}</select></label>'
            f'<button class="vx-small" data-act="move" data-value="{node}" data-field=".vx-home">Move</button>'
        )
    word = "Show again" if node in book.hidden else "Hide"
    parts.append(f'<button class="vx-small" data-act="leave" data-value="{node}">{word}</button>')
    return f'<div class="vx-edits" role="group" aria-label="Correct it">{"".join(parts)}</div>'


def _options(known: Known, nodes: Sequence[str]) -> str:
    return "".join(f'<option value="{node}">{escape(title_of(known.book, node))}</option>' for node in nodes)


def _pictures(examples: "Sequence[Example]", names: Mapping[str, str], *, caption: bool = False) -> str:
    parts = []
    for example in examples:
        name, place = names.get(example.video_id, ""), format_time(example.second)
        label = escape(f"{name}, {place}")
        below = f"<span>{place} {escape(name)}</span>" if caption else ""
        parts.append(
            f'<button class="vx-example" data-act="play" '
            f'data-value="{escape(example.video_id)}@{example.second}-{example.second + 1}" title="{label}" '
            f'aria-label="Play {label}"><img src="/media/still/{quote(example.video_id)}/{example.second}.jpg" '
            f'width="160" height="90" loading="lazy" alt="">{below}</button>'
        )
    return "".join(parts)


def _extent(description: "Description") -> str:
    n = description.videos
    return f"{description.seconds:,} s in {n:,} video{'s' if n != 1 else ''}"


def _purity(description: "Description") -> str:
    """How alike its pictures and its sounds are."""
    bars = [
        bar(word, None if math.isnan(value) else value, kind=kind)
        for word, kind, value in (
            ("Pictures", "picture", description.purity_visual),
            ("Sounds", "sound", description.purity_audio),
        )
    ]
    return f'<div class="vx-purity" title="How alike its seconds are, 1: all the same">{"".join(bars)}</div>'
