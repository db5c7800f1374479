"""The contact sheet: clusters as pictures, in one HTML file that needs nothing else.

Pictures are decoded from the videos themselves, file by file, and embedded as JPEG; a second of sound alone, or of
sound with a black picture, is shown as its spectrogram.
"""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from visxp_search.clips import format_time, is_black, is_silent
from visxp_search.cluster_book import ROOT, ClusterBook
from visxp_search.cluster_describe import Description, Example, summarise
from visxp_search.decode import decode_clips, probe
from visxp_search.decode_stills import decode_stills
from visxp_search.errors import DecodeError
from visxp_search.sound_picture import Picture, draw_spectrogram

TILE_WIDTH, TILE_HEIGHT = 176, 99
JPEG_QUALITY = 78
SOUND_RATE_HZ = 8000
"""Of spectrograms: they show 0 to 4 kHz."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; }
body { font: 15px/1.4 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 24px; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0; } p { margin: 2px 0; }
.faint { color: var(--faint); font-size: 13px; }
.cluster { border-top: 1px solid var(--line); padding: 16px 0 8px; }
.branch { margin: 28px 0 8px; border-top: 3px solid var(--line); padding-top: 8px; }
.branch b { font-size: 16px; }
.row { display: flex; gap: 8px; flex-wrap: wrap; margin: 6px 0; } .row > b { flex: 0 0 72px; font-weight: 500; }
figure { margin: 0; width: 176px; } figcaption { font-size: 12px; color: var(--faint); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.tile { width: 176px; height: 99px; background: #000; color: #bbb; display: grid; place-items: center;
  font-size: 13px; overflow: hidden; text-align: center; }
.tile img { max-width: 100%; max-height: 100%; display: block; }
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
    """Read the picture of each second, file by file; one that can no longer be read gives tiles that say so.

    Args:
        examples: seconds, in any order, also twice.
        paths: video id -> where the file may lie.
        on_tile: told how many of how many are done.
    """
    wanted: dict[str, set[int]] = {}
    for example in examples:
        wanted.setdefault(example.video_id, set()).add(example.second)
    total = sum(len(seconds) for seconds in wanted.values())
    tiles: dict[tuple[str, int], Tile] = {}
    for video_id, seconds in sorted(wanted.items()):
        for second, tile in zip(sorted(seconds), _read_tiles(paths.get(video_id, ()), sorted(seconds)), strict=True):
            tiles[video_id, second] = tile
            on_tile(len(tiles), total)
    return tiles


def render_sheet(
    descriptions: Sequence[Description],
    branches: Mapping[str, Description],
    book: ClusterBook,
    tiles: Mapping[tuple[str, int], Tile],
    paths: Mapping[str, Sequence[str]],
    *,
    title: str,
) -> str:
    """The sheet as HTML: clusters in the order of the tree, each with its nearest, diverse and boundary seconds.

    Args:
        descriptions: of the clusters to show.
        branches: branch -> description, of all that are above them.
        book: names and tree.
        tiles: of `make_tiles`.
        paths: video id -> where the file may lie.
        title: of the page.
    """
    titles = {node: book.title(node) for node in [ROOT, *book.parents()]}
    n_hidden = len(book.clusters()) - len(descriptions)
    whole = branches[ROOT]
    n_branches = len(book.tree) - 1
    counts = (
        f"{len(descriptions)} clusters{f' ({n_hidden} more are hidden)' if n_hidden else ''} in "
        f"{n_branches or 'no'} {'branch' if n_branches == 1 else 'branches'} · {whole.seconds} seconds of "
        f"{whole.videos} videos"
    )
    parts = [f'<h1>{html.escape(title)}</h1><p class="faint">{counts}</p>']
    seen = {ROOT}
    for description in descriptions:
        for depth, node in enumerate(description.path[:-1]):
            if node not in seen:
                seen.add(node)
                parts.append(_branch_html(branches[node], titles, paths, depth=depth))
        parts.append(_cluster_html(description, titles, tiles, paths))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def _branch_html(
    branch: Description, titles: Mapping[str, str], paths: Mapping[str, Sequence[str]], *, depth: int
) -> str:
    trail = " / ".join(html.escape(titles[node]) for node in branch.path[1:-1])
    words = html.escape(summarise(branch, paths))
    facts = f"{branch.clusters} clusters · {branch.seconds} s ({100 * branch.share:.1f} %) in {_videos(branch)}"
    label = _label(branch, titles)
    indent, above = f"margin-left:{12 * (depth - 1)}px", f"{trail} / " if trail else ""
    about = f"{facts} · {words}" if words else facts
    return (
        f'<div class="branch" style="{indent}"><span class="faint">{above}</span><b>{label}</b>'
        f'<p class="faint">{about}</p></div>'
    )


def _videos(description: Description) -> str:
    return "1 video" if description.videos == 1 else f"{description.videos} videos"


def _label(description: Description, titles: Mapping[str, str]) -> str:
    """The name and the id, or the id alone."""
    name, node = html.escape(titles[description.node]), description.node
    return name if name == node else f"{name} ({node})"


def _cluster_html(
    description: Description,
    titles: Mapping[str, str],
    tiles: Mapping[tuple[str, int], Tile],
    paths: Mapping[str, Sequence[str]],
) -> str:
    neighbours = ", ".join(html.escape(titles[node]) for node in description.neighbours) or "none"
    words = summarise(description, paths)
    facts = (
        f"{description.seconds} s ({100 * description.share:.1f} %) in {_videos(description)} · picture "
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
    about = f"<p>{html.escape(words)}</p>" if words else ""
    above = " / ".join(html.escape(titles[node]) for node in description.path[1:-1])
    place = f"in {above}" if above else "at the top"
    heading = f'<h2>{_label(description, titles)} <span class="faint">{place}</span></h2>'
    return f'<section class="cluster">{heading}{about}<p class="faint">{facts}</p>{rows}</section>'


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


def _read_tiles(paths: Sequence[str], seconds: Sequence[int]) -> list[Tile]:
    """The tiles of ascending seconds, from the first path that can be read."""
    remark = "no path known"
    for path in paths:
        try:
            pictures = _read_pictures(Path(path), seconds)
            return [Tile(b"", "no picture") if picture is None else Tile(_jpeg(picture), "") for picture in pictures]
        except DecodeError:
            remark = "file not readable"
    return [Tile(b"", remark)] * len(seconds)


def _read_pictures(path: Path, seconds: Sequence[int]) -> list[Picture | None]:
    """(H, W, 3) pictures that fit into a tile; where they are black or missing, the spectrogram of what sounds."""
    info = probe(path)
    if not info.has_video:
        drawn = _draw_sounds(path, seconds, start=seconds[0], stop=seconds[-1] + 1)
        return [drawn.get(second) for second in seconds]
    pictures: list[Picture | None] = []
    found = decode_stills(path, seconds=seconds, width=TILE_WIDTH, height=TILE_HEIGHT)
    for second, still in zip(seconds, found, strict=True):
        picture = None if still is None else np.ascontiguousarray(still.transpose(1, 2, 0))
        if info.has_audio and (still is None or is_black(still)):
            picture = _draw_sounds(path, [second], start=second, stop=second + 1).get(second, picture)
        pictures.append(picture)
    return pictures


def _draw_sounds(path: Path, seconds: Sequence[int], *, start: int, stop: int) -> dict[int, Picture]:
    """Second -> (H, W, 3) spectrogram, in one pass over the sound of `[start, stop)`; silence is left out."""
    drawn: dict[int, Picture] = {}
    with decode_clips(path, frame_size=1, sample_rate_hz=SOUND_RATE_HZ, start_second=start, stop_second=stop) as reader:
        for clip in reader:
            if clip.second in seconds and clip.waveform is not None and not is_silent(clip.waveform):
                drawn[clip.second] = draw_spectrogram(clip.waveform, width=TILE_WIDTH, height=TILE_HEIGHT)
    return drawn


def _jpeg(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
