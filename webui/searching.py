"""Searches of visitors: done in threads of their own, a few at a time, so that each can be followed and ended."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait

from visxp_search.queries import Progress
from webui.finding import Found

AT_A_TIME = 2
"""Searches computed at once; the others wait."""


class Search:
    """One search while it is made, and afterwards.

    Attributes:
        what: what is being done: `wait`, `read`, `embed` or `compare`.
        done: seconds of it that are done.
        total: seconds in all; 0 while unknown.
    """

    def __init__(self, ask: Callable[[Progress], Found], pool: ThreadPoolExecutor) -> None:
        self.what, self.done, self.total = "wait", 0, 0
        self._cancelled = threading.Event()
        self._future: Future[Found] = pool.submit(ask, self._tell)

    @property
    def is_cancelled(self) -> bool:
        """Whether it was ended early; it may still need a moment for that."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End it: at once if it waits, else at its next step."""
        self._cancelled.set()
        self._future.cancel()

    def has_ended(self, timeout_seconds: float) -> bool:
        """Wait for its end for so long; a cancelled one has ended, since nobody waits for it any more."""
        if not self.is_cancelled:
            wait([self._future], timeout_seconds)
        return self.is_cancelled or self._future.done()

    def found(self) -> Found | None:
        """What was found, once it has ended; None if it was cancelled.

        Raises:
            VisxpError: If it cannot be answered.
        """
        return None if self.is_cancelled else self._future.result()

    def _tell(self, what: str, done: int, total: int) -> None:
        self.what, self.done, self.total = what, done, total
        if self.is_cancelled:
            raise CancelledError


class Searches:
    """The searches of all visitors."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="search")

    def start(self, ask: Callable[[Progress], Found]) -> Search:
        """Begin a search in the background, or let it wait for its turn.

        Args:
            ask: makes the search, telling how far it is.
        """
        return Search(ask, self._pool)

    def stop(self) -> None:
        """Let none begin any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
