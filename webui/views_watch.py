"""HTML of the Watch part: the player, its query, curves, sounds and clusters. What comes from outside is escaped."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

import numpy as np

from visxp_search.clips import format_time
from visxp_search.store import VideoRecord
from webui.basket import Collected, contains
from webui.clusters import Run
from webui.media import playable_type, proxy_start
from webui.plots import curve_paths
from webui.views import bar, button, chance_words, collect_value, score_line, span_text
from webui.watching import Watched

CURVES = (("visual", "Picture"), ("joint", "Picture with this sound"), ("audio", "Sound"))
"""Modalities of a curve in the order drawn, with their legends."""


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
        f'<div class="vx-watch-head"><div><h2 title="{escape(watched.name)}">{escape(watched.name)}</h2>'
        f'<span class="vx-time">{span_text(watched.start, watched.end)}</span> '
        f'<span class="vx-hint">of {escape(_file_facts(record))}</span></div>'
        f'<button class="vx-quiet" data-act="close" aria-label="Close the player" title="Close (Esc)">Close</button>'
        f"</div>"
    )
    actions = [button("more", target, "More like this", main=True)] if can_compare else []
    if watched.moment is not None:
        actions += [button("also", target, "Also like this"), button("unlike", target, "Not like this")]
    actions.append(
        button(
            "collect",
            collect_value(record.video_id, watched.moment, watched.start, watched.end),
            "In the basket" if in_basket else "Add to basket",
            pressed=in_basket,
        )
    )
    if watched.moment is not None:
        actions.append(button("hide", record.video_id, "Hide this video"))
    return (
        f'<section class="vx-watch" aria-label="Player">{heading}<div class="vx-watch-body">'
        f'<div class="vx-stage">{player(watched)}</div><div class="vx-side">{_asked(watched)}{_facts(watched)}'
        f'<div class="vx-actions">{"".join(actions)}</div></div></div>{_timeline(watched)}'
        f"{_strip(watched, titles or {})}</section>"
    )


def player(watched: Watched, *, element: str = "vx-player") -> str:
    """The media element; the page's script seeks and plays it, and turns to the proxy if it cannot be played."""
    offset = "" if watched.query_offset is None else f' data-query-offset="{watched.query_offset:g}"'
    return _media(watched.record, watched.start, watched.end, element=element, more=offset)


def _asked(watched: Watched) -> str:
    """What was asked with, small beside the moment; it follows the moment's player second by second."""
    asked = watched.asked
    if asked is None:
        return ""
    name = f'<figcaption>Asked with <b title="{escape(asked.name)}">{escape(asked.name)}</b></figcaption>'
    if asked.record.kind == "image":
        shown = f'<img src="/media/still/{quote(asked.record.video_id)}/0.jpg" alt="" width="320" height="180">'
        return f'<figure class="vx-query">{shown}{name}</figure>'
    in_step = ""
    if watched.query_offset is not None:
        in_step = '<label class="vx-check"><input type="checkbox" id="vx-step" checked> plays in step, muted</label>'
    shown = _media(asked.record, asked.start, asked.end, element="vx-asked")
    return f'<figure class="vx-query">{shown}{name}{in_step}</figure>'


def _media(record: VideoRecord, start: float, end: float, *, element: str, more: str = "") -> str:
    tag = "audio" if record.kind == "audio" else "video"
    proxy_from = proxy_start(start)
    proxy = f"/media/proxy/{quote(record.video_id)}/{proxy_from}"
    direct = playable_type(record.facts) is not None
    source, origin = (f"/media/video/{quote(record.video_id)}", 0) if direct else (proxy, proxy_from)
    note = (
        ""
        if direct
        else '<p class="vx-note">Browsers cannot play this format; a small copy of this stretch is shown.</p>'
    )
    return (
        f'<{tag} id="{element}" controls playsinline preload="auto" src="{source}" data-seek="{start:g}" '
        f'data-stop="{end:g}" data-origin="{origin}" data-proxy="{proxy}" data-proxy-origin="{proxy_from}"{more}>'
        f"</{tag}>{note}"
    )


def picker_view(watched: Watched | None, start: float, end: float) -> str:
    """The timeline of an indexed video, on which a span is chosen by dragging."""
    if watched is None:
        return '<p class="vx-hint">Choose a video; then drag over its pictures, or write the times.</p>'
    record = watched.record
    length = max(1, record.seconds_expected)
    left, width = 100 * start / length, 100 * max(0.2, end - start) / length
    return (
        f'<div class="vx-picker"><div class="vx-stage">{player(watched, element="vx-picker-player")}</div>'
        f'<div class="vx-strip" data-length="{length}" tabindex="0" role="slider" aria-label="Span of the query" '
        f'aria-valuemin="0" aria-valuemax="{length}" aria-valuenow="{start:g}" '
        f'aria-valuetext="{escape(span_text(start, end))}">'
        f'<img src="/media/strip/{quote(record.video_id)}/0-{length}.jpg" alt="" draggable="false">'
        f'<span class="vx-chosen" style="left:{left:.3f}%;width:{width:.3f}%"></span></div></div>'
    )


def _facts(watched: Watched) -> str:
    moment = watched.moment
    rows = []
    if moment is not None:
        rows.append(score_line(moment) + bar("Picture", moment.visual) + bar("Sound", moment.audio))
        remarks = [] if moment.chance is None else [chance_words(moment.chance)]
        remarks += [f"answers {100 * moment.coverage:.0f} % of the query"] if moment.coverage < 0.999 else []
        remarks += [moment.remark] if moment.remark else []
        if remarks:
            rows.append(f'<p class="vx-hint">{escape(" · ".join(remarks))}</p>')
    return "".join(rows)


def _file_facts(record: VideoRecord) -> str:
    """Length, size and codecs of a file."""
    facts = record.facts
    size = f"{facts.get('width')} x {facts.get('height')}" if facts.get("width") else ""
    codecs = ", ".join(str(facts[key]) for key in ("video_codec", "audio_codec") if facts.get(key))
    return " · ".join(text for text in (format_time(record.duration_seconds), size, codecs) if text)


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
        sound = f'<img src="{source}" alt="" height="48" loading="lazy">{_asked_sound(watched)}'
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


def _asked_sound(watched: Watched) -> str:
    """The spectrogram of what was asked with, below the moment's own, where it answers."""
    asked, (first, stop) = watched.asked, watched.around
    if asked is None or watched.query_offset is None or not asked.record.facts.get("audio_codec"):
        return ""
    begin, end = int(asked.start), math.ceil(asked.end)
    left = 100 * (begin + watched.query_offset - first) / (stop - first)
    width = 100 * (end - begin) / (stop - first)
    source = f"/media/sound/{quote(asked.record.video_id)}/{begin}-{end}.jpg"
    return (
        f'<div class="vx-asked-sound" title="The sound of what was asked with">'
        f'<img src="{source}" alt="" style="left:{left:.3f}%;width:{width:.3f}%" loading="lazy"></div>'
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
