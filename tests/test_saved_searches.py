"""Saved searches: kept, run again, and asked what is new."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from tests.qdrant_loopback import LOCAL_MODE
from tests.search_archive import add_noise, make_query, make_seconds, make_videos, open_archive
from visxp_search.api import Index
from visxp_search.errors import CollectionError, UsageError
from visxp_search.filters import Scope
from visxp_search.queries import Query
from visxp_search.saved_searches import (
    SavedSearch,
    SavedSearches,
    describe,
    saved_searches_path,
)
from visxp_search.store import SecondPoint, Store, VideoRecord, make_payload

pytestmark = LOCAL_MODE


def make_saved(name: str = "goals") -> SavedSearch:
    """A saved search with everything that one can have."""
    rng = np.random.default_rng(0)
    rows = make_seconds(rng, 3)
    rows[1] = np.nan
    query = Query(
        kind="clip",
        vectors={"visual": rows},
        weights={"visual": 1.0},
        origin={"path": "goal.mp4", "start": 0},
        examples=(0, 0, 1),
        against={"visual": make_seconds(rng, 1)},
        fine_vectors={"visual": make_seconds(rng, 9)},
        sound_levels=make_seconds(rng, 20),
        notes=("the picture is black in 1 of 3 s",),
    )
    options = {"mode": "same", "top": 5, "scope": Scope(paths=("sport/*",)), "then": make_query({"visual": rows[:1]})}
    return SavedSearch(name, "made-up", query, options, seen=(("video01", 3.0, 6.0),), known={"video01": 40})


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    """A search that was kept has the same query, options and memory when it is read again."""
    saved = make_saved()
    searches = SavedSearches(tmp_path / "saved_searches.json")
    searches.put(saved)
    found = SavedSearches(tmp_path / "saved_searches.json").get("goals")
    np.testing.assert_array_equal(found.query.vectors["visual"], saved.query.vectors["visual"])
    np.testing.assert_array_equal(found.query.against["visual"], saved.query.against["visual"])
    np.testing.assert_array_equal(found.query.fine_vectors["visual"], saved.query.fine_vectors["visual"])
    assert found.query.examples == (0, 0, 1)
    assert found.query.notes == saved.query.notes
    assert found.options["scope"] == saved.options["scope"]
    assert found.options["then"].n_seconds == 1
    assert found.seen == saved.seen
    assert describe(found)["options"] == {
        "mode": "same",
        "top": 5,
        "paths": ("sport/*",),
        "then": saved.options["then"].origin,
    }


def test_searches_of_earlier_releases_are_read(tmp_path: Path) -> None:
    """A search that was saved before queries were cut finely is read as one that was not."""
    searches = SavedSearches(tmp_path / "saved_searches.json")
    searches.put(make_saved())
    document = json.loads(searches.path.read_text("utf-8"))
    del document["searches"]["goals"]["query"]["fine_vectors"], document["searches"]["goals"]["query"]["sound_levels"]
    del document["searches"]["goals"]["known"]
    searches.path.write_text(json.dumps(document), "utf-8")
    saved = searches.get("goals")
    assert saved.query.fine_vectors == {} and saved.query.sound_levels is None and saved.known == {}


def test_new_is_what_is_indexed_since_the_last_run(tmp_path: Path) -> None:
    """`--new` shows a copy in a new video and one in new seconds of a video, once, and no lower ranks of before."""
    videos = make_videos(0)
    rng = np.random.default_rng(1)
    jingle = {name: rows[10:14].copy() for name, rows in videos["video03"].items()}
    for old in ("video04", "video05"):
        for name, rows in jingle.items():
            videos[old][name][20:24] = add_noise(rng, rows, amount=0.1)

    def add(store: Store, video_id: str) -> None:
        for second in range(20, 24):
            vectors = {name: add_noise(rng, rows[[second - 20]], amount=0.1)[0] for name, rows in jingle.items()}
            payload = make_payload(video_id=video_id, second=second, has_audio=True, flags=[], checkpoint="made-up")
            store.upsert_seconds([SecondPoint(video_id, second, vectors, payload)])
        old = store.video(video_id)
        record = replace(old or VideoRecord(video_id, paths=(f"/{video_id}.mp4",)), seconds_done=44)
        store.upsert_videos([record])

    with (
        open_archive(videos) as store,
        patch("visxp_search.api.saved_searches_path", lambda _: tmp_path / "saved.json"),
    ):
        index = Index(store, embedder=None)  # type: ignore[arg-type]
        options: dict[str, Any] = {"mode": "same", "top": 1}
        index.save_search("jingle", make_query(jingle), options, index.search(make_query(jingle), **options))
        nothing = index.run_saved("jingle", only_new=True).results
        assert nothing.moments == () and "nothing new" in nothing.reason and "0 videos" in nothing.reason
        for video_id in ("video07", "video99"):
            add(store, video_id)
            (new,) = index.run_saved("jingle", only_new=True).results.moments
            assert new.video_id == video_id
            assert index.run_saved("jingle", only_new=True).results.moments == ()
        assert len(index.run_saved("jingle").results.moments) == 1


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    """A search of another checkpoint is an error that says to save it anew, not a bad ranking."""
    with open_archive({}) as store:
        index = Index(store, embedder=None)  # type: ignore[arg-type]
        foreign = SavedSearch("old", "another", make_saved().query)
        with pytest.raises(UsageError, match="--save it anew"):
            index.search_saved(foreign)


def test_names_are_listed_and_forgotten(tmp_path: Path) -> None:
    """Names are sorted; a forgotten one is unknown, and the error lists those there are."""
    searches = SavedSearches(tmp_path / "saved.json")
    for name in ("b", "a"):
        searches.put(make_saved(name))
    assert searches.names() == ["a", "b"]
    searches.forget("a")
    with pytest.raises(UsageError, match="there are b"):
        searches.get("a")
    with pytest.raises(UsageError, match="not allowed"):
        searches.put(make_saved("../evil"))


def test_damage_is_reported(tmp_path: Path) -> None:
    """A damaged file is an error that names it."""
    path = tmp_path / "saved.json"
    for text in ("{", '{"format": "other"}', "[]"):
        path.write_text(text)
        with pytest.raises(CollectionError, match=r"saved\.json is damaged"):
            SavedSearches(path).names()


def test_served_indexes_have_a_file_each() -> None:
    """An embedded index keeps its searches in its directory, each URL in a file of its own outside."""
    assert saved_searches_path("/data/index") == Path("/data/index/saved_searches.json")
    first, second = saved_searches_path("http://host:6333/a"), saved_searches_path("http://host:6333/b")
    assert first != second and first.parent == second.parent
    assert saved_searches_path("http://host:6333/a/") == first
