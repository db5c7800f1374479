"""An embedded index whose ledger cannot be read gets a new one, made of the seconds that are stored.

What the ledger alone knew is lost: which files a video is, and whether it was done. `visxp index add` finds both out
again by the content of the files, and embeds of each video only its last seconds anew. Until then the videos are found
without a path.

The new ledger is made beside the damaged one, which is then put aside, never deleted: killed at any moment, the same
call goes on.
"""

import shutil
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from visxp_search.errors import CollectionError
from visxp_search.store import VIDEO_PAYLOAD_INDEXES, VideoRecord, check_info
from visxp_search.store_collection import CollectionStore
from visxp_search.store_edge import LEDGERS, open_seconds
from visxp_search.store_edge_files import FileDocuments, locked, read_info, require_space
from visxp_search.store_edge_shard import EdgeCollection, create_shard, ledger_config

MOST_VIDEOS = 10_000_000
BATCH = 1000


@dataclass(frozen=True)
class RenewedLedger:
    """What was done.

    Attributes:
        damaged: where the old ledger is now; None if there was none.
        n_videos: videos that the new one knows, by their stored seconds.
    """

    damaged: Path | None
    n_videos: int


def renew_ledger(path: Path) -> RenewedLedger:
    """Put the ledger of an embedded index aside and make a new one; cut short, it can be called again.

    Raises:
        CollectionError: If there is no index, it is in use, its seconds cannot be read either, or the disk is full.
    """
    try:
        with locked(path):
            return _renew_locked(path)
    except OSError as exc:
        raise CollectionError(
            f"the ledger of index {path} cannot be made anew: {exc}; check the disk and its permissions, then try again"
        ) from exc


def _renew_locked(path: Path) -> RenewedLedger:
    info = read_info(path)
    check_info(info, wanted_checkpoint=None, location=str(path))
    require_space(path)
    ledger, new = path / LEDGERS[info.schema], path / f"{LEDGERS[info.schema]}.new"
    with closing(open_seconds(path, info)) as seconds:
        shutil.rmtree(new, ignore_errors=True)
        config = ledger_config(info.dims)
        create_shard(new, config=config, indexes=VIDEO_PAYLOAD_INDEXES, location=str(path))
        with closing(EdgeCollection(new, location=str(path), config=config)) as entries:
            store = CollectionStore(
                info=info,
                location=str(path),
                seconds=seconds,
                videos=entries,
                documents=FileDocuments(path),
                let_go=lambda: None,
            )
            stored = list(store.facet("video_id", limit=MOST_VIDEOS).items())
            for first in range(0, len(stored), BATCH):
                store.upsert_videos(
                    [
                        VideoRecord(
                            video_id, (), seconds_expected=number, seconds_done=number, checkpoint=info.checkpoint
                        )
                        for video_id, number in stored[first : first + BATCH]
                    ]
                )
            store.flush()
    damaged = None
    if ledger.exists():
        damaged = next(aside for n in count(1) if not (aside := path / f"{ledger.name}.damaged-{n}").exists())
        ledger.rename(damaged)
    new.rename(ledger)
    return RenewedLedger(damaged, len(stored))
