"""Ways from one tab to another: from a video's strip to its cluster, from a cluster to a search."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from webui import asking, browse, finding
from webui.browse import Browsing
from webui.page_answers import SEARCHED, Answers
from webui.page_browse import BrowseParts, show
from webui.page_find import FindParts, list_places, read_options
from webui.parts import PRIVATE, QUICK, Site, worded, worded_steps


def connect_visits(site: Site, *, tabs: gr.Tabs, browser: BrowseParts, find: FindParts, answers: Answers) -> None:
    """Tie the events that change the tab.

    Args:
        site: the site.
        tabs: all tabs.
        browser: the Browse tab.
        find: the Find tab.
        answers: lists what is found.
    """

    def cluster(browsing: Browsing, event: gr.EventData) -> tuple[Any, ...]:
        browsing, html = show(site, browse.open_node(browsing, str(event.value)))
        return browsing, html, gr.Tabs(selected="browse")

    def ask(event: gr.EventData, *values: Any) -> Iterator[tuple[Any, ...]]:
        *entered, kept, before = values
        form, node = read_options(entered), str(event.value)
        asking.check_form(form)
        steps = answers.follow(
            lambda tell: finding.search_cluster(site.archive, site.clusters, form, node), kept, before
        )
        for values in steps:
            yield (*values, gr.Tabs(selected="find"))

    def within(nodes: list[str] | None, event: gr.EventData) -> tuple[Any, ...]:
        node = site.clusters.require().book.find(str(event.value))
        chosen = list(dict.fromkeys([*(nodes or []), node]))
        videos, choices = list_places(site)
        gr.Info("Searches look only in there until it is taken away under Where to look.", duration=6)
        return videos, choices | {"value": chosen}, gr.Accordion(open=True), gr.Tabs(selected="find")

    answers.watch.cluster(
        worded(cluster), browser.state, [browser.state, browser.level, tabs], concurrency_id="browse", **PRIVATE
    )
    browser.level.ask(
        worded_steps(ask), [*find.options, answers.kept, find.search], [*answers.searched, tabs], **SEARCHED
    )
    places = find.places
    browser.level.within(
        worded(within), places["nodes"], [places["videos"], places["nodes"], find.filters, tabs], **QUICK
    )
