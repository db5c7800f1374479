"""Where to look: from a person's terms to the store's filter."""

import pytest

from tests.qdrant_loopback import LOCAL_MODE
from tests.search_archive import make_videos, open_archive
from visxp_search.errors import UsageError
from visxp_search.filters import Scope, make_filter, matches, parse_date, path_matches
from visxp_search.store import Filter

pytestmark = LOCAL_MODE


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("/archive/news/a.mp4", "*.mp4", True),
        ("/archive/news/a.mp4", "news/*", True),
        ("/archive/news/a.mp4", "/archive/*", True),
        ("/archive/news/a.mp4", "a.mp4", True),
        ("/archive/news/a.mp4", "ews/*", False),
        ("/archive/news/a.mp4", "*.mxf", False),
    ],
)
def test_paths_match_whole_or_from_a_folder_on(path: str, pattern: str, expected: bool) -> None:
    """A pattern matches the whole path or its end, but never from the middle of a name."""
    assert path_matches(path, [pattern]) is expected


def test_conditions_on_videos_are_looked_up() -> None:
    """Path, duration and date of change become the ids of the videos that meet them all."""
    videos = make_videos(0, n_videos=3, n_seconds=10) | {"long": make_videos(1, n_videos=1)["video00"]}
    changed = {"video00": 100.0, "video01": 300.0, "video02": 300.0, "long": 300.0}
    paths = {"video00": "/a/x.mp4", "video01": "/a/y.mp4", "video02": "/b/z.mp4", "long": "/a/long.mp4"}
    with open_archive(videos, changed=changed, paths=paths) as store:
        scope = Scope(paths=("a/*",), max_duration=20, modified_since=200.0)
        assert make_filter(store, scope).video_ids == ("video01",)
        assert make_filter(store, Scope(min_duration=20)).video_ids == ("long",)
        assert make_filter(store, Scope(paths=("none/*",))).video_ids == ()
        assert make_filter(store, Scope()).video_ids is None


def test_matching_agrees_with_the_store() -> None:
    """A second passes `matches` exactly if the store returns it under the same filter."""
    videos = make_videos(0, n_videos=3, n_seconds=12)
    clusters = {video_id: [number % 4 for number in range(12)] for video_id in videos}
    flags = {"video01": [["static", "silent"] if number > 6 else ["static"] for number in range(12)]}
    filters = [
        Filter(video_ids=("video00", "video01")),
        Filter(not_video_ids=("video02",), clusters=(1, 2)),
        Filter(not_clusters=(0,), seconds=(3, 9)),
        Filter(flags=("static", "silent")),
        Filter(flags=("static",), not_flags=("silent",)),
        Filter(branch="root"),
        Filter(video_ids=()),
    ]
    with open_archive(videos, clusters=clusters, flags=flags) as store:
        everything = list(store.seconds())
        for where in filters:
            expected = {(point.video_id, point.second) for point in store.seconds(where)}
            assert {(p.video_id, p.second) for p in everything if matches(p, where)} == expected


def test_wrong_conditions_are_refused() -> None:
    """Unknown flags, empty ranges and dates that are none are errors that say what is allowed."""
    with open_archive({}) as store:
        with pytest.raises(UsageError, match="choose from no_video"):
            make_filter(store, Scope(flags=("dark",)))
        with pytest.raises(UsageError, match="--before 3 is not later"):
            make_filter(store, Scope(after=5, before=3))
    with pytest.raises(UsageError, match="write 2026-11-22"):
        parse_date("last week")
    assert parse_date("1970-01-02T00:00+00:00") == 86400
