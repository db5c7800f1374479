"""Results as tables: CSV for spreadsheets, JSON for programs. Neither needs the videos."""

import csv
import io
from typing import Any

from visxp_search.clips import format_time
from visxp_search.export.results import SCORES, FoundMoment, FoundResults

COLUMNS = ("rank", "video_id", "path", "start", "end", "from", "to", *SCORES, "note")
"""`start` and `end` in seconds, `from` and `to` as h:mm:ss for people; the rest as `visxp search` prints it."""


def to_csv(results: FoundResults) -> str:
    """RFC 4180 with a header line; what a moment does not have is an empty cell."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, restval="")
    writer.writeheader()
    for moment in results.moments:
        writer.writerow(_row(moment))
    return stream.getvalue()


def to_json(results: FoundResults) -> dict[str, Any]:
    """The moments with rank, URI and media fragment, in one flat form whatever made the document."""
    return {
        "query": dict(results.query),
        "moments": [
            {**_row(moment), "uri": moment.uri, "fragment": f"{moment.uri}#{moment.fragment}"}
            for moment in results.moments
        ],
    }


def _row(moment: FoundMoment) -> dict[str, Any]:
    return {
        "rank": moment.rank,
        "video_id": moment.video_id,
        "path": moment.address or str(moment.path),
        "start": moment.start,
        "end": moment.end,
        "from": format_time(moment.start),
        "to": format_time(moment.end),
        **moment.scores,
        **({"note": moment.note} if moment.note else {}),
    }
