"""The basket and the pictures of numbers: pure functions."""

import csv
import io
import json

import numpy as np
import pytest

from visxp_search.errors import UsageError
from visxp_search.sound_picture import draw_spectrogram, paint
from webui.basket import (
    MAX_MOMENTS,
    Collected,
    annotate,
    basket_csv,
    basket_document,
    keep_basket,
    move,
    put,
    read_basket,
    take_out,
    toggle,
)
from webui.plots import curve_paths, fill_cell, spread_seconds

A, B = Collected("a", 1, 3, 0.5, "first"), Collected("b", 0, 9)


def test_a_basket_survives_the_browser() -> None:
    """What is kept as JSON is read again unchanged."""
    assert read_basket(json.loads(json.dumps(keep_basket((A, B))))) == (A, B)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "x",
        3,
        [None],
        [{"video_id": "a"}],
        [{"video_id": "a", "start": 3, "end": 1}],
        [{"video_id": "a", "start": "x", "end": 1}],
        [{"video_id": "a", "start": float("nan"), "end": 1}],
        [{"video_id": "a", "start": 0, "end": float("inf")}],
    ],
)
def test_a_tampered_basket_is_empty(value: object) -> None:
    """Whatever a browser sends as its basket, only moments come out."""
    assert read_basket(value) == ()


def test_order_and_notes() -> None:
    """Moments are collected once, moved, noted and taken out; the ends hold."""
    basket = put(put((A,), B), A)
    assert basket == (A, B)
    assert move(basket, 0, 1) == (B, A) and move(basket, 0, -1) == basket and move(basket, 9, 1) == basket
    assert annotate(basket, 1, "n" * 900)[1].note == "n" * 500
    assert take_out(basket, 0) == (B,) and toggle(basket, A) == (B,) and toggle((B,), A) == (B, A)


def test_a_full_basket_says_so() -> None:
    """The basket has an end, and says what to do there."""
    full = tuple(Collected("a", number, number + 1) for number in range(MAX_MOMENTS))
    with pytest.raises(UsageError, match="full"):
        put(full, B)


def test_downloads_hold_what_was_collected() -> None:
    """JSON is a results document with notes; CSV is read back by a CSV reader and holds no formula."""
    evil = Collected("c", 0, 1, None, '=HYPERLINK("x"),\n"quoted"')
    document = basket_document((A, evil), {"a": "a.mp4", "c": "+c.mp4"}.__getitem__)
    first = document["moments"][0]
    assert (first["video_id"], first["start"], first["end"], first["note"]) == ("a", 1, 3, "first")
    rows = list(csv.DictReader(io.StringIO(basket_csv((A, evil), {"a": "a.mp4", "c": "+c.mp4"}.__getitem__))))
    assert rows[0]["video"] == "a.mp4" and rows[1]["video"] == "'+c.mp4" and rows[1]["note"] == "'" + evil.note


def test_curves_break_at_gaps() -> None:
    """A line is drawn through neighbouring seconds only, and values stay in the box."""
    path = curve_paths([3, 4, 6], np.array([0.5, np.nan, 2.0], dtype=np.float32), start=3, end=10)
    assert path.count("M") == 2 and "nan" not in path and "0.500" in path and "0.000" in path
    assert curve_paths([1, 2], np.array([1.0, 0.0], dtype=np.float32), start=0, end=3).count("M") == 1


def test_spectrograms_show_the_pitch() -> None:
    """A high tone is bright higher up than a low one; silence is dark."""
    times = np.arange(16_000) / 16_000
    rows = []
    for frequency in (300, 5000):
        picture = draw_spectrogram(np.sin(2 * np.pi * frequency * times).astype(np.float32), width=40, height=60)
        rows.append(int(picture[:, 20].sum(axis=1).argmax()))
    assert rows[1] < rows[0]
    silence = draw_spectrogram(np.zeros(100, dtype=np.float32), width=10, height=10)
    assert silence.shape == (10, 10, 3) and silence.max() < 100
    assert draw_spectrogram(np.zeros(0, dtype=np.float32), width=4, height=4).shape == (4, 4, 3)


def test_small_drawing_helpers() -> None:
    """Seconds are spread inside their span, cells are filled around the picture, colours rise in brightness."""
    assert spread_seconds(10, 12, count=5) == [10, 10, 11, 11, 11]
    with pytest.raises(ValueError, match="empty"):
        spread_seconds(3, 3, count=2)
    cell = fill_cell(np.full((2, 4, 3), 255, dtype=np.uint8), width=8, height=6)
    assert cell.shape == (6, 8, 3) and (cell == 255).sum() == 24 and (fill_cell(None, width=3, height=3) < 50).all()
    brightness = paint(np.linspace(0, 1, 20)).sum(axis=1).astype(int)
    assert (np.diff(brightness) > 0).all()
