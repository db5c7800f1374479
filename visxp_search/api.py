"""The Python API: an index to open, add to, search, and iterate moments of.

    from visxp_search.api import open_index

    with open_index("my.index", create=True) as index:
        index.add(["/archive/tapes"])
        for moment in index.search_clip("query.mp4", start=3, end=9):
            print(moment.path, moment.start, moment.end, moment.score)

The command line and the page are thin layers over this file.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from visxp_search.clips import Clip
from visxp_search.embed import IMPORTED_PREFIX, Embedder, Embeddings, ImportedFeatures, load_embedder
from visxp_search.errors import DecodeError, UsageError
from visxp_search.search import (
    Moment,
    Query,
    Results,
    clip_query,
    find_moments,
    frame_query,
    iterate_clips,
    moment_query,
    sound_query,
)
from visxp_search.store import Filter, Store, VideoRecord, check_info, open_store

if TYPE_CHECKING:
    from indexer.pipeline import AddReport, Progress


class SearchResults(Sequence[Moment]):
    """Moments, best first, as a sequence; `results` has the rest of what is known about the search."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def __len__(self) -> int:
        return len(self.results.moments)

    def __getitem__(self, item: Any) -> Any:
        return self.results.moments[item]


@dataclass(frozen=True)
class IndexFacts:
    """What an index holds.

    Attributes:
        location: directory or URL.
        checkpoint: id of the checkpoint that made it.
        dims: named vector -> length.
        videos: status -> number of videos.
        seconds: stored seconds.
        seconds_expected: seconds that all known videos have.
        flags: flag -> number of seconds that carry it.
    """

    location: str
    checkpoint: str
    dims: dict[str, int]
    videos: dict[str, int]
    seconds: int
    seconds_expected: int
    flags: dict[str, int]


def open_index(
    location: str | Path,
    *,
    model: str | Path | None = None,
    device: str | None = None,
    create: bool = False,
) -> "Index":
    """Open an index for searching and adding.

    Args:
        location: directory of an embedded index, or http(s) URL of a Qdrant server.
        model: checkpoint folder or plugin, see `visxp_search.embed`; None for the shipped checkpoint.
        device: torch's name of a device; None takes a GPU if there is one.
        create: make the index if it does not exist.

    Raises:
        CheckpointError: If the model cannot be loaded.
        CollectionError: If the index cannot be opened, is in use, or belongs to another checkpoint.
    """
    if create:
        embedder = load_embedder(model, device=device)
        dims = {name: spec.length for name, spec in embedder.specs.items()}
        return Index(open_store(location, checkpoint=embedder.checkpoint_id, create=dims), embedder)
    store = open_store(location, checkpoint=None)
    try:
        info = store.info
        if model is None and info.checkpoint.startswith(IMPORTED_PREFIX):
            return Index(store, ImportedFeatures(info.checkpoint, info.dims))
        embedder = load_embedder(model, device=device)
        check_info(info, wanted_checkpoint=embedder.checkpoint_id, location=store.location)
    except BaseException:
        store.close()
        raise
    return Index(store, embedder)


class Index:
    """An open index with the embedder that made it; a context manager."""

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self.store = store
        self.embedder = embedder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Make everything durable and let go of the index."""
        self.store.close()

    def add(self, paths: Sequence[str | Path], *, workers: int = 2, progress: "Progress | None" = None) -> "AddReport":
        """Index files and folders; see `indexer.pipeline.add_files`.

        In a script, call it below `if __name__ == "__main__":`, since decoding runs in processes of its own.
        """
        from indexer.pipeline import add_files

        return add_files(self.store, self.embedder, [Path(path) for path in paths], workers=workers, progress=progress)

    def search_clip(
        self,
        path: str | Path,
        *,
        start: float = 0.0,
        end: float | None = None,
        by: str = "both",
        audio_weight: float = 0.5,
        **options: Any,
    ) -> SearchResults:
        """Moments like a clip of a file; options are those of `search`."""
        query = clip_query(Path(path), self.embedder, start=start, end=end, by=by, audio_weight=audio_weight)
        return self.search(query, **options)

    def search_sound(
        self, path: str | Path, *, start: float = 0.0, end: float | None = None, cross: bool = False, **options: Any
    ) -> SearchResults:
        """Moments that sound like a file or, with cross, whose pictures go with it."""
        return self.search(sound_query(Path(path), self.embedder, start=start, end=end, cross=cross), **options)

    def search_frame(self, path: str | Path, **options: Any) -> SearchResults:
        """Moments that look like a picture."""
        return self.search(frame_query(Path(path), self.embedder), **options)

    def search_moment(
        self, video: str, *, start: int, end: int, by: str = "both", audio_weight: float = 0.5, **options: Any
    ) -> SearchResults:
        """Moments like `[start, end)` of an indexed video, given by id, start of an id, or path."""
        video_id = self.find_video(video).video_id
        query = moment_query(self.store, video_id, start=start, end=end, by=by, audio_weight=audio_weight)
        return self.search(query, **options)

    def search(
        self,
        query: Query,
        *,
        mode: str = "similar",
        top: int = 10,
        per_video: int = 3,
        exclude: Sequence[str] = (),
        where: Filter | None = None,
    ) -> SearchResults:
        """The moments that answer a query best.

        Args:
            query: from `visxp_search.search`.
            mode: `similar` or `same`.
            top: moments wanted.
            per_video: at most so many of one video.
            exclude: videos not to look in (id, start of an id, or path).
            where: further conditions.
        """
        where = where or Filter()
        if exclude:
            hidden = tuple(self.find_video(video).video_id for video in exclude)
            where = replace(where, not_video_ids=(*where.not_video_ids, *hidden))
        return SearchResults(find_moments(self.store, query, mode=mode, top=top, per_video=per_video, where=where))

    def videos(self) -> Iterator[VideoRecord]:
        """The ledger's entries."""
        return self.store.videos()

    def find_video(self, text: str) -> VideoRecord:
        """The video that a person means; see `find_video`."""
        return find_video(self.store, text)

    def facts(self) -> IndexFacts:
        """What the index holds."""
        return collect_facts(self.store)


def find_video(store: Store, text: str) -> VideoRecord:
    """The video with this id, this path, a unique start of its id, or a unique file name.

    Raises:
        UsageError: If there is none, or several.
    """
    exact = store.video(text)
    if exact is not None:
        return exact
    absolute = str(Path(text).absolute())
    records = list(store.videos())
    for matches in (
        [record for record in records if absolute in record.paths],
        [record for record in records if len(text) >= 4 and record.video_id.startswith(text)],
        [record for record in records if any(Path(path).name == text for path in record.paths)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(record.video_id for record in matches[:5])
            raise UsageError(f"{text!r} means {len(matches)} videos ({names}); give more of the id, or the path")
    raise UsageError(f"no indexed video has the id, path or name {text!r}; see: visxp index ls")


def collect_facts(store: Store) -> IndexFacts:
    """What an index holds."""
    statuses: Counter[str] = Counter()
    expected = 0
    for record in store.videos():
        statuses[record.status] += 1
        expected += record.seconds_expected
    return IndexFacts(
        location=store.location,
        checkpoint=store.info.checkpoint,
        dims=dict(store.info.dims),
        videos=dict(statuses),
        seconds=store.count(),
        seconds_expected=expected,
        flags={str(flag): number for flag, number in store.facet("flags").items()},
    )


def embed_files(
    embedder: Embedder,
    paths: Sequence[Path],
    *,
    on_failure: Callable[[Path, DecodeError], None],
    on_file: Callable[[int], None] = lambda done: None,
) -> dict[str, npt.NDArray[Any]]:
    """Embeddings of media files without an index, as `visxp embed` writes them.

    Args:
        embedder: makes them.
        paths: video, audio and image files.
        on_failure: called for each file that cannot be read; the rest goes on.
        on_file: called with the number of files done.

    Returns:
        Arrays of one length N: `path` (str), `second` (int32), `visual` and `audio` (N, D) float32, `joint_visual` and
        `joint_audio` (N, J) float32, `has_visual` and `has_audio` (bool). Rows without a modality are NaN there.

    Raises:
        DecodeError: If no file at all could be read.
    """
    names: list[str] = []
    seconds: list[int] = []
    parts: list[Embeddings] = []
    for done, path in enumerate(paths, start=1):
        try:
            for clips in _batches(iterate_clips(path, embedder)):
                parts.append(embedder.embed(clips))
                names += [str(path)] * len(clips)
                seconds += [clip.second for clip in clips]
        except DecodeError as exc:
            on_failure(path, exc)
        on_file(done)
    if not parts:
        raise DecodeError(f"none of {len(paths)} files could be read; nothing was written")
    arrays: dict[str, npt.NDArray[Any]] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("visual", "audio", "joint_visual", "joint_audio")
    }
    return {
        "path": np.array(names),
        "second": np.array(seconds, dtype=np.int32),
        **arrays,
        "has_visual": ~np.isnan(arrays["visual"][:, 0]),
        "has_audio": ~np.isnan(arrays["audio"][:, 0]),
    }


def _batches(clips: Iterator[Clip], size: int = 32) -> Iterator[list[Clip]]:
    while batch := list(islice(clips, size)):
        yield batch
