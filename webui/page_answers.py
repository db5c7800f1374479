"""What happens when something is looked for, watched, collected or hidden: events tied to handlers."""

import functools
from dataclasses import replace
from typing import Any

import gradio as gr

from visxp_search.errors import UsageError
from webui import basket as baskets
from webui import handlers
from webui.basket import Collected, keep_basket, read_basket
from webui.handlers import INDEXED, Form, Found
from webui.page_find import FindParts, read_form
from webui.parts import PRIVATE, QUICK, Site, read_target, worded
from webui.views import pager_text, results_view, watch_view


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
        self.player = [watching, watch, column]
        self.watch = watch

    def connect(self, *, level: gr.HTML, basket_list: gr.HTML) -> None:
        """Tie the events to the methods."""
        find, results, watch = self.find, self.find.results, self.watch
        seen = [self.found, self.kept]
        find.button.click(
            worded(self.search),
            [*find.form, self.kept],
            self.listing,
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=results,
            concurrency_limit=2,
            concurrency_id="search",
        )
        find.earlier.click(worded(functools.partial(self.turn, -1)), seen, self.listing, **QUICK)
        find.later.click(worded(functools.partial(self.turn, 1)), seen, self.listing, **QUICK)
        results.watch(worded(self.play_result), seen, [*self.listing, *self.player], **QUICK)
        results.unhide(worded(self.unhide), seen, self.listing, **PRIVATE)
        for part in (results, watch):
            part.more(worded(self.more), [*find.options, self.kept], self.listing, **PRIVATE)
            part.hide(worded(self.hide), seen, self.listing, **PRIVATE)
            part.collect(worded(self.collect), [*seen, self.watching], [self.kept, results, watch], **QUICK)
        watch.close(lambda: (None, "", gr.update(visible=False)), None, self.player, **QUICK)
        for part in (level, basket_list):
            part.play(worded(self.play_span), self.kept, self.player, **QUICK)

    def search(self, *values: Any) -> tuple[Any, ...]:
        """Ask with what the form says."""
        *entered, kept = values
        return self._list(handlers.find(self.site.archive, read_form(entered), self.site.uploads), kept)

    def turn(self, step: int, found: Found | None, kept: Any) -> tuple[Any, ...]:
        """Show another page."""
        return self._list(handlers.turn_page(known(found), step), kept)

    def play_result(self, found: Found | None, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Play a moment of the results."""
        watched = handlers.watch(self.site.archive, known(found), event.value)
        chosen = replace(known(found), chosen=handlers.whole_number(event.value, "moment"))
        return (*self._list(chosen, kept), *self._play(watched, kept))

    def play_span(self, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Play a stretch that some other part of the page shows."""
        video_id, start, end, _ = read_target(event.value)
        return self._play(handlers.watch_span(self.site.archive, video_id, start, max(end, start + 1)), kept)

    def more(
        self,
        by: str,
        weight: float,
        mode: str,
        top: float,
        per_video: float,
        grouped: bool,
        kept: Any,
        event: gr.EventData,
    ) -> tuple[Any, ...]:
        """Search for more like a moment."""
        form = Form(INDEXED, None, "", "", "", by, weight, mode, False, int(top), int(per_video), grouped)
        video_id, start, end, _ = read_target(event.value)
        handlers.check_form(form)
        return self._list(handlers.more_like(self.site.archive, form, video_id, start, end), kept)

    def hide(self, found: Found | None, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Leave a video out."""
        return self._list(handlers.hide_video(self.site.archive, known(found), str(event.value)), kept)

    def unhide(self, found: Found | None, kept: Any) -> tuple[Any, ...]:
        """Look in all videos again."""
        return self._list(handlers.unhide_all(self.site.archive, known(found)), kept)

    def collect(
        self, found: Found | None, kept: Any, watching: handlers.Watched | None, event: gr.EventData
    ) -> tuple[Any, str, str]:
        """Put a moment into the basket, or take it out again."""
        basket = baskets.toggle(read_basket(kept), Collected(*read_target(event.value)))
        return keep_basket(basket), results_view(found, basket), watch_view(watching, basket)

    def _list(self, found: Found, kept: Any) -> tuple[Any, ...]:
        return (
            found,
            results_view(found, read_basket(kept)),
            pager_text(found),
            gr.update(visible=found.page > 0),
            gr.update(visible=found.page + 1 < found.n_pages),
        )

    def _play(self, watched: handlers.Watched, kept: Any) -> tuple[Any, ...]:
        return watched, watch_view(watched, read_basket(kept)), gr.update(visible=True)


def known(found: Found | None) -> Found:
    """The visitor's last search.

    Raises:
        UsageError: If there is none, as after a restart.
    """
    if found is None:
        raise UsageError("this search is no longer known; press Find moments again")
    return found
