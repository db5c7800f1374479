"""Where to look: what people say of videos and seconds becomes a filter of the store."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import PurePath

from visxp_search.clips import FLAGS
from visxp_search.errors import UsageError
from visxp_search.store import Filter, SecondPoint, Store, VideoRecord


@dataclass(frozen=True)
class Scope:
    """Where to look, in a person's terms; every condition given must hold.

    Attributes:
        videos: ids of the only videos to look in; empty for all.
        hidden: ids of videos not to look in.
        paths: glob patterns, of which one must match the path, or its end from a folder on (`tapes/*.mp4`).
        min_duration: seconds that a video has at least.
        max_duration: seconds that a video has at most.
        modified_since: UNIX time after which the file was last changed.
        clusters: pseudo-labels of which a second must have one.
        not_clusters: pseudo-labels that a second must not have.
        branch: element of the cluster path that a second must have.
        flags: flags that a second must have, all of them.
        not_flags: flags that it must not have.
        after: seconds from the start of a video before which nothing is found.
        before: seconds from the start of a video from which on nothing is found.
    """

    videos: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    min_duration: float | None = None
    max_duration: float | None = None
    modified_since: float | None = None
    clusters: tuple[int, ...] = ()
    not_clusters: tuple[int, ...] = ()
    branch: str | None = None
    flags: tuple[str, ...] = ()
    not_flags: tuple[str, ...] = ()
    after: float = 0.0
    before: float | None = None


def make_filter(store: Store, scope: Scope) -> Filter:
    """The store's filter; conditions on videos are looked up in the ledger.

    Raises:
        UsageError: If a flag is unknown, or a range is empty.
    """
    for flag in (*scope.flags, *scope.not_flags):
        if flag not in FLAGS:
            raise UsageError(f"flag {flag!r} is unknown; choose from {', '.join(FLAGS)}")
    if scope.before is not None and scope.before <= scope.after:
        raise UsageError(f"--before {scope.before:g} is not later than --after {scope.after:g}")
    seconds = None
    if scope.after > 0 or scope.before is not None:
        seconds = (int(scope.after), 2**31 if scope.before is None else -int(-scope.before // 1))
    return Filter(
        video_ids=_wanted_videos(store, scope),
        not_video_ids=scope.hidden,
        clusters=scope.clusters or None,
        not_clusters=scope.not_clusters,
        branch=scope.branch,
        flags=scope.flags,
        not_flags=scope.not_flags,
        seconds=seconds,
    )


def matches(point: SecondPoint, where: Filter | None) -> bool:
    """Whether the store would return this second under the filter (apart from `has_vector`)."""
    if where is None:
        return True
    payload = point.payload
    cluster, flags = payload.get("cluster"), payload.get("flags", ())
    return (
        (where.video_ids is None or point.video_id in where.video_ids)
        and point.video_id not in where.not_video_ids
        and (where.clusters is None or cluster in where.clusters)
        and (where.clusters_visual is None or payload.get("cluster_visual") in where.clusters_visual)
        and (where.clusters_audio is None or payload.get("cluster_audio") in where.clusters_audio)
        and cluster not in where.not_clusters
        and (where.branch is None or where.branch in payload.get("path", ()))
        and all(flag in flags for flag in where.flags)
        and not any(flag in flags for flag in where.not_flags)
        and (where.seconds is None or where.seconds[0] <= point.second < where.seconds[1])
    )


def parse_date(text: str) -> float:
    """UNIX time of `2026-11-22` or `2026-11-22T13:00`, in local time unless it names a zone.

    Raises:
        UsageError: If the text is neither.
    """
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as exc:
        raise UsageError(f"date {text!r} not understood; write 2026-11-22 or 2026-11-22T13:00") from exc


def path_matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a glob pattern matches the whole path, or its end from the beginning of a folder or file name on."""
    parts = PurePath(path).parts
    ends = [path, *("/".join(parts[at:]) for at in range(1, len(parts)))]
    return any(fnmatchcase(end, pattern) for pattern in patterns for end in ends)


def _wanted_videos(store: Store, scope: Scope) -> tuple[str, ...] | None:
    if not (scope.paths or scope.modified_since or scope.min_duration is not None or scope.max_duration is not None):
        return scope.videos or None
    return tuple(
        record.video_id
        for record in store.videos()
        if (not scope.videos or record.video_id in scope.videos) and _video_matches(record, scope)
    )


def _video_matches(record: VideoRecord, scope: Scope) -> bool:
    changed = max((stat[1] / 1e9 for stat in record.stats.values()), default=0.0)
    return (
        (not scope.paths or any(path_matches(path, scope.paths) for path in record.paths))
        and (scope.min_duration is None or record.duration_seconds >= scope.min_duration)
        and (scope.max_duration is None or record.duration_seconds <= scope.max_duration)
        and (scope.modified_since is None or changed >= scope.modified_since)
    )
