"""What happens in the demo's scenes, and when: cues that their pictures and their sounds both follow.

A cue is one thing that happens: a strike, a chirp, a drop, a key. `compose_*` writes the cues of a kind;
`demo.sounds` plays them, `demo.outdoors` and `demo.indoors` draw them. All are pure functions of their
arguments and a seeded generator.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cue:
    """One thing that happens.

    Attributes:
        time_seconds: when, from the start of the scene.
        note: which; its meaning is the kind's own (a key, a drum, a side).
        strength: how strongly, in (0, 1].
    """

    time_seconds: float
    note: int = 0
    strength: float = 1.0


@dataclass(frozen=True)
class Voice:
    """How one variation of a kind sounds.

    Attributes:
        pitch: factor on all frequencies.
        tempo: factor on the speed of events.
        room_seconds: how long the room rings (the time of a fall by 60 dB); 0 is outdoors.
        noise_db: the background noise's level relative to full scale.
        level_db: the sound's root mean square relative to full scale.
        noise_colour: how the noise's power falls, in dB an octave.
    """

    pitch: float = 1.0
    tempo: float = 1.0
    room_seconds: float = 0.3
    noise_db: float = -52.0
    level_db: float = -20.0
    noise_colour: float = 4.0


def compose_bell(duration_seconds: float, *, voice: Voice, rng: np.random.Generator) -> list[Cue]:
    """Strikes at both ends of a regular swing; the note is the side, -1 or +1."""
    period = 1.25 / voice.tempo
    times = np.arange(0.45, duration_seconds, period)
    return [Cue(float(t), 1 if k % 2 else -1, float(rng.uniform(0.75, 1))) for k, t in enumerate(times)]


def compose_siren(duration_seconds: float, *, voice: Voice, rng: np.random.Generator) -> list[Cue]:
    """The starts of the wails, the first of them before the scene begins."""
    period = 2.6 / voice.tempo
    return [Cue(float(t)) for t in np.arange(-rng.uniform(0.2, 0.8) * period, duration_seconds + period, period)]


def compose_bird(duration_seconds: float, *, voice: Voice, rng: np.random.Generator) -> list[Cue]:
    """Phrases of one to three repeated motifs; the note is the syllable's shape, 0 to 3."""
    cues, start = [], 0.25
    while start < duration_seconds - 0.3:
        for _ in range(int(rng.integers(1, 4))):
            shape, gap = int(rng.integers(0, 4)), float(rng.uniform(0.09, 0.17)) / voice.tempo
            for _ in range(int(rng.integers(2, 5))):
                if start < duration_seconds - 0.2:
                    cues.append(Cue(start, shape, float(rng.uniform(0.6, 1))))
                start += gap
        start += float(rng.uniform(0.25, 0.7)) / voice.tempo
    return cues


def compose_rain(duration_seconds: float, *, voice: Voice, rng: np.random.Generator) -> list[Cue]:
    """Near drops, at random; the note only tells them apart."""
    n_drops = int(26 * voice.tempo * duration_seconds)
    times = np.sort(rng.uniform(-0.8, duration_seconds, n_drops))
    return [
        Cue(float(t), k, float(s)) for k, (t, s) in enumerate(zip(times, rng.uniform(0.2, 1, n_drops), strict=True))
    ]


KICK, SNARE, HIHAT, TOM, FLOOR_TOM, CRASH = range(6)


def compose_drums(duration_seconds: float, *, voice: Voice, rng: np.random.Generator) -> list[Cue]:
    """A rock beat in eighths with a fill over the toms at the end of every fourth bar; the note is the drum."""
    eighth, start = 0.29 / voice.tempo, 0.2
    kicks = set(rng.choice([3, 5, 6, 7], 2, replace=False).tolist()) | {0}
    cues = []
    for k in range(int((duration_seconds - start) / eighth)):
        time, (bar, step) = start + k * eighth, divmod(k, 8)
        if bar % 4 == 3 and step >= 4:
            drum = TOM if step < 6 else FLOOR_TOM
            cues += [Cue(time, drum, 0.9), Cue(time + eighth / 2, drum, 0.7)]
            continue
        cues.append(Cue(time, CRASH if bar % 4 == 0 and step == 0 else HIHAT, 0.9 if step % 2 == 0 else 0.6))
        if step in kicks:
            cues.append(Cue(time, KICK))
        if step in (2, 6):
            cues.append(Cue(time, SNARE))
    return [cue for cue in cues if cue.time_seconds < duration_seconds - 0.1]


PIANO_SCALE = (0, 2, 4, 5, 7, 9, 11)
N_WHITE_KEYS = 15


def compose_piano(duration_seconds: float, *, voice: Voice, rng: np.random.Generator) -> list[Cue]:
    """A wandering melody over broken triads; the note is the semitone above the lowest key, a C."""
    step, start, melody = 0.3 / voice.tempo, 0.2, 9
    degrees, cues = (0, 3, 4, 0, 5, 3, 4, 0), []
    for k in range(int((duration_seconds - start) / step)):
        time, root = start + k * step, degrees[(k // 4) % len(degrees)]
        cues.append(Cue(time, _find_semitone((root + (0, 2, 4, 2)[k % 4]) % 7), 0.55))
        if k % 4 == 0 or rng.random() < 0.55:
            melody = int(np.clip(melody + rng.integers(-2, 3), 7, N_WHITE_KEYS - 1))
            cues.append(Cue(time, _find_semitone(melody), float(rng.uniform(0.8, 1))))
    return cues


def _find_semitone(degree: int) -> int:
    octave, step = divmod(degree, 7)
    return 12 * octave + PIANO_SCALE[step]


def compose_clock(duration_seconds: float, *, voice: Voice, rng: np.random.Generator) -> list[Cue]:
    """Ticks and tocks; the note is the side of the pendulum, -1 or +1."""
    period = 0.5 / voice.tempo
    times = np.arange(0.3, duration_seconds - 0.05, period)
    return [Cue(float(t), 1 if k % 2 else -1, float(rng.uniform(0.9, 1))) for k, t in enumerate(times)]
