"""The page: which components there are, and which handler answers to what. All work is done in `webui.handlers`."""

import functools
import inspect
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import gradio as gr
from gradio.events import api as add_endpoint

from visxp_search.api import find_video
from visxp_search.clips import format_time
from visxp_search.errors import UsageError, VisxpError
from webui import basket as baskets
from webui import handlers
from webui.adding import Adder, Roots
from webui.archive import Archive
from webui.basket import Collected, keep_basket, read_basket
from webui.browse import Level, open_level
from webui.endpoints import EXAMPLES, make_endpoints
from webui.handlers import CLIP, INDEXED, SOUND, STILL, Form, Found, Uploads
from webui.views import pager_text, picker_view, results_view, status_view, watch_view
from webui.views_manage import ROWS, basket_view, browse_view, facts_view, job_view, videos_view

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
KINDS = [("Clip", CLIP), ("Sound", SOUND), ("Still", STILL), ("Archive", INDEXED)]
ACTS = """
const acts = ['watch', 'more', 'hide', 'unhide', 'collect', 'close', 'play', 'open', 'up', 'down', 'out', 'note',
  'remove', 'confirm', 'keep', 'retry', 'span'];
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (button && element.contains(button)) trigger(button.dataset.act, { value: button.dataset.value || '' });
});
element.addEventListener('change', (event) => {
  const field = event.target.closest('[data-change]');
  if (field) trigger(field.dataset.change, { value: field.dataset.value, text: field.value });
});
"""
"""Buttons in our own HTML become events of its component."""
HELP = """
### Keyboard

Arrow keys move between results, **Enter** plays one, **m** more like it, **b** into the basket, **h** hides its video,
**Esc** closes the player.

### What the numbers mean

The **score** is the mean similarity (cosine, at most 1) of the query's seconds with the moment. *Closer than 99 % of the
archive* says how many of 512 random seconds of this archive resemble the query less. **Picture** and **Sound** are the
two parts of it; *none* means that there is nothing to compare, not that it is unlike.

### From programs

Everything the page finds can be asked for by programs, with `gradio_client` or plain HTTP (the API documentation is
linked at the bottom of the page):

```python
{examples}```
"""
SAVE = "(text) => { window.vxSave(text, 'visxp-moments.%s', '%s'); return text; }"


@dataclass(frozen=True)
class Site:
    """What the page is given.

    Attributes:
        archive: the index.
        adder: adds to it.
        roots: folders that may be added from.
        uploads: where uploads lie, and their limits.
        read_only: nothing can be added, removed or retried.
    """

    archive: Archive
    adder: Adder
    roots: Roots
    uploads: Uploads
    read_only: bool = False


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


def page_head() -> str:
    """What goes into the page's head: our script."""
    return f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>"


def page_css() -> str:
    """Our styles."""
    return (HERE / "page.css").read_text(encoding="utf-8")


def build_app(site: Site) -> gr.Blocks:
    """The page of one site; nothing is loaded or opened here."""
    with gr.Blocks(title="VisXP search", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as blocks:
        status = gr.HTML(_status(site), elem_id="vx-status")
        found = gr.State(None)
        kept = gr.BrowserState([], storage_key="visxp-basket", secret="visxp-basket")
        watching = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=480), gr.Tabs():
                with gr.Tab("Find", id="find"):
                    find = _build_find(site)
                with gr.Tab("Browse", id="browse") as browse_tab:
                    level = gr.HTML("", js_on_load=ACTS, elem_id="vx-browse")
                with gr.Tab("Basket", id="basket") as basket_tab:
                    basket = _build_basket(site, kept)
                with gr.Tab("Manage" if not site.read_only else "Index", id="manage") as manage_tab:
                    manage = _build_manage(site)
                with gr.Tab("Help", id="help"):
                    gr.Markdown(_help_text())
            with gr.Column(scale=2, min_width=400, visible=False, elem_id="vx-watch-column") as watch_column:
                watch = gr.HTML("", js_on_load=ACTS, elem_id="vx-watch")

        def open_branch(event: gr.EventData) -> str:
            return _browse(site, str(event.value))

        answers = Answers(site, found=found, kept=kept, watching=watching, watch=watch, column=watch_column, find=find)
        answers.connect(level=level, basket_list=basket)
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        browse_tab.select(_worded(lambda: _browse(site, "")), None, level, **quick)
        basket_tab.select(_worded(lambda value: _basket(site, value)), kept, basket, **quick)
        level.open(_worded(open_branch), None, level, **quick)
        manage_tab.select(
            _worded(lambda text, only, page: _manage(site, text, only, page)),
            [manage.text, manage.only, manage.page],
            [manage.facts, manage.table],
            **quick,
        )
        timer = gr.Timer(2.0)
        timer.tick(_worded(lambda: (_status(site), job_view(site.adder.view()))), None, [status, manage.job], **quick)
        for name, function in make_endpoints(site.archive, site.uploads).items():
            add_endpoint(_worded(function), api_name=name, concurrency_limit=2)
    blocks.queue(max_size=200, default_concurrency_limit=4)
    return cast(gr.Blocks, blocks)


@dataclass(frozen=True)
class FindParts:
    """The components of the Find tab; `form` are those whose values make a `Form`, in its order."""

    form: list[Any]
    options: list[Any]
    button: gr.Button
    results: gr.HTML
    pager: gr.HTML
    earlier: gr.Button
    later: gr.Button


@dataclass(frozen=True)
class ManageParts:
    """The components of the Manage tab that others change."""

    facts: gr.HTML
    table: gr.HTML
    job: gr.HTML
    text: gr.Textbox
    only: gr.Dropdown
    page: gr.State


def _build_find(site: Site) -> FindParts:
    with gr.Row(equal_height=False):
        with gr.Column(scale=0, min_width=300, elem_id="vx-query"):
            kind = gr.Radio(KINDS, value=CLIP, label="Ask with", elem_id="vx-kind")
            with gr.Group(visible=True) as clip_group:
                clip = gr.Video(
                    sources=["upload", "webcam"],
                    include_audio=True,
                    label="Clip",
                    height=220,
                    elem_id="vx-clip",
                    webcam_options=gr.WebcamOptions(mirror=False),
                )
                _hand_on(clip)
            with gr.Group(visible=False) as sound_group:
                sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Sound", elem_id="vx-sound")
                cross = gr.Checkbox(False, label="Find pictures that go with this sound")
            with gr.Group(visible=False) as still_group:
                still = gr.Image(
                    sources=["upload", "clipboard"], type="filepath", label="Still", height=220, elem_id="vx-still"
                )
                _hand_on(still)
            with gr.Group(visible=False) as indexed_group:
                video = gr.Dropdown(
                    [],
                    label="Video",
                    filterable=True,
                    allow_custom_value=True,
                    elem_id="vx-video",
                    info="Choose, or type a name",
                )
                picker = gr.HTML(picker_view(None, 0, 0), js_on_load=ACTS + "window.vxPick(element, trigger);")
            with gr.Row():
                start = gr.Textbox(label="From", placeholder="0:00", min_width=90, elem_id="vx-from")
                end = gr.Textbox(label="To", placeholder="the end", min_width=90, elem_id="vx-to")
            button = gr.Button("Find moments", variant="primary", elem_id="vx-find")
            by = gr.Radio(
                [("Both", "both"), ("Picture", "visual"), ("Sound", "audio")],
                value="both",
                label="Compare by",
                elem_id="vx-by",
            )
            weight = gr.Slider(0, 1, value=0.5, step=0.05, label="Share of the sound", buttons=[])
            mode = gr.Radio(
                [("Similar", "similar"), ("Same recording", "same")],
                value="similar",
                label="Look for",
                elem_id="vx-mode",
            )
            with gr.Accordion("More options", open=False):
                top = gr.Slider(handlers.PAGE_SIZE, handlers.MAX_TOP, value=24, step=12, label="Moments", buttons=[])
                per_video = gr.Slider(1, 12, value=3, step=1, label="At most, of one video", buttons=[])
                grouped = gr.Checkbox(False, label="Group by video")
        with gr.Column(scale=5, min_width=420):
            results = gr.HTML(results_view(None, ()), js_on_load=ACTS, elem_id="vx-results")
            with gr.Row(elem_id="vx-paging"):
                earlier = gr.Button("Previous", visible=False, size="sm")
                pager = gr.HTML("")
                later = gr.Button("Next", visible=False, size="sm")

    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def choose_kind(chosen: str) -> list[Any]:
        shown = [gr.update(visible=chosen == name) for _, name in KINDS]
        choices = handlers.video_choices(site.archive.store) if chosen == INDEXED else None
        can_weigh = chosen in (CLIP, INDEXED)
        return [
            *shown,
            gr.update(choices=choices) if choices is not None else gr.skip(),
            gr.update(visible=can_weigh),
            gr.update(visible=can_weigh),
            gr.update(visible=chosen != STILL),
        ]

    def show_video(chosen: str | None, start_text: str, end_text: str) -> tuple[str, str, str]:
        if not chosen:
            return picker_view(None, 0, 0), "", ""
        record = find_video(site.archive.store, chosen)
        first, last = 0, min(5, max(1, record.seconds_expected))
        watched = handlers.watch_span(site.archive, record.video_id, first, last)
        return picker_view(watched, first, last), format_time(first), format_time(last)

    def pick(chosen: str | None, start_text: str, end_text: str, event: gr.EventData) -> tuple[str, str, str]:
        record = find_video(site.archive.store, chosen or "")
        first, last = handlers.picked_span(record, start_text, end_text, event._data)
        watched = handlers.watch_span(site.archive, record.video_id, first, last)
        return picker_view(watched, first, last), format_time(first), format_time(last)

    groups = [clip_group, sound_group, still_group, indexed_group]
    kind.change(_worded(choose_kind), kind, [*groups, video, by, weight, mode], **quick)
    video.change(_worded(show_video), [video, start, end], [picker, start, end], **quick)
    picker.span(_worded(pick), [video, start, end], [picker, start, end], **quick)
    by.change(lambda chosen: gr.update(interactive=chosen == "both"), by, weight, **quick)
    form = [kind, clip, sound, still, video, start, end, by, weight, mode, cross, top, per_video, grouped]
    return FindParts(form, [by, weight, mode, top, per_video, grouped], button, results, pager, earlier, later)


def _build_basket(site: Site, kept: gr.BrowserState) -> gr.HTML:
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
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
        return value, _basket(site, value)

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
        return json.dumps(baskets.basket_document(_filled(value), name_of), indent=1, ensure_ascii=False)

    def write_csv(value: Any) -> str:
        return baskets.basket_csv(_filled(value), name_of)

    for name, function in (("up", up), ("down", down), ("out", out), ("note", note)):
        getattr(rows, name)(_worded(function), kept, [kept, rows], **quick)
    clear.click(_worded(lambda: changed(())), None, [kept, rows], **quick)
    as_json.click(_worded(write_json), kept, text, **quick).success(
        None, text, text, js=SAVE % ("json", "application/json"), api_visibility="private"
    )
    as_csv.click(_worded(write_csv), kept, text, **quick).success(
        None, text, text, js=SAVE % ("csv", "text/csv"), api_visibility="private"
    )
    return rows


def _build_manage(site: Site) -> ManageParts:
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    facts = gr.HTML("", elem_id="vx-facts")
    job = gr.HTML("", elem_id="vx-job")
    if not site.read_only:
        with gr.Row(equal_height=True):
            folder = gr.Dropdown(
                site.roots.listing(),
                label="Add a folder of the server",
                info=(
                    "Every video and sound in it; what is done is skipped"
                    if site.roots
                    else "Start visxp ui with --root FOLDER to offer folders here"
                ),
                allow_custom_value=True,
                interactive=bool(site.roots),
                value=None,
                scale=4,
                elem_id="vx-folder",
            )
            add = gr.Button(
                "Add", variant="primary", scale=0, min_width=110, interactive=bool(site.roots), elem_id="vx-add"
            )
            cancel = gr.Button("Cancel", size="md", scale=0, min_width=90, elem_id="vx-cancel")
        gr.HTML(
            '<p class="vx-hint">Searching goes on while videos are added here. An index in a directory is held by this page '
            "alone: <code>visxp index add</code> beside it says so and waits; for both at once, serve the index from a "
            "Qdrant server.</p>"
        )
    with gr.Row(equal_height=True):
        text = gr.Textbox(label="Name", placeholder="part of a name", scale=3, elem_id="vx-filter")
        only = gr.Dropdown(
            [("all", ""), ("complete", "done"), ("begun", "pending"), ("failed", "failed")], value="", label="Status"
        )
    page = gr.State(0)
    table = gr.HTML("", js_on_load=ACTS, elem_id="vx-videos")
    with gr.Row():
        earlier = gr.Button("Previous", size="sm", scale=0, min_width=110)
        later = gr.Button("Next", size="sm", scale=0, min_width=110)
    parts = ManageParts(facts, table, job, text, only, page)

    def turn(step: int, wanted: str, status: str, shown: int) -> tuple[int, str]:
        records = handlers.list_videos(site.archive.store, text=wanted, status=status)
        turned = min(max(0, shown + step), max(0, (len(records) - 1) // ROWS))
        return turned, videos_view(records, turned, read_only=site.read_only)

    def filtered(wanted: str, status: str) -> tuple[int, str]:
        return turn(-(10**6), wanted, status, 0)

    gr.on([text.input, only.change], _worded(filtered), [text, only], [page, table], **quick)
    earlier.click(_worded(functools.partial(turn, -1)), [text, only, page], [page, table], **quick)
    later.click(_worded(functools.partial(turn, 1)), [text, only, page], [page, table], **quick)
    if site.read_only:
        return parts

    def add_folder(chosen: str | None) -> str:
        if not chosen:
            raise UsageError("choose a folder first")
        site.adder.enqueue(str(chosen), [site.roots.resolve(str(chosen))])
        return job_view(site.adder.view())

    def retry(event: gr.EventData) -> str:
        record = find_video(site.archive.store, str(event.value))
        site.adder.enqueue(handlers.display_name(record), [Path(path) for path in record.paths])
        return job_view(site.adder.view())

    def cancel_job() -> str:
        site.adder.cancel()
        return job_view(site.adder.view())

    def confirm(wanted: str, status: str, shown: int, event: gr.EventData) -> str:
        records = handlers.list_videos(site.archive.store, text=wanted, status=status)
        return videos_view(records, shown, read_only=False, confirm=str(event.value))

    def remove(wanted: str, status: str, shown: int, event: gr.EventData) -> tuple[str, str]:
        handlers.remove_video(site.archive, site.adder, str(event.value))
        return _manage(site, wanted, status, shown)

    add.click(_worded(add_folder), folder, job, **quick)
    cancel.click(_worded(cancel_job), None, job, **quick)
    table.retry(_worded(retry), None, job, **quick)
    table.confirm(_worded(confirm), [text, only, page], table, **quick)
    table.keep(_worded(functools.partial(turn, 0)), [text, only, page], [page, table], **quick)
    table.remove(_worded(remove), [text, only, page], [facts, table], **quick)
    return parts


class Answers:
    """What happens when something is looked for, watched, collected or hidden.

    Args:
        site: the site.
        found: state of the visitor's last search.
        kept: the basket in the browser.
        watching: state of what is being played.
        watch: the player's HTML.
        column: what holds the player; hidden while nothing is played.
        find: the Find tab.
    """

    def __init__(
        self,
        site: Site,
        *,
        found: gr.State,
        kept: gr.BrowserState,
        watching: gr.State,
        watch: gr.HTML,
        column: gr.Column,
        find: FindParts,
    ) -> None:
        self.site = site
        self.find = find
        self.found, self.kept, self.watching = found, kept, watching
        self.listing = [found, find.results, find.pager, find.earlier, find.later]
        self.player = [watching, watch, column]
        self.watch = watch

    def connect(self, *, level: gr.HTML, basket_list: gr.HTML) -> None:
        """Tie the events to the methods."""
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        quick = {**private, "queue": False}
        find, results, watch = self.find, self.find.results, self.watch
        seen = [self.found, self.kept]
        find.button.click(
            _worded(self.search),
            [*find.form, self.kept],
            self.listing,
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=results,
            concurrency_limit=2,
            concurrency_id="search",
        )
        find.earlier.click(_worded(functools.partial(self.turn, -1)), seen, self.listing, **quick)
        find.later.click(_worded(functools.partial(self.turn, 1)), seen, self.listing, **quick)
        results.watch(_worded(self.play_result), seen, [*self.listing, *self.player], **quick)
        results.unhide(_worded(self.unhide), seen, self.listing, **private)
        for part in (results, watch):
            part.more(_worded(self.more), [*find.options, self.kept], self.listing, **private)
            part.hide(_worded(self.hide), seen, self.listing, **private)
            part.collect(_worded(self.collect), [*seen, self.watching], [self.kept, results, watch], **quick)
        watch.close(lambda: (None, "", gr.update(visible=False)), None, self.player, **quick)
        for part in (level, basket_list):
            part.play(_worded(self.play_span), self.kept, self.player, **quick)

    def search(self, *values: Any) -> tuple[Any, ...]:
        """Ask with what the form says."""
        *entered, kept = values
        return self._list(handlers.find(self.site.archive, _form(entered), self.site.uploads), kept)

    def turn(self, step: int, found: Found | None, kept: Any) -> tuple[Any, ...]:
        """Show another page."""
        return self._list(handlers.turn_page(_some(found), step), kept)

    def play_result(self, found: Found | None, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Play a moment of the results."""
        watched = handlers.watch(self.site.archive, _some(found), event.value)
        chosen = replace(_some(found), chosen=handlers.whole_number(event.value, "moment"))
        return (*self._list(chosen, kept), *self._play(watched, kept))

    def play_span(self, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Play a stretch that some other part of the page shows."""
        video_id, start, end, _ = _target(event.value)
        return self._play(handlers.watch_span(self.site.archive, video_id, start, max(end, start + 1)), kept)

    def more(
        self,
        by: str,
        weight: float,
        mode: str,
        top: float,
        per_video: float,
        grouped: bool,
        kept: Any,
        event: gr.EventData,
    ) -> tuple[Any, ...]:
        """Search for more like a moment."""
        form = Form(INDEXED, None, "", "", "", by, weight, mode, False, int(top), int(per_video), grouped)
        video_id, start, end, _ = _target(event.value)
        handlers.check_form(form)
        return self._list(handlers.more_like(self.site.archive, form, video_id, start, end), kept)

    def hide(self, found: Found | None, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Leave a video out."""
        return self._list(handlers.hide_video(self.site.archive, _some(found), str(event.value)), kept)

    def unhide(self, found: Found | None, kept: Any) -> tuple[Any, ...]:
        """Look in all videos again."""
        return self._list(handlers.unhide_all(self.site.archive, _some(found)), kept)

    def collect(
        self, found: Found | None, kept: Any, watching: handlers.Watched | None, event: gr.EventData
    ) -> tuple[Any, str, str]:
        """Put a moment into the basket, or take it out again."""
        basket = baskets.toggle(read_basket(kept), Collected(*_target(event.value)))
        return keep_basket(basket), results_view(found, basket), watch_view(watching, basket)

    def _list(self, found: Found, kept: Any) -> tuple[Any, ...]:
        return (
            found,
            results_view(found, read_basket(kept)),
            pager_text(found),
            gr.update(visible=found.page > 0),
            gr.update(visible=found.page + 1 < found.n_pages),
        )

    def _play(self, watched: handlers.Watched, kept: Any) -> tuple[Any, ...]:
        return watched, watch_view(watched, read_basket(kept)), gr.update(visible=True)


def _hand_on(component: gr.Video | gr.Image) -> None:
    """Let an upload reach our own reader as it came: not converted, and refused in our own words."""
    component.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]


def _form(values: Sequence[Any]) -> Form:
    kind, clip, sound, still, video, start, end, by, weight, mode, cross, top, per_video, grouped = values
    return Form(
        kind=str(kind),
        file={CLIP: clip, SOUND: sound, STILL: still}.get(kind),
        video=str(video or ""),
        start=str(start or ""),
        end=str(end or ""),
        by=str(by),
        audio_weight=float(weight),
        mode=str(mode),
        cross=bool(cross),
        top=int(top),
        per_video=int(per_video),
        grouped=bool(grouped),
    )


def _target(value: object) -> tuple[str, float, float, float | None]:
    """Video id, start, end and score of `ID@START-END[@SCORE]`, as our buttons send it."""
    try:
        video_id, span, *rest = str(value).split("@")
        start, end = span.split("-")
        score = float(rest[0]) if rest and rest[0] else None
        return video_id, float(start), float(end), score
    except ValueError as exc:
        raise UsageError("this button's moment is not understood; search again") from exc


def _some(found: Found | None) -> Found:
    if found is None:
        raise UsageError("this search is no longer known; press Find moments again")
    return found


def _filled(value: Any) -> tuple[Collected, ...]:
    basket = read_basket(value)
    if not basket:
        raise UsageError("the basket is empty; collect moments first")
    return basket


def _worded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with errors that are meant for people shown to them, without folders of the server."""

    @functools.wraps(function)
    def worded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except VisxpError as exc:
            log.info("%s", exc)
            raise gr.Error(handlers.hide_folders(str(exc)), duration=12, print_exception=False) from exc

    worded.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return worded


def _status(site: Site) -> str:
    readiness, view = site.archive.readiness, site.adder.view()
    facts = site.archive.facts()
    return status_view(readiness.words, facts, state=readiness.state, busy=view.running, read_only=site.read_only)


def _browse(site: Site, branch: str) -> str:
    level: Level = open_level(site.archive.store, branch)
    ids = {video_id for cluster in level.clusters for video_id, _ in cluster.examples}
    return browse_view(level, {video_id: handlers.name_of(site.archive.store, video_id) for video_id in ids})


def _basket(site: Site, value: Any) -> str:
    basket = read_basket(value)
    names = {c.video_id: handlers.name_of(site.archive.store, c.video_id) for c in basket}
    return basket_view(basket, names)


def _manage(site: Site, text: str, status: str, page: int) -> tuple[str, str]:
    records = handlers.list_videos(site.archive.store, text=text, status=status)
    page = min(page, max(0, (len(records) - 1) // ROWS))
    return facts_view(site.archive.facts(fresh=True)), videos_view(records, page, read_only=site.read_only)


def _help_text() -> str:
    examples = EXAMPLES.format(url="http://127.0.0.1:7860", clip="clip.mp4", sound="sound.wav", still="still.jpg")
    return HELP.replace("{examples}", examples)
