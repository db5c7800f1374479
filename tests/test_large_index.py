"""Tests of what only large archives meet: sealed segments, videos left out cheaply, and places instead of videos."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest

from visxp_search import candidates, store_collection, store_edge
from visxp_search.candidates import find_candidates
from visxp_search.errors import CollectionError
from visxp_search.mapped_pages import release_mapped_pages
from visxp_search.queries import Query
from visxp_search.reader import Reader
from visxp_search.search import find_moments
from visxp_search.store import DONE, Filter, SecondPoint, Store, VideoRecord, make_payload, open_store

FloatArray = npt.NDArray[np.float32]

DIM = 32
N_VIDEOS, VIDEO_SECONDS = 12, 150


def unit(rows: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Rows of norm 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def video_id(number: int) -> str:
    """The id of the n-th video."""
    return f"{number:032x}"


def make_vectors() -> FloatArray:
    """(N_VIDEOS, VIDEO_SECONDS, D) seconds in shots of five."""
    rng = np.random.default_rng(0)
    shots = np.repeat(rng.standard_normal((N_VIDEOS, VIDEO_SECONDS // 5, DIM)), 5, axis=1)
    noisy = shots + 0.3 * rng.standard_normal(shots.shape)
    return unit(noisy.reshape(-1, DIM)).reshape(N_VIDEOS, VIDEO_SECONDS, DIM)


VECTORS = make_vectors()


def fill(store: Store, videos: range) -> None:
    """Store whole videos, one write each."""
    for number in videos:
        store.upsert_seconds(
            [
                SecondPoint(
                    video_id(number),
                    second,
                    {"visual": VECTORS[number, second]},
                    make_payload(
                        video_id=video_id(number), second=second, has_audio=False, flags=(), checkpoint="tests"
                    ),
                )
                for second in range(VIDEO_SECONDS)
            ]
        )
        store.upsert_videos(
            [VideoRecord(video_id(number), (f"{number}.mp4",), status=DONE, duration_seconds=VIDEO_SECONDS)]
        )


def exact_best(query: FloatArray, top: int, *, without: tuple[int, ...] = ()) -> list[tuple[str, int]]:
    """(video, second) of the best, by comparing with everything."""
    scores = VECTORS @ query  # (V, T)
    scores[list(without)] = -2
    order = np.argsort(-scores.ravel(), kind="stable")[:top]
    return [(video_id(int(n) // VIDEO_SECONDS), int(n) % VIDEO_SECONDS) for n in order]


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An index that was sealed several times while it was filled, and opened again."""
    monkeypatch.setattr(store_edge, "SEALED_SECONDS", 400)
    monkeypatch.setattr(store_edge, "SEGMENT_SECONDS", 1000)
    monkeypatch.setattr(store_edge, "N_SEGMENTS", 2)
    store = open_store(tmp_path / "index", checkpoint="tests", create={"visual": DIM})
    fill(store, range(N_VIDEOS))
    store.close()
    opened = open_store(tmp_path / "index", checkpoint="tests")
    yield opened
    opened.close()


def test_sealed_seconds_are_found_as_by_comparing_with_all(sealed: Store, tmp_path: Path) -> None:
    """What was sealed has int8 copies, is there once, and is found in the order of exact similarities."""
    assert list((tmp_path / "index" / "seconds" / "segments").rglob("quantized*"))
    assert sealed.count() == N_VIDEOS * VIDEO_SECONDS
    rng = np.random.default_rng(1)
    queries = unit(VECTORS[::3, 40] + 0.05 * rng.standard_normal((4, DIM)))
    for query, hits in zip(queries, sealed.query("visual", queries, top=20), strict=True):
        assert [(hit.video_id, hit.second) for hit in hits] == exact_best(query, 20)
        assert [hit.score for hit in hits] == pytest.approx(
            [float(VECTORS[int(hit.video_id, 16), hit.second] @ query) for hit in hits], abs=1e-5
        )


@pytest.mark.parametrize(("most_moved", "n_sealings"), [(700, 2), (10**6, 1)])
def test_new_payloads_for_all_leave_all_sealed(
    sealed: Store, monkeypatch: pytest.MonkeyPatch, most_moved: int, n_sealings: int
) -> None:
    """The engine moves seconds with new payloads out of their sealed segments; sealed anew, all is there."""
    monkeypatch.setattr(store_edge, "MOST_MOVED", most_moved)
    seal, sealings = store_edge.EdgeCollection.optimize, []

    def count_and_seal(part: store_edge.EdgeCollection) -> None:
        sealings.append(part)
        seal(part)

    monkeypatch.setattr(store_edge.EdgeCollection, "optimize", count_and_seal)
    with sealed.bulk_load():
        sealed.set_payloads(
            [(video_id(n), second, {"cluster": n}) for n in range(N_VIDEOS) for second in range(VIDEO_SECONDS)]
        )
    assert len(sealings) == n_sealings
    assert sealed.facet("cluster") == dict.fromkeys(range(N_VIDEOS), VIDEO_SECONDS)
    [hits] = sealed.query("visual", VECTORS[4, 40][None], top=20)
    assert [(hit.video_id, hit.second) for hit in hits] == exact_best(VECTORS[4, 40], 20)


def test_what_is_needed_whole_is_read_ahead_and_nothing_else(sealed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening asks for no vectors, the first search for what it scans, only reading all for all; errors are said."""
    asked: list[str] = []
    errors: list[OSError] = []

    def ask(files: Iterable[Path]) -> None:
        asked.extend(file.name for file in files)
        if errors:
            raise errors.pop()

    monkeypatch.setattr(store_edge, "_read_ahead", ask)

    def asked_by(action: Callable[[], object]) -> set[str]:
        asked.clear()
        action()
        return set(asked)

    location = sealed.location
    sealed.close()
    opening = asked_by(lambda: open_store(location, checkpoint="tests").close())
    assert {"id_tracker.mappings", "segment.json"} <= opening
    vectors = {"matrix.dat", "quantized.data"}
    assert not opening & vectors
    with closing(open_store(location, checkpoint="tests")) as store:
        query = VECTORS[0, :1]
        errors.append(OSError("Input/output error"))
        with pytest.raises(CollectionError, match=r"cannot be read: Input/output error; check the disk"):
            store.query("visual", query, top=3)
        assert asked_by(lambda: store.query("visual", query, top=3)) & vectors == {"quantized.data"}
        assert asked_by(lambda: store.query("visual", query, top=3)) == set()
        assert asked_by(lambda: store.seconds_of(video_id(1), with_vectors=("visual",))) == set()
        assert asked_by(lambda: list(store.seconds(with_vectors=("visual",)))) & vectors == vectors


def test_files_are_read_ahead_in_steps_that_systems_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is asked for, in steps of what Linux reads ahead at once; where there is no such call, nothing is."""
    file = tmp_path / "file"
    file.write_bytes(bytes(store_edge.READ_AHEAD_BYTES * 2 + 1))
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, size, __: steps.append((start, size)), raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    store_edge._read_ahead([file])
    assert steps == [(n * store_edge.READ_AHEAD_BYTES, store_edge.READ_AHEAD_BYTES) for n in range(3)]
    monkeypatch.delattr(os, "posix_fadvise")
    store_edge._read_ahead([file])
    assert len(steps) == 3


def test_sealing_leaves_no_second_copy_behind_for_a_killed_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after sealing, without closing, the directory holds each second in one segment only."""
    monkeypatch.setattr(store_edge, "SEALED_SECONDS", 400)
    store = open_store(tmp_path / "index", checkpoint="tests", create={"visual": DIM})
    fill(store, range(3))  # 450 seconds: sealed once
    sizes = [len(list(folder.rglob("*"))) for folder in (tmp_path / "index" / "seconds" / "segments").iterdir()]
    store.close()
    assert len(sizes) == 2  # the sealed one, and the one that is written to


@pytest.mark.skipif(sys.platform != "linux", reason="only there pages are given back")
def test_pages_are_given_back_on_the_way_through_an_archive(sealed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so many seconds that are read or written the pages of the index are given back; the vectors stay."""
    given_back: list[int] = []
    monkeypatch.setattr(store_edge, "RELEASED_SECONDS", 600)
    monkeypatch.setattr(
        store_edge, "release_mapped_pages", lambda folder: given_back.append(release_mapped_pages(folder))
    )
    for point in sealed.seconds(with_vectors=("visual",), page=100):
        assert np.allclose(point.vectors["visual"], VECTORS[int(point.video_id, 16), point.second], atol=1e-6)
    assert len(given_back) == N_VIDEOS * VIDEO_SECONDS // 600
    assert all(n_bytes > VECTORS.nbytes for n_bytes in given_back)
    given_back.clear()
    sealed.set_payloads([(video_id(number), second, {"cluster": 1}) for number in range(4) for second in range(150)])
    assert len(given_back) == 1
    assert sealed.facet("cluster") == {1: 600}


def _fill_and_tell(index: Path, first: int, parent: Connection) -> None:
    """In a process of its own: store videos one by one; say when it seals, has sealed, and which video is stored."""
    optimize = store_edge.EdgeCollection.optimize

    def optimize_and_tell(collection: store_edge.EdgeCollection) -> None:
        parent.send("seals")
        optimize(collection)
        parent.send("sealed")

    with (
        patch.multiple(store_edge, SEALED_SECONDS=300, SEGMENT_SECONDS=1000, N_SEGMENTS=2),
        patch.object(store_edge.EdgeCollection, "optimize", optimize_and_tell),
        closing(open_store(index, checkpoint="tests", create={"visual": DIM})) as store,
    ):
        for number in range(first, N_VIDEOS):
            fill(store, range(number, number + 1))
            parent.send(number)
    parent.send("closed")


def _fill(index: Path, first: int, *, kill_after: float | None) -> list[object]:
    """What such a process said; it is killed so many seconds after it began to seal."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_fill_and_tell, args=(index, first, there))
    process.start()
    there.close()
    said: list[object] = []
    while not said or said[-1] != "closed":
        try:
            said.append(here.recv())
        except EOFError:
            break
        if said[-1] == "seals" and kill_after is not None:
            time.sleep(kill_after)
            process.kill()
    process.join()
    return said


@pytest.mark.slow
def test_killed_while_it_seals(tmp_path: Path) -> None:
    """Kill -9 at several moments of sealing: each stored second is there once and to the bit, then and at the end."""
    n_stored, n_struck = 0, 0
    for kill_after in (0.0, 0.003, 0.006, 0.01, 0.02, 0.04, None):
        said = _fill(tmp_path / "index", n_stored, kill_after=kill_after)
        n_struck += said[-1] == "seals"
        n_stored = max([n_stored, *(int(word) + 1 for word in said if isinstance(word, int))])
        with closing(open_store(tmp_path / "index", checkpoint="tests")) as store:
            points = list(store.seconds(with_vectors=("visual",)))
            stored = {(point.video_id, point.second): point.vectors["visual"] for point in points}
            assert len(points) == len(stored) == store.count()
            assert stored.keys() >= {(video_id(n), t) for n in range(n_stored) for t in range(VIDEO_SECONDS)}
            for (video, second), vector in stored.items():
                np.testing.assert_allclose(vector, VECTORS[int(video, 16), second], rtol=0, atol=1e-6)
            if kill_after is None:
                query = unit(VECTORS[:1, 40])
                found = [(hit.video_id, hit.second) for hit in store.query("visual", query, top=20)[0]]
                assert found == exact_best(query[0], 20)
    assert n_stored == N_VIDEOS
    assert n_struck > 0
    assert list((tmp_path / "index" / "seconds" / "segments").rglob("quantized*"))


def test_changes_reach_sealed_seconds(sealed: Store) -> None:
    """Payloads of sealed seconds can be changed, and sealed videos removed; counts follow at once."""
    assert sealed.count(Filter(clusters=(5,))) == 0
    sealed.set_payload(video_id(0), 3, {"cluster": 5})
    assert sealed.count(Filter(clusters=(5,))) == 1
    sealed.delete_video(video_id(1))
    assert sealed.count() == (N_VIDEOS - 1) * VIDEO_SECONDS
    hits = sealed.query("visual", VECTORS[1, :1], top=30)[0]
    assert [(hit.video_id, hit.second) for hit in hits] == exact_best(VECTORS[1, 0], 30, without=(1,))


@pytest.mark.parametrize("most", [0, 200, 20_000])
def test_videos_left_out_later_or_by_the_engine_are_left_out_alike(
    sealed: Store, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """However videos are left out, all other seconds come in their order, as many as wanted, and are counted."""
    monkeypatch.setattr(store_collection, "MOST_LEFT_OUT", most)
    monkeypatch.setattr(store_collection, "LEAST_SPARE", 2)
    where = Filter(not_video_ids=(video_id(2), video_id(7), "f" * 32))
    assert sealed.count(where) == (N_VIDEOS - 2) * VIDEO_SECONDS
    hits = sealed.query("visual", VECTORS[2, 10:12], top=60, where=where)
    for query, row in zip(VECTORS[2, 10:12], hits, strict=True):
        assert [(hit.video_id, hit.second) for hit in row] == exact_best(query, 60, without=(2, 7))


def make_query(start: int, length: int, *, video: int = 4) -> Query:
    """A clip of a video, a little changed."""
    rng = np.random.default_rng(start)
    rows = unit(VECTORS[video, start : start + length] + 0.03 * rng.standard_normal((length, DIM)))
    return Query("clip", {"visual": rows}, {"visual": 1.0})


def test_of_large_archives_only_the_best_places_are_compared(sealed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each video few seconds are compared, and the right ones among them."""
    query = make_query(60, 6)

    def chosen() -> tuple[dict[str, set[int]], bool]:
        reader = Reader(sealed, query, mode="similar", per_video=3, n_places=sealed.count())
        found, is_whole = find_candidates(
            sealed,
            query,
            mode="similar",
            scales=reader.scales,
            sample=reader.sample,
            where=None,
            n_videos=80,
            n_answers=30,
            per_video=3,
        )
        return {video: set(seconds) for video, seconds in found.items()}, is_whole

    whole, is_whole = chosen()
    assert is_whole
    monkeypatch.setattr(candidates, "WHOLE_SECONDS", 100)
    places, is_whole = chosen()
    assert not is_whole
    assert set(places) == set(whole)
    assert set(range(60, 66)) <= places[video_id(4)]
    assert all(len(places[video]) <= 3 * 3 * query.n_seconds for video in places)


@pytest.mark.parametrize("mode", ["similar", "same"])
def test_places_give_the_answers_that_whole_videos_give(
    sealed: Store, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The moment that is asked for is found first and at the same place, whether all or only places are compared."""
    for start, length in ((0, 1), (33, 4), (140, 10)):
        query = make_query(start, length)
        whole = find_moments(sealed, query, mode=mode).moments[0]
        with monkeypatch.context() as patched:
            patched.setattr(candidates, "WHOLE_SECONDS", 100)
            placed = find_moments(sealed, query, mode=mode).moments[0]
        assert placed.video_id == whole.video_id
        assert (placed.start, placed.end) == pytest.approx((whole.start, whole.end), abs=1e-4)
        assert placed.score == pytest.approx(whole.score)


def test_a_long_shot_is_found_with_its_whole_length(sealed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment that goes on beyond the place that was compared is read on to its end."""
    rng = np.random.default_rng(5)
    still = unit(np.ones((1, DIM), dtype=np.float32))
    for second in range(50, 90):
        vector = unit(still + 0.02 * rng.standard_normal((1, DIM)))[0]
        payload = make_payload(video_id=video_id(9), second=second, has_audio=False, flags=(), checkpoint="tests")
        sealed.upsert_seconds([SecondPoint(video_id(9), second, {"visual": vector}, payload)])
    monkeypatch.setattr(candidates, "WHOLE_SECONDS", 100)
    best = find_moments(sealed, Query("frame", {"visual": still}, {"visual": 1.0})).moments[0]
    assert (best.video_id, best.start, best.end) == (video_id(9), 50.0, 90.0)
