"""HTML of the Find and Watch parts. Everything that comes from outside is escaped here."""

from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from visxp_search.clips import format_time
from visxp_search.search import Moment
from visxp_search.store import VideoRecord
from webui.adding import JobView
from webui.basket import Collected, contains
from webui.finding import PAGE_SIZE, Found
from webui.searching import Search
from webui.videos import display_name

SEARCH_WORDS = {
    "wait": "Waiting for its turn",
    "load": "Waiting for the encoders",
    "read": "Reading the file",
    "embed": "Looking and listening",
    "compare": "Comparing with the archive",
}
_INSTEAD = '<button class="vx-link" data-act="instead">leave out only those videos</button>'
"""What may have been meant by "not like"."""


def empty(title: str, text: str) -> str:
    """An empty state: what this place is for and what to do next (text may hold our own HTML)."""
    return f'<div class="vx-empty"><h3>{escape(title)}</h3><p>{text}</p></div>'


def span_text(start: float, end: float) -> str:
    """A time span for people."""
    return f"{format_time(start)} \N{EN DASH} {format_time(end)}"


def start_view(videos: Sequence[VideoRecord], *, read_only: bool = False) -> str:
    """What is shown before anything was asked: what to do, and something of the archive to begin with.

    Args:
        videos: some to show; none if nothing is indexed.
        read_only: nothing can be added in the page.
    """
    told = empty(
        "Find moments like yours",
        "Give a clip, a sound, a picture or a span of the archive on the left and press <b>Find moments</b>. "
        "Every second of every video is compared with it, by picture and by sound.",
    )
    if not videos:
        where = "with <code>visxp index add FOLDER</code>" if read_only else "under <b>Manage</b>"
        return empty("Nothing is indexed yet", f"Add a folder of videos {where}; then moments can be found here.")
    tiles = []
    for record in videos:
        middle, name = max(0, record.seconds_expected // 2), escape(display_name(record))
        span = f"{max(0, middle - 2)}-{max(1, min(record.seconds_expected, middle + 3))}"
        tiles.append(
            f'<button class="vx-example" data-act="play" data-value="{escape(record.video_id)}@{span}" '
            f'title="Play {name}"><img src="/media/still/{quote(record.video_id)}/{middle}.jpg" width="320" '
            f'height="180" loading="lazy" alt=""><span>{name}</span></button>'
        )
    return (
        f'{told}<h3 class="vx-begin">Or begin with something of the archive: play it, then <i>More like this</i></h3>'
        f'<div class="vx-tiles">{"".join(tiles)}</div>'
    )


def results_view(found: Found | None, basket: Sequence[Collected]) -> str:
    """The cards of one page of results; nothing before anything was asked."""
    if found is None:
        return ""
    asked = _asked(found)
    if not found.moments:
        return asked + empty("Nothing found", _why_nothing(found))
    first = found.page * PAGE_SIZE
    summary = f'<div class="vx-summary" role="status">{_summary(found)}</div>'
    parts = [asked, summary, _remainder(found), '<div class="vx-cards" role="list">']
    video_id = ""
    for number, moment in list(enumerate(found.moments))[first : first + PAGE_SIZE]:
        if found.form.grouped and moment.video_id != video_id:
            video_id = moment.video_id
            parts.append(f'<h3 class="vx-group">{escape(found.names[video_id])}</h3>')
        parts.append(
            _card(found, number, moment, in_basket=contains(basket, moment.video_id, moment.start, moment.end))
        )
    parts.append("</div>")
    if found.page + 1 == found.n_pages:
        parts.append(f'<p class="vx-hint">{_why_no_more(found)}</p>')
    return "".join(parts)


def search_view(search: Search) -> str:
    """How far a search is, and the way to end it."""
    words = SEARCH_WORDS[search.what]
    share = 100 * search.done / search.total if search.total else 0
    extent = f": {search.done} of {search.total} s" if search.total else ""
    return (
        f'<div class="vx-job" role="status"><span>{words}{extent}</span>{button("stop", "", "Cancel")}'
        f'<div class="vx-progress"><u style="width:{share:.0f}%"></u></div></div>'
    )


def pager_text(found: Found | None) -> str:
    """Which page is shown, where there are several."""
    if found is None or found.n_pages < 2:
        return ""
    first = found.page * PAGE_SIZE
    last = min(first + PAGE_SIZE, len(found.moments))
    return f'<div class="vx-pager">{first + 1} to {last} of {len(found.moments)} moments</div>'


def status_view(words: str, facts: Any, *, state: str, job: JobView | None = None, read_only: bool = False) -> str:
    """The line at the top: what is indexed, how completely, what is being added, whether the encoders are there."""
    if facts is None:
        counts = "a new index is being made"
    else:
        hours, expected = facts.seconds / 3600, facts.seconds_expected / 3600
        n_videos, digits = sum(facts.videos.values()), 0 if expected >= 100 else 1
        unit = (
            f"{hours:,.{digits}f} of {expected:,.{digits}f} h"
            if expected >= 1
            else f"{facts.seconds:,} of {facts.seconds_expected:,} s"
        )
        counts = f"indexed {unit} in {n_videos:,} video{'s' if n_videos != 1 else ''}"
    notes = [f'<span class="vx-count">{escape(counts)}</span>']
    if job is not None and job.running:
        extent = f", {job.n_finished} of {job.n_files} files" if job.n_files else ""
        notes.append(f'<span class="vx-busy">adding {escape(job.running)}{extent}</span>')
    if words:
        notes.append(f'<span class="vx-state vx-{state}" role="status">{escape(words)}</span>')
    if read_only:
        notes.append('<span class="vx-state">read only</span>')
    return f'<header class="vx-head"><h1>VisXP search</h1><div class="vx-notes">{"".join(notes)}</div></header>'


def _asked(found: Found) -> str:
    """What the search consists of: the query, examples of all rounds, hidden videos, and the way back."""
    chips = [f'<span class="vx-chip"><b>{escape(found.title)}</b></span>']
    for number, example in enumerate(found.rounds):
        name = f"{found.names.get(example.video_id, example.video_id[:12])}, {span_text(example.start, example.end)}"
        kind, sign = ("vx-plus", "also like") if example.wanted else ("vx-minus", "not like")
        chips.append(
            f'<span class="vx-chip {kind}"><i>{sign}</i> {escape(name)} <button class="vx-x" data-act="drop" '
            f'data-value="{number}" aria-label="Take away {escape(name)}" title="Take away">&times;</button></span>'
        )
    if found.hidden:
        n = len(found.hidden)
        chips.append(
            f'<span class="vx-chip vx-minus">{n} video{"s" if n > 1 else ""} hidden '
            f'<button class="vx-link" data-act="unhide">show again</button></span>'
        )
    if found.form.narrow.n_conditions:
        chips.append(f'<span class="vx-chip">looked only where {found.form.narrow.n_conditions} filters allow</span>')
    back = '<button class="vx-small vx-back" data-act="back">Back</button>' if found.earlier else ""
    return f'<div class="vx-asked" role="group" aria-label="The search">{back}{"".join(chips)}</div>'


def _summary(found: Found) -> str:
    results = found.results
    rest = "" if results.complete else " · indexing is not complete"
    notes = "".join(f" · {escape(note)}" for note in found.query.notes)
    n = len(found.moments)
    return (
        f"<b>{n} moment{'s' if n != 1 else ''}</b> · {results.n_seconds:,} seconds compared in "
        f"{_took(results.took_ms)}{notes}{rest}"
    )


def _took(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 995 else f"{milliseconds / 1000:.1f} s"


def _remainder(found: Found) -> str:
    """What "not like" left over, and the other thing that may have been meant by it."""
    if not found.remainder:
        return ""
    return (
        '<p class="vx-remark" role="status">Nothing stands out any more: what resembles the query resembles '
        "<b>not like</b> as well. These are the nearest that are left; chance would give as much. "
        f"You can take “not like” away above, or {_INSTEAD}.</p>"
    )


def _why_nothing(found: Found) -> str:
    """The reason in the search's own words, and what can be tried."""
    if not found.results.n_seconds and not (found.form.narrow.n_conditions or found.hidden):
        return "Nothing is indexed yet that could be found; videos are added under <b>Manage</b>."
    reason = found.reason or f"nothing in {found.results.n_seconds:,} seconds answers this"
    tries = []
    if any(not example.wanted for example in found.rounds):
        reason = "nothing is left that resembles the query more than what it is not to be like"
        tries += ['<button class="vx-link" data-act="back">go back</button>', _INSTEAD]
    if found.form.narrow.n_conditions or found.hidden:
        tries.append("take filters or hidden videos away")
    if not found.form.weak and not found.remainder and found.query.weights:
        tries.append('<button class="vx-link" data-act="weak">show weak matches too</button>')
    if found.form.mode == "same":
        tries.append("look for <b>Similar</b> instead of <b>Same recording</b>")
    if found.form.by == "both":
        tries.append("compare by picture or sound alone")
    tries.append("ask with another span")
    return f"{escape(reason[:1].upper() + reason[1:])}.</p><p>You can {', or '.join(tries)}."


def _why_no_more(found: Found) -> str:
    """Why the list ends where it ends."""
    form = found.form
    if len(found.moments) >= form.top:
        return f"The best {form.top} are shown; ask for more moments under More options."
    if form.weak or found.remainder:
        return f"All are shown that differ, at most {form.per_video} of one video, even what chance would give."
    return (
        f"What this archive would give by chance ({found.results.max_chance:g} or more expected) is left out, and more "
        f'than {form.per_video} of one video. <button class="vx-link" data-act="weak">Show weak matches too</button>'
    )


def _card(found: Found, number: int, moment: Moment, *, in_basket: bool) -> str:
    name = found.names.get(moment.video_id, moment.video_id)
    start, end = int(moment.start), max(int(moment.start) + 1, round(moment.end))
    chosen = " vx-chosen-card" if found.chosen == number else ""
    collected = collect_value(moment.video_id, moment, moment.start, moment.end)
    target = f"{moment.video_id}@{moment.start:g}-{moment.end:g}"
    label = f"{name}, {span_text(moment.start, moment.end)}, score {moment.score:.2f}"
    return (
        f'<article class="vx-card{chosen}" role="listitem" tabindex="0" data-act="watch" data-value="{number}" '
        f'aria-label="{escape(label)}">'
        f'<div class="vx-sheet"><img src="/media/sheet/{quote(moment.video_id)}/{start}-{end}.jpg" '
        f'width="320" height="216" '
        f'loading="lazy" alt=""><span class="vx-time">{span_text(moment.start, moment.end)}</span></div>'
        f'<div class="vx-body"><h3 title="{escape(name)}">{escape(name)}</h3>'
        f"{score_line(moment, stands_out=not found.remainder)}"
        f"{bar('Picture', moment.visual)}{bar('Sound', moment.audio)}"
        f'<div class="vx-actions">{button("more", target, "More", title="More like this (m)")}'
        f"{button('unlike', target, 'Not this', title='The same search, but not like this (n)')}"
        f"{button('hide', moment.video_id, 'Hide', title='Leave this video out (h)')}"
        f"{button('collect', collected, 'In basket' if in_basket else 'Basket', pressed=in_basket, title='(b)')}"
        f"</div></div></article>"
    )


def chance_words(chance: float) -> str:
    """How often an archive like this one would answer as well by chance, in words."""
    if chance < 1e-6:
        return "practically never by chance"
    if chance < 0.01:
        return f"by chance once in {float(f'{1 / chance:.1g}'):,.0f} searches"
    return f"{chance:.2g} as good expected by chance"


def meaning(moment: Moment) -> str:
    """What a score means, in words."""
    if moment.percentile >= 99.95:
        return "closer than nearly all"
    if moment.percentile < 50:
        return "not closer than most"
    return f"closer than {moment.percentile:.1f} %"


def score_line(moment: Moment, *, stands_out: bool = True) -> str:
    """The score and, where the moment stands out at all, what it means."""
    words = meaning(moment) if stands_out else "does not stand out"
    told = f'<span title="compared with random seconds of this archive">{words}</span>'
    return f'<p class="vx-score"><b>{moment.score:.2f}</b> {told}</p>'


def bar(label: str, value: float | None, *, kind: str = "") -> str:
    """A likeness from 0 to 1 as a bar; None where there is nothing to compare.

    Args:
        label: what is alike.
        value: how much.
        kind: `picture` or `sound`, for the colour; the label's own word if empty.
    """
    if value is None:
        return f'<div class="vx-bar vx-none"><span>{label}</span><i></i><b>none</b></div>'
    width = 100 * min(1.0, max(0.0, value))
    fill = f'<u style="width:{width:.0f}%"></u>'
    return f'<div class="vx-bar vx-{kind or label.lower()}"><span>{label}</span><i>{fill}</i><b>{value:.2f}</b></div>'


def button(act: str, value: str, text: str, *, main: bool = False, pressed: bool = False, title: str = "") -> str:
    """A button whose click becomes the event `act` of its component."""
    kind = "vx-main" if main else "vx-small"
    state = ' aria-pressed="true"' if pressed else ""
    hint = f' title="{escape(title)}"' if title else ""
    return f'<button class="{kind}" data-act="{act}" data-value="{escape(value)}"{state}{hint}>{escape(text)}</button>'


def collect_value(video_id: str, moment: Moment | None, start: float, end: float) -> str:
    """What the basket's buttons send: `ID@START-END@SCORE`."""
    score = "" if moment is None else f"{moment.score:.4f}"
    return f"{video_id}@{start:g}-{end:g}@{score}"
