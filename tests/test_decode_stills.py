"""Stills for people: the right moment, the right shape."""

from pathlib import Path

import numpy as np
import pytest

from visxp_search.decode_stills import decode_stills, fit_box
from visxp_search.errors import DecodeError
from visxp_search.render import write_audio, write_video

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of 64 x 32 pixels, each second of one colour."""
    path = tmp_path_factory.mktemp("stills") / "colours.mp4"
    frames = [np.full((32, 64, 3), colour, dtype=np.uint8) for colour in COLOURS for _ in range(10)]
    write_video(path, frames=frames, frames_per_second=10)
    return path


def test_stills_show_the_seconds_asked_for(film: Path) -> None:
    """Each still has the colour of its second, in whatever order they are asked for."""
    for second, picture in zip(
        (3, 0, 2, 1), decode_stills(film, seconds=(3, 0, 2, 1), width=32, height=32), strict=True
    ):
        assert picture is not None
        assert np.abs(picture.mean(axis=(1, 2)) - COLOURS[second]).max() < 25


def test_stills_keep_their_shape(film: Path) -> None:
    """A picture of 2:1 fits into a square box as 2:1."""
    (picture,) = decode_stills(film, seconds=[1], width=40, height=40)
    assert picture is not None and picture.shape == (3, 20, 40)


def test_a_second_after_the_end_gives_the_last_picture(film: Path) -> None:
    """Asking beyond the end is answered by what was last on display."""
    (picture,) = decode_stills(film, seconds=[99], width=16, height=16)
    assert picture is not None and np.abs(picture.mean(axis=(1, 2)) - COLOURS[3]).max() < 25


def test_sound_alone_has_no_stills(tmp_path: Path) -> None:
    """A sound file is refused with words, not an empty picture."""
    path = tmp_path / "tone.wav"
    write_audio(path, waveform=np.zeros(24_000, dtype=np.float32), sample_rate_hz=24_000)
    with pytest.raises(DecodeError, match="no picture"):
        next(decode_stills(path, seconds=[0], width=16, height=16))


@pytest.mark.parametrize(
    ("shape", "box", "fitted"),
    [((1920, 1080), (320, 180), (320, 180)), ((720, 576), (160, 90), (112, 90)), ((1, 9000), (100, 100), (1, 100))],
)
def test_fit_box(shape: tuple[int, int], box: tuple[int, int], fitted: tuple[int, int]) -> None:
    """The largest picture of a shape never leaves its box and never vanishes."""
    assert fit_box(*shape, box=box) == fitted
