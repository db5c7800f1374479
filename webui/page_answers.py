"""What happens when something is looked for, watched, collected or hidden: events tied to functions."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from visxp_search.errors import UsageError
from webui import asking, finding, watching, wording
from webui import basket as baskets
from webui.basket import Collected, keep_basket, read_basket
from webui.clusters import choose_hues, title_of
from webui.finding import Found
from webui.page_find import FindParts, read_form, read_options
from webui.parts import PRIVATE, QUICK, Site, read_target, worded
from webui.views import pager_text, results_view
from webui.views_watch import watch_view


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

    def connect(self, *players: gr.HTML) -> None:
        """Tie the events to the methods.

        Args:
            players: further parts of the page that play moments.
        """
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
        results.back(worded(self.back), seen, self.listing, **QUICK)
        results.drop(worded(self.drop), seen, self.listing, **PRIVATE)
        steps = {"unhide": finding.unhide_all, "weak": finding.show_weak, "instead": finding.hide_instead}
        for name, step in steps.items():
            getattr(results, name)(worded(functools.partial(self.change, step)), seen, self.listing, **PRIVATE)
        for part in (results, watch):
            part.more(worded(self.more), [*find.options, *seen], self.listing, **PRIVATE)
            part.hide(worded(self.hide), seen, self.listing, **PRIVATE)
            part.also(worded(self.also), seen, self.listing, **PRIVATE)
            part.unlike(worded(self.unlike), seen, self.listing, **PRIVATE)
            part.collect(
                worded(self.collect),
                [*seen, self.watching],
                [self.kept, results, watch],
                trigger_mode="always_last",
                **QUICK,
            )
        watch.close(lambda: (None, "", gr.update(visible=False)), None, self.player, **QUICK)
        watch.play(worded(self.play_span), self.kept, self.player, **QUICK)
        for part in players:
            part.play(worded(self.play_span), self.kept, self.player, **QUICK)

    def search(self, *values: Any) -> tuple[Any, ...]:
        """Ask with what the form says."""
        *entered, kept = values
        return self.listed(
            finding.find(self.site.archive, self.site.clusters, read_form(entered), self.site.uploads), kept
        )

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

    def more(self, event: gr.EventData, *values: Any) -> tuple[Any, ...]:
        """Search for more like a moment."""
        *entered, found, kept = values
        form = read_options(entered)
        asking.check_form(form)
        video_id, start, end, _ = read_target(event.value)
        more = finding.more_like(self.site.archive, self.site.clusters, form, video_id, start, end, found=found)
        return self.listed(more, kept)

    def also(self, found: Found | None, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Add a moment as an example of what is wanted."""
        return self.listed(self._add_round(found, event.value, wanted=True), kept)

    def unlike(self, found: Found | None, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Add a moment as an example of what is not wanted."""
        return self.listed(self._add_round(found, event.value, wanted=False), kept)

    def drop(self, found: Found | None, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Take an example away."""
        return self.listed(finding.drop_round(self.site.archive, self.site.clusters, known(found), event.value), kept)

    def back(self, found: Found | None, kept: Any) -> tuple[Any, ...]:
        """Show the search before."""
        return self.listed(finding.go_back(known(found)), kept)

    def hide(self, found: Found | None, kept: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Leave a video out."""
        site = self.site
        return self.listed(finding.hide_video(site.archive, site.clusters, known(found), str(event.value)), kept)

    def change(self, step: Callable[..., Found], found: Found | None, kept: Any) -> tuple[Any, ...]:
        """Make a step that needs to know no more."""
        return self.listed(step(self.site.archive, self.site.clusters, known(found)), kept)

    def collect(
        self, found: Found | None, kept: Any, watching: watching.Watched | None, event: gr.EventData
    ) -> tuple[Any, str, str]:
        """Put a moment into the basket, or take it out again."""
        basket = baskets.toggle(read_basket(kept), Collected(*read_target(event.value)))
        return keep_basket(basket), results_view(found, basket), self._watch_html(watching, basket)

    def _add_round(self, found: Found | None, target: object, *, wanted: bool) -> Found:
        video_id, start, end, _ = read_target(target)
        asked = known(found)
        return finding.add_round(self.site.archive, self.site.clusters, asked, video_id, start, end, wanted=wanted)

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
