"""Another model for an index that is in use: embed everything again beside it, compare, then change places.

PATH            URL            the index, in use all the while
PATH.rebuild    URL-rebuild    the new one, until it takes the place of the old
PATH.old        URL-old        the old one afterwards, until it is dropped
"""

from collections.abc import Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.pipeline import add_files
from indexer.report import AddReport, Progress
from visxp_search.embed import Embedder
from visxp_search.errors import MissingIndexError, UsageError
from visxp_search.store import DONE, Filter, Store, VideoRecord, open_store

SAMPLE = 200
"""Seconds whose neighbours are compared."""
NEIGHBOURS = 10


@dataclass(frozen=True)
class Difference:
    """Two indexes of the same videos by different models.

    Attributes:
        seconds: number in the first, in the second.
        videos_missing: paths of videos that are done in the first and not in the second.
        sampled: seconds whose neighbours were compared.
        overlap: vector name -> share of the ten nearest seconds of other videos that both models agree on, in [0, 1].
        overlap_videos: the same of the videos that these seconds belong to.
    """

    seconds: tuple[int, int]
    videos_missing: tuple[str, ...]
    sampled: int
    overlap: dict[str, float]
    overlap_videos: dict[str, float]


def rebuild(
    location: str | Path, beside: str | Path, embedder: Embedder, *, workers: int = 2, progress: Progress | None = None
) -> AddReport:
    """Index all files of an index into another one, by another model; called again it goes on.

    Args:
        location: the index, open only for a moment.
        beside: the new index.
        embedder: the new model.
        workers: decoding processes.
        progress: told what happens.

    Raises:
        UsageError: If the index is of this model already.
        CollectionError: If one of both cannot be opened.
    """
    with closing(open_store(location, checkpoint=None)) as store:
        if store.info.checkpoint == embedder.checkpoint_id:
            raise UsageError(
                f"index {location} is of checkpoint {embedder.checkpoint_id} already; pass another --model"
            )
        records = [record for record in store.videos() if record.paths]
    dims = {name: spec.length for name, spec in embedder.specs.items()}
    with closing(open_store(beside, checkpoint=embedder.checkpoint_id, create=dims)) as store:
        report = add_files(store, embedder, [_readable_path(r) for r in records], workers=workers, progress=progress)
        _take_over_paths(store, records)
    return report


def compare(store: Store, other: Store) -> Difference:
    """Say how alike two indexes of the same videos answer, from the neighbours of a sample of seconds."""
    done, other_done = ({record.video_id: record for record in s.videos(DONE)} for s in (store, other))
    missing = [record.paths[0] for video_id, record in done.items() if video_id not in other_done]
    sample = []
    for point in store.seconds(page=SAMPLE):
        if point.video_id in other_done:
            sample.append((point.video_id, point.second))
        if len(sample) == SAMPLE:
            break
    overlap, overlap_videos = {}, {}
    for name in sorted(set(store.info.dims) & set(other.info.dims)):
        mine, theirs = _neighbours(store, name, sample), _neighbours(other, name, sample)
        both = [key for key in sample if mine.get(key) and theirs.get(key)]
        if both:
            overlap[name] = sum(_share(mine[key], theirs[key]) for key in both) / len(both)
            videos = [({v for v, _ in mine[key]}, {v for v, _ in theirs[key]}) for key in both]
            overlap_videos[name] = sum(_share(a, b) for a, b in videos) / len(both)
    return Difference((store.count(), other.count()), tuple(sorted(missing)), len(sample), overlap, overlap_videos)


def find_missing(location: str | Path, beside: str | Path) -> list[str]:
    """Paths of videos that are done in one index and not in the other; none if the first is not there at all.

    Raises:
        CollectionError: If the second cannot be opened, or the first is there and cannot.
    """
    with closing(open_store(beside, checkpoint=None)) as other:
        there = {record.video_id for record in other.videos(DONE)}
    try:
        with closing(open_store(location, checkpoint=None)) as store:
            return [record.paths[0] for record in store.videos(DONE) if record.video_id not in there]
    except MissingIndexError:
        return []  # a swap that was cut short between its two renames


def _share(mine: Set[object], theirs: Set[object]) -> float:
    """Share of what either has that both have."""
    return len(mine & theirs) / max(len(mine), len(theirs))


def _neighbours(
    store: Store, name: str, keys: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], set[tuple[str, int]]]:
    """The nearest seconds of other videos for each second that has the vector."""
    found = {}
    for point in store.get(keys, with_vectors=(name,)):
        if name in point.vectors:
            where = Filter(not_video_ids=(point.video_id,))
            (hits,) = store.query(name, point.vectors[name][None], top=NEIGHBOURS, where=where)
            found[point.video_id, point.second] = {(hit.video_id, hit.second) for hit in hits}
    return found


def _readable_path(record: VideoRecord) -> Path:
    """A path of a video that is there; the first if none is, so that its absence is reported."""
    return next((Path(path) for path in record.paths if Path(path).is_file()), Path(record.paths[0]))


def _take_over_paths(store: Store, records: Sequence[VideoRecord]) -> None:
    """Let the new ledger know all paths that the old one knows of a content."""
    for record in records:
        new = store.video(record.video_id)
        if new is not None and set(record.paths) - set(new.paths):
            paths = tuple(dict.fromkeys((*new.paths, *record.paths)))
            store.upsert_videos([replace(new, paths=paths, stats={**record.stats, **new.stats})])
