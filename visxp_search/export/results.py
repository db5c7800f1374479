"""Reads the document that `visxp search ... --json` prints; what it found is all that the exports know."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from visxp_search.errors import UsageError

SCORES = ("score", "percentile", "visual", "audio", "coverage", "offset")
"""Numbers of a moment that the exports hand on; each may be missing."""


@dataclass(frozen=True)
class FoundMoment:
    """One moment `[start, end)` of one video, as the document has it.

    Attributes:
        rank: 1 is the best.
        video_id: the video; empty if the document does not say.
        path: where the video lay when it was searched.
        start: seconds from the video's beginning.
        end: seconds, exclusive.
        scores: those of `SCORES` that the document has.
        note: what a person wrote about it.
        address: what the written files call the video; empty for its path (in URIs `file://...`).
    """

    rank: int
    video_id: str
    path: Path
    start: float
    end: float
    scores: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    address: str = ""

    @property
    def uri(self) -> str:
        """The video as a `file://` URI, or its address as a relative one."""
        return quote(self.address) if self.address else self.path.absolute().as_uri()

    @property
    def fragment(self) -> str:
        """The span as a W3C media fragment, `t=12,18.5` (normal play time)."""
        return f"t={self.start:.10g},{self.end:.10g}"

    @property
    def label(self) -> str:
        """Score and percentile for a person; empty if neither is known."""
        parts = []
        if "score" in self.scores:
            parts.append(f"score {self.scores['score']:.2f}")
        if "percentile" in self.scores:
            parts.append(f"better than {self.scores['percentile']:.1f} % of the archive")
        return ", ".join(parts)


@dataclass(frozen=True)
class FoundResults:
    """A search's document.

    Attributes:
        query: what was asked, as the document says it.
        moments: best first, at least one.
    """

    query: Mapping[str, Any]
    moments: tuple[FoundMoment, ...]

    @property
    def title(self) -> str:
        """One line that says what was asked."""
        asked = str(self.query.get("path") or self.query.get("video_id") or "")
        name = Path(asked).name if asked else ""
        kind = str(self.query.get("kind", "search"))
        return " ".join(f"VisXP {kind} {name}".split())


def read_results(text: str, *, source: str) -> FoundResults:
    """Understand the text of a search's document.

    Args:
        text: JSON.
        source: its file name, for messages.

    Raises:
        UsageError: If it is not such a document, or nothing was found.
    """
    try:
        document = json.loads(text)
    except ValueError as exc:
        raise UsageError(f"{source} is not JSON ({exc}); {_HOW}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("moments"), list):
        raise UsageError(f"{source} has no list of moments; {_HOW}")
    if not document["moments"]:
        raise UsageError(f"{source} has no moments: the search found nothing, so there is nothing to export")
    query = document.get("query", {})
    if not isinstance(query, dict):
        raise UsageError(f"{source}: query is not an object; {_HOW}")
    moments = tuple(
        _read_moment(value, rank=rank, where=f"{source}: moments[{rank - 1}]")
        for rank, value in enumerate(document["moments"], start=1)
    )
    return FoundResults(query=query, moments=moments)


_HOW = "write one with: visxp search ... --json > results.json"


def _read_moment(value: Any, *, rank: int, where: str) -> FoundMoment:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not an object; {_HOW}")
    path = value.get("path")
    if not isinstance(path, str) or not path or "\0" in path:
        raise UsageError(f"{where}.path is {path!r}, not the path of a video; {_HOW}")
    start, end = (_read_number(value.get(key), where=f"{where}.{key}") for key in ("start", "end"))
    if not 0 <= start < end:
        raise UsageError(f"{where} runs from {start} to {end}; expected 0 <= start < end, in seconds")
    scores = {key: _read_number(value[key], where=f"{where}.{key}") for key in SCORES if value.get(key) is not None}
    return FoundMoment(
        rank, str(value.get("video_id") or ""), Path(path), start, end, scores, note=str(value.get("note") or "")
    )


def _read_number(value: Any, *, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{where} is {value!r}, not a number; {_HOW}")
    return float(value)
