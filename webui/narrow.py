"""Where to look: what a person fills in beside the query becomes a scope of the search. Knows nothing of Gradio."""

from collections.abc import Sequence
from dataclasses import dataclass

from visxp_search.clips import FLAGS, parse_time
from visxp_search.errors import UsageError
from visxp_search.filters import Scope
from webui.clusters import Clusters

MAX_LISTED = 200
"""Videos, clusters or patterns that one search may name."""


@dataclass(frozen=True)
class Narrow:
    """Conditions on what is found, as a person writes them; empty ones hold always.

    Attributes:
        files: name patterns, of which one must match, separated by commas (`*.mxf, news/*`).
        videos: ids of the only videos to look in.
        nodes: clusters and branches of which a second must be in one.
        flags: flags that a second must have.
        not_flags: flags that it must not have.
        after: time of a video before which nothing is found.
        before: time of a video from which on nothing is found.
        shortest: least length of a video.
        longest: greatest length of a video.
    """

    files: str = ""
    videos: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    not_flags: tuple[str, ...] = ()
    after: str = ""
    before: str = ""
    shortest: str = ""
    longest: str = ""

    @property
    def n_conditions(self) -> int:
        """How many of them are given."""
        return sum(bool(value) for value in vars(self).values())


EVERYWHERE = Narrow()


def make_scope(narrow: Narrow, clusters: Clusters, *, hidden: Sequence[str] = ()) -> Scope:
    """The scope of a search.

    Args:
        narrow: what a person filled in.
        clusters: what is known of the clusters, for `narrow.nodes`.
        hidden: videos not to look in.

    Raises:
        UsageError: If a time is not understood, a range is empty, or a cluster or flag is unknown.
    """
    for flag in (*narrow.flags, *narrow.not_flags):
        if flag not in FLAGS:
            raise UsageError(f"{flag!r} is no remark on seconds; choose from {', '.join(FLAGS)}")
    after, before = _time(narrow.after) or 0.0, _time(narrow.before)
    if before is not None and before <= after:
        raise UsageError(f"nothing lies between {narrow.after or '0'} and {narrow.before}; the second time is later")
    patterns = tuple(part.strip() for part in narrow.files.split(",") if part.strip())
    for listed in (patterns, narrow.videos, narrow.nodes):
        if len(listed) > MAX_LISTED:
            raise UsageError(f"{len(listed)} conditions of one sort; at most {MAX_LISTED} can be given")
    return Scope(
        videos=narrow.videos,
        hidden=tuple(hidden),
        # A bare word means any name that holds it.
        paths=tuple(part if any(sign in part for sign in "*?[") else f"*{part}*" for part in patterns),
        min_duration=_time(narrow.shortest),
        max_duration=_time(narrow.longest),
        clusters=clusters.below(narrow.nodes),
        flags=narrow.flags,
        not_flags=narrow.not_flags,
        after=after,
        before=before,
    )


def _time(text: str) -> float | None:
    try:
        return parse_time(text.strip()) if text.strip() else None
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
