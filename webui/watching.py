"""What is shown of a moment that is played: its video, the similarity around it, its clusters."""

import math
from dataclasses import dataclass

from visxp_search.errors import UsageError
from visxp_search.search import Moment
from visxp_search.store import VideoRecord
from visxp_search.trace import Curve, trace_video
from webui.archive import Archive
from webui.asking import Uploads
from webui.beside import Asked, asked_with
from webui.clusters import Clusters, Run
from webui.finding import Found
from webui.videos import display_name, indexed_record
from webui.wording import whole_number

TRACE_SECONDS = 150
"""Seconds of video shown around a moment, on each side."""


@dataclass(frozen=True)
class Watched:
    """A moment to be played, with all that is shown beside it.

    Attributes:
        record: the video.
        name: what people are shown.
        start: of the moment, seconds.
        end: exclusive.
        curve: similarity along the surroundings; None where there is no query.
        around: `[first, stop)` of the surroundings, seconds.
        strip: the whole video as runs of clusters; empty where it has none.
        moment: what the search says of it, if it comes from one.
        asked: what the search asked with; None without a search, or if it is no longer there.
        query_offset: time in the video less the time in the query's own file, in step; None where that means nothing.
    """

    record: VideoRecord
    name: str
    start: float
    end: float
    curve: Curve | None
    around: tuple[int, int]
    strip: tuple[Run, ...] = ()
    moment: Moment | None = None
    asked: Asked | None = None
    query_offset: float | None = None


def watch(archive: Archive, clusters: Clusters, found: Found, number: object, uploads: Uploads) -> Watched:
    """A moment of the results, with the query's similarity along its surroundings, and what was asked with."""
    moment = found.moment(number)
    record = indexed_record(archive.store, moment.video_id)
    around = surroundings(record, moment.start, moment.end)
    curve = trace_video(archive.store, found.query, moment.video_id, start=around[0], end=around[1])
    in_step = found.query.kind in ("clip", "sound", "moment") and found.query.examples is None
    begin = float(found.query.origin.get("start", 0.0))
    return Watched(
        record=record,
        name=display_name(record),
        start=moment.start,
        end=moment.end,
        curve=curve,
        around=around,
        strip=clusters.strip(record.video_id),
        moment=moment,
        asked=asked_with(archive.store, uploads, found),
        query_offset=moment.offset - begin if in_step else None,
    )


def watch_span(archive: Archive, clusters: Clusters | None, video_id: str, start: object, end: object) -> Watched:
    """A stretch of an indexed video that does not come from a search."""
    record = indexed_record(archive.store, video_id)
    first, stop = whole_number(start, "start"), whole_number(end, "end")
    if not 0 <= first < stop <= max(1, record.seconds_expected):
        raise UsageError(f"seconds {first} to {stop} are not in this video of {record.seconds_expected}")
    strip = clusters.strip(record.video_id) if clusters is not None else ()
    return Watched(record, display_name(record), first, stop, None, surroundings(record, first, stop), strip)


def surroundings(record: VideoRecord, start: float, end: float) -> tuple[int, int]:
    """`[first, stop)` of what is shown around a moment: the whole video if it is short."""
    length = max(record.seconds_expected, math.ceil(end))
    if length <= 2 * TRACE_SECONDS:
        return 0, length
    return max(0, int(start) - TRACE_SECONDS), min(length, math.ceil(end) + TRACE_SECONDS)
