"""Sounds of the demo's scenes: `play_*` turns the cues of a kind into a waveform.

Each function is pure: (cues, number of samples, sample rate, voice, seeded generator) to a float32 waveform (n,) of any
level; `finish_sound` puts it into a room, adds the background and sets its level.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from visxp_search.demo.cues import CRASH, FLOOR_TOM, HIHAT, KICK, SNARE, TOM, Cue, Voice

Waveform = npt.NDArray[np.float32]
Samples = npt.NDArray[np.float64]

BELL_PARTIALS = (
    (0.5, 0.55, 7.0),
    (1.0, 1.0, 5.0),
    (1.19, 0.7, 3.5),
    (1.5, 0.4, 2.5),
    (2.0, 0.9, 2.5),
    (2.51, 0.35, 1.2),
    (2.67, 0.3, 1.1),
    (3.01, 0.35, 1.0),
    (4.17, 0.3, 0.7),
    (5.43, 0.2, 0.4),
    (6.8, 0.12, 0.25),
)
"""Of a church bell, from the hum up: (frequency over the prime's, amplitude, seconds to fall by 60 dB)."""


def play_bell(
    cues: Sequence[Cue], *, n_samples: int, sample_rate_hz: int, voice: Voice, rng: np.random.Generator
) -> Waveform:
    """Inharmonic partials that beat and die away slowly, after a short clang."""
    time = np.arange(min(n_samples, 6 * sample_rate_hz)) / sample_rate_hz
    prime = 392.0 * voice.pitch
    strike = np.zeros(len(time))
    for ratio, amplitude, fall in BELL_PARTIALS:
        decay = np.exp(-6.9 * time / fall)
        for detune in (0.9985, 1.0015):
            phase = 2 * math.pi * prime * ratio * detune * time + rng.uniform(0, 2 * math.pi)
            strike += 0.5 * amplitude * decay * np.sin(phase)
    strike += 0.5 * shape_noise(rng, len(time), sample_rate_hz, low=1500, high=6000) * np.exp(-time / 0.012)
    strike *= np.minimum(1, time / 0.002)
    return _lay(cues, {0: strike}, n_samples=n_samples, sample_rate_hz=sample_rate_hz, pick=lambda cue: 0)


def play_siren(
    cues: Sequence[Cue], *, n_samples: int, sample_rate_hz: int, voice: Voice, rng: np.random.Generator
) -> Waveform:
    """A horn whose pitch climbs and falls once a wail, over the rumble of the engine."""
    time = np.arange(n_samples) / sample_rate_hz
    phase = np.interp(time, [cue.time_seconds for cue in cues], np.arange(len(cues)))
    rise = 0.5 - 0.5 * np.cos(2 * math.pi * np.mod(phase, 1) ** 0.8)
    frequency = 620 * voice.pitch * (1 + 1.25 * rise)
    angle = 2 * math.pi * np.cumsum(frequency) / sample_rate_hz
    horn = np.zeros(n_samples)
    for k in range(1, 7):
        if k * frequency.max() < sample_rate_hz / 2:
            horn += np.sin(k * angle) / k**1.1
    # The loudness wavers as houses pass by.
    horn *= 1 + 0.25 * np.sin(2 * math.pi * 0.23 * time + rng.uniform(0, 6))
    engine = shape_noise(rng, n_samples, sample_rate_hz, low=40, high=260) * (1 + 0.4 * np.sin(2 * math.pi * 27 * time))
    mixed: Samples = horn + 0.25 * engine
    return mixed.astype(np.float32)


BIRD_SHAPES = ((3200, 5200, 0.07), (5400, 3400, 0.08), (4000, 4300, 0.11), (3000, 4200, 0.06))
"""(first frequency in Hz, last, seconds) of each syllable."""


def play_bird(
    cues: Sequence[Cue], *, n_samples: int, sample_rate_hz: int, voice: Voice, rng: np.random.Generator
) -> Waveform:
    """Short whistles that glide and warble, with a weak second harmonic."""
    syllables = {}
    for shape, (first, last, length) in enumerate(BIRD_SHAPES):
        time = np.arange(int(length / voice.tempo**0.5 * sample_rate_hz)) / sample_rate_hz
        share = time / time[-1]
        warble = (0.10 if shape == 2 else 0.03) * np.sin(2 * math.pi * 38 * time)
        frequency = voice.pitch * (first + (last - first) * share**0.8) * (1 + warble)
        angle = 2 * math.pi * np.cumsum(frequency) / sample_rate_hz
        syllables[shape] = (np.sin(angle) + 0.12 * np.sin(2 * angle)) * np.sin(math.pi * share) ** 0.6
    near = _lay(cues, syllables, n_samples=n_samples, sample_rate_hz=sample_rate_hz, pick=lambda cue: cue.note)
    # Another bird answers from far away.
    far = np.roll(near, int(rng.uniform(0.6, 1.4) * sample_rate_hz)) * np.float32(0.08)
    return near + far


def play_rain(
    cues: Sequence[Cue], *, n_samples: int, sample_rate_hz: int, voice: Voice, rng: np.random.Generator
) -> Waveform:
    """The hiss of many far drops, and near drops that each ring briefly."""
    time = np.arange(n_samples) / sample_rate_hz
    hiss = shape_noise(rng, n_samples, sample_rate_hz, low=700 * voice.pitch, high=9000, slope_db=3)
    hiss *= 1 + 0.15 * np.sin(2 * math.pi * 0.21 * time + rng.uniform(0, 6)) + 0.1 * rng.uniform() * np.sin(2.9 * time)
    body = shape_noise(rng, n_samples, sample_rate_hz, low=150, high=900)
    short = np.arange(int(0.05 * sample_rate_hz)) / sample_rate_hz
    plinks = {}
    for k in range(12):
        frequency = voice.pitch * rng.uniform(900, 3200)
        glide = 2 * math.pi * frequency * (short + 3 * short**2)
        click = shape_noise(rng, len(short), sample_rate_hz, low=2000, high=10_000) * np.exp(-short / 0.003)
        plinks[k] = 1.6 * np.sin(glide) * np.exp(-short / rng.uniform(0.006, 0.014)) + click
    drops = _lay(cues, plinks, n_samples=n_samples, sample_rate_hz=sample_rate_hz, pick=lambda cue: cue.note % 12)
    return (hiss + 0.35 * body + 1.6 * drops).astype(np.float32)


def play_drums(
    cues: Sequence[Cue], *, n_samples: int, sample_rate_hz: int, voice: Voice, rng: np.random.Generator
) -> Waveform:
    """Skins as falling sines with a click, snare and cymbals as bright noise."""
    time = np.arange(int(1.2 * sample_rate_hz)) / sample_rate_hz

    def skin(low: float, drop: float, fall: float) -> Samples:
        angle = 2 * math.pi * voice.pitch * low * (time + drop * 0.03 * (1 - np.exp(-time / 0.03)))
        tone: Samples = np.sin(angle) * np.exp(-time / fall)
        return tone

    def hiss(low: float, fall: float) -> Samples:
        noise: Samples = shape_noise(rng, len(time), sample_rate_hz, low=low, high=11_000) * np.exp(-time / fall)
        return noise

    drums = {
        KICK: 1.3 * skin(52, 2.2, 0.13) + 0.25 * hiss(1500, 0.006),
        SNARE: 0.6 * skin(185, 0.6, 0.09) + 0.65 * hiss(1200, 0.075),
        HIHAT: 0.3 * hiss(6000, 0.035),
        TOM: skin(128, 0.9, 0.2) + 0.2 * hiss(1200, 0.015),
        FLOOR_TOM: 1.1 * skin(84, 0.9, 0.26) + 0.2 * hiss(900, 0.015),
        CRASH: 0.5 * hiss(3500, 0.4),
    }
    return _lay(cues, drums, n_samples=n_samples, sample_rate_hz=sample_rate_hz, pick=lambda cue: cue.note)


def play_piano(
    cues: Sequence[Cue], *, n_samples: int, sample_rate_hz: int, voice: Voice, rng: np.random.Generator
) -> Waveform:
    """Stiff strings: slightly stretched harmonics, the high ones dying first, after a soft knock."""
    time = np.arange(int(2.2 * sample_rate_hz)) / sample_rate_hz
    knock = shape_noise(rng, len(time), sample_rate_hz, low=150, high=1500) * np.exp(-time / 0.012)
    notes = {}
    for note in sorted({cue.note for cue in cues}):
        base = 130.8 * voice.pitch * 2 ** (note / 12)
        string = 0.12 * knock
        for k in range(1, 13):
            frequency = k * base * math.sqrt(1 + 0.0004 * k * k)
            if frequency < 0.45 * sample_rate_hz:
                fall = 0.9 / (1 + 0.35 * (k - 1)) * (220 / base) ** 0.3
                amplitude = k**-1.3 * abs(math.sin(math.pi * k * 0.13)) * 2
                string = string + amplitude * np.sin(2 * math.pi * frequency * time) * np.exp(-time / fall)
        notes[note] = string * np.minimum(1, time / 0.003) * np.clip((2.2 - time) / 0.2, 0, 1)
    return _lay(cues, notes, n_samples=n_samples, sample_rate_hz=sample_rate_hz, pick=lambda cue: cue.note)


def play_clock(
    cues: Sequence[Cue], *, n_samples: int, sample_rate_hz: int, voice: Voice, rng: np.random.Generator
) -> Waveform:
    """A sharp double click of the escapement that rings in a wooden case, tick higher than tock."""
    time = np.arange(int(0.16 * sample_rate_hz)) / sample_rate_hz
    clicks = {}
    for side, tone in ((-1, 1.0), (1, 0.8)):
        click = np.zeros(len(time))
        for frequency, fall, amplitude in (
            (2350, 0.008, 1.0),
            (3900, 0.005, 0.8),
            (6100, 0.003, 0.5),
            (410, 0.022, 0.45),
        ):
            ring = np.sin(2 * math.pi * frequency * tone * voice.pitch * time) * np.exp(-time / fall)
            click += amplitude * ring
        click += 0.8 * shape_noise(rng, len(time), sample_rate_hz, low=1500, high=9000) * np.exp(-time / 0.002)
        delay = int(0.022 * sample_rate_hz)
        echo = np.roll(click, delay) * 0.35
        echo[:delay] = 0
        clicks[side] = click + echo
    return _lay(cues, clicks, n_samples=n_samples, sample_rate_hz=sample_rate_hz, pick=lambda cue: cue.note)


def finish_sound(
    waveform: Waveform, *, sample_rate_hz: int, voice: Voice, rng: np.random.Generator, fade_seconds: float = 0.03
) -> Waveform:
    """Put a dry sound into a room with background noise, at the voice's level.

    Args:
        waveform: (n,) float32 of any level; not modified.
        sample_rate_hz: its rate.
        voice: for the room, the noise and the level.
        rng: source of the room's echoes and the noise.
        fade_seconds: at the start and at the end.

    Returns:
        (n,) float32 in [-1, 1]; loud peaks are rounded off.
    """
    n_samples = len(waveform)
    wet: Samples = waveform.astype(np.float64)
    if voice.room_seconds > 0:
        time = np.arange(int(voice.room_seconds * sample_rate_hz)) / sample_rate_hz
        echoes = shape_noise(rng, len(time), sample_rate_hz, low=80, high=7000) * np.exp(
            -6.9 * time / voice.room_seconds
        )
        echoes *= 0.35 / np.sqrt(np.square(echoes).sum())
        wet = wet + _convolve(wet, echoes)
    wet *= 10 ** (voice.level_db / 20) / max(1e-9, float(np.sqrt(np.square(wet).mean())))
    noise = shape_noise(rng, n_samples, sample_rate_hz, low=60, high=12_000, slope_db=voice.noise_colour)
    # tanh leaves quiet values alone and keeps loud strikes inside the range.
    mixed = 0.95 * np.tanh(wet / 0.95) + noise * 10 ** (voice.noise_db / 20)
    ramp = np.linspace(0, 1, max(2, min(n_samples // 2, int(fade_seconds * sample_rate_hz))))
    mixed[: len(ramp)] *= ramp
    mixed[-len(ramp) :] *= ramp[::-1]
    return np.clip(mixed, -1, 1).astype(np.float32)


def shape_noise(
    rng: np.random.Generator, n_samples: int, sample_rate_hz: int, *, low: float, high: float, slope_db: float = 0.0
) -> Samples:
    """Noise of power 1 between two frequencies in Hz, its power falling by `slope_db` an octave in between."""
    # A power of two is quick to transform whatever n_samples is.
    size = 1 << max(6, (n_samples - 1).bit_length())
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / sample_rate_hz), 1.0)
    gain = (frequency / low) ** (-slope_db / 6.02)
    gain /= np.sqrt((1 + (low / frequency) ** 6) * (1 + (frequency / high) ** 6))
    noise: Samples = np.fft.irfft(spectrum * gain, size)[:n_samples]
    noise /= np.sqrt(np.square(noise).mean())
    return noise


def _convolve(first: Samples, second: Samples) -> Samples:
    size = 1 << (len(first) + len(second) - 1).bit_length()
    product: Samples = np.fft.irfft(np.fft.rfft(first, size) * np.fft.rfft(second, size), size)[: len(first)]
    return product


def _lay(
    cues: Sequence[Cue],
    sounds: Mapping[int, Samples],
    *,
    n_samples: int,
    sample_rate_hz: int,
    pick: Callable[[Cue], int],
) -> Waveform:
    """Add the sound of each cue where it happens; what lies outside [0, n_samples) is cut off."""
    track = np.zeros(n_samples)
    for cue in cues:
        sound, start = sounds[pick(cue)], round(cue.time_seconds * sample_rate_hz)
        skipped = max(0, -start)
        piece = sound[skipped : max(skipped, n_samples - start)]
        begin = start + skipped
        track[begin : begin + len(piece)] += cue.strength * piece
    return track.astype(np.float32)
