"""What was asked with, shown beside a moment: an indexed span, or an upload that is served as indexed videos are.

An upload is known to a browser by the folder it lies in, whose name is a salted hash of its content.
"""

import math
import re
from dataclasses import dataclass

from visxp_search.decode import probe
from visxp_search.errors import VisxpError
from visxp_search.store import Store, VideoRecord
from webui.asking import Uploads, checked_upload
from webui.finding import Found
from webui.videos import display_name

UPLOAD = "upload-"
_UPLOAD_ID = re.compile(rf"{UPLOAD}([0-9a-f]{{64}})")


@dataclass(frozen=True)
class Asked:
    """What a search asked with.

    Attributes:
        record: the file, with the id that its media are served under.
        name: what people are shown.
        start: of the span asked with, seconds of the file.
        end: exclusive.
    """

    record: VideoRecord
    name: str
    start: float
    end: float


def asked_with(store: Store, uploads: Uploads, found: Found) -> Asked | None:
    """What a search asked with first, or None if it is no longer there."""
    origin = found.query.origin
    if "video_id" in origin:
        record = store.video(str(origin["video_id"]))
        return None if record is None else Asked(record, display_name(record), origin["start"], origin["end"])
    folder = str(origin.get("path", "")).replace("\\", "/").split("/")[-2:-1]
    record = find_upload(uploads, f"{UPLOAD}{folder[0]}") if folder else None
    if record is None:
        return None
    start, end = float(origin.get("start", 0)), float(origin.get("end", 1))
    return Asked(record, found.title, start, max(start + 1, min(end, record.seconds_expected)))


def find_media(store: Store, uploads: Uploads, media_id: str) -> VideoRecord | None:
    """The ledger's entry of a video id, or one made for an upload."""
    return find_upload(uploads, media_id) if media_id.startswith(UPLOAD) else store.video(media_id)


def find_upload(uploads: Uploads, media_id: str) -> VideoRecord | None:
    """An entry as the ledger has them, for an upload; None if there is none, or it is no media."""
    known = _UPLOAD_ID.fullmatch(media_id)
    folder = uploads.folder / known[1] if known else None
    files = sorted(folder.iterdir()) if folder is not None and folder.is_dir() else []
    if not files:
        return None
    try:
        path, _ = checked_upload(files[0], uploads)
        info, status = probe(path), path.stat()
    except (VisxpError, OSError):  # deleted meanwhile, or nothing that can be shown
        return None
    return VideoRecord(
        media_id,
        (str(path),),
        kind=info.kind,
        duration_seconds=info.duration_seconds,
        seconds_expected=max(1, math.ceil(info.duration_seconds)),
        stats={str(path): [status.st_size, status.st_mtime_ns]},
        facts=info.facts,
    )
