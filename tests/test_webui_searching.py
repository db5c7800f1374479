"""Searches that can be followed and ended: turns, progress, cancelling, and what a query tells while it is made."""

import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from tests.webui_site import RED, YELLOW, ColourEmbedder, write_colours
from visxp_search.errors import UsageError
from visxp_search.queries import EMBED_STEP, Progress, clip_query
from webui.finding import Found
from webui.searching import AT_A_TIME, Search, Searches
from webui.views import search_view

FOUND: Found = cast(Found, object())


class Held:
    """A search that goes on when it is let, and remembers how it ended."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.cancelled = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, tell: Progress) -> Found:
        """Make it."""
        tell("read", 3, 12)
        self.begun.set()
        assert self.go_on.wait(30)
        try:
            tell("embed", 0, 12)
        except CancelledError:
            self.cancelled.set()
            raise
        return FOUND


def ended(search: Search) -> bool:
    """Whether it ends soon."""
    return search.has_ended(30)


def test_a_search_is_followed_to_its_end() -> None:
    """While it runs it says what is done and how far; then it has what was found."""
    held = Held()
    search = Searches().start(held)
    assert held.begun.wait(30) and not search.has_ended(0.01)
    assert "Reading the file: 3 of 12 s" in search_view(search) and 'data-act="stop"' in search_view(search)
    held.go_on.set()
    assert ended(search) and search.found() is FOUND


def test_more_searches_wait_for_their_turn() -> None:
    """No more than `AT_A_TIME` run; one that waits says so, and can be ended before it ever begins."""
    searches, running = Searches(), [Held() for _ in range(AT_A_TIME)]
    first = [searches.start(held) for held in running]
    assert all(held.begun.wait(30) for held in running)
    waiting = Held()
    third = searches.start(waiting)
    assert "Waiting for its turn" in search_view(third)
    third.cancel()
    for held in running:
        held.go_on.set()
    assert all(ended(search) for search in first)
    assert ended(third) and third.found() is None and not waiting.begun.is_set()


def test_a_cancelled_search_ends_at_its_next_step() -> None:
    """For the visitor it has ended at once; the work ends when it next tells how far it is."""
    held = Held()
    search = Searches().start(held)
    assert held.begun.wait(30)
    search.cancel()
    assert search.has_ended(0.0) and search.found() is None
    held.go_on.set()
    assert held.cancelled.wait(30)


def test_what_cannot_be_answered_is_said() -> None:
    """An error of the search is the visitor's."""

    def wrong(tell: Progress) -> Found:
        raise UsageError("choose a video first")

    search = Searches().start(wrong)
    assert ended(search)
    with pytest.raises(UsageError, match="choose a video"):
        search.found()


def test_a_query_tells_how_far_it_is_and_can_be_ended(tmp_path: Path) -> None:
    """Reading tells every second and embedding every step; raising ends it there; the steps change nothing."""
    colours = [RED, YELLOW] * EMBED_STEP
    path, embedder = write_colours(tmp_path / "long.mp4", colours), ColourEmbedder()
    told: list[tuple[str, int, int]] = []
    query = clip_query(path, embedder, progress=lambda *step: told.append(step))
    n = len(colours)
    assert told == [("read", done, n) for done in range(1, n + 1)] + [("embed", 0, n), ("embed", EMBED_STEP, n)]
    whole = np.concatenate([clip_query(path, embedder, start=s, end=s + 1).vectors["visual"] for s in range(n)])
    np.testing.assert_array_equal(query.vectors["visual"], whole)

    def stop(what: str, done: int, total: int) -> None:
        if done == 5:
            raise CancelledError

    with pytest.raises(CancelledError):
        clip_query(path, embedder, progress=stop)
