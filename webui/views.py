"""HTML of the Find and Watch parts. Everything that comes from outside is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import numpy as np

from visxp_search.clips import format_time
from visxp_search.search import Moment
from webui.basket import Collected, contains
from webui.clusters import Run
from webui.finding import PAGE_SIZE, Found
from webui.media import playable_type, proxy_start
from webui.plots import curve_paths
from webui.watching import Watched

CURVES = (("visual", "Picture"), ("joint", "Picture with this sound"), ("audio", "Sound"))
"""Modalities of a curve in the order drawn, with their legends."""
_INSTEAD = '<button class="vx-link" data-act="instead">leave out only those videos</button>'
"""What may have been meant by "not like"."""


def empty(title: str, text: str) -> str:
    """An empty state: what this place is for and what to do next (text may hold our own HTML)."""
    return f'<div class="vx-empty"><h3>{escape(title)}</h3><p>{text}</p></div>'


def span_text(start: float, end: float) -> str:
    """A time span for people."""
    return f"{format_time(start)} \N{EN DASH} {format_time(end)}"


def results_view(found: Found | None, basket: Sequence[Collected]) -> str:
    """The cards of one page of results."""
    if found is None:
        return empty(
            "Find moments like yours",
            "Give a clip, a sound, a picture or a span of the archive on the left and press <b>Find moments</b>. "
            "Every second of every video is compared with it, by picture and by sound.",
        )
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


def pager_text(found: Found | None) -> str:
    """Which page is shown."""
    if found is None or not found.moments:
        return ""
    first = found.page * PAGE_SIZE
    last = min(first + PAGE_SIZE, len(found.moments))
    return f'<div class="vx-pager">{first + 1} to {last} of {len(found.moments)} moments</div>'


def watch_view(
    watched: Watched | None,
    basket: Sequence[Collected] = (),
    *,
    can_compare: bool = True,
    titles: Mapping[int, tuple[str, int]] | None = None,
) -> str:
    """The player of a moment with its curve, its clusters and its actions; empty where nothing is chosen.

    Args:
        watched: what is played.
        basket: the visitor's basket.
        can_compare: whether it can be searched with.
        titles: cluster -> (name, hue), for the strip.
    """
    if watched is None:
        return ""
    record = watched.record
    target = f"{record.video_id}@{watched.start:g}-{watched.end:g}"
    in_basket = contains(basket, record.video_id, watched.start, watched.end)
    heading = (
        f'<div class="vx-watch-head"><div><h2>{escape(watched.name)}</h2>'
        f'<span class="vx-time">{span_text(watched.start, watched.end)}</span></div>'
        f'<button class="vx-quiet" data-act="close" aria-label="Close the player" title="Close (Esc)">Close</button>'
        f"</div>"
    )
    actions = [_button("more", target, "More like this", main=True)] if can_compare else []
    if watched.moment is not None:
        actions += [_button("also", target, "Also like this"), _button("unlike", target, "Not like this")]
    actions.append(
        _button(
            "collect",
            _collect_value(record.video_id, watched.moment, watched.start, watched.end),
            "In the basket" if in_basket else "Add to basket",
            pressed=in_basket,
        )
    )
    if watched.moment is not None:
        actions.append(_button("hide", record.video_id, "Hide this video"))
    if watched.query_offset is not None:
        actions.append('<label class="vx-check"><input type="checkbox" id="vx-step"> Play the query in step</label>')
    facts = _facts(watched)
    return (
        f'<section class="vx-watch" aria-label="Player">{heading}<div class="vx-watch-body">'
        f'<div class="vx-stage">{player(watched)}</div><div class="vx-side">{facts}'
        f'<div class="vx-actions">{"".join(actions)}</div></div></div>{_timeline(watched)}'
        f"{_strip(watched, titles or {})}</section>"
    )


def player(watched: Watched) -> str:
    """The media element; the page's script seeks and plays it, and turns to the proxy if it cannot be played."""
    record = watched.record
    tag = "audio" if record.kind == "audio" else "video"
    proxy_from = proxy_start(watched.start)
    proxy = f"/media/proxy/{quote(record.video_id)}/{proxy_from}"
    direct = playable_type(record.facts) is not None
    source, origin = (f"/media/video/{quote(record.video_id)}", 0) if direct else (proxy, proxy_from)
    offset = "" if watched.query_offset is None else f' data-query-offset="{watched.query_offset:g}"'
    note = (
        ""
        if direct
        else '<p class="vx-note">Browsers cannot play this format; a small copy of this stretch is shown.</p>'
    )
    return (
        f'<{tag} id="vx-player" controls playsinline preload="auto" src="{source}" data-seek="{watched.start:g}" '
        f'data-stop="{watched.end:g}" data-origin="{origin}" data-proxy="{proxy}" '
        f'data-proxy-origin="{proxy_from}"{offset}>'
        f"</{tag}>{note}"
    )


def status_view(words: str, facts: Any, *, state: str, busy: str = "", read_only: bool = False) -> str:
    """The line at the top: what is indexed, how completely, and whether the encoders are there."""
    if facts is None:
        counts = "a new index is being made"
    else:
        hours, expected = facts.seconds / 3600, facts.seconds_expected / 3600
        n_videos = sum(facts.videos.values())
        unit = (
            f"{hours:,.1f} of {expected:,.1f} h"
            if expected >= 1
            else f"{facts.seconds:,} of {facts.seconds_expected:,} s"
        )
        counts = f"indexed {unit} in {n_videos:,} videos"
    notes = [f'<span class="vx-count">{escape(counts)}</span>']
    if busy:
        notes.append(f'<span class="vx-busy">adding {escape(busy)}</span>')
    if words:
        notes.append(f'<span class="vx-state vx-{state}" role="status">{escape(words)}</span>')
    if read_only:
        notes.append('<span class="vx-state">read only</span>')
    return f'<header class="vx-head"><h1>VisXP search</h1><div class="vx-notes">{"".join(notes)}</div></header>'


def picker_view(watched: Watched | None, start: float, end: float) -> str:
    """The timeline of an indexed video, on which a span is chosen by dragging."""
    if watched is None:
        return '<p class="vx-hint">Choose a video; then drag over its pictures, or write the times.</p>'
    record = watched.record
    length = max(1, record.seconds_expected)
    left, width = 100 * start / length, 100 * max(0.2, end - start) / length
    return (
        f'<div class="vx-picker"><div class="vx-stage">{player(watched).replace("vx-player", "vx-picker-player")}</div>'
        f'<div class="vx-strip" data-length="{length}" tabindex="0" role="slider" aria-label="Span of the query" '
        f'aria-valuemin="0" aria-valuemax="{length}" aria-valuenow="{start:g}" '
        f'aria-valuetext="{escape(span_text(start, end))}">'
        f'<img src="/media/strip/{quote(record.video_id)}/0-{length}.jpg" alt="" draggable="false">'
        f'<span class="vx-chosen" style="left:{left:.3f}%;width:{width:.3f}%"></span></div></div>'
    )


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
        f"{results.took_ms:.0f} ms{notes}{rest}"
    )


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
    collected = _collect_value(moment.video_id, moment, moment.start, moment.end)
    target = f"{moment.video_id}@{moment.start:g}-{moment.end:g}"
    label = f"{name}, {span_text(moment.start, moment.end)}, score {moment.score:.2f}"
    return (
        f'<article class="vx-card{chosen}" role="listitem" tabindex="0" data-act="watch" data-value="{number}" '
        f'aria-label="{escape(label)}">'
        f'<div class="vx-sheet"><img src="/media/sheet/{quote(moment.video_id)}/{start}-{end}.jpg" '
        f'width="320" height="216" '
        f'loading="lazy" alt=""><span class="vx-time">{span_text(moment.start, moment.end)}</span></div>'
        f'<div class="vx-body"><h3 title="{escape(name)}">{escape(name)}</h3>{_score(moment)}'
        f"{_bar('Picture', moment.visual)}{_bar('Sound', moment.audio)}"
        f'<div class="vx-actions">{_button("more", target, "More", title="More like this (m)")}'
        f"{_button('unlike', target, 'Not this', title='The same search, but not like this (n)')}"
        f"{_button('hide', moment.video_id, 'Hide', title='Leave this video out (h)')}"
        f"{_button('collect', collected, 'In basket' if in_basket else 'Basket', pressed=in_basket, title='(b)')}"
        f"</div></div></article>"
    )


def meaning(moment: Moment) -> str:
    """What a score means, in words."""
    if moment.percentile >= 99.95:
        return "closer than nearly all"
    if moment.percentile < 50:
        return "not closer than most"
    return f"closer than {moment.percentile:.1f} % of seconds"


def _score(moment: Moment) -> str:
    return f'<p class="vx-score"><b>{moment.score:.2f}</b> <span>{meaning(moment)}</span></p>'


def _bar(label: str, value: float | None) -> str:
    if value is None:
        return f'<div class="vx-bar vx-none"><span>{label}</span><i></i><b>none</b></div>'
    width = 100 * min(1.0, max(0.0, value))
    kind = label.lower()
    fill = f'<u style="width:{width:.0f}%"></u>'
    return f'<div class="vx-bar vx-{kind}"><span>{label}</span><i>{fill}</i><b>{value:.2f}</b></div>'


def _button(act: str, value: str, text: str, *, main: bool = False, pressed: bool = False, title: str = "") -> str:
    kind = "vx-main" if main else "vx-small"
    state = ' aria-pressed="true"' if pressed else ""
    hint = f' title="{escape(title)}"' if title else ""
    return f'<button class="{kind}" data-act="{act}" data-value="{escape(value)}"{state}{hint}>{escape(text)}</button>'


def _collect_value(video_id: str, moment: Moment | None, start: float, end: float) -> str:
    score = "" if moment is None else f"{moment.score:.4f}"
    return f"{video_id}@{start:g}-{end:g}@{score}"


def _facts(watched: Watched) -> str:
    record, moment = watched.record, watched.moment
    rows = []
    if moment is not None:
        rows.append(_score(moment) + _bar("Picture", moment.visual) + _bar("Sound", moment.audio))
        if moment.chance is not None:
            rows.append(f'<p class="vx-hint">expected by chance in this archive: {moment.chance:.2g}</p>')
        if moment.remark:
            rows.append(f'<p class="vx-hint">{escape(moment.remark)}</p>')
    facts = record.facts
    size = f"{facts.get('width')} x {facts.get('height')}" if facts.get("width") else ""
    codecs = ", ".join(str(facts[key]) for key in ("video_codec", "audio_codec") if facts.get(key))
    described = " · ".join(text for text in (format_time(record.duration_seconds), size, codecs) if text)
    rows.append(f'<p class="vx-hint">{escape(described)}</p>')
    if moment is not None and moment.coverage < 0.999:
        rows.append(f'<p class="vx-hint">answers {100 * moment.coverage:.0f} % of the query</p>')
    return "".join(rows)


def _timeline(watched: Watched) -> str:
    """The curve over the spectrogram, both clickable, in one box that is as wide as the surroundings are long."""
    first, stop = watched.around
    length = stop - first
    curve = watched.curve
    lines, legend = [], []
    if curve is not None:
        seconds = curve.seconds.tolist()
        for name, label in CURVES:
            if name in curve.by_modality and not np.isnan(curve.by_modality[name]).all():
                path = curve_paths(seconds, curve.by_modality[name], start=first, end=stop)
                lines.append(f'<path class="vx-line vx-{name}" d="{path}"/>')
                legend.append(f'<span class="vx-key vx-{name}">{label}</span>')
        if len(legend) > 1:
            lines.append(
                f'<path class="vx-line vx-fused" d="{curve_paths(seconds, curve.score, start=first, end=stop)}"/>'
            )
            legend.append('<span class="vx-key vx-fused">Together</span>')
    width = watched.end - watched.start
    marked = f'<rect class="vx-moment" x="{watched.start - first:g}" y="-0.04" width="{width:g}" height="1.08"/>'
    sound = ""
    if watched.record.kind == "audio" or watched.record.facts.get("audio_codec"):
        source = f"/media/sound/{quote(watched.record.video_id)}/{first}-{stop}.jpg"
        sound = f'<img src="{source}" alt="" height="48" loading="lazy">'
    what = "Similarity of each second with the query. " if curve is not None else ""
    svg = (
        f'<svg viewBox="0 -0.04 {length} 1.08" preserveAspectRatio="none" role="img" aria-label="{what}">'
        f'<path class="vx-grid" d="M0 .25H{length}M0 .5H{length}M0 .75H{length}"/>{marked}{"".join(lines)}</svg>'
        if curve is not None
        else ""
    )
    return (
        f'<div class="vx-timeline" data-first="{first}" data-length="{length}" title="Click to play from there">'
        f'{svg}{sound}<span class="vx-head-line"></span></div>'
        f'<div class="vx-legend"><span>{format_time(first)}</span><span class="vx-keys">{"".join(legend)}</span>'
        f"<span>{format_time(stop)}</span></div>"
    )


def colour(hue: int) -> str:
    """A cluster's colour, alike in strength whatever the hue, and readable on both themes."""
    return f"oklch(62% 0.12 {hue})"


def _strip(watched: Watched, titles: Mapping[int, tuple[str, int]]) -> str:
    """The whole video as coloured runs of clusters; a click plays from there."""
    if not watched.strip:
        return ""
    length = max(watched.strip[-1].end, 1)
    parts = [_run(run, titles, length) for run in watched.strip if run.cluster is not None]
    seen = list(dict.fromkeys(run.cluster for run in watched.strip if run.cluster in titles))
    legend = "".join(
        f'<button class="vx-key-button" data-act="cluster" data-value="c{cluster}" title="Open in Browse">'
        f'<i style="background:{colour(titles[cluster][1])}"></i>{escape(titles[cluster][0])}</button>'
        for cluster in seen[:12]
        if cluster is not None
    )
    more = f'<span class="vx-hint">and {len(seen) - 12} more</span>' if len(seen) > 12 else ""
    return (
        f'<div class="vx-clusterline" data-length="{length}" role="group" aria-label="Clusters along the video">'
        f'{"".join(parts)}<span class="vx-head-line"></span></div><div class="vx-legend-keys">{legend}{more}</div>'
    )


def _run(run: Run, titles: Mapping[int, tuple[str, int]], length: int) -> str:
    name, hue = titles.get(run.cluster or 0, ("", 0))
    label = f"{name}, {span_text(run.start, run.end)}"
    return (
        f'<i style="left:{100 * run.start / length:.3f}%;width:{100 * (run.end - run.start) / length:.3f}%;'
        f'background:{colour(hue)}" title="{escape(label)}"></i>'
    )
