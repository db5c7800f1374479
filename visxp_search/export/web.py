"""Results for the web: WebVTT cues, and W3C Web Annotations with media fragments. Neither needs the videos.

References:
    webvtt: WebVTT, The Web Video Text Tracks Format, https://www.w3.org/TR/webvtt1/
    model: Web Annotation Data Model, https://www.w3.org/TR/annotation-model/
    fragments: Media Fragments URI 1.0, https://www.w3.org/TR/media-frags/
"""

import html
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from visxp_search import __version__
from visxp_search.export.results import SCORES, FoundMoment, FoundResults

VOCABULARY = "urn:visxp:vocabulary:"
"""Names in JSON-LD what the Web Annotation vocabulary has no word for: the scores."""
_NAMESPACE = uuid.UUID("7b1d8c52-52f0-5d0e-8a0b-6c1de51f6b02")


def to_webvtt(results: FoundResults, moments: Iterable[FoundMoment]) -> str:
    """One cue a moment, in the order of time, as WebVTT wants it; its text says video, rank and score.

    A track belongs to one video; of moments of several videos the cues say which they mean.
    """
    blocks = [f"WEBVTT - {_one_line(results.title)}"]
    for moment in sorted(moments, key=lambda moment: (moment.start, moment.end, moment.rank)):
        lines = [html.escape(_one_line(moment.path.name), quote=False), f"hit {moment.rank}"]
        if moment.label:
            lines[1] += f", {moment.label}"
        if moment.note:
            lines.append(html.escape(_one_line(moment.note), quote=False))
        span = f"{_vtt_time(moment.start)} --> {_vtt_time(moment.end)}"
        blocks.append("\n".join([f"hit-{moment.rank}", span, *lines]))
    return "\n\n".join(blocks) + "\n"


def to_web_annotations(results: FoundResults, *, made_at: datetime | None = None) -> dict[str, Any]:
    """An annotation collection with one page, one annotation a moment, best first.

    Each annotation's target is the video's `file://` URI with a media-fragment selector `t=start,end`. Ids are the same
    for the same video and span.

    Args:
        results: what was found.
        made_at: written as `created`; None for now.
    """
    created = (made_at or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = [_annotation(results, moment, created=created) for moment in results.moments]
    page_id = _urn("page", *(item["id"] for item in items))
    collection_id = _urn("collection", page_id)
    return {
        "@context": [
            "http://www.w3.org/ns/anno.jsonld",
            {name: f"{VOCABULARY}{name}" for name in ("rank", "videoId", *SCORES)},
        ],
        "id": collection_id,
        "type": "AnnotationCollection",
        "label": results.title,
        "created": created,
        "generator": {"type": "Software", "name": f"VisXP search {__version__}"},
        "total": len(items),
        "first": {"id": page_id, "type": "AnnotationPage", "partOf": collection_id, "startIndex": 0, "items": items},
    }


def _annotation(results: FoundResults, moment: FoundMoment, *, created: str) -> dict[str, Any]:
    said = f"hit {moment.rank}" + (f", {moment.label}" if moment.label else "")
    found = _body(f"{results.title}: {said}", purpose="describing")
    return {
        "id": _urn("annotation", moment.uri, moment.fragment, results.title),
        "type": "Annotation",
        "motivation": "identifying",
        "created": created,
        "body": [found, _body(moment.note, purpose="commenting")] if moment.note else found,
        "target": {
            "type": "SpecificResource",
            "source": moment.uri,
            "selector": {
                "type": "FragmentSelector",
                "conformsTo": "http://www.w3.org/TR/media-frags/",
                "value": moment.fragment,
            },
        },
        "rank": moment.rank,
        "videoId": moment.video_id,
        **moment.scores,
    }


def _body(text: str, *, purpose: str) -> dict[str, str]:
    """A text; only our own words are known to be English."""
    language = {"language": "en"} if purpose == "describing" else {}
    return {"type": "TextualBody", "value": text, "format": "text/plain", **language, "purpose": purpose}


def _urn(*parts: str) -> str:
    return uuid.uuid5(_NAMESPACE, "\n".join(parts)).urn


def _vtt_time(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, millisecond = divmod(milliseconds, 60_000)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{millisecond // 1000:02d}.{millisecond % 1000:03d}"


def _one_line(text: str) -> str:
    """Text that cannot end a cue or look like its timing line."""
    return " ".join(text.split()).replace("-->", "->")
