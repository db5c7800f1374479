"""The Basket tab: moments in order, with notes, and their downloads."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from visxp_search.errors import UsageError
from webui import basket as baskets
from webui import handlers
from webui.basket import Collected, keep_basket, read_basket
from webui.parts import ACTS, QUICK, Site, worded
from webui.views_manage import basket_view

SAVE = "(text) => { window.vxSave(text, 'visxp-moments.%s', '%s'); return text; }"


def build_basket(site: Site, kept: gr.BrowserState) -> gr.HTML:
    """The components of the tab and their events; gives back the list of moments.

    Args:
        site: the site.
        kept: the basket in the visitor's browser.
    """
    text = gr.Textbox("", visible="hidden")
    rows = gr.HTML(basket_view((), {}), js_on_load=ACTS, elem_id="vx-basket")
    with gr.Row():
        as_json = gr.Button("Download JSON", size="sm", scale=0, min_width=150, elem_id="vx-json")
        as_csv = gr.Button("Download CSV", size="sm", scale=0, min_width=150, elem_id="vx-csv")
        clear = gr.Button("Empty the basket", size="sm", scale=0, min_width=150)
    gr.HTML(
        '<p class="vx-hint">The JSON file is a results document: <code>visxp export</code> turns it into edit lists, '
        "subtitles, clips and reels. The CSV file opens in spreadsheets.</p>"
    )

    def changed(basket: Sequence[Collected]) -> tuple[Any, str]:
        value = keep_basket(basket)
        return value, basket_html(site, value)

    def up(value: Any, event: gr.EventData) -> tuple[Any, str]:
        return changed(baskets.move(read_basket(value), handlers.whole_number(event.value, "number"), -1))

    def down(value: Any, event: gr.EventData) -> tuple[Any, str]:
        return changed(baskets.move(read_basket(value), handlers.whole_number(event.value, "number"), 1))

    def out(value: Any, event: gr.EventData) -> tuple[Any, str]:
        return changed(baskets.take_out(read_basket(value), handlers.whole_number(event.value, "number")))

    def note(value: Any, event: gr.EventData) -> tuple[Any, str]:
        number = handlers.whole_number(event.value, "number")
        return changed(baskets.annotate(read_basket(value), number, str(event.text)))

    def name_of(video_id: str) -> str:
        return handlers.name_of(site.archive.store, video_id)

    def write_json(value: Any) -> str:
        return json.dumps(baskets.basket_document(filled(value), name_of), indent=1, ensure_ascii=False)

    def write_csv(value: Any) -> str:
        return baskets.basket_csv(filled(value), name_of)

    for name, function in (("up", up), ("down", down), ("out", out), ("note", note)):
        getattr(rows, name)(worded(function), kept, [kept, rows], **QUICK)
    clear.click(worded(lambda: changed(())), None, [kept, rows], **QUICK)
    as_json.click(worded(write_json), kept, text, **QUICK).success(
        None, text, text, js=SAVE % ("json", "application/json"), api_visibility="private"
    )
    as_csv.click(worded(write_csv), kept, text, **QUICK).success(
        None, text, text, js=SAVE % ("csv", "text/csv"), api_visibility="private"
    )
    return rows


def basket_html(site: Site, value: Any) -> str:
    """The list of what a browser keeps as its basket."""
    basket = read_basket(value)
    names = {c.video_id: handlers.name_of(site.archive.store, c.video_id) for c in basket}
    return basket_view(basket, names)


def filled(value: Any) -> tuple[Collected, ...]:
    """The basket that a browser keeps.

    Raises:
        UsageError: If it is empty.
    """
    basket = read_basket(value)
    if not basket:
        raise UsageError("the basket is empty; collect moments first")
    return basket
