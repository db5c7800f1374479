"""Searching a made-up archive: copies, lookalikes, chance, filters, examples and sequences."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.media import make_babble
from tests.qdrant_loopback import LOCAL_MODE
from tests.search_archive import (
    DIM,
    FloatArray,
    add_noise,
    between,
    copy_of,
    make_query,
    make_seconds,
    make_videos,
    normalise,
    open_archive,
)
from visxp_search.api import Index
from visxp_search.errors import UsageError
from visxp_search.filters import Scope, make_filter
from visxp_search.queries import Query, add_examples, moment_query
from visxp_search.render import write_audio
from visxp_search.results import results_to_json
from visxp_search.sample import draw_sample, sample_of
from visxp_search.search import find_moments
from visxp_search.sound_step import band_levels
from visxp_search.store import Filter, Store

pytestmark = LOCAL_MODE

VIDEOS = make_videos(0)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """Twelve unrelated videos of 40 s."""
    with open_archive(VIDEOS) as opened:
        yield opened


@pytest.mark.parametrize("mode", ["same", "similar"])
def test_a_copy_is_found_first_and_placed(store: Store, mode: str) -> None:
    """A noisy copy of a stretch is the first answer, with its start, end and offset."""
    query = copy_of(VIDEOS["video03"], start=12, length=6, rng=np.random.default_rng(1))
    moment = find_moments(store, query, mode=mode).moments[0]
    assert moment.video_id == "video03"
    assert moment.start == pytest.approx(12, abs=0.5)
    assert moment.end == pytest.approx(18, abs=0.5)
    assert moment.offset == pytest.approx(12, abs=0.5)
    assert moment.chance is not None and moment.chance < 1e-3
    assert moment.coverage == 1
    assert moment.target_coverage == pytest.approx(6 / 40, abs=0.03)


def test_a_copy_between_seconds_and_at_another_speed_is_placed(store: Store) -> None:
    """A copy that begins at 10.5 s and runs 4 % faster is placed within half a second at both ends."""
    rng = np.random.default_rng(2)
    query = copy_of(VIDEOS["video05"], start=10.5, length=20, speed=1.04, rng=rng, noise=0.2)
    moment = find_moments(store, query, mode="same").moments[0]
    assert moment.video_id == "video05"
    assert moment.start == pytest.approx(10.5, abs=0.5)
    assert moment.end == pytest.approx(10.5 + 20.8, abs=0.7)


@pytest.mark.parametrize("begin", [20.0, 20.25, 20.4, 20.6, 20.9])
def test_a_finely_cut_copy_is_placed_between_seconds(store: Store, begin: float) -> None:
    """A query that was cut four times a second is placed within one of these steps, at both ends."""
    rng = np.random.default_rng(3)
    query = copy_of(VIDEOS["video05"], start=begin, length=5, rng=rng)
    positions = begin + np.arange(-1, 20) / 4
    fine = {name: add_noise(rng, between(rows, positions), amount=0.2) for name, rows in VIDEOS["video05"].items()}
    moment = find_moments(store, replace(query, fine_vectors=fine, duration_seconds=5.4), mode="same").moments[0]
    assert moment.video_id == "video05"
    assert moment.start == pytest.approx(begin, abs=0.25)
    assert moment.offset == pytest.approx(begin, abs=0.25)
    assert moment.end == pytest.approx(begin + 5.4, abs=0.25)
    assert moment.movement is not None and moment.movement > 0.5


@pytest.mark.parametrize("there", [True, False])
def test_takes_are_told_apart_by_their_sound(tmp_path: Path, there: bool) -> None:
    """Of takes that look and sound alike the one whose sound is in step is found; without files moments say so."""
    rng = np.random.default_rng(7)
    take = {name: make_seconds(rng, 12, shot_length=12, change=0.1) for name in ("visual", "audio")}
    takes = {f"take{n}": {name: add_noise(rng, rows, amount=0.02) for name, rows in take.items()} for n in range(5)}
    paths = {name: str(tmp_path / f"{name}.wav") for name in takes}
    sounds = {name: make_babble(12, seed=seed) for seed, name in enumerate(takes)}
    for name, sound in sounds.items() if there else ():
        write_audio(Path(paths[name]), waveform=sound, sample_rate_hz=8000)
    with open_archive({**VIDEOS, **takes}, paths=paths) as store:
        query = copy_of(takes["take3"], start=4.3, length=5, rng=rng, noise=0.02)
        levels = band_levels(sounds["take3"][round(4.3 * 8000) : round(9.3 * 8000)], sample_rate_hz=8000)
        query = replace(query, sound_levels=levels)
        found = find_moments(store, query, mode="same", max_chance=None if there else 9.0)
    if there:
        (moment,) = found.moments
        assert moment.video_id == "take3" and moment.sound_step is not None and moment.sound_step.is_in_step
        assert (moment.start, moment.end) == pytest.approx((4.3, 9.3), abs=0.05)
        assert results_to_json(found)["moments"][0]["sound_step"]["in_step"]
    else:
        assert "not where it was indexed" in found.moments[0].remark


def test_a_search_can_be_ended(store: Store) -> None:
    """`progress` is told of every video, and what it raises ends the search there."""
    told: list[int] = []

    def progress(what: str, done: int, total: int) -> None:
        told.append(done)
        if done >= 100:
            raise KeyboardInterrupt

    query = copy_of(VIDEOS["video03"], start=12, length=6, rng=np.random.default_rng(1))
    with pytest.raises(KeyboardInterrupt):
        find_moments(store, query, exhaustive=True, progress=progress)
    assert told == sorted(told) and told[-1] == 120


@pytest.mark.slow
def test_what_is_not_there_is_not_found_as_the_same() -> None:
    """Of 60 queries that are not in the archive at most one gets any answer in `same` at the default cut-off."""
    others = make_videos(99, n_videos=12)
    with open_archive(VIDEOS) as store:
        answers = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            length = int(rng.integers(1, 11))
            query = copy_of(others[f"video{seed % 12:02d}"], start=float(rng.uniform(0, 25)), length=length, rng=rng)
            answers += len(find_moments(store, query, mode="same").moments) > 0
        assert answers <= 1


@pytest.mark.slow
def test_chance_of_unrelated_queries_is_calibrated(store: Store) -> None:
    """The best of all moments is expected about once by chance for queries that are not in the archive."""
    others = make_videos(98, n_videos=12)
    chances = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        query = copy_of(others[f"video{seed % 12:02d}"], start=float(rng.uniform(0, 25)), length=5, rng=rng)
        found = find_moments(store, query, mode="similar", max_chance=math.inf).moments
        assert found[0].chance is not None
        chances.append(found[0].chance)
    assert 0.1 <= np.median(chances) <= 10


def test_nothing_like_this_says_why(store: Store) -> None:
    """A search without an answer gives an empty list and a reason that names the chance and the cut-off."""
    query = make_query({"visual": make_seconds(np.random.default_rng(5), 4)})
    results = find_moments(store, query, mode="same")
    assert results.moments == ()
    document = results_to_json(results)
    assert document["moments"] == []
    assert "nothing like this here" in document["reason"]
    assert "cut-off is 0.05" in document["reason"]


def test_a_query_with_nothing_to_compare_is_answered(store: Store) -> None:
    """A silent and black query is no error but an empty answer with its reason."""
    empty = Query(
        kind="clip",
        vectors={"visual": np.full((3, DIM), np.nan, dtype=np.float32)},
        weights={},
        why_empty="night.mp4 has nothing to compare: the picture is black throughout, the sound is silent throughout",
    )
    document = results_to_json(find_moments(store, empty))
    assert document["moments"] == []
    assert "black throughout" in document["reason"]
    assert document["query"]["by"] == "nothing"


def test_several_occurrences_in_one_video_are_several_moments() -> None:
    """A stretch that a video shows twice is found twice."""
    videos = make_videos(3)
    for name in ("visual", "audio"):
        videos["video07"][name][30:35] = videos["video07"][name][5:10]
    with open_archive(videos) as store:
        query = copy_of(videos["video07"], start=5, length=5, rng=np.random.default_rng(0))
        found = find_moments(store, query, mode="same").moments
    assert sorted(round(moment.start) for moment in found[:2]) == [5, 30]


def test_a_jingle_in_many_videos_is_found_in_all_and_said_to_be_common() -> None:
    """A jingle that stands in 30 videos is found in all of them, and each answer says how common it is."""
    videos = make_videos(4, n_videos=44, n_seconds=16)
    rng = np.random.default_rng(0)
    jingle = {name: make_seconds(rng, 4, shot_length=2) for name in ("visual", "audio")}
    for number in range(30):
        for name, rows in jingle.items():
            videos[f"video{number:02d}"][name][8:12] = add_noise(rng, rows, amount=0.1)
    with open_archive(videos) as store:
        found = find_moments(store, make_query(jingle), mode="same", top=50).moments
    assert {moment.video_id for moment in found} == {f"video{number:02d}" for number in range(30)}
    assert all(moment.start == pytest.approx(8, abs=0.5) for moment in found)
    assert all("common: resembles" in moment.remark for moment in found)


def test_a_copy_of_one_take_leads_the_other_takes() -> None:
    """Of 40 takes of one talker before one wall, a copy finds its own take first."""
    rng = np.random.default_rng(12)
    wall, voice = normalise(rng.standard_normal((2, DIM)))

    def take() -> dict[str, FloatArray]:
        """Three seconds: a still picture, and words in the same voice."""
        words = normalise(voice + 0.5 * normalise(rng.standard_normal((3, DIM))))
        return {"visual": add_noise(rng, np.repeat(wall[None], 3, axis=0), amount=0.02), "audio": words}

    takes = {f"take{number:02d}": take() for number in range(20)}
    with open_archive({**VIDEOS, **takes}) as store:
        for name in list(takes)[:3]:
            copy = {key: add_noise(rng, rows, amount=0.01) for key, rows in takes[name].items()}
            moments = find_moments(store, make_query(copy), mode="same").moments
            assert [moment.video_id for moment in moments[:1]] == [name]


def test_another_take_of_a_scene_is_refused_with_its_reason() -> None:
    """A scene that is alike in every second, but changes otherwise, is no copy; the refusal says so."""
    rng = np.random.default_rng(14)
    wall, voice = normalise(rng.standard_normal((2, DIM)))

    def take() -> dict[str, FloatArray]:
        """Six seconds of one scene, nearly alike throughout."""
        return {
            name: add_noise(rng, np.repeat(look[None], 6, axis=0), amount=0.15)
            for name, look in (("visual", wall), ("audio", voice))
        }

    shown, other = take(), take()
    with open_archive({**VIDEOS, "take": shown}) as store:
        copy = {name: add_noise(rng, rows, amount=0.05) for name, rows in shown.items()}
        assert [moment.video_id for moment in find_moments(store, make_query(copy), mode="same").moments] == ["take"]
        refused = find_moments(store, make_query(other), mode="same")
        weak = find_moments(store, make_query(other), mode="same", max_chance=math.inf).moments[0]
    assert refused.moments == () and "does not change as the query does" in refused.reason
    assert weak.video_id == "take" and "does not change" in weak.remark


def test_what_does_not_even_resemble_is_not_the_same(store: Store) -> None:
    """However far a faint likeness stands out from the archive, it is not the same recording; `similar` may show it."""
    rng = np.random.default_rng(13)
    source = {name: rows[10:16] for name, rows in VIDEOS["video04"].items()}
    faint = make_query({name: add_noise(rng, rows, amount=3.0) for name, rows in source.items()})
    assert find_moments(store, faint, mode="same").moments == ()


def test_common_seconds_rank_below_rare_ones() -> None:
    """Of two seconds that are equally like the query, the one that resembles much of the archive comes later."""
    rng = np.random.default_rng(7)
    videos = make_videos(6, n_videos=20, n_seconds=20)
    test_card, wanted = make_seconds(rng, 1)[0], make_seconds(rng, 1)[0]
    query_row = normalise(test_card + wanted)
    for number in range(15):
        videos[f"video{number:02d}"]["visual"][10:14] = add_noise(rng, np.tile(test_card, (4, 1)), amount=0.05)
    videos["video19"]["visual"][3] = wanted
    with open_archive(videos) as store:
        found = find_moments(store, make_query({"visual": query_row[None]}), max_chance=math.inf, top=30).moments
    assert found[0].video_id == "video19"
    assert found[0].remark == ""
    assert found[1].common > 0.05


def test_pictures_and_sounds_are_comparable() -> None:
    """Pictures that are all alike do not drown a sound that stands out; the weight shifts what counts."""
    rng = np.random.default_rng(8)
    videos = make_videos(9, n_videos=10)
    haze = make_seconds(rng, 1)[0]
    for vectors in videos.values():
        vectors["visual"] = normalise(0.2 * vectors["visual"] + haze)
    query = make_query(
        {
            "visual": videos["video02"]["visual"][10:13],
            "audio": add_noise(rng, videos["video06"]["audio"][20:23], amount=0.2),
        }
    )
    with open_archive(videos) as store:
        by_sound = find_moments(store, replace(query, weights={"visual": 0.1, "audio": 0.9})).moments[0]
        by_picture = find_moments(store, replace(query, weights={"visual": 0.9, "audio": 0.1})).moments[0]
        strict = find_moments(store, query, min_visual=99, min_audio=99).moments
    assert by_sound.video_id == "video06" and {s.carried_by for s in by_sound.seconds} == {"audio"}
    assert by_picture.video_id == "video02" and {s.carried_by for s in by_picture.seconds} == {"visual"}
    assert strict == ()


def test_a_missing_modality_does_not_hide_a_copy() -> None:
    """A copy is found by its picture where the archive's version has no sound."""
    videos = make_videos(10)
    videos["video04"]["audio"][:] = np.nan
    with open_archive(videos) as store:
        query = make_query({"visual": videos["video04"]["visual"][8:14], "audio": VIDEOS["video01"]["audio"][:6]})
        moment = find_moments(store, query, mode="same").moments[0]
    assert (moment.video_id, moment.audio) == ("video04", None)


def test_unlike_takes_away_and_like_adds(store: Store) -> None:
    """Examples of what is not wanted hide what resembles them; further examples bring in what resembles those."""
    one = moment_query(store, "video01", start=6, end=7)
    two = moment_query(store, "video08", start=21, end=22)
    both = add_examples(one, like=[two], unlike=[])
    found = {moment.video_id for moment in find_moments(store, both).moments}
    assert {"video01", "video08"} <= found
    without = add_examples(both, like=[], unlike=[two])
    assert "video08" not in {moment.video_id for moment in find_moments(store, without).moments}


def test_then_finds_what_follows(store: Store) -> None:
    """Asked for A, then B, the search finds the video where B follows A, and not where it comes too late."""
    videos = make_videos(11)
    for name in ("visual", "audio"):
        videos["video02"][name][25:28] = videos["video01"][name][25:28]
    a, b = ({name: rows[at : at + 3] for name, rows in videos["video01"].items()} for at in (5, 25))
    with open_archive(videos) as opened:
        index = Index(opened, embedder=None)  # type: ignore[arg-type]
        found = index.search(make_query(a), then=make_query(b), within=20, mode="same")
        late = index.search(make_query(a), then=make_query(b), within=10, mode="same")
    assert {moment.video_id for moment in found} == {"video01"}
    assert found[0].then is not None and found[0].then.start == pytest.approx(25, abs=0.5)
    assert (found[0].start, found[0].end) == (pytest.approx(5, abs=0.5), pytest.approx(28, abs=0.5))
    assert len(late) == 0 and "within 10 s" in late.results.reason


def test_exhaustive_finds_the_same_and_tells_its_yield(store: Store) -> None:
    """Comparing everything finds what candidates find, and the running yield ends at all videos."""
    query = copy_of(VIDEOS["video03"], start=12, length=6, rng=np.random.default_rng(1))
    quick = find_moments(store, query, mode="same")
    steps: list[tuple[int, int, int]] = []
    thorough = find_moments(store, query, mode="same", exhaustive=True, on_progress=lambda *step: steps.append(step))
    found, expected = ([(m.video_id, round(m.start, 3)) for m in r.moments] for r in (thorough, quick))
    assert found == expected
    assert thorough.yields[-1] == (12, len(thorough.moments))
    assert steps[-1][:2] == (12, 12)


def test_found_seconds_meet_the_filter() -> None:
    """Every second of every moment meets every condition on seconds and videos."""
    videos = make_videos(12)
    clusters = {video_id: [number % 3 for number in range(40)] for video_id in videos}
    clusters["video03"] = [1] * 20 + [2] * 20
    flags = {"video03": [["static"] if number >= 16 else [] for number in range(40)]}
    query = make_query({name: rows[10:30] for name, rows in videos["video03"].items()})
    with open_archive(videos, clusters=clusters, flags=flags) as store:
        for scope, low, high in (
            (Scope(clusters=(1,)), 0, 20),
            (Scope(not_clusters=(1,)), 20, 40),
            (Scope(flags=("static",)), 16, 40),
            (Scope(not_flags=("static",)), 0, 16),
            (Scope(after=14, before=18), 14, 18),
        ):
            where = make_filter(store, replace(scope, videos=("video03",)))
            found = find_moments(store, query, where=where, max_chance=math.inf).moments
            seconds = [second.second for moment in found for second in moment.seconds]
            assert seconds and all(low <= second < high for second in seconds)
        hidden = find_moments(store, query, where=Filter(not_video_ids=("video03",)), max_chance=math.inf).moments
        assert hidden and "video03" not in {moment.video_id for moment in hidden}


def test_options_outside_their_range_are_refused(store: Store) -> None:
    """A wrong mode, number or percentile is an error that names the option."""
    query = make_query({"visual": make_seconds(np.random.default_rng(0), 1)})
    for options, words in (
        ({"mode": "alike"}, "--mode alike"),
        ({"top": 0}, "--top 0"),
        ({"min_visual": 101.0}, "--min-visual 101"),
    ):
        with pytest.raises(UsageError, match=words):
            find_moments(store, query, **options)


def test_an_empty_index_is_answered() -> None:
    """An index without seconds gives no moments and a reason."""
    with open_archive({}) as store:
        results = find_moments(store, make_query({"visual": make_seconds(np.random.default_rng(0), 2)}))
    assert results.moments == () and "nothing is indexed yet" in results.reason


def test_conditions_that_no_second_meets_are_named(store: Store) -> None:
    """Where the filter leaves nothing to look in, the reason says that, not that nothing is alike."""
    query = copy_of(VIDEOS["video03"], start=12, length=6, rng=np.random.default_rng(1))
    results = find_moments(store, query, where=Filter(clusters=(999,)))
    assert results.moments == () and "meets the conditions" in results.reason


def test_json_keeps_the_contract(store: Store) -> None:
    """The document has the keys of the contract, with the types that it names."""
    with closing(store):
        query = copy_of(VIDEOS["video03"], start=12, length=3, rng=np.random.default_rng(1))
        document = results_to_json(find_moments(store, query))
    assert {"query", "moments", "indexed", "took_ms"} <= set(document)
    assert {"kind", "by", "mode", "seconds"} <= set(document["query"])
    moment = document["moments"][0]
    wanted = {"video_id", "path", "start", "end", "score", "percentile", "visual", "audio", "coverage", "offset"}
    assert wanted | {"seconds"} <= set(moment)
    assert {"second", "visual", "audio", "cluster"} <= set(moment["seconds"][0])
    assert -1 <= moment["score"] <= 1


def test_the_sample_is_read_once_and_anew_after_a_change() -> None:
    """A second search reads no sample; after a video was removed it is drawn as a fresh one would be."""
    with open_archive(VIDEOS) as store:
        first = sample_of(store, ("visual",), window=4)
        assert sample_of(store, ("visual",), window=4) is first
        assert sample_of(store, ("visual",), window=3) is not first
        video_id = first.video_ids[0]
        store.delete_seconds(video_id)
        second = sample_of(store, ("visual",), window=4)
        assert video_id not in second.video_ids
        assert np.array_equal(second.windows, draw_sample(store, ("visual",), window=4).windows)
