"""Our encoders before they are needed: what they are is known at once, torch and the networks are loaded later.

Importing torch takes more than a second, in which files can be found and decoded.
"""

import gc
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from visxp_search.checkpoint_config import DEFAULT_CHECKPOINT, read_facts
from visxp_search.clips import Clip
from visxp_search.embed import Embeddings, PseudoLabels, VectorSpec

if TYPE_CHECKING:
    from visxp_search.l3net import L3NetEmbedder


class DeferredL3Net:
    """The default plugin; see `visxp_search.embed.Embedder` for what its attributes mean.

    Raises:
        CheckpointError: If the folder is no checkpoint; if its weights do not fit, whatever first needs them says so.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or DEFAULT_CHECKPOINT
        facts = read_facts(self._path)
        self.checkpoint_id = facts.checkpoint_id
        self.specs: Mapping[str, VectorSpec] = {
            "visual": VectorSpec(facts.visual, ("visual",)),
            "audio": VectorSpec(facts.audio, ("audio",)),
            "joint": VectorSpec(facts.joint, ("visual", "audio")),
        }
        self.frame_size = facts.frame_size
        self.sample_rate_hz = facts.sample_rate_hz
        self._most_threads: int | None = None
        self._loading: Future[L3NetEmbedder] | None = None
        self._lock = threading.Lock()

    def begin_loading(self) -> None:
        """See `visxp_search.embed.Deferred`."""
        with self._lock:
            if self._loading is None:
                loader = ThreadPoolExecutor(1, thread_name_prefix="load-encoders")
                self._loading = loader.submit(self._load)
                loader.shutdown(wait=False)

    def embed(self, clips: Sequence[Clip]) -> Embeddings:
        """See `visxp_search.embed.Embedder`.

        Raises:
            CheckpointError: If the networks cannot be loaded.
        """
        with self._limited() as loaded:
            return loaded.embed(clips)

    def pseudo_labels(self, embeddings: Embeddings) -> PseudoLabels | None:
        """See `visxp_search.embed.SelfLabelled`.

        Raises:
            CheckpointError: If the networks cannot be loaded.
        """
        with self._limited() as loaded:
            return loaded.pseudo_labels(embeddings)

    @contextmanager
    def limit_threads(self, most: int) -> Iterator[None]:
        """See `visxp_search.embed.Threaded`."""
        before, self._most_threads = self._most_threads, most
        try:
            yield
        finally:
            self._most_threads = before

    def _load(self) -> "L3NetEmbedder":
        with _kept_objects():
            from visxp_search.l3net import L3NetEmbedder

            return L3NetEmbedder(self._path)

    @contextmanager
    def _limited(self) -> "Iterator[L3NetEmbedder]":
        """The loaded networks, in no more threads than are allowed just now."""
        self.begin_loading()
        if self._loading is None:
            raise AssertionError("loading was begun and has no result")
        loaded = self._loading.result()
        if self._most_threads is None:
            yield loaded
        else:
            with loaded.limit_threads(self._most_threads):
                yield loaded


@contextmanager
def _kept_objects() -> Iterator[None]:
    """What is made meanwhile stays for good, so the garbage collector need not look for cycles in it, now or later.

    Torch brings a million objects; looking through them takes a tenth of a second, again and again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
