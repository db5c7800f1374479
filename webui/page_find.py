"""The Find tab: what is asked with, how, and where the answers appear."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from visxp_search.api import find_video
from visxp_search.clips import format_time
from webui import asking, finding, videos, watching
from webui.asking import CLIP, INDEXED, SOUND, STILL, Form
from webui.narrow import Narrow
from webui.parts import ACTS, QUICK, Site, hand_on, worded
from webui.views import start_view
from webui.views_watch import picker_view
from webui.wording import FLAG_WORDS

KINDS = [("Clip", CLIP), ("Sound", SOUND), ("Still", STILL), ("Archive", INDEXED)]
QUERY = ("kind", "clip", "sound", "still", "video", "start", "end", "cross")
OPTIONS = ("by", "audio_weight", "mode", "top", "per_video", "grouped", "weak")
SEVERAL = ("videos", "nodes", "flags", "not_flags")
PLACES = ("files", "videos", "nodes", "flags", "not_flags", "after", "before", "shortest", "longest")

N_STARTS = 12
"""Moments of the archive that are shown before anything was asked."""


@dataclass(frozen=True)
class FindParts:
    """The components of the Find tab.

    Attributes:
        form: those whose values make a `Form`, in the order of `QUERY`, `OPTIONS` and `PLACES`.
        options: those of `OPTIONS` and `PLACES` alone.
        places: name -> component of `PLACES`.
        button: begins the search.
        search: state of the search that is being made, or None.
        progress: how far it is.
        results: the moments.
        pager: which of them are shown.
        earlier: to the page before.
        later: to the next page.
        filters: holds `places`; its choices are looked up when it is opened.
    """

    form: list[Any]
    options: list[Any]
    places: dict[str, Any]
    button: gr.Button
    search: gr.State
    progress: gr.HTML
    results: gr.HTML
    pager: gr.HTML
    earlier: gr.Button
    later: gr.Button
    filters: gr.Accordion


def build_find(site: Site) -> FindParts:
    """The components of the tab, and the events that stay within it."""
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
                hand_on(clip)
            with gr.Group(visible=False) as sound_group:
                sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Sound", elem_id="vx-sound")
                cross = gr.Checkbox(False, label="Find pictures that go with this sound")
            with gr.Group(visible=False) as still_group:
                still = gr.Image(
                    sources=["upload", "clipboard"], type="filepath", label="Still", height=220, elem_id="vx-still"
                )
                hand_on(still)
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
            search, progress = gr.State(None), gr.HTML("", js_on_load=ACTS, elem_id="vx-search")
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
            with gr.Accordion("More options", open=False, elem_id="vx-more"):
                top = gr.Slider(finding.PAGE_SIZE, asking.MAX_TOP, value=24, step=12, label="Moments", buttons=[])
                per_video = gr.Slider(1, 12, value=3, step=1, label="At most, of one video", buttons=[])
                grouped = gr.Checkbox(False, label="Group by video", elem_id="vx-grouped")
                weak = gr.Checkbox(False, label="Weak matches too", elem_id="vx-weak")
            with gr.Accordion("Where to look", open=False, elem_id="vx-where") as filters:
                places = _build_places()
        with gr.Column(scale=5, min_width=420):
            results = gr.HTML("", js_on_load=ACTS, elem_id="vx-results")
            with gr.Row(elem_id="vx-paging"):
                earlier = gr.Button("Previous", visible=False, size="sm")
                pager = gr.HTML("")
                later = gr.Button("Next", visible=False, size="sm")

    def choose_kind(chosen: str) -> list[Any]:
        shown = [gr.update(visible=chosen == name) for _, name in KINDS]
        choices = videos.video_choices(site.archive.store) if chosen == INDEXED else None
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
        watched = watching.watch_span(site.archive, None, record.video_id, first, last)
        return picker_view(watched, first, last), format_time(first), format_time(last)

    def pick(chosen: str | None, start_text: str, end_text: str, event: gr.EventData) -> tuple[str, str, str]:
        record = find_video(site.archive.store, chosen or "")
        first, last = asking.picked_span(record, start_text, end_text, event._data)
        watched = watching.watch_span(site.archive, None, record.video_id, first, last)
        return picker_view(watched, first, last), format_time(first), format_time(last)

    groups = [clip_group, sound_group, still_group, indexed_group]
    kind.change(worded(choose_kind), kind, [*groups, video, by, weight, mode], **QUICK)
    video.change(worded(show_video), [video, start, end], [picker, start, end], **QUICK)
    picker.span(worded(pick), [video, start, end], [picker, start, end], **QUICK)
    by.change(lambda chosen: gr.update(interactive=chosen == "both"), by, weight, **QUICK)
    filters.expand(worded(functools.partial(list_places, site)), None, [places["videos"], places["nodes"]], **QUICK)
    options = [by, weight, mode, top, per_video, grouped, weak, *places.values()]
    form = [kind, clip, sound, still, video, start, end, cross, *options]
    return FindParts(form, options, places, button, search, progress, results, pager, earlier, later, filters)


def start_html(site: Site) -> str:
    """What the results are before anything was asked."""
    if site.archive.facts() is None:
        return start_view((), read_only=site.read_only)
    return start_view(videos.spread_videos(site.archive.store, count=N_STARTS), read_only=site.read_only)


def _build_places() -> dict[str, Any]:
    """The filters, by the names of `PLACES`."""
    flags = [(word, flag) for flag, word in FLAG_WORDS.items()]
    return {
        "files": gr.Textbox(label="File names", placeholder="tape, *.mxf", elem_id="vx-files"),
        "videos": gr.Dropdown([], value=[], label="Videos", multiselect=True, elem_id="vx-videos-only"),
        "nodes": gr.Dropdown([], value=[], label="Clusters", multiselect=True, elem_id="vx-nodes"),
        "flags": gr.Dropdown(flags, value=[], label="Only seconds with", multiselect=True, elem_id="vx-flags"),
        "not_flags": gr.Dropdown(flags, value=[], label="No seconds with", multiselect=True, elem_id="vx-not-flags"),
        "after": gr.Textbox(label="Not before", placeholder="0:00 of a video", elem_id="vx-after"),
        "before": gr.Textbox(label="Only before", placeholder="the end", elem_id="vx-before"),
        "shortest": gr.Textbox(label="Videos at least", placeholder="1:00 long"),
        "longest": gr.Textbox(label="Videos at most", placeholder="1:00:00 long"),
    }


def list_places(site: Site) -> tuple[Any, Any]:
    """What the filters for videos and clusters offer now."""
    return (
        gr.update(choices=videos.video_choices(site.archive.store)),
        gr.update(choices=site.clusters.choices()),
    )


def read_form(values: Sequence[Any]) -> Form:
    """The form that the values of `FindParts.form` make."""
    said = dict(zip((*QUERY, *OPTIONS, *PLACES), values, strict=True))
    return replace(
        read_options([said[name] for name in (*OPTIONS, *PLACES)]),
        kind=str(said["kind"]),
        file={CLIP: said["clip"], SOUND: said["sound"], STILL: said["still"]}.get(said["kind"]),
        video=str(said["video"] or ""),
        start=str(said["start"] or ""),
        end=str(said["end"] or ""),
        cross=bool(said["cross"]),
    )


def read_options(values: Sequence[Any]) -> Form:
    """The form of a search that asks with indexed seconds, of the values of `FindParts.options`."""
    said = dict(zip((*OPTIONS, *PLACES), values, strict=True))
    places: dict[str, Any] = {
        name: tuple(map(str, said[name] or ())) if name in SEVERAL else str(said[name] or "") for name in PLACES
    }
    return Form(
        kind=INDEXED,
        by=str(said["by"]),
        audio_weight=float(said["audio_weight"]),
        mode=str(said["mode"]),
        top=int(said["top"]),
        per_video=int(said["per_video"]),
        grouped=bool(said["grouped"]),
        weak=bool(said["weak"]),
        narrow=Narrow(**places),
    )
