"""The seven kinds of moments of the demo: how each is composed, drawn and played, and in which variations.

No two variations share colours, positions, cues or noise, but each is plainly of its kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from visxp_search.demo import cues, indoors, outdoors, sounds
from visxp_search.demo.canvas import Look, Scene
from visxp_search.demo.cues import Cue, Voice
from visxp_search.demo.sounds import Waveform


class _Compose(Protocol):
    def __call__(self, duration_seconds: float, *, voice: Voice, rng: np.random.Generator) -> list[Cue]: ...


class _Draw(Protocol):
    def __call__(self, look: Look, *, cues: Sequence[Cue], rng: np.random.Generator) -> Scene: ...


class _Play(Protocol):
    def __call__(
        self, cues: Sequence[Cue], *, n_samples: int, sample_rate_hz: int, voice: Voice, rng: np.random.Generator
    ) -> Waveform: ...


@dataclass(frozen=True)
class Kind:
    """How one kind of moment is made.

    Attributes:
        compose: writes what happens when.
        draw: prepares the picture of that.
        play: makes the sound of that.
        variations: how it looks and sounds in each of the archive's versions; the last one is the query's.
    """

    compose: _Compose
    draw: _Draw
    play: _Play
    variations: tuple[tuple[Look, Voice], ...]


KINDS: dict[str, Kind] = {
    "bell": Kind(
        cues.compose_bell,
        outdoors.draw_bell,
        sounds.play_bell,
        (
            (
                Look((112, 168, 222), (214, 228, 236), (96, 128, 72), (176, 124, 52), (164, 152, 134), x=0.5),
                Voice(pitch=1.0, room_seconds=0.9, level_db=-19, noise_db=-50),
            ),
            (
                Look((92, 84, 128), (244, 176, 120), (70, 82, 66), (150, 112, 60), (138, 116, 104), x=0.42, size=0.9),
                Voice(pitch=0.8, tempo=0.86, room_seconds=1.4, level_db=-23, noise_db=-56),
            ),
            (
                Look(
                    (150, 176, 200), (226, 226, 220), (110, 120, 84), (160, 130, 74), (150, 120, 96), x=0.57, size=1.08
                ),
                Voice(pitch=0.9, tempo=0.95, room_seconds=1.1, level_db=-21, noise_db=-46),
            ),
            (
                Look(
                    (126, 180, 214), (236, 232, 214), (86, 116, 80), (188, 138, 66), (176, 160, 146), x=0.46, size=0.97
                ),
                Voice(pitch=1.12, tempo=1.08, room_seconds=0.7, level_db=-16, noise_db=-44),
            ),
        ),
    ),
    "siren": Kind(
        cues.compose_siren,
        outdoors.draw_siren,
        sounds.play_siren,
        (
            (
                Look((150, 184, 214), (206, 216, 222), (128, 126, 124), (244, 244, 240), (226, 84, 40), x=0.5),
                Voice(pitch=1.0, level_db=-17, noise_db=-42),
            ),
            (
                Look(
                    (28, 34, 66),
                    (88, 76, 104),
                    (112, 108, 116),
                    (238, 214, 60),
                    (44, 110, 70),
                    x=0.45,
                    size=0.9,
                    mirror=True,
                ),
                Voice(pitch=0.9, tempo=0.82, level_db=-22, noise_db=-48, room_seconds=0.6),
            ),
            (
                Look(
                    (176, 186, 196), (212, 206, 198), (140, 128, 118), (236, 238, 242), (40, 84, 178), x=0.54, size=0.96
                ),
                Voice(pitch=1.08, tempo=1.15, level_db=-19, noise_db=-40, room_seconds=0.45),
            ),
        ),
    ),
    "bird": Kind(
        cues.compose_bird,
        outdoors.draw_bird,
        sounds.play_bird,
        (
            (
                Look((176, 214, 222), (150, 190, 120), (92, 142, 60), (112, 100, 88), (214, 108, 52), x=0.48),
                Voice(pitch=1.0, level_db=-22, noise_db=-52, room_seconds=0.25),
            ),
            (
                Look(
                    (206, 216, 206),
                    (176, 178, 112),
                    (132, 138, 52),
                    (86, 112, 142),
                    (236, 200, 88),
                    x=0.56,
                    size=0.88,
                    mirror=True,
                ),
                Voice(pitch=1.14, tempo=1.12, level_db=-26, noise_db=-56, room_seconds=0.5),
            ),
            (
                Look(
                    (190, 220, 204), (120, 168, 110), (70, 126, 72), (136, 110, 84), (226, 206, 172), x=0.45, size=1.08
                ),
                Voice(pitch=0.92, tempo=0.94, level_db=-19, noise_db=-47, room_seconds=0.35),
            ),
        ),
    ),
    "rain": Kind(
        cues.compose_rain,
        outdoors.draw_rain,
        sounds.play_rain,
        (
            (
                Look((168, 178, 184), (150, 164, 166), (66, 90, 78), (92, 112, 120), (86, 128, 72), x=0.6),
                Voice(pitch=1.0, level_db=-23, noise_db=-58),
            ),
            (
                Look((150, 160, 172), (136, 148, 158), (58, 74, 84), (78, 98, 118), (112, 130, 84), x=0.35, size=1.3),
                Voice(pitch=0.85, tempo=1.5, level_db=-19, noise_db=-54),
            ),
            (
                Look((186, 190, 188), (160, 168, 160), (84, 98, 70), (104, 118, 112), (102, 136, 64), x=0.5, size=0.8),
                Voice(pitch=1.1, tempo=0.75, level_db=-27, noise_db=-60, room_seconds=0.2),
            ),
            (
                Look(
                    (160, 172, 176),
                    (150, 158, 160),
                    (70, 82, 86),
                    (84, 104, 108),
                    (94, 116, 80),
                    x=0.7,
                    size=1.1,
                    mirror=True,
                ),
                Voice(pitch=0.95, tempo=1.2, level_db=-21, noise_db=-52),
            ),
        ),
    ),
    "drums": Kind(
        cues.compose_drums,
        indoors.draw_drums,
        sounds.play_drums,
        (
            (
                Look((44, 24, 40), (92, 40, 48), (58, 44, 42), (170, 30, 38), (64, 70, 96), x=0.5),
                Voice(pitch=1.0, level_db=-17, room_seconds=0.35, noise_db=-58),
            ),
            (
                Look(
                    (26, 34, 54),
                    (58, 62, 96),
                    (50, 48, 54),
                    (38, 84, 150),
                    (112, 42, 52),
                    x=0.53,
                    size=0.92,
                    mirror=True,
                ),
                Voice(pitch=1.1, tempo=1.15, level_db=-21, room_seconds=0.7, noise_db=-54),
            ),
            (
                Look((40, 32, 30), (86, 66, 52), (64, 50, 40), (196, 130, 40), (52, 88, 74), x=0.47, size=1.06),
                Voice(pitch=0.92, tempo=0.9, level_db=-19, room_seconds=0.25, noise_db=-60),
            ),
            (
                Look((36, 28, 52), (78, 52, 82), (54, 46, 50), (112, 36, 96), (84, 84, 88), x=0.49, size=0.98),
                Voice(pitch=1.05, tempo=1.05, level_db=-15, room_seconds=0.5, noise_db=-50),
            ),
        ),
    ),
    "piano": Kind(
        cues.compose_piano,
        indoors.draw_piano,
        sounds.play_piano,
        (
            (
                Look((0, 0, 0), (0, 0, 0), (140, 26, 34), (74, 46, 32), (34, 36, 48), x=0.5),
                Voice(pitch=1.0, level_db=-21, room_seconds=0.8, noise_db=-62),
            ),
            (
                Look((0, 0, 0), (0, 0, 0), (40, 82, 62), (40, 36, 38), (150, 150, 158), x=0.42, size=1.12),
                Voice(pitch=2 ** (4 / 12), tempo=1.2, level_db=-24, room_seconds=1.2, noise_db=-58),
            ),
            (
                Look((0, 0, 0), (0, 0, 0), (128, 34, 60), (112, 68, 40), (92, 44, 52), x=0.56, size=0.94, mirror=True),
                Voice(pitch=2 ** (-2 / 12), tempo=0.9, level_db=-19, room_seconds=0.5, noise_db=-56),
            ),
            (
                Look((0, 0, 0), (0, 0, 0), (150, 40, 32), (92, 50, 30), (52, 78, 110), x=0.46, size=1.04),
                Voice(pitch=2 ** (2 / 12), tempo=1.05, level_db=-17, room_seconds=0.6, noise_db=-52),
            ),
        ),
    ),
    "clock": Kind(
        cues.compose_clock,
        indoors.draw_clock,
        sounds.play_clock,
        (
            (
                Look((206, 188, 152), (184, 162, 124), (150, 116, 84), (116, 66, 36), (246, 238, 218), x=0.5),
                Voice(pitch=1.0, level_db=-28, room_seconds=0.3, noise_db=-62),
            ),
            (
                Look((188, 196, 176), (166, 172, 150), (112, 128, 108), (92, 56, 36), (250, 246, 234), x=0.6, size=0.9),
                Voice(pitch=0.86, tempo=0.9, level_db=-31, room_seconds=0.5, noise_db=-66),
            ),
            (
                Look(
                    (212, 196, 176), (186, 168, 150), (160, 124, 110), (138, 86, 48), (240, 232, 206), x=0.42, size=1.06
                ),
                Voice(pitch=1.1, tempo=1.06, level_db=-25, room_seconds=0.25, noise_db=-58),
            ),
        ),
    ),
}
"""All kinds of moments by name."""
