"""The Python API: an index to open, add to, search, and iterate moments of.

    from visxp_search.api import open_index

    with open_index("my.index", create=True) as index:
        index.add(["/archive/tapes"])
        for moment in index.search_clip("query.mp4", start=3, end=9):
            print(moment.path, moment.start, moment.end, moment.score)

The command line and the page are thin layers over this file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from visxp_search.clips import Clip
from visxp_search.embed import IMPORTED_PREFIX, Embedder, Embeddings, ImportedFeatures, load_embedder
from visxp_search.errors import DecodeError, MissingIndexError, UsageError
from visxp_search.facts import IndexFacts as IndexFacts
from visxp_search.facts import collect_facts as collect_facts
from visxp_search.facts import find_video as find_video
from visxp_search.filters import Scope, make_filter
from visxp_search.queries import Progress as SearchProgress
from visxp_search.queries import (
    Query,
    add_examples,
    clip_query,
    frame_query,
    iterate_clips,
    moment_query,
    sound_query,
    untold,
)
from visxp_search.results import Moment, Results
from visxp_search.saved_searches import SavedSearch, SavedSearches, run_saved, saved_searches_path, spans_of
from visxp_search.search import find_moments
from visxp_search.sequences import find_sequences
from visxp_search.store import Filter, ServerSettings, Store, VideoRecord, check_info, is_url, open_store

if TYPE_CHECKING:
    from indexer.estimate import Estimate
    from indexer.estimate import Progress as StepProgress
    from indexer.report import AddReport, Progress
    from indexer.verify import Drift
    from visxp_search.absent import AbsentReport
    from visxp_search.evaluate import Judgement, Report


class SearchResults(Sequence[Moment]):
    """Moments, best first, as a sequence; `results` has the rest of what is known about the search."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def __len__(self) -> int:
        return len(self.results.moments)

    def __getitem__(self, item: Any) -> Any:
        return self.results.moments[item]


def open_index(
    location: str | Path,
    *,
    model: str | Path | None = None,
    device: str | None = None,
    create: bool = False,
    server: ServerSettings | None = None,
) -> "Index":
    """Open an index for searching and adding.

    Args:
        location: directory of an embedded index, or http(s) URL of a Qdrant server.
        model: checkpoint folder or plugin, see `visxp_search.embed`; None for the shipped checkpoint.
        device: torch's name of a device; None takes a GPU if there is one.
        create: make the index if it does not exist.
        server: how it is spoken to and made if it lies on a server; None: as the environment says.

    Raises:
        CheckpointError: If there is no such model; if its weights are damaged, whatever first needs them says so.
        CollectionError: If the index cannot be opened, is in use, or belongs to another checkpoint.
    """
    if create:
        embedder = load_embedder(model, device=device)
        dims = {name: spec.length for name, spec in embedder.specs.items()}
        return Index(open_store(location, checkpoint=embedder.checkpoint_id, create=dims, server=server), embedder)
    store = open_store(location, checkpoint=None)
    try:
        info = store.info
        if model is None and info.checkpoint.startswith(IMPORTED_PREFIX):
            return Index(store, ImportedFeatures(info.checkpoint, info.dims))
        embedder = load_embedder(model, device=device)
        check_info(info, wanted_checkpoint=embedder.checkpoint_id, location=store.location)
        return Index(store, embedder)
    except BaseException:
        store.close()
        raise


def estimate_add(
    location: str | Path,
    paths: Sequence[str | Path],
    *,
    model: str | Path | None = None,
    device: str | None = None,
    workers: int = 2,
    progress: "StepProgress" = lambda what, done, total: None,
) -> "Estimate":
    """What `Index.add` would do: how much, how long and how large, measured on a sample; makes and changes no index.

    Raises:
        CheckpointError: If the model cannot be loaded.
        CollectionError: If there is an index and it cannot be opened, is in use, or belongs to another checkpoint.
    """
    from indexer.estimate import estimate
    from indexer.plan import make_plan

    embedder = load_embedder(model, device=device)
    try:
        with closing(open_store(location, checkpoint=embedder.checkpoint_id)) as store:
            records = list(store.videos())
    except MissingIndexError:
        records = []
    plan = make_plan([Path(path) for path in paths], records)
    return estimate(plan, embedder, workers=workers, progress=progress)


def add_on_ray(
    location: str | Path,
    paths: Sequence[str | Path],
    *,
    address: str,
    model: str | Path | None = None,
    device: str | None = None,
    server: ServerSettings | None = None,
    progress: "Progress | None" = None,
) -> "AddReport":
    """Index files and folders on a Ray cluster; see `indexer.ray_cluster`.

    Args:
        location: http(s) URL of a Qdrant server that all machines reach; the index is made if it does not exist.
        paths: files and folders, which all machines have under the same paths.
        address: `auto` for the cluster that this machine belongs to, or `host:port` of its head.
        model: see `open_index`; a checkpoint folder lies under the same path on all machines.
        device: see `open_index`.
        server: see `open_index`.
        progress: told what happens.

    Raises:
        CheckpointError: If the model cannot be loaded, here or on another machine.
        CollectionError: If the index cannot be opened or fails.
        UsageError: If the index is embedded, or there is no Ray cluster.
    """
    if not is_url(location):
        raise UsageError(
            f"index {location} is embedded, which one process has open at a time; Ray needs one on a Qdrant server: "
            f"pass --index http://HOST:6333/NAME, or copy this one there: visxp index push http://HOST:6333/NAME"
        )
    from indexer.pipeline import add_files
    from indexer.ray_cluster import RayJob, RayPool, connect_ray

    server = server or ServerSettings.from_environment()
    job = RayJob(str(location), server, model=None if model is None else str(model), device=device)
    with (
        open_index(location, model=model, device="cpu", create=True, server=server) as index,
        connect_ray(address),
        index.store.bulk_load(),
    ):
        pool = RayPool(job, index.embedder)
        return add_files(index.store, index.embedder, [Path(p) for p in paths], progress=progress, pool=pool)


def watch_index(
    location: str | Path,
    paths: Sequence[str | Path],
    *,
    model: str | Path | None = None,
    device: str | None = None,
    server: ServerSettings | None = None,
    **options: Any,
) -> None:
    """Keep an index like some files and folders until Ctrl-C; it is open only while there is work.

    Args:
        location: see `open_index`; it is made if it does not exist.
        paths: files and folders.
        model: see `open_index`.
        device: see `open_index`.
        server: see `open_index`.
        options: those of `indexer.watch.watch_folders`.

    Raises:
        CheckpointError: If the model cannot be loaded.
        CollectionError: If the index cannot be opened or fails; one in use is tried again.
        UsageError: If a path is not there.
    """
    from indexer.watch import watch_folders

    for path in paths:
        if not Path(path).exists():
            raise UsageError(f"{path}: there is no such file or folder to watch")
    embedder = load_embedder(model, device=device)
    open_again = _make_then_open(location, embedder, server)
    watch_folders(open_again, embedder, [Path(path) for path in paths], **options)


def _make_then_open(location: str | Path, embedder: Embedder, server: ServerSettings | None) -> Callable[[], Store]:
    """Opens an index again and again; makes it the first time only, as one that is gone later was on a lost disk."""
    dims: dict[str, int] | None = {name: spec.length for name, spec in embedder.specs.items()}

    def open_again() -> Store:
        nonlocal dims
        store = open_store(location, checkpoint=embedder.checkpoint_id, create=dims, server=server)
        dims = None
        return store

    return open_again


class Index:
    """An open index with the embedder that made it; a context manager.

    Args:
        store: the index.
        embedder: its embedder.
    """

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

        with self.store.bulk_load():
            files = [Path(path) for path in paths]
            return add_files(self.store, self.embedder, files, workers=workers, progress=progress)

    def retry(self, *, workers: int = 2, progress: "Progress | None" = None) -> "AddReport":
        """Index again what failed, and nothing else; see `add`."""
        from indexer.plan import failed_paths

        return self.add(failed_paths(self.store.videos()), workers=workers, progress=progress)

    def repair(self, drifts: Sequence["Drift"], *, workers: int = 2, progress: "Progress | None" = None) -> "AddReport":
        """Mend what `indexer.verify.find_drift` found, and index again what that takes."""
        from indexer.verify import repair_drift

        return self.add(repair_drift(self.store, drifts), workers=workers, progress=progress)

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
        fine = options.get("mode") == "same"
        query = clip_query(Path(path), self.embedder, start=start, end=end, by=by, audio_weight=audio_weight, fine=fine)
        return self.search(query, **options)

    def search_sound(
        self, path: str | Path, *, start: float = 0.0, end: float | None = None, cross: bool = False, **options: Any
    ) -> SearchResults:
        """Moments that sound like a file or, with cross, whose pictures go with it."""
        fine = options.get("mode") == "same"
        query = sound_query(Path(path), self.embedder, start=start, end=end, cross=cross, fine=fine)
        return self.search(query, **options)

    def search_frame(self, path: str | Path, **options: Any) -> SearchResults:
        """Moments that look like a picture."""
        return self.search(frame_query(Path(path), self.embedder), **options)

    def search_moment(
        self, video: str, *, start: int, end: int, by: str = "both", audio_weight: float = 0.5, **options: Any
    ) -> SearchResults:
        """Moments like `[start, end)` of an indexed video, given by id, start of an id, or path."""
        return self.search(self.moment(video, start=start, end=end, by=by, audio_weight=audio_weight), **options)

    def moment(self, video: str, *, start: int, end: int, by: str = "both", audio_weight: float = 0.5) -> Query:
        """The query that an indexed moment makes; also an example for `like` and `unlike` of `search`."""
        video_id = self.find_video(video).video_id
        return moment_query(self.store, video_id, start=start, end=end, by=by, audio_weight=audio_weight)

    def search(
        self,
        query: Query,
        *,
        mode: str = "similar",
        top: int = 10,
        per_video: int = 3,
        exclude: Sequence[str] = (),
        where: Filter | None = None,
        scope: Scope | None = None,
        like: Sequence[Query] = (),
        unlike: Sequence[Query] = (),
        then: Query | None = None,
        within: float = 30.0,
        max_chance: float | None = None,
        min_visual: float = 0.0,
        min_audio: float = 0.0,
        exhaustive: bool = False,
        accept: Callable[[Moment], bool] = lambda moment: True,
        on_progress: Callable[[int, int, int], None] = lambda done, total, found: None,
        progress: SearchProgress = untold,
    ) -> SearchResults:
        """The moments that answer a query best.

        Args:
            query: from `visxp_search.queries`.
            mode: `similar` or `same`.
            top: moments wanted.
            per_video: at most so many of one video.
            exclude: videos not to look in (id, start of an id, or path).
            where: further conditions, in the store's terms.
            scope: further conditions, in a person's terms; not together with `where`.
            like: further examples of what is wanted (`moment`).
            unlike: examples of what is not.
            then: what must follow the query in the same video.
            within: at most so many seconds after its end.
            max_chance: see `visxp_search.search.find_moments`, as for all that follow.
            min_visual: see there.
            min_audio: see there.
            exhaustive: see there.
            accept: see there.
            on_progress: see there.
            progress: see there.

        Raises:
            UsageError: If an option is not allowed, or a video is unknown.
        """
        if where is not None and scope is not None:
            raise UsageError("where and scope both say where to look; give one of them")
        where = where or make_filter(self.store, scope or Scope())
        if exclude:
            hidden = tuple(self.find_video(video).video_id for video in exclude)
            where = replace(where, not_video_ids=(*where.not_video_ids, *hidden))
        if like or unlike:
            query = add_examples(query, like=like, unlike=unlike)
        find = partial(
            find_moments,
            self.store,
            mode=mode,
            per_video=per_video,
            where=where,
            max_chance=max_chance,
            min_visual=min_visual,
            min_audio=min_audio,
            exhaustive=exhaustive,
            accept=accept,
            on_progress=on_progress,
            progress=progress,
        )
        if then is not None:
            return SearchResults(find_sequences(find, query, then, within=within, top=top, per_video=per_video))
        return SearchResults(find(query, top=top))

    def saved_searches(self) -> SavedSearches:
        """The searches that are kept with this index."""
        return SavedSearches(saved_searches_path(self.store.location))

    def run_saved(self, name: str, *, only_new: bool = False) -> SearchResults:
        """Run a saved search again, and remember what it finds and what it has looked in.

        Args:
            name: of the saved search.
            only_new: only moments that are indexed since the last run.

        Raises:
            UsageError: If there is none of this name, or it was made with another checkpoint.
        """
        known = self._known_seconds()
        return SearchResults(run_saved(self.saved_searches(), name, self.search_saved, known=known, only_new=only_new))

    def save_search(self, name: str, query: Query, options: Mapping[str, Any], found: SearchResults) -> None:
        """Keep a search under a name, with what it has found and looked in so far.

        Args:
            name: letters, digits, `-`, `_` and `.`.
            query: what is asked with; its embeddings are kept, the file is not needed again.
            options: keyword arguments of `search`.
            found: the moments that are not new any more.
        """
        saved = SavedSearch(
            name=name,
            checkpoint=self.store.info.checkpoint,
            query=query,
            options=options,
            seen=spans_of(found.results),
            known=self._known_seconds(),
        )
        self.saved_searches().put(saved)

    def search_saved(self, saved: SavedSearch, *, accept: Callable[[Moment], bool] = lambda moment: True) -> Results:
        """The moments that a saved search finds now, among those that are accepted."""
        if saved.checkpoint != self.store.info.checkpoint:
            raise UsageError(
                f"saved search {saved.name!r} was made with checkpoint {saved.checkpoint}, this index with "
                f"{self.store.info.checkpoint}; search again and --save it anew"
            )
        return self.search(saved.query, **saved.options, accept=accept).results

    def _known_seconds(self) -> dict[str, int]:
        """Video id -> how many of its seconds are indexed."""
        return {record.video_id: record.seconds_done for record in self.store.videos()}

    def evaluate_judged(
        self, path: Path, *, mode: str = "similar", top: int = 10, progress: Callable[[str, int, int], None]
    ) -> "Report":
        """Measure the search by judgements in a CSV file; see `visxp_search.evaluate.read_judgements`."""
        from visxp_search.evaluate import evaluate, read_judgements

        judgements = read_judgements(path, find_video=lambda text: self.find_video(text).video_id)
        return evaluate(judgements, partial(self._ask, mode=mode, top=top), on_progress=progress)

    def evaluate_trials(
        self,
        n_trials: int,
        *,
        mode: str = "same",
        top: int = 10,
        seed: int = 0,
        keep: Path | None = None,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> "Report":
        """Measure the search by excerpts of the archive's own videos; see `visxp_search.trials`."""
        from visxp_search.evaluate import evaluate
        from visxp_search.trials import make_trials

        with TemporaryDirectory(prefix="visxp-trials-") as temporary:
            folder = keep or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            judgements = make_trials(self.store, folder, n_trials=n_trials, seed=seed, on_progress=progress)
            return evaluate(judgements, partial(self._ask, mode=mode, top=top), on_progress=progress)

    def evaluate_absent(
        self,
        paths: Sequence[Path],
        *,
        n_queries: int = 40,
        mode: str = "same",
        top: int = 10,
        seed: int = 0,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> "AbsentReport":
        """Ask with videos that are not indexed; see `visxp_search.absent`.

        Args:
            paths: files, folders, and text files that list files, one a line.
            n_queries: at most so many of them are asked with.
            mode: `same` or `similar`.
            top: answers asked for.
            seed: chooses the files.
            progress: called with ("ask", done, total).
        """
        from indexer.plan import FoundFile, find_files
        from visxp_search.absent import QUERY_SECONDS, choose_absent, evaluate_absent

        named = [line for path in paths for line in (_lines_of(path) if path.suffix == ".txt" else [path])]
        files = [found.path for found in find_files(named) if isinstance(found, FoundFile)]
        chosen = choose_absent(self.store, files, n_queries=n_queries, seed=seed)
        return evaluate_absent(
            chosen,
            lambda path: self.search_clip(path, end=QUERY_SECONDS, mode=mode, top=top).results,
            on_progress=progress,
        )

    def _ask(self, judgement: "Judgement", *, mode: str, top: int) -> Results:
        if judgement.kind == "frame":
            return self.search_frame(judgement.path, mode=mode, top=top).results
        search = self.search_sound if judgement.kind == "sound" else self.search_clip
        return search(judgement.path, start=judgement.start, end=judgement.end, mode=mode, top=top).results

    def videos(self) -> Iterator[VideoRecord]:
        """The ledger's entries."""
        return self.store.videos()

    def find_video(self, text: str) -> VideoRecord:
        """The video that a person means; see `find_video`."""
        return find_video(self.store, text)

    def facts(self) -> IndexFacts:
        """What the index holds."""
        return collect_facts(self.store)


def _lines_of(path: Path) -> list[Path]:
    """The files that a text file lists; relative ones lie beside it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} cannot be read as a list of files ({exc})") from exc
    return [path.parent / line.strip() for line in lines if line.strip()]


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
