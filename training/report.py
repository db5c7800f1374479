"""The evaluation as one HTML page for people: tables, curves, cluster sizes, and pictures that were found."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window system
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from training.card import format_cell
from training.evaluate import Shown
from training.state import read_rows

N_EXAMPLES, N_FOUND, THUMBNAIL = 6, 8, 72
LOGS = ("warmstart_visual", "warmstart_audio", "avc", "selflabel", "selflabel_rounds", "hierarchy")
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;"
    "text-align:right;font-variant-numeric:tabular-nums}td:first-child,th:first-child{text-align:left}"
    "p.about{color:#666;margin:0}img{max-width:100%}tr:first-of-type td{font-weight:600}"
)


def write_report(path: Path, evaluation: Mapping[str, Any], shown: Shown, *, run: Path | None) -> None:
    """Write the page, pictures embedded, so that it is one file.

    Args:
        path: of the HTML file.
        evaluation: as `evaluate` gives it.
        shown: what it gives besides.
        run: a run folder whose logs are drawn, or None.
    """
    held_out = evaluation["held_out"]
    parts = [
        f"<h1>Evaluation of checkpoint {html.escape(evaluation['checkpoint'])}</h1>",
        f"<p>{held_out['seconds']} held-out seconds of {held_out['groups']} groups. Cells are value and 95 % interval "
        "(bootstrap over groups). No row is ever compared with its own group, save where the same moment is looked "
        "for.</p>",
        *(_table(table) for table in evaluation["tables"]),
    ]
    if run is not None:
        parts += ["<h2>Losses</h2>", *(_curves(run, stage) for stage in LOGS)]
    if evaluation["clusters"]:
        parts += ["<h2>Cluster sizes, training seconds</h2>", _cluster_sizes(evaluation["clusters"])]
    parts += _examples(shown)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style>'
        f"<body>{''.join(parts)}</body></html>\n"
    )
    partial = path.with_suffix(".partial")
    partial.write_text(page)
    partial.replace(path)


def _table(table: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *table["measures"]])
    body = ""
    for row in table["rows"]:
        cells = [row["name"], *(format_cell(row["values"].get(measure)) for measure in table["measures"])]
        body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    title, about = html.escape(table["title"]), html.escape(table["about"])
    table_html = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>{title}</h2><p class="about">{about}</p>{table_html}'


def _curves(run: Path, stage: str) -> str:
    """One small plot for each column of a stage's log; nothing where the stage has not run."""
    rows = read_rows(run, stage)
    names = [name for name in (rows[0] if rows else {}) if name not in ("epoch", "seconds")]
    if not names:
        return ""
    figure = Figure(figsize=(3 * min(len(names), 4), 2.2 * -(-len(names) // 4)), layout="constrained")
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(-(-len(names) // 4), min(len(names), 4), place)
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        axes.plot(
            [epoch for epoch, _ in points], [value for _, value in points], marker="." if len(points) < 30 else ""
        )
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
    return f"<h3>{html.escape(stage)}</h3>{_image_of(figure)}"


def _cluster_sizes(clusters: Mapping[str, Any]) -> str:
    heads = clusters["sizes_on_training_seconds"]
    figure = Figure(figsize=(10, 1.8 * len(heads)), layout="constrained")
    for head, sizes in enumerate(heads):
        axes = figure.add_subplot(len(heads), 1, head + 1)
        axes.bar(range(len(sizes)), sorted(sizes, reverse=True))
        axes.set_title(f"head {head}: {clusters['used'][head]:.0%} of {len(sizes)} clusters used", fontsize=8)
        axes.tick_params(labelsize=7)
    return _image_of(figure)


def _examples(shown: Shown) -> list[str]:
    """Strips: a held-out second, then the nearest of other groups by picture, and pictures its sound finds."""
    ours, rated = shown.ours, shown.rated
    rows = np.linspace(0, len(rated.labels) - 1, min(N_EXAMPLES, len(rated.labels))).astype(int).tolist()
    parts = ["<h2>What is found</h2><p class='about'>First the query, then the nearest seconds of other groups.</p>"]
    for title, embeddings in (("by picture", ours.visual), ("by sound", ours.audio)):
        parts.append(f"<h3>{title}</h3>")
        for row in rows:
            similarity = embeddings @ embeddings[row]
            similarity[rated.groups == rated.groups[row]] = -np.inf
            found = [index for index in np.argsort(-similarity)[:N_FOUND].tolist() if np.isfinite(similarity[index])]
            labels = ", ".join(rated.labels[[row, *found]].tolist())
            parts.append(f"<p>{_strip(rated.frames, [row, *found])}<br><small>{html.escape(labels)}</small></p>")
    return parts


def _strip(frames: npt.NDArray[np.uint8], rows: Sequence[int]) -> str:
    gap = 6
    strip = Image.new("RGB", (len(rows) * (THUMBNAIL + gap) + gap, THUMBNAIL), "white")
    for place, row in enumerate(rows):
        picture = Image.fromarray(frames[row].transpose(1, 2, 0)).resize((THUMBNAIL, THUMBNAIL))
        strip.paste(picture, (place * (THUMBNAIL + gap) + (gap if place else 0), 0))
    stored = io.BytesIO()
    strip.save(stored, "JPEG", quality=85)
    return f'<img alt="query and what was found" src="data:image/jpeg;base64,{_base64(stored)}">'


def _image_of(figure: Figure) -> str:
    stored = io.BytesIO()
    figure.savefig(stored, format="png", dpi=100)
    return f'<img alt="plot" src="data:image/png;base64,{_base64(stored)}">'


def _base64(stored: io.BytesIO) -> str:
    return base64.b64encode(stored.getvalue()).decode()
