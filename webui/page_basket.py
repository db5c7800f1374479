"""The Basket tab: moments in order, with notes, and their exports."""

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from webui import basket as baskets
from webui import wording
from webui.basket import Collected, keep_basket, read_basket
from webui.exporting import FORMATS
from webui.parts import ACTS, PRIVATE, QUICK, Site, worded, worded_steps
from webui.views_manage import basket_view, export_view

POLL_SECONDS = 0.3


def build_basket(site: Site, kept: gr.BrowserState) -> gr.HTML:
    """The components of the tab and their events; gives back the list of moments.

    Args:
        site: the site.
        kept: the basket in the visitor's browser.
    """
    rows = gr.HTML(basket_view((), {}), js_on_load=ACTS, elem_id="vx-basket")
    with gr.Row(equal_height=True, elem_id="vx-export-row"):
        choices = [(label, to) for to, (label, _) in FORMATS.items()]
        to = gr.Dropdown(choices, value="edl", label="Export as", scale=0, min_width=300, elem_id="vx-format")
        export = gr.Button("Export", variant="primary", scale=0, min_width=110, elem_id="vx-export")
        cancel = gr.Button("Cancel", scale=0, min_width=90, interactive=False, elem_id="vx-export-cancel")
        clear = gr.Button("Empty the basket", scale=0, min_width=150, elem_id="vx-clear")
    made = gr.HTML("", elem_id="vx-export-job")
    token = gr.State("")
    gr.HTML(
        '<p class="vx-hint">Files name the videos without their folders, so an editor asks once where they lie. Notes '
        "become markers, subtitle lines or comments. The reel and the clips carry name and timecode in the picture.</p>"
    )

    def changed(basket: Sequence[Collected]) -> tuple[Any, str]:
        value = keep_basket(basket)
        return value, basket_html(site, value)

    def up(value: Any, event: gr.EventData) -> tuple[Any, str]:
        return changed(baskets.move(read_basket(value), wording.whole_number(event.value, "number"), -1))

    def down(value: Any, event: gr.EventData) -> tuple[Any, str]:
        return changed(baskets.move(read_basket(value), wording.whole_number(event.value, "number"), 1))

    def out(value: Any, event: gr.EventData) -> tuple[Any, str]:
        return changed(baskets.take_out(read_basket(value), wording.whole_number(event.value, "number")))

    def note(value: Any, event: gr.EventData) -> tuple[Any, str]:
        number = wording.whole_number(event.value, "number")
        return changed(baskets.annotate(read_basket(value), number, str(event.text)))

    def make(value: Any, chosen: str) -> Iterator[tuple[str, str, Any, Any]]:
        job = site.exports.start(read_basket(value), str(chosen))
        while not job.ended.wait(POLL_SECONDS):
            yield export_view(job), job.token, gr.update(interactive=False), gr.update(interactive=True)
        yield export_view(job), "", gr.update(interactive=True), gr.update(interactive=False)

    for name, function in (("up", up), ("down", down), ("out", out), ("note", note)):
        getattr(rows, name)(worded(function), kept, [kept, rows], **QUICK)
    clear.click(worded(lambda: changed(())), None, [kept, rows], **QUICK)
    export.click(worded_steps(make), [kept, to], [made, token, export, cancel], concurrency_limit=4, **PRIVATE)
    cancel.click(worded(site.exports.cancel), token, None, **QUICK)
    return rows


def basket_html(site: Site, value: Any) -> str:
    """The list of what a browser keeps as its basket."""
    basket = read_basket(value)
    return basket_view(basket, {c.video_id: site.name_of(c.video_id) for c in basket})
