"""What happens when something is looked for, watched, collected or hidden: events tied to functions."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from visxp_search.errors import UsageError, VisxpError
from visxp_search.queries import Progress
from webui import asking, finding, watching, wording
from webui import basket as baskets
from webui.basket import Collected, keep_basket, read_basket
from webui.clusters import choose_hues, title_of
from webui.finding import Found
from webui.page_find import FindParts, read_form, read_options
from webui.parts import PRIVATE, QUICK, Site, read_target, worded, worded_steps
from webui.searching import Search
from webui.views import pager_text, results_view, search_view
from webui.views_watch import watch_view

POLL_SECONDS = 0.3
MAX_FOLLOWED = 24
"""Visitors whose searches are followed at once; each holds one of Gradio's 40 threads."""
SEARCHED = PRIVATE | {"concurrency_limit": MAX_FOLLOWED, "concurrency_id": "search"}
CANCELLED = '<p class="vx-hint" role="status">Cancelled; the results are those of before.</p>'


class Answers:
    """What happens when something is looked for, watched, collected or hidden.

    Args:
        site: the site.
        found: state of the visitor's last search.
        kept: the basket in the browser.
        watching: state of what is being played.
        watch: the player's HTML.
        column: what holds the player; hidden while nothing is played.
        find: the Find tab.
    """

    def __init__(
        self,
        site: Site,
        *,
        found: gr.State,
        kept: gr.BrowserState,
        watching: gr.State,
        watch: gr.HTML,
        column: gr.Column,
        find: FindParts,
    ) -> None:
        self.site = site
        self.find = find
        self.found, self.kept, self.watching = found, kept, watching
        self.listing = [found, find.results, find.pager, find.earlier, find.later]
        self.searched = [*self.listing, find.search, find.progress]
        self.player = [watching, watch, column]
        self.watch = watch

    def connect(self, *players: gr.HTML) -> None:
        """Tie the events to the methods.

        Args:
            players: further parts of the page that play moments.
        """
        find, results, watch = self.find, self.find.results, self.watch
        seen = [self.found, self.kept]
        self._connect_searches()
        find.earlier.click(worded(functools.partial(self.turn, -1)), seen, self.listing, **QUICK)
        find.later.click(worded(functools.partial(self.turn, 1)), seen, self.listing, **QUICK)
        results.watch(worded(self.play_result), seen, [*self.listing, *self.player], **QUICK)
        results.back(worded(self.back), seen, self.listing, **QUICK)
        for part in (results, watch):
            part.collect(
                worded(self.collect),
                [*seen, self.watching],
                [self.kept, results, watch],
                trigger_mode="always_last",
                **QUICK,
            )
        watch.close(lambda: (None, "", gr.update(visible=False)), None, self.player, **QUICK)
        for part in (watch, results, *players):
            part.play(worded(self.play_span), self.kept, self.player, **QUICK)

    def _connect_searches(self) -> None:
        """Tie everything that searches; each of them can be followed and ended."""
        find, archive, clusters = self.find, self.site.archive, self.site.clusters
        seen = [self.found, self.kept, find.search]

        def by_form(found: Found | None, value: Any, *entered: Any, progress: Progress) -> Found:
            return finding.find(archive, clusters, read_form(entered), self.site.uploads, progress=progress)

        def more(found: Found | None, value: Any, *entered: Any, progress: Progress) -> Found:
            form = read_options(entered)
            asking.check_form(form)
            video_id, start, end, _ = read_target(value)
            return finding.more_like(archive, clusters, form, video_id, start, end, found=found)

        def one_more(found: Found | None, value: Any, *, wanted: bool, progress: Progress) -> Found:
            video_id, start, end, _ = read_target(value)
            return finding.add_round(archive, clusters, known(found), video_id, start, end, wanted=wanted)

        def drop(found: Found | None, value: Any, progress: Progress) -> Found:
            return finding.drop_round(archive, clusters, known(found), value)

        def hide(found: Found | None, value: Any, progress: Progress) -> Found:
            return finding.hide_video(archive, clusters, known(found), str(value))

        def change(step: Callable[..., Found], found: Found | None, value: Any, progress: Progress) -> Found:
            return step(archive, clusters, known(found))

        steps = {"unhide": finding.unhide_all, "weak": finding.show_weak, "instead": finding.hide_instead}
        on_results: dict[str, Callable[..., Found]] = {
            name: functools.partial(change, step) for name, step in steps.items()
        }
        on_results["drop"] = drop
        on_moments: dict[str, Callable[..., Found]] = {
            "also": functools.partial(one_more, wanted=True),
            "unlike": functools.partial(one_more, wanted=False),
            "hide": hide,
        }
        for name, ask in on_results.items():
            getattr(find.results, name)(self.searching(ask), seen, self.searched, **SEARCHED)
        for part in (find.results, self.watch):
            for name, ask in on_moments.items():
                getattr(part, name)(self.searching(ask), seen, self.searched, **SEARCHED)
            part.more(self.searching(more), [*find.options, *seen], self.searched, **SEARCHED)
        find.button.click(self.searching(by_form), [*find.form, *seen], self.searched, **SEARCHED)
        find.progress.stop(lambda search: None if search is None else search.cancel(), find.search, None, **QUICK)

    def searching(self, ask: Callable[..., Found]) -> Callable[..., Iterator[tuple[Any, ...]]]:
        """The handler of a search, whose values are those of `searched`.

        Args:
            ask: makes it, of (the search before, the event's value, what was entered) and `progress`.
        """

        def handler(event: gr.EventData, *values: Any) -> Iterator[tuple[Any, ...]]:
            *entered, found, kept, before = values
            value = (event._data or {}).get("value")
            yield from self.follow(lambda tell: ask(found, value, *entered, progress=tell), kept, before)

        return worded_steps(handler)

    def follow(self, ask: Callable[[Progress], Found], kept: Any, before: Search | None) -> Iterator[tuple[Any, ...]]:
        """Make a search and tell how far it is: the values of `searched`, several times.

        Args:
            ask: makes it.
            kept: the basket.
            before: the visitor's search before this one, which nobody waits for any more.
        """
        if before is not None:
            before.cancel()
        search = self.site.searches.start(ask)
        same = [gr.skip()] * len(self.listing)
        try:
            while not search.has_ended(POLL_SECONDS):
                yield (*same, search, search_view(search))
            try:
                found = search.found()
            except VisxpError:
                yield (*same, None, "")
                raise
            if found is None:
                yield (*same, None, CANCELLED)
            else:
                yield (*self.listed(found, kept), None, "")
        finally:
            search.cancel()  # the visitor may have left

    def turn(self, step: int, found: Found | None, kept: Any) -> tuple[Any, ...]:
        """Show another page."""
        return self.listed(finding.turn_page(known(found), step), kept)

    def play_result(self, found: Found | None, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Play a moment of the results."""
        watched = watching.watch(self.site.archive, self.site.clusters, known(found), event.value, self.site.uploads)
        chosen = replace(known(found), chosen=wording.whole_number(event.value, "moment"))
        return (*self.listed(chosen, kept), *self._play(watched, kept))

    def play_span(self, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Play a stretch that some other part of the page shows."""
        video_id, start, end, _ = read_target(event.value)
        watched = watching.watch_span(self.site.archive, self.site.clusters, video_id, start, max(end, start + 1))
        return self._play(watched, kept)

    def back(self, found: Found | None, kept: Any) -> tuple[Any, ...]:
        """Show the search before."""
        return self.listed(finding.go_back(known(found)), kept)

    def collect(
        self, found: Found | None, kept: Any, watching: watching.Watched | None, event: gr.EventData
    ) -> tuple[Any, Any, str]:
        """Put a moment into the basket, or take it out again."""
        basket = baskets.toggle(read_basket(kept), Collected(*read_target(event.value)))
        results = gr.skip() if found is None else results_view(found, basket)
        return keep_basket(basket), results, self._watch_html(watching, basket)

    def listed(self, found: Found, kept: Any) -> tuple[Any, ...]:
        """The values of `listing`."""
        return (
            found,
            results_view(found, read_basket(kept)),
            pager_text(found),
            gr.update(visible=found.page > 0),
            gr.update(visible=found.page + 1 < found.n_pages),
        )

    def _play(self, watched: watching.Watched, kept: Any) -> tuple[Any, ...]:
        return watched, self._watch_html(watched, read_basket(kept)), gr.update(visible=True)

    def _watch_html(self, watched: watching.Watched | None, basket: Sequence[Collected]) -> str:
        titles = {}
        book = self.site.clusters.book() if watched is not None and watched.strip else None
        if book is not None:
            hues = choose_hues(book)
            titles = {number: (title_of(book, f"c{number}"), hues[f"c{number}"]) for number in book.clusters()}
        return watch_view(watched, basket, titles=titles)


def known(found: Found | None) -> Found:
    """The visitor's last search.

    Raises:
        UsageError: If there is none, as after a restart.
    """
    if found is None:
        raise UsageError("this search is no longer known; press Find moments again")
    return found
