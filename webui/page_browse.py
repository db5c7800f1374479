"""The Browse tab: the clusters as tree, list and map, and what a person corrects in them."""

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from visxp_search.errors import UsageError
from webui import browse, videos
from webui.browse import Browsing
from webui.parts import ACTS, PRIVATE, Site, worded
from webui.views_browse import browse_view, examples_of

MAPS = "window.vxMap(element, trigger);"
"""Draws the map wherever the tab shows one; see map.js."""


@dataclass(frozen=True)
class BrowseParts:
    """The components of the Browse tab that others use.

    Attributes:
        level: all that is seen.
        state: the visitor's `Browsing`.
    """

    level: gr.HTML
    state: gr.State


def build_browse(site: Site) -> BrowseParts:
    """The components of the tab and the events that stay within it."""
    state = gr.State(Browsing())
    level = gr.HTML(
        '<p class="vx-hint">The clusters are being read.</p>',
        js_on_load=ACTS + MAPS,
        elem_id="vx-browse",
        min_height=400,
    )

    def shown(browsing: Browsing) -> tuple[Browsing, str]:
        return show(site, browsing)

    def view(browsing: Browsing, event: gr.EventData) -> tuple[Browsing, str]:
        return shown(browse.choose_view(browsing, str(event.value)))

    def sort(browsing: Browsing, event: gr.EventData) -> tuple[Browsing, str]:
        return shown(browse.choose_sort(browsing, str(event.text)))

    def hidden(browsing: Browsing) -> tuple[Browsing, str]:
        return shown(replace(browsing, with_hidden=not browsing.with_hidden))

    def open_node(browsing: Browsing, event: gr.EventData) -> tuple[Browsing, str]:
        return shown(browse.open_node(browsing, str(event.value)))

    def earlier(browsing: Browsing) -> tuple[Browsing, str]:
        return shown(replace(browsing, page=max(0, browsing.page - 1)))

    def later(browsing: Browsing) -> tuple[Browsing, str]:
        return shown(replace(browsing, page=browsing.page + 1))

    steps = {
        "view": view,
        "sort": sort,
        "hidden": hidden,
        "open": open_node,
        "up": earlier,
        "down": later,
    }
    for name, function in (steps | ({} if site.read_only else _edits(site))).items():
        getattr(level, name)(worded(function), state, [state, level], concurrency_id="browse", **PRIVATE)
    return BrowseParts(level, state)


def _edits(site: Site) -> dict[str, Any]:
    """Event -> function, of what changes the clusters."""

    def rename(browsing: Browsing, event: gr.EventData) -> tuple[Browsing, str]:
        site.clusters.rename(str(event.value), str(event.text))
        return show(site, browsing)

    def leave(browsing: Browsing, event: gr.EventData) -> tuple[Browsing, str]:
        book = site.clusters.require().book
        site.clusters.hide(str(event.value), hidden=str(event.value) not in book.hidden)
        return show(site, browsing)

    def merge(browsing: Browsing, event: gr.EventData) -> tuple[Browsing, str]:
        site.clusters.merge(str(event.value), _chosen(event))
        return show(site, browsing)

    def split(browsing: Browsing, event: gr.EventData) -> tuple[Browsing, str]:
        node = str(event.value)
        new = site.clusters.split(node)
        gr.Info(f"Split; new beside it: {', '.join(new)}", duration=6)
        return show(site, replace(browsing, node=site.clusters.require().book.parents()[node]))

    def move(browsing: Browsing, event: gr.EventData) -> tuple[Browsing, str]:
        site.clusters.move(str(event.value), _chosen(event))
        return show(site, browsing)

    return {"rename": rename, "leave": leave, "merge": merge, "split": split, "move": move}


def show(site: Site, browsing: Browsing) -> tuple[Browsing, str]:
    """What a visitor sees, at the root if the open node is gone."""
    known = site.clusters.known()
    if known is None:
        return browsing, browse_view(browsing, None, {}, read_only=site.read_only)
    settled = browse.settle(browsing, known)
    names = {video_id: videos.name_of(site.archive.store, video_id) for video_id in examples_of(known)}
    return settled, browse_view(settled, known, names, read_only=site.read_only)


def _chosen(event: gr.EventData) -> str:
    text = str(event.text)
    if not text:
        raise UsageError("choose from the list beside the button first")
    return text
