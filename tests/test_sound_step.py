"""Whether two sounds are one recording."""

import numpy as np
import pytest

from tests.media import make_babble
from visxp_search.sound_step import FloatArray, band_levels, sound_step

RATE = 8000


def levels(waveform: FloatArray) -> FloatArray:
    """At `RATE`."""
    return band_levels(waveform, sample_rate_hz=RATE)


@pytest.mark.parametrize("speed", [1.0, 1.04, 0.96])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_an_excerpt_is_found_in_its_recording(speed: float, noise: float) -> None:
    """Where it begins, and at which speed, whatever its level and noise."""
    whole = make_babble(12.0, seed=1)
    part = whole[3 * RATE : round(7.5 * RATE)]
    places = np.arange(int(len(part) / speed)) * speed
    heard = 0.2 * np.interp(places, np.arange(len(part)), part)
    heard = (heard + 0.2 * noise * np.random.default_rng(0).standard_normal(len(heard))).astype(np.float32)
    step = sound_step(levels(heard), levels(whole), begins_at=100.0)
    assert step is not None and step.is_in_step
    assert step.start == pytest.approx(103.0, abs=0.05)
    assert step.speed == pytest.approx(speed, abs=0.006)


def test_another_recording_is_out_of_step() -> None:
    """Sounds of one kind that are not one recording are told apart, however many shifts and speeds are tried."""
    for seed in range(2, 8):
        step = sound_step(levels(make_babble(3.0, seed=seed)), levels(make_babble(8.0, seed=20 + seed)))
        assert step is not None and not step.is_in_step


def test_nothing_is_said_of_what_does_not_change() -> None:
    """Silence, a lasting hum and sounds of less than two seconds cannot be compared."""
    sound, silence = levels(make_babble(5.0, seed=1)), levels(np.zeros(5 * RATE, dtype=np.float32))
    hum = levels(np.sin(2 * np.pi * 300 * np.arange(5 * RATE) / RATE).astype(np.float32))
    assert sound_step(silence, sound) is None and sound_step(sound, silence) is None
    assert sound_step(hum, hum) is None
    assert sound_step(sound[:60], sound) is None
    assert sound_step(levels(np.zeros(0, dtype=np.float32)), sound) is None
    late = levels(np.concatenate([np.zeros(9 * RATE), make_babble(0.3, seed=3)]).astype(np.float32))
    step = sound_step(sound, late)
    assert step is None or (-1 <= step.correlation <= 1 and not step.is_in_step)


def test_levels_do_not_depend_on_the_sample_rate() -> None:
    """A query is read at another rate than the files it is compared with."""
    fine = make_babble(3.0, seed=5, rate_hz=24000)
    step = sound_step(band_levels(fine, sample_rate_hz=24000), levels(fine[::3]))
    assert step is not None and step.correlation > 0.95 and abs(step.start) <= 0.02
