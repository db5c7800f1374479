"""The basket: moments that a person collects, notes and puts in order. Pure functions; it is kept as a list of objects.

It is kept in the visitor's browser, so nothing in it is believed before `read_basket` has looked at it.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from visxp_search.errors import UsageError

MAX_MOMENTS = 500
MAX_NOTE = 500


@dataclass(frozen=True)
class Collected:
    """One moment in the basket.

    Attributes:
        video_id: the video.
        start: seconds.
        end: seconds, exclusive.
        score: of the search it comes from; None if it comes from none.
        note: what the person wrote.
    """

    video_id: str
    start: float
    end: float
    score: float | None = None
    note: str = ""


def read_basket(value: object) -> tuple[Collected, ...]:
    """The basket that a browser kept; entries that make no sense are dropped."""
    read: list[Collected] = []
    for entry in value if isinstance(value, list) else []:
        try:
            score = entry.get("score")
            collected = Collected(
                video_id=str(entry["video_id"]),
                start=float(entry["start"]),
                end=float(entry["end"]),
                score=None if score is None else float(score),
                note=str(entry.get("note", ""))[:MAX_NOTE],
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        if 0 <= collected.start < collected.end < 1e7:
            read.append(collected)
    return tuple(read[:MAX_MOMENTS])


def keep_basket(basket: Sequence[Collected]) -> list[dict[str, Any]]:
    """What a browser keeps; `read_basket` is the inverse."""
    return [asdict(collected) for collected in basket]


def toggle(basket: Sequence[Collected], collected: Collected) -> tuple[Collected, ...]:
    """The basket with this moment if it was not in it, else without."""
    without = tuple(other for other in basket if not _same(collected, other))
    return without if len(without) < len(basket) else put(basket, collected)


def put(basket: Sequence[Collected], collected: Collected) -> tuple[Collected, ...]:
    """The basket with one more moment at its end; one that is in it already stays where it is.

    Raises:
        UsageError: If it is full.
    """
    if any(_same(collected, other) for other in basket):
        return tuple(basket)
    if len(basket) >= MAX_MOMENTS:
        raise UsageError(f"the basket holds {MAX_MOMENTS} moments and is full; download it and empty it")
    return (*basket, collected)


def contains(basket: Sequence[Collected], video_id: str, start: float, end: float) -> bool:
    """Whether this moment is in the basket."""
    return any(_same(Collected(video_id, start, end), other) for other in basket)


def take_out(basket: Sequence[Collected], number: int) -> tuple[Collected, ...]:
    """The basket without its moment of this number (from 0)."""
    return tuple(collected for index, collected in enumerate(basket) if index != number)


def move(basket: Sequence[Collected], number: int, step: int) -> tuple[Collected, ...]:
    """The basket with one moment moved up (step -1) or down (1); at the ends nothing changes."""
    order = list(basket)
    target = number + step
    if 0 <= number < len(order) and 0 <= target < len(order):
        order[number], order[target] = order[target], order[number]
    return tuple(order)


def annotate(basket: Sequence[Collected], number: int, note: str) -> tuple[Collected, ...]:
    """The basket with a note at one moment."""
    return tuple(
        replace(collected, note=note[:MAX_NOTE]) if index == number else collected
        for index, collected in enumerate(basket)
    )


def basket_document(basket: Sequence[Collected], name_of: Callable[[str], str]) -> dict[str, Any]:
    """The basket as a results document (DESIGN section 4), with `note` beside each moment.

    `path` is the file's name, as folders of the server are nobody's business; `video_id` identifies the file.
    """
    return {
        "query": {"kind": "basket", "moments": len(basket)},
        "moments": [
            {
                "video_id": collected.video_id,
                "path": name_of(collected.video_id),
                "start": collected.start,
                "end": collected.end,
                "score": collected.score,
                "note": collected.note,
            }
            for collected in basket
        ],
    }


def basket_csv(basket: Sequence[Collected], name_of: Callable[[str], str]) -> str:
    """The basket as CSV, one moment a line, for spreadsheets.

    Cells that a spreadsheet would take for a formula begin with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["number", "video", "start", "end", "score", "note", "video_id"])
    for number, c in enumerate(basket, start=1):
        score = "" if c.score is None else f"{c.score:.4f}"
        writer.writerow([number, _cell(name_of(c.video_id)), c.start, c.end, score, _cell(c.note), _cell(c.video_id)])
    return text.getvalue()


def _cell(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _same(one: Collected, other: Collected) -> bool:
    return (one.video_id, one.start, one.end) == (other.video_id, other.start, other.end)
