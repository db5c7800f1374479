"""A search of the page, and the steps that a person makes from it: rounds, hiding, turning pages, going back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from visxp_search.clips import format_time
from visxp_search.errors import UsageError
from visxp_search.filters import make_filter
from visxp_search.queries import Progress, add_examples, untold
from visxp_search.search import Moment, Query, Results, find_moments, moment_query, results_to_json
from webui.archive import Archive
from webui.asking import INDEXED, Form, Uploads, check_form, indexed_query, read_query, whole_span
from webui.clusters import Clusters, title_of
from webui.narrow import make_scope
from webui.videos import indexed_record, name_of
from webui.wording import PAGE_WORDS, hide_folders, whole_number

PAGE_SIZE = 12
MAX_HIDDEN = 500
MAX_ROUNDS = 20
"""Examples that rounds of "also like" and "not like" may add to a search."""
CLUSTER_EXAMPLES = 4
"""Typical seconds of a cluster that a search for more like it asks with."""
MAX_EARLIER = 10
"""Searches that can be gone back to."""


@dataclass(frozen=True)
class Round:
    """An indexed moment that a person added to a search as an example of what is wanted, or of what is not."""

    video_id: str
    start: int
    end: int
    wanted: bool


@dataclass(frozen=True)
class Found:
    """A search and how it is being looked at; lives on the server, one per visitor.

    Attributes:
        base: what was asked with at first.
        results: what was found; its query has the examples of all rounds.
        form: with which options.
        names: video id -> what people are shown instead of a path.
        title: what was asked, in words.
        hidden: videos that are left out.
        rounds: examples that were added to it, oldest first.
        remainder: nothing stood out after "not like", so these moments are what is nearest without standing out.
        page: first page is 0.
        chosen: number of the moment being watched, or None.
        earlier: searches that this one came from, the last one last; theirs are empty.
    """

    base: Query
    results: Results
    form: Form
    names: Mapping[str, str]
    title: str
    hidden: tuple[str, ...] = ()
    rounds: tuple[Round, ...] = ()
    remainder: bool = False
    page: int = 0
    chosen: int | None = None
    earlier: tuple["Found", ...] = ()

    @property
    def query(self) -> Query:
        """What was asked with in the end."""
        return self.results.query

    @property
    def reason(self) -> str:
        """Why nothing was found, in the words of the page; empty if something was."""
        words = self.results.reason
        for said, shown in PAGE_WORDS.items():
            words = words.replace(said, shown)
        return hide_folders(words)

    @property
    def moments(self) -> tuple[Moment, ...]:
        """All moments, in the order in which they are shown."""
        if not self.form.grouped:
            return self.results.moments
        order = list(dict.fromkeys(moment.video_id for moment in self.results.moments))
        return tuple(sorted(self.results.moments, key=lambda moment: order.index(moment.video_id)))

    @property
    def n_pages(self) -> int:
        """At least 1."""
        return max(1, math.ceil(len(self.results.moments) / PAGE_SIZE))

    def moment(self, number: object) -> Moment:
        """The moment with this number, counted from 0.

        Raises:
            UsageError: If there is none.
        """
        index = whole_number(number, "moment")
        if not 0 <= index < len(self.moments):
            raise UsageError("this moment is no longer among the results; search again")
        return self.moments[index]


def find(archive: Archive, clusters: Clusters, form: Form, uploads: Uploads, *, progress: Progress = untold) -> Found:
    """Ask with what the form says; see `asking.read_query`.

    Raises:
        VisxpError: If the form cannot be answered; the words are for a person.
    """
    check_form(form)
    query, title = read_query(archive, form, uploads, progress=progress)
    return search(archive, clusters, query, form, title=title, progress=progress)


def search(
    archive: Archive,
    clusters: Clusters,
    query: Query,
    form: Form,
    *,
    title: str,
    hidden: Sequence[str] = (),
    rounds: Sequence[Round] = (),
    earlier: Sequence[Found] = (),
    progress: Progress = untold,
) -> Found:
    """Find the moments that answer a query and the examples of all rounds, leaving out hidden videos.

    What resembles an unwanted example loses as much, so in a small archive one "not like" can leave nothing that stands
    out from chance. Then the nearest that is left is shown, and `Found.remainder` says so.
    """
    store = archive.store
    asked = query
    if rounds:
        examples = [
            (moment_query(store, r.video_id, start=r.start, end=r.end, by=form.by, audio_weight=form.audio_weight), r)
            for r in rounds
        ]
        asked = add_examples(
            query,
            like=[example for example, r in examples if r.wanted],
            unlike=[example for example, r in examples if not r.wanted],
        )
    where = make_filter(store, make_scope(form.narrow, clusters, hidden=hidden))

    def look(*, weak: bool) -> Results:
        return find_moments(
            store,
            asked,
            mode=form.mode,
            top=form.top,
            per_video=form.per_video,
            where=where,
            max_chance=math.inf if weak else None,
            progress=progress,
        )

    results = look(weak=form.weak)
    remainder = not results.moments and not form.weak and any(not r.wanted for r in rounds)
    if remainder:
        results = look(weak=True)
    wanted = {moment.video_id for moment in results.moments} | {r.video_id for r in rounds}
    names = {video_id: name_of(store, video_id) for video_id in wanted}
    return Found(
        query,
        results,
        form,
        names,
        title,
        tuple(hidden),
        tuple(rounds),
        remainder=remainder,
        earlier=tuple(earlier)[-MAX_EARLIER:],
    )


def again(archive: Archive, clusters: Clusters, found: Found, **changes: Any) -> Found:
    """The same search with something changed; it can be gone back from.

    Args:
        archive: the index.
        clusters: its clusters.
        found: the search so far.
        changes: arguments of `search`.
    """
    asked: dict[str, Any] = {"title": found.title, "hidden": found.hidden, "rounds": found.rounds} | changes
    form = asked.pop("form", found.form)
    return search(archive, clusters, found.base, form, earlier=(*found.earlier, replace(found, earlier=())), **asked)


def more_like(
    archive: Archive, clusters: Clusters, form: Form, video_id: str, start: float, end: float, *, found: Found | None
) -> Found:
    """A new search for more like an indexed moment, with the options of the form.

    `found` can be gone back to, and what is hidden in it stays so.
    """
    record = indexed_record(archive.store, video_id)
    options = replace(form, kind=INDEXED, video=video_id, start=str(start), end=str(end), cross=False)
    first, stop = whole_span(start, end)
    query, title = indexed_query(archive.store, record, first, stop, options)
    earlier = () if found is None else (*found.earlier, replace(found, earlier=()))
    hidden = () if found is None else found.hidden
    return search(archive, clusters, query, options, title=f"more like {title}", hidden=hidden, earlier=earlier)


def search_cluster(archive: Archive, clusters: Clusters, form: Form, node: str) -> Found:
    """A search with what stands for a cluster or branch: its typical seconds as examples.

    Raises:
        UsageError: If there is no such node, or it has no seconds.
    """
    known = clusters.require()
    description = known.descriptions[known.book.find(node)]
    if not description.nearest:
        raise UsageError(f"{node} has no seconds to ask with")
    first, *others = [(e.video_id, e.second, e.second + 1) for e in description.nearest[:CLUSTER_EXAMPLES]]
    query = moment_query(
        archive.store, first[0], start=first[1], end=first[2], by=form.by, audio_weight=form.audio_weight
    )
    rounds = [Round(video_id, start, end, wanted=True) for video_id, start, end in others]
    name = name_of(archive.store, first[0])
    asked = f"{title_of(known.book, description.node)}: {name}, {format_time(first[1])}"
    return search(archive, clusters, query, form, title=asked, rounds=rounds)


def add_round(
    archive: Archive, clusters: Clusters, found: Found, video_id: str, start: float, end: float, *, wanted: bool
) -> Found:
    """The same search with one more example of what is wanted, or of what is not.

    Raises:
        UsageError: If there are too many, or the moment is no longer indexed.
    """
    record = indexed_record(archive.store, video_id)
    first, stop = whole_span(start, end)
    example = Round(record.video_id, first, stop, wanted)
    others = tuple(r for r in found.rounds if (r.video_id, r.start, r.end) != (example.video_id, first, stop))
    if len(others) >= MAX_ROUNDS:
        raise UsageError(f"a search holds {MAX_ROUNDS} examples; take one away, or begin anew with More")
    return again(archive, clusters, found, rounds=(*others, example))


def drop_round(archive: Archive, clusters: Clusters, found: Found, number: object) -> Found:
    """The same search without one of its examples."""
    at = whole_number(number, "example")
    return again(archive, clusters, found, rounds=tuple(r for n, r in enumerate(found.rounds) if n != at))


def hide_instead(archive: Archive, clusters: Clusters, found: Found) -> Found:
    """The same search with the videos of unwanted examples left out, instead of all that resembles those examples."""
    unwanted = [r.video_id for r in found.rounds if not r.wanted]
    hidden = tuple(dict.fromkeys((*found.hidden, *unwanted)))[-MAX_HIDDEN:]
    return again(archive, clusters, found, hidden=hidden, rounds=tuple(r for r in found.rounds if r.wanted))


def go_back(found: Found) -> Found:
    """The search before this one; the first one stays."""
    return replace(found.earlier[-1], earlier=found.earlier[:-1]) if found.earlier else found


def show_weak(archive: Archive, clusters: Clusters, found: Found) -> Found:
    """The same search with what chance gives."""
    return again(archive, clusters, found, form=replace(found.form, weak=True))


def hide_video(archive: Archive, clusters: Clusters, found: Found, video_id: str) -> Found:
    """The same search without one more video."""
    indexed_record(archive.store, video_id)
    hidden = tuple(dict.fromkeys((*found.hidden, video_id)))[-MAX_HIDDEN:]
    return again(archive, clusters, found, hidden=hidden)


def unhide_all(archive: Archive, clusters: Clusters, found: Found) -> Found:
    """The same search in all videos again."""
    return again(archive, clusters, found, hidden=())


def turn_page(found: Found, step: int) -> Found:
    """Another page of the same results; stops at both ends."""
    return replace(found, page=min(max(0, found.page + step), found.n_pages - 1))


def results_document(found: Found) -> dict[str, Any]:
    """The JSON of DESIGN section 4 with `name` instead of `path`: the server's folders are nobody's business.

    `gradio_client` would, besides, try to download whatever has a `path`.
    """
    document = results_to_json(found.results)
    document["query"].pop("path", None)
    document["query"]["title"] = found.title
    for moment in document["moments"]:
        del moment["path"]
        moment["name"] = found.names.get(moment["video_id"], moment["video_id"])
    return document
