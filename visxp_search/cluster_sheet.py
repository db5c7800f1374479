"""The contact sheet: clusters as pictures, in one HTML file that needs nothing else.

Pictures are decoded from the videos themselves and embedded as JPEG; a second without a picture is a tile that says so.
"""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from visxp_search.clips import format_time
from visxp_search.cluster_book import ROOT, ClusterBook
from visxp_search.cluster_describe import Description, Example
from visxp_search.decode import MediaInfo, decode_clips, probe
from visxp_search.errors import DecodeError

TILE_WIDTH, TILE_HEIGHT = 176, 99
JPEG_QUALITY = 78
DECODED_SIDE = 224
"""Frames are decoded square and then given their shape back."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; }
body { font: 15px/1.4 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 24px; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0; } p { margin: 2px 0; }
.faint { color: var(--faint); font-size: 13px; }
.cluster { border-top: 1px solid var(--line); padding: 16px 0 8px; }
.branch { margin: 32px 0 8px; font-size: 15px; font-weight: 600; border-top: 3px solid var(--line); padding-top: 8px; }
.row { display: flex; gap: 8px; flex-wrap: wrap; margin: 6px 0; } .row > b { flex: 0 0 72px; font-weight: 500; }
figure { margin: 0; width: 176px; } figcaption { font-size: 12px; color: var(--faint); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.tile { width: 176px; height: 99px; background: #000; color: #bbb; display: grid; place-items: center;
  font-size: 13px; overflow: hidden; } .tile img { max-width: 100%; max-height: 100%; display: block; }
"""


@dataclass(frozen=True)
class Tile:
    """A second on the sheet: JPEG bytes, or why there is no picture."""

    jpeg: bytes
    remark: str


def make_tiles(
    examples: Sequence[Example],
    paths: Mapping[str, Sequence[str]],
    *,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> dict[tuple[str, int], Tile]:
    """Decode the picture of each second; a video that can no longer be read gives tiles that say so.

    Args:
        examples: seconds, in any order, also twice.
        paths: video id -> where the file may lie.
        on_tile: told how many of how many are done.
    """
    keys = sorted({(example.video_id, example.second) for example in examples})
    shapes: dict[str, tuple[Path, MediaInfo] | str] = {}
    tiles = {}
    for done, (video_id, second) in enumerate(keys, start=1):
        if video_id not in shapes:
            shapes[video_id] = _find_file(paths.get(video_id, ()))
        tiles[video_id, second] = _make_tile(shapes[video_id], second)
        on_tile(done, len(keys))
    return tiles


def render_sheet(
    descriptions: Sequence[Description],
    book: ClusterBook,
    tiles: Mapping[tuple[str, int], Tile],
    paths: Mapping[str, Sequence[str]],
    *,
    title: str,
) -> str:
    """The sheet as HTML: clusters in the order of the tree, each with its nearest, diverse and boundary seconds."""
    titles = {node: book.title(node) for node in [ROOT, *book.parents()]}
    parts = [f"<h1>{html.escape(title)}</h1>"]
    n_seconds = sum(description.seconds for description in descriptions)
    parts.append(f'<p class="faint">{len(descriptions)} clusters of {n_seconds} seconds</p>')
    above: tuple[str, ...] | None = None
    for description in descriptions:
        if description.path[:-1] != above:
            above = description.path[:-1]
            trail = " / ".join(html.escape(titles[node]) for node in above)
            parts.append(f'<div class="branch">{trail}</div>')
        parts.append(_cluster_html(description, titles, tiles, paths))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def _cluster_html(
    description: Description,
    titles: Mapping[str, str],
    tiles: Mapping[tuple[str, int], Tile],
    paths: Mapping[str, Sequence[str]],
) -> str:
    neighbours = ", ".join(html.escape(titles[node]) for node in description.neighbours) or "none"
    name = html.escape(titles[description.node])
    label = name if name == description.node else f"{name} ({description.node})"
    facts = (
        f"{description.seconds} s ({100 * description.share:.1f} %) in {description.videos} videos · picture "
        f"{_number(description.purity_visual)} · sound {_number(description.purity_audio)} · with sound "
        f"{100 * description.has_audio:.0f} % · near: {neighbours}"
    )
    rows = "".join(
        f'<div class="row"><b>{kind}</b>{"".join(_tile_html(e, tiles, paths) for e in examples)}</div>'
        for kind, examples in (
            ("nearest", description.nearest),
            ("diverse", description.diverse),
            ("boundary", description.boundary),
        )
    )
    return f'<section class="cluster"><h2>{label}</h2><p class="faint">{facts}</p>{rows}</section>'


def _tile_html(example: Example, tiles: Mapping[tuple[str, int], Tile], paths: Mapping[str, Sequence[str]]) -> str:
    tile = tiles[example.video_id, example.second]
    file = Path(paths[example.video_id][0]).name if paths.get(example.video_id) else example.video_id[:12]
    caption = html.escape(f"{format_time(example.second)} {file}")
    if tile.jpeg:
        data = base64.b64encode(tile.jpeg).decode("ascii")
        inside = f'<img src="data:image/jpeg;base64,{data}" alt="{caption}">'
    else:
        inside = html.escape(tile.remark)
    return f'<figure><div class="tile">{inside}</div><figcaption title="{caption}">{caption}</figcaption></figure>'


def _find_file(paths: Sequence[str]) -> tuple[Path, MediaInfo] | str:
    """The first path that can be read, with what the file is; else why not."""
    reason = "no path known"
    for path in paths:
        try:
            return Path(path), probe(path)
        except DecodeError:
            reason = "file not readable"
    return reason


def _make_tile(found: tuple[Path, MediaInfo] | str, second: int) -> Tile:
    if isinstance(found, str):
        return Tile(b"", found)
    path, info = found
    if not info.has_video:
        return Tile(b"", "sound only")
    try:
        with decode_clips(
            path, frame_size=DECODED_SIDE, sample_rate_hz=8000, start_second=second, stop_second=second + 1
        ) as reader:
            clip = next(reader, None)
    except DecodeError:
        return Tile(b"", "file not readable")
    if clip is None or clip.frame is None:
        return Tile(b"", "no picture")
    scale = min(TILE_WIDTH / max(info.width, 1), TILE_HEIGHT / max(info.height, 1))
    size = (max(1, round(info.width * scale)), max(1, round(info.height * scale)))
    picture = PIL.Image.fromarray(np.ascontiguousarray(clip.frame.transpose(1, 2, 0))).resize(size)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return Tile(buffer.getvalue(), "")


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
