"""The page: its tabs, its look, its endpoints. What happens is done by `webui.finding` and its neighbours."""

from pathlib import Path
from typing import cast

import gradio as gr
from gradio.events import api as add_endpoint

from webui.endpoints import EXAMPLES, make_cluster_endpoints, make_endpoints, make_export_endpoints
from webui.page_answers import Answers
from webui.page_basket import basket_html, build_basket
from webui.page_browse import build_browse, show
from webui.page_find import build_find, start_html
from webui.page_manage import build_manage, card_text, job_now, manage_html
from webui.page_visits import connect_visits
from webui.parts import ACTS, PRIVATE, QUICK, Site, typed, worded
from webui.views import status_view

HERE = Path(__file__).parent
HELP = """
### Keyboard

Arrow keys move between results, **Enter** plays one, **m** more like it, **n** not like it, **b** into the basket,
**h** hides its video, **Esc** closes the player. On the timeline of a video arrow keys move the span, with Shift its
end; on the map of clusters they move the map, **Enter** plays and **o** opens what is in its middle, **+** and **-**
change its size.

### Rounds

**More** searches anew with a moment of the archive. **Also like this** and **Not like this** keep the search and add
an example to it; each can be taken away again, and **Back** returns to the search before. What resembles an example
of **Not like this** loses as much as it resembles it; where that leaves nothing, the nearest is shown and said so.

### What the numbers mean

The **score** is the mean similarity (cosine, at most 1) of the query's seconds with the moment. *Closer than 99 %*
says how many of the random seconds that this search compared with resemble the query less. **Picture** and **Sound**
are the two parts of it; *none* means that there is nothing to compare, not that it is unlike. Moments stand in the
order of how much they stand out in this archive, so a common sight with a high score may come after a rare one with a
lower score. What an archive of this size would give by chance is left out unless **Weak matches too** is ticked.

### From programs

Everything the page finds can be asked for by programs, with `gradio_client` or plain HTTP (the API documentation is
linked at the bottom of the page):

```python
{examples}```
"""


def theme() -> gr.themes.Base:
    """A quiet theme with the system's own fonts, so that nothing is fetched."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.zinc,
        spacing_size=gr.themes.sizes.spacing_sm,
        radius_size=gr.themes.sizes.radius_sm,
        text_size=gr.themes.sizes.text_sm,
        font=[gr.themes.Font("system-ui"), gr.themes.Font("Segoe UI"), gr.themes.Font("sans-serif")],
        font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
    ).set(
        body_background_fill="#fbfbfc",
        body_background_fill_dark="#15161a",
        block_background_fill="#ffffff",
        block_background_fill_dark="#202229",
        border_color_primary="#d9dbe1",
        border_color_primary_dark="#343741",
        block_label_text_color="#565a66",
        block_label_text_color_dark="#a8acb8",
        block_title_text_color="#565a66",
        block_title_text_color_dark="#a8acb8",
        block_info_text_color="#565a66",
        block_info_text_color_dark="#a8acb8",
        button_primary_background_fill="#1f5fbf",
        button_primary_background_fill_hover="#184e9e",
        button_primary_background_fill_dark="#8ab4f8",
        button_primary_background_fill_hover_dark="#a9c8fa",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#10131a",
        checkbox_background_color_selected="#1f5fbf",
        checkbox_background_color_selected_dark="#8ab4f8",
        slider_color="#1f5fbf",
        slider_color_dark="#8ab4f8",
        input_background_fill="#f4f5f7",
        input_background_fill_dark="#1b1d23",
        input_placeholder_color="#6b7080",
        input_placeholder_color_dark="#8d92a0",
    )


def page_head(*, max_bytes: int) -> str:
    """What goes into the page's head: our scripts, and the size from which they refuse a file."""
    limit = f"<script>window.vxMaxBytes = {max_bytes};</script>"
    return limit + "".join(
        f"<script>{(HERE / name).read_text(encoding='utf-8')}</script>" for name in ("page.js", "map.js")
    )


def page_css() -> str:
    """Our styles."""
    return (HERE / "page.css").read_text(encoding="utf-8")


def build_app(site: Site) -> gr.Blocks:
    """The page of one site; nothing is loaded or opened here."""
    with gr.Blocks(title="VisXP search", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as blocks:
        _add_endpoints(site)  # before anything else, whose functions would take their names
        status = gr.HTML(_status(site), elem_id="vx-status")
        found = gr.State(None)
        kept = gr.BrowserState([], storage_key="visxp-basket", secret="visxp-basket")
        watching = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=480), gr.Tabs() as tabs:
                with gr.Tab("Find", id="find"):
                    find = build_find(site)
                with gr.Tab("Browse", id="browse") as browse_tab:
                    browser = build_browse(site)
                with gr.Tab("Basket", id="basket") as basket_tab:
                    basket = build_basket(site, kept)
                with gr.Tab("Manage" if not site.read_only else "Index", id="manage") as manage_tab:
                    manage = build_manage(site)
                with gr.Tab("Help", id="help"):
                    gr.Markdown(_help_text(), elem_id="vx-help")
            with gr.Column(scale=2, min_width=400, visible=False, elem_id="vx-watch-column") as watch_column:
                watch = gr.HTML("", js_on_load=ACTS, elem_id="vx-watch")

        answers = Answers(site, found=found, kept=kept, watching=watching, watch=watch, column=watch_column, find=find)
        answers.connect(browser.level, basket, manage.table)
        connect_visits(site, tabs=tabs, browser=browser, find=find, answers=answers)
        browse_tab.select(
            worded(lambda browsing: show(site, browsing)),
            browser.state,
            [browser.state, browser.level],
            concurrency_id="browse",
            **PRIVATE,
        )
        basket_tab.select(worded(lambda value: basket_html(site, value)), kept, basket, **QUICK)
        manage_tab.select(
            worded(lambda text, only, page: manage_html(site, text, only, page)),
            [manage.text, manage.only, manage.page],
            [manage.facts, manage.table],
            **QUICK,
        ).success(worded(lambda: card_text(site)), None, [manage.card, manage.report], **PRIVATE)
        blocks.load(worded(lambda: start_html(site)), None, find.results, **QUICK)
        timer = gr.Timer(2.0)
        watched = [status, manage.job] + ([] if manage.cancel is None else [manage.cancel])
        timer.tick(worded(lambda: (_status(site), *job_now(site))[: len(watched)]), None, watched, **QUICK)
    blocks.queue(max_size=200, default_concurrency_limit=4)
    return cast(gr.Blocks, blocks)


def _add_endpoints(site: Site) -> None:
    endpoints = {
        **make_endpoints(site.archive, site.clusters, site.uploads),
        **make_cluster_endpoints(site.clusters, read_only=site.read_only),
        **make_export_endpoints(site.exports),
    }
    for name, function in endpoints.items():
        add_endpoint(worded(typed(function)), api_name=name, concurrency_limit=2)


def _status(site: Site) -> str:
    readiness, view = site.archive.readiness, site.adder.view()
    facts = site.archive.facts()
    return status_view(readiness.words, facts, state=readiness.state, job=view, read_only=site.read_only)


def _help_text() -> str:
    examples = EXAMPLES.format(url="http://127.0.0.1:7860", clip="clip.mp4", sound="sound.wav", still="still.jpg")
    return HELP.replace("{examples}", examples)
