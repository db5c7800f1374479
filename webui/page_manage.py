"""The Manage tab: what is indexed, what failed, adding and removing."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from visxp_search.api import find_video
from visxp_search.errors import UsageError
from visxp_search.store import FAILED
from webui import videos
from webui.card import read_card
from webui.parts import ACTS, QUICK, Site, worded
from webui.views_manage import ROWS, facts_view, job_view, videos_view


@dataclass(frozen=True)
class ManageParts:
    """The components of the Manage tab that others change."""

    facts: gr.HTML
    table: gr.HTML
    card: gr.Markdown
    report: gr.HTML
    job: gr.HTML
    cancel: gr.Button | None
    text: gr.Textbox
    only: gr.Dropdown
    page: gr.State


def build_manage(site: Site) -> ManageParts:
    """The components of the tab and their events; on a read-only site those that change something do not exist."""
    facts = gr.HTML("", elem_id="vx-facts")
    job = gr.HTML("", elem_id="vx-job")
    cancel = None
    if not site.read_only:
        with gr.Row(equal_height=True, elem_id="vx-add-row"):
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
            cancel = gr.Button("Cancel", size="md", scale=0, min_width=90, interactive=False, elem_id="vx-cancel")
        gr.HTML(
            '<p class="vx-hint">Searching goes on while videos are added here. An index in a directory is held by this '
            "page alone: <code>visxp index add</code> beside it says who holds it, and ends. To do both at once, serve "
            "the index from a Qdrant server.</p>"
        )
    with gr.Row(equal_height=True):
        text = gr.Textbox(label="Name", placeholder="part of a name", scale=3, elem_id="vx-filter")
        only = gr.Dropdown(
            [("all", ""), ("complete", "done"), ("begun", "pending"), ("failed", "failed")], value="", label="Status"
        )
    page = gr.State(0)
    table = gr.HTML("", js_on_load=ACTS, elem_id="vx-videos")
    with gr.Row(elem_id="vx-pages"):
        earlier = gr.Button("Previous", size="sm", scale=0, min_width=110)
        later = gr.Button("Next", size="sm", scale=0, min_width=110)
    with gr.Accordion("The checkpoint, and how well it does", open=False, elem_id="vx-card"):
        report = gr.HTML("")
        card = gr.Markdown("", elem_id="vx-card-text")
    parts = ManageParts(facts, table, card, report, job, cancel, text, only, page)

    def turn(step: int, wanted: str, status: str, shown: int) -> tuple[int, str]:
        records = videos.list_videos(site.archive.store, text=wanted, status=status)
        turned = min(max(0, shown + step), max(0, (len(records) - 1) // ROWS))
        return turned, videos_view(records, turned, read_only=site.read_only)

    def filtered(wanted: str, status: str) -> tuple[int, str]:
        return turn(-(10**6), wanted, status, 0)

    gr.on(
        [text.input, only.change],
        worded(filtered),
        [text, only],
        [page, table],
        trigger_mode="always_last",  # else what is typed while a list is on its way is lost
        **QUICK,
    )
    earlier.click(worded(functools.partial(turn, -1)), [text, only, page], [page, table], **QUICK)
    later.click(worded(functools.partial(turn, 1)), [text, only, page], [page, table], **QUICK)
    if cancel is None:
        return parts

    def add_folder(chosen: str | None) -> tuple[str, Any]:
        if not chosen:
            raise UsageError("choose a folder first")
        site.adder.enqueue(str(chosen), [site.roots.resolve(str(chosen))])
        return job_now(site)

    def retry(event: gr.EventData) -> tuple[str, Any]:
        record = find_video(site.archive.store, str(event.value))
        site.adder.enqueue(videos.display_name(record), [Path(path) for path in record.paths])
        return job_now(site)

    def retry_all() -> tuple[str, Any]:
        failed = videos.list_videos(site.archive.store, status=FAILED)
        if not failed:
            raise UsageError("no video has failed")
        site.adder.enqueue(f"{len(failed)} failed again", [Path(path) for r in failed for path in r.paths])
        return job_now(site)

    def cancel_job() -> tuple[str, Any]:
        site.adder.cancel()
        return job_now(site)

    def confirm(wanted: str, status: str, shown: int, event: gr.EventData) -> str:
        records = videos.list_videos(site.archive.store, text=wanted, status=status)
        return videos_view(records, shown, read_only=False, confirm=str(event.value))

    def remove(wanted: str, status: str, shown: int, event: gr.EventData) -> tuple[str, str]:
        videos.remove_video(site.archive, site.adder, str(event.value))
        return manage_html(site, wanted, status, shown)

    add.click(worded(add_folder), folder, [job, cancel], **QUICK)
    cancel.click(worded(cancel_job), None, [job, cancel], **QUICK)
    table.retry(worded(retry), None, [job, cancel], **QUICK)
    table.again(worded(retry_all), None, [job, cancel], **QUICK)
    table.confirm(worded(confirm), [text, only, page], table, **QUICK)
    table.keep(worded(functools.partial(turn, 0)), [text, only, page], [page, table], **QUICK)
    table.remove(worded(remove), [text, only, page], [facts, table], **QUICK)
    return parts


def job_now(site: Site) -> tuple[str, Any]:
    """What is being added, and whether there is anything to cancel."""
    return job_view(site.adder.view()), gr.update(interactive=site.adder.is_busy)


def card_text(site: Site) -> tuple[str, str]:
    """The checkpoint's card as Markdown, and the way to its report."""
    card = read_card(site.model)
    if card is None:
        return "This checkpoint has no card.", ""
    link = '<p><a class="vx-small" href="/media/report" download="report.html">Save the evaluation report</a></p>'
    return card.markdown, link if card.report is not None else ""


def manage_html(site: Site, text: str, status: str, page: int) -> tuple[str, str]:
    """The facts of the index and one page of its videos."""
    records = videos.list_videos(site.archive.store, text=text, status=status)
    page = min(page, max(0, (len(records) - 1) // ROWS))
    return facts_view(site.archive.facts(fresh=True)), videos_view(records, page, read_only=site.read_only)
