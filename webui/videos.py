"""The indexed videos as the page lists and names them: by file name, since folders are the server's own business."""

from collections import Counter
from pathlib import Path

from visxp_search.errors import UsageError
from visxp_search.store import DONE, Store, VideoRecord
from webui.adding import Adder
from webui.archive import Archive
from webui.wording import printable


def list_videos(store: Store, *, text: str = "", status: str = "") -> list[VideoRecord]:
    """The ledger's entries whose name holds a text, by name."""
    wanted = text.strip().lower()
    records = [record for record in store.videos(status or None) if wanted in display_name(record).lower()]
    return sorted(records, key=lambda record: (display_name(record).lower(), record.video_id))


def video_choices(store: Store, *, limit: int = 2000) -> list[tuple[str, str]]:
    """(name, video id) of videos that can be asked with; a name that occurs twice gets the start of its id."""
    records = [record for record in list_videos(store) if record.seconds_done][:limit]
    names = [display_name(record) for record in records]
    taken = Counter(names)
    return [
        (f"{name} ({record.video_id[:6]})" if taken[name] > 1 else name, record.video_id)
        for name, record in zip(names, records, strict=True)
    ]


def spread_videos(store: Store, *, count: int) -> list[VideoRecord]:
    """Some complete videos, from all over the list of their names."""
    done = list_videos(store, status=DONE)
    return [done[number * len(done) // count] for number in range(count)] if len(done) > count else done


def name_of(store: Store, video_id: str) -> str:
    """What people are shown instead of the path of a video."""
    record = store.video(video_id)
    return display_name(record) if record is not None else video_id[:12]


def display_name(record: VideoRecord) -> str:
    """The file's name, as far as it can be shown."""
    return printable(Path(record.paths[0]).name) if record.paths else record.video_id[:12]


def remove_video(archive: Archive, adder: Adder, video_id: str) -> None:
    """Remove a video from the index; the file itself stays.

    Raises:
        UsageError: If it is not indexed, or videos are being added, whose ledger would bring it back.
    """
    record = indexed_record(archive.store, video_id)
    if adder.is_busy:
        raise UsageError("videos are being added; remove this one when that has ended, or cancel it first")
    archive.store.delete_video(record.video_id)
    archive.store.flush()


def indexed_record(store: Store, video_id: str) -> VideoRecord:
    """The ledger's entry of a video.

    Raises:
        UsageError: If it is no longer indexed.
    """
    record = store.video(video_id)
    if record is None:
        raise UsageError("this video is no longer in the index; search again")
    return record
