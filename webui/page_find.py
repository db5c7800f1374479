"""The Find tab: what is asked with, how, and where the answers appear."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from visxp_search.api import find_video
from visxp_search.clips import format_time
from webui import handlers
from webui.handlers import CLIP, INDEXED, SOUND, STILL, Form
from webui.parts import ACTS, QUICK, Site, hand_on, worded
from webui.views import picker_view, results_view

KINDS = [("Clip", CLIP), ("Sound", SOUND), ("Still", STILL), ("Archive", INDEXED)]


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
    kind.change(worded(choose_kind), kind, [*groups, video, by, weight, mode], **QUICK)
    video.change(worded(show_video), [video, start, end], [picker, start, end], **QUICK)
    picker.span(worded(pick), [video, start, end], [picker, start, end], **QUICK)
    by.change(lambda chosen: gr.update(interactive=chosen == "both"), by, weight, **QUICK)
    form = [kind, clip, sound, still, video, start, end, by, weight, mode, cross, top, per_video, grouped]
    return FindParts(form, [by, weight, mode, top, per_video, grouped], button, results, pager, earlier, later)


def read_form(values: Sequence[Any]) -> Form:
    """The form that the values of `FindParts.form` make."""
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
