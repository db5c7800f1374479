"""HTML of the Browse, Basket and Manage parts. Everything that comes from outside is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from visxp_search.api import IndexFacts
from visxp_search.clips import format_time
from visxp_search.store import DONE, FAILED, VideoRecord
from webui.adding import JobView
from webui.basket import Collected
from webui.exporting import Export
from webui.videos import display_name
from webui.views import empty, span_text
from webui.wording import FLAG_WORDS, hide_folders

ROWS = 50
"""Videos on one page of the list."""
STATUS_WORDS = {DONE: "complete", FAILED: "failed", "pending": "begun"}


def basket_view(basket: Sequence[Collected], names: Mapping[str, str]) -> str:
    """The moments of the basket in their order, with notes."""
    if not basket:
        return empty(
            "Your basket is empty",
            "Press <b>Basket</b> on a result to collect it here, write notes, put moments in order, and export them "
            "for an editor, a catalogue or as a reel. The basket stays in this browser.",
        )
    rows = []
    for number, collected in enumerate(basket):
        name = names.get(collected.video_id, "no longer in the index")
        second = int((collected.start + collected.end) / 2)
        score = "" if collected.score is None else f"score {collected.score:.2f}"
        rows.append(
            f'<li class="vx-row"><b class="vx-number">{number + 1}</b>'
            f'<button class="vx-example" data-act="play" '
            f'data-value="{escape(collected.video_id)}@{collected.start:g}-{collected.end:g}" '
            f'aria-label="Play {escape(name)}">'
            f'<img src="/media/still/{quote(collected.video_id)}/{second}.jpg" width="128" height="72" '
            f'loading="lazy" alt=""></button>'
            f'<div class="vx-what"><h3>{escape(name)}</h3><span>{span_text(collected.start, collected.end)}</span>'
            f'<span class="vx-hint">{score}</span></div>'
            f'<input class="vx-note-field" type="text" maxlength="500" placeholder="Note" '
            f'aria-label="Note on moment {number + 1}" '
            f'data-change="note" data-value="{number}" value="{escape(collected.note)}">'
            f'<div class="vx-actions">{_arrow("up", number, "↑", useful=number > 0)}'
            f"{_arrow('down', number, '↓', useful=number + 1 < len(basket))}"
            f'<button class="vx-small" data-act="out" data-value="{number}">Remove</button></div></li>'
        )
    n, length = len(basket), sum(collected.end - collected.start for collected in basket)
    told = f"<b>{n} moment{'s' if n != 1 else ''}</b> · {format_time(length)} in all"
    return f'<p class="vx-summary" role="status">{told}</p><ol class="vx-rows">{"".join(rows)}</ol>'


def export_view(export: Export) -> str:
    """How far an export is, or where it can be fetched; the page's script fetches it once."""
    if not export.ended.is_set():
        share = 100 * export.done / export.total if export.total else 0
        words = f"{share:.0f} %" if export.total else "waiting for its turn or reading the videos"
        return (
            f'<div class="vx-job" role="status"><b>{escape(export.label)}</b><span>{words}</span>'
            f'<div class="vx-progress"><u style="width:{share:.0f}%"></u></div></div>'
        )
    parts = []
    if export.path is None:
        parts.append(f'<p class="vx-reason" role="status">{escape(export.words)}</p>')
    else:
        size = export.path.stat().st_size
        extent = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(1, round(size / 1e3))} kB"
        parts.append(
            f'<p role="status"><a class="vx-small" data-fetch href="/media/export/{export.token}" '
            f'download="{escape(export.path.name)}">Save {escape(export.path.name)}</a> '
            f'<span class="vx-hint">{extent}, kept for an hour</span></p>'
        )
    if export.path is not None and export.failures:
        n = len(export.failures)
        parts.append(f"<p>{n} moment{'s are' if n > 1 else ' is'} not in it, or not whole:</p>")
    if export.path is not None:
        parts += [f'<p class="vx-reason">{escape(name)}: {escape(why)}</p>' for name, why in export.failures]
    return "".join(parts)


def facts_view(facts: IndexFacts | None) -> str:
    """What the index holds."""
    if facts is None:
        return empty("No index yet", "A new index is being made; add videos when the encoders are loaded.")
    complete = 100 * facts.seconds / facts.seconds_expected if facts.seconds_expected else 0.0
    cells = {
        "Indexed": f"{format_time(facts.seconds)} of {format_time(facts.seconds_expected)}",
        "Complete": f"{min(complete, 100):.1f} %",
        "Videos": ", ".join(
            f"{number:,} {STATUS_WORDS.get(status, status)}" for status, number in sorted(facts.videos.items())
        )
        or "none",
        "Checkpoint": facts.checkpoint,
        "Embeddings": ", ".join(f"{name} {length}" for name, length in facts.dims.items()),
        "Remarks": ", ".join(f"{FLAG_WORDS.get(flag, flag)} {n:,} s" for flag, n in sorted(facts.flags.items()))
        or "none",
    }
    return (
        '<dl class="vx-facts">'
        + "".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in cells.items())
        + "</dl>"
    )


def videos_view(records: Sequence[VideoRecord], page: int, *, read_only: bool, confirm: str = "") -> str:
    """One page of the list of videos, with what failed and why."""
    if not records:
        return empty("No videos here", "Nothing matches, or nothing has been added yet. Folders are added above.")
    rows = []
    for record in records[page * ROWS : (page + 1) * ROWS]:
        name, video_id = display_name(record), escape(record.video_id)
        known = dict.fromkeys(record.paths, name)
        said = hide_folders(record.error, known).removeprefix(f"{name}: ")
        remark = f'<p class="vx-reason">{escape(said[:1].upper() + said[1:])}</p>' if said else ""
        share = 100 * record.seconds_done / record.seconds_expected if record.seconds_expected else 0
        actions = ""
        if not read_only:
            if confirm == record.video_id:
                actions = (
                    f'<span class="vx-confirm">Remove from the index? The file itself stays. '
                    f'<button class="vx-danger" data-act="remove" data-value="{video_id}">Remove</button> '
                    f'<button class="vx-small" data-act="keep" data-value="">Keep</button></span>'
                )
            else:
                retry = (
                    f'<button class="vx-small" data-act="retry" data-value="{video_id}">Try again</button>'
                    if record.status != DONE or record.error
                    else ""
                )
                ask = f'<button class="vx-small" data-act="confirm" data-value="{video_id}">Remove…</button>'
                actions = retry + ask
        rows.append(
            f"<tr><td>{_named(record, name)}{remark}</td><td>{format_time(record.duration_seconds)}</td>"
            f'<td><div class="vx-bar"><i><u style="width:{share:.0f}%"></u></i>'
            f"<b>{record.seconds_done:,} of {record.seconds_expected:,} s</b></div></td>"
            f'<td><span class="vx-is-{escape(record.status)}">{STATUS_WORDS[record.status]}</span></td>'
            f'<td><div class="vx-actions">{actions}</div></td></tr>'
        )
    n_failed = sum(record.status == FAILED for record in records)
    failed = ""
    if n_failed:
        retry = '<button class="vx-small" data-act="again" data-value="">Try all of them again</button>'
        words = f"{n_failed} video{'s' if n_failed > 1 else ''} failed; the reason stands below each name."
        failed = f'<p class="vx-failed">{words} {"" if read_only else retry}</p>'
    n_pages = max(1, -(-len(records) // ROWS))
    return failed + (
        '<div class="vx-scroll"><table class="vx-table"><thead><tr><th>Video</th><th>Length</th><th>Indexed</th>'
        "<th>Status</th><th></th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="vx-hint{" vx-many" if n_pages > 1 else ""}">{len(records):,} '
        f"video{'s' if len(records) != 1 else ''}, page {page + 1} of {n_pages}</p>"
    )


def _named(record: VideoRecord, name: str) -> str:
    """The video's name; a click plays it if there is something to play."""
    if not record.seconds_done:
        return f"<b>{escape(name)}</b>"
    end = min(5, max(1, record.seconds_expected))
    return (
        f'<button class="vx-link vx-name" data-act="play" data-value="{escape(record.video_id)}@0-{end}" '
        f'title="Play it">{escape(name)}</button>'
    )


def job_view(view: JobView) -> str:
    """What is being added, how far it is, and what failed."""
    parts = []
    if view.running:
        share = 100 * view.n_finished / view.n_files if view.n_files else 0
        parts.append(
            f'<div class="vx-job"><b>Adding {escape(view.running)}</b><span>{view.n_finished} of {view.n_files} files, '
            f"{view.n_seconds:,} seconds stored</span>"
            f'<div class="vx-progress"><u style="width:{share:.0f}%"></u></div></div>'
        )
        for name, (done, total) in view.current.items():
            parts.append(f'<p class="vx-hint">{escape(name)}: {done} of {total} s</p>')
    if view.waiting:
        parts.append(f'<p class="vx-hint">then: {escape(", ".join(view.waiting))}</p>')
    if view.words:
        parts.append(f"<p>{escape(view.words)}</p>")
    for name, reason in view.failures:
        said = hide_folders(reason).removeprefix(f"{name}: ")
        parts.append(f'<p class="vx-reason">{escape(name)}: {escape(said)}</p>')
    return "".join(parts)


def _arrow(act: str, number: int, sign: str, *, useful: bool) -> str:
    return (
        f'<button class="vx-small" data-act="{act}" data-value="{number}" aria-label="Move {act}" title="Move {act}"'
        f"{'' if useful else ' disabled'}>{sign}</button>"
    )
