"""The index that the page looks into, and its encoders while they load in the background."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visxp_search.api import Index, IndexFacts, collect_facts
from visxp_search.errors import VisxpError
from visxp_search.store import Store

log = logging.getLogger(__name__)

LOADING, READY, BROKEN = "loading", "ready", "broken"
FACTS_SECONDS = 2.0
"""Age up to which counts are shown again where counting is quick."""
FACTS_SHARE = 0.05
"""Share of the time spent on counting at most; it goes through the whole ledger."""


MOVED = "The folder of the index is gone; this page still shows what it had. Start visxp ui anew."
REPLACED = "The index was replaced by another; this page still shows the one before. Start visxp ui anew."


class NotReadyError(VisxpError):
    """The encoders are still loading, or could not be loaded."""


@dataclass(frozen=True)
class Readiness:
    """How far the start is: `loading`, `ready` or `broken`, with words for a person."""

    state: str
    words: str


class Archive:
    """One index for all visitors; opened by this process, closed by `close`.

    Args:
        store: the index if it exists already; it can be looked at before the encoders are there.
        load: loads the encoders and returns the index with them (opened now, if `store` is None).
    """

    def __init__(self, store: Store | None, load: Callable[[], Index]) -> None:
        self._store = store
        self._load = load
        self._index: Index | None = None
        self._readiness = Readiness(LOADING, "The encoders are loading; searching by a file takes a few more seconds.")
        self._is_started = False
        self._done = threading.Event()
        self._facts: IndexFacts | None = None
        self._facts_until = 0.0
        self._opened = None if store is None else identity_of(store.location)

    def start(self) -> None:
        """Load in the background."""
        self._is_started = True
        threading.Thread(target=self._run, name="load encoders", daemon=True).start()

    def _run(self) -> None:
        try:
            index = self._load()
        except VisxpError as exc:
            log.error("%s", exc)
            self._readiness = Readiness(BROKEN, "The encoders could not be loaded; the terminal of visxp ui says why.")
        except Exception:
            self._readiness = Readiness(BROKEN, "The encoders could not be loaded; the terminal of visxp ui says why.")
            raise
        else:
            if self._store is None:
                self._opened = identity_of(index.store.location)
            self._index, self._store = index, index.store
            self._readiness = Readiness(READY, "")
        finally:
            self._done.set()

    def wait(self, timeout_seconds: float | None = None) -> Readiness:
        """Wait until loading has ended, in whatever way."""
        self._done.wait(timeout_seconds)
        return self._readiness

    @property
    def readiness(self) -> Readiness:
        """How far the start is, and whether what was opened is still there."""
        if self._store is not None and self._opened is not None:
            now = identity_of(self._store.location)
            if now != self._opened:
                return Readiness(BROKEN, MOVED if now is None else REPLACED)
        return self._readiness

    @property
    def store(self) -> Store:
        """The index's store.

        Raises:
            NotReadyError: If a new index is still being made.
        """
        if self._store is None:
            raise NotReadyError(self._readiness.words)
        return self._store

    @property
    def index(self) -> Index:
        """The index with its encoders; waits up to half a minute for them.

        Raises:
            NotReadyError: If they are not there by then.
        """
        self._done.wait(30)
        if self._index is None:
            raise NotReadyError(self._readiness.words)
        return self._index

    def facts(self, *, fresh: bool = False) -> IndexFacts | None:
        """What the index holds, as old as counting it takes long unless `fresh`; None before there is one."""
        if self._store is None:
            return None
        begun = time.monotonic()
        if fresh or self._facts is None or begun > self._facts_until:
            self._facts = collect_facts(self._store)
            now = time.monotonic()
            self._facts_until = now + max(FACTS_SECONDS, (now - begun) / FACTS_SHARE)
        return self._facts

    def close(self) -> None:
        """Let go of the index."""
        if self._is_started:
            self._done.wait(60)
        if self._store is not None:
            self._store.close()


def identity_of(location: str) -> tuple[int, int] | None:
    """What tells an index in a directory from another that is put in its place; None for a served or missing one."""
    try:
        status = (Path(location) / "index.json").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
