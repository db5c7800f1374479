"""Queries that are not in the index, and the judge that tells a mistake from the same recording in another file."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visxp_search.absent import absent_to_json, evaluate_absent
from visxp_search.queries import Query
from visxp_search.recordings import SAME_RECORDING, motion_correlation, sound_correlation
from visxp_search.results import Moment, Results
from visxp_search.trials import SAMPLE_RATE_HZ, Excerpt, degrade_all, write_excerpt

FloatArray = npt.NDArray[np.float32]


def make_motion(seed: int, n_pictures: int = 30) -> FloatArray:
    """Pictures of a bright square that wanders before one and the same wall."""
    wall = np.random.default_rng(99).random((32, 32)).astype(np.float32)
    rng = np.random.default_rng(seed)
    pictures = np.asarray(np.repeat(wall[None] / 2, n_pictures, axis=0), dtype=np.float32)
    place = rng.integers(4, 24, 2)
    for picture in pictures:
        place = np.clip(place + rng.integers(-3, 4, 2), 0, 26)
        picture[place[0] : place[0] + 6, place[1] : place[1] + 6] = 1.0
    return pictures


def test_sounds_of_one_recording_correlate() -> None:
    """A shifted, louder, noisy part of a sound correlates with it, another sound of the same kind does not."""
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(24_000)).astype(np.float32)
    part = 1.7 * sound[5000:20_000] + 0.03 * rng.standard_normal(15_000).astype(np.float32)
    assert (sound_correlation(part.astype(np.float32), sound) or 0) > 0.9
    assert (sound_correlation(-part.astype(np.float32), sound) or 0) > 0.9
    other = (0.1 * rng.standard_normal(24_000)).astype(np.float32)
    assert (sound_correlation(other, sound) or 0) < 0.2
    assert sound_correlation(np.zeros(24_000, dtype=np.float32), sound) is None


def test_motion_before_one_wall_is_told_apart() -> None:
    """The same motion correlates, darker and later too; another before the same wall does not; a still gives None."""
    motion = make_motion(1)
    assert (motion_correlation(0.7 * motion[6:26], motion) or 0) > 0.9
    assert (motion_correlation(make_motion(2), motion) or 0) < SAME_RECORDING
    assert motion_correlation(np.repeat(motion[:1], 10, axis=0), motion) is None


def make_video(path: Path, seed: int, *, degraded: bool = False) -> Path:
    """Two seconds of a wandering square and noise, as they are or made worse in all ways."""
    small = make_motion(seed, 20)
    frames = np.repeat(np.repeat((255 * small).astype(np.uint8), 4, axis=1), 4, axis=2)
    excerpt = Excerpt(
        frames=np.repeat(frames[..., None], 3, axis=3),
        frames_per_second=Fraction(10),
        waveform=(0.1 * np.random.default_rng(seed).standard_normal(2 * SAMPLE_RATE_HZ)).astype(np.float32),
    )
    if degraded:
        excerpt = replace(degrade_all(excerpt, 0), frames_per_second=Fraction(10), waveform=excerpt.waveform)
    write_excerpt(path, excerpt)
    return path


def test_the_same_recording_is_no_false_answer(tmp_path: Path) -> None:
    """Of two answers the one that holds the query's own recording is not counted as false, whatever its scores."""
    query = make_video(tmp_path / "query.mp4", 1, degraded=True)
    original, other = make_video(tmp_path / "original.mp4", 1), make_video(tmp_path / "other.mp4", 2)
    moments = tuple(
        Moment(path.stem, str(path), 0.0, 2.0, 0.5, 99.0, 0.5, 0.5, 1.0, 0.0, seconds=(), chance=0.01)
        for path in (original, other)
    )
    found = Results(Query("clip", {}, {}), "same", moments, n_videos=2, n_seconds=4, complete=True, took_ms=1.0)
    report = evaluate_absent([query], lambda path: found)
    assert [answer.moment.video_id for answer in report.false_answers] == ["other"]
    document = absent_to_json(report)
    assert (document["queries"], document["answers"], document["same_recording"], document["false_answers"]) == (
        1,
        2,
        1,
        1,
    )
