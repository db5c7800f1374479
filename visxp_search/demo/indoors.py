"""The demo's indoor scenes: a drummer, a piano's keyboard and a pendulum clock.

`draw_*` prepares a scene once and returns the function that draws the stage at a time in seconds.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from visxp_search.demo.canvas import (
    OVERSAMPLING,
    STAGE_HEIGHT,
    STAGE_WIDTH,
    Canvas,
    Colour,
    Look,
    Point,
    Scene,
    lighten,
    make_backdrop,
    make_oval,
    mix,
    place,
)
from visxp_search.demo.cues import CRASH, FLOOR_TOM, HIHAT, KICK, N_WHITE_KEYS, PIANO_SCALE, SNARE, TOM, Cue

DRUM_PLACES: dict[int, Point] = {
    KICK: (0, 34),
    SNARE: (-66, 0),
    HIHAT: (-104, -36),
    TOM: (30, -26),
    FLOOR_TOM: (74, 12),
    CRASH: (92, -62),
}
"""Where a stick hits each drum, in units around the middle of the kit."""
LEFT_HAND, RIGHT_HAND = (SNARE, TOM), (HIHAT, CRASH, FLOOR_TOM)


def draw_drums(look: Look, *, cues: Sequence[Cue], rng: np.random.Generator) -> Scene:
    """A drummer (shirt in `accent`) behind a kit (`body`) whose skins light up when they are hit."""
    backdrop = make_backdrop(look.top, look.bottom)
    backdrop.roughen(rng, strength=5, cell=14)
    for x in (0.12, 0.5, 0.88):
        backdrop.glow((x * STAGE_WIDTH, 22), 80, lighten(look.accent, 0.3), 0.45)
        backdrop.glow((x * STAGE_WIDTH, 8), 14, (255, 248, 225), 0.95)
    backdrop.polygon([(0, 150), (STAGE_WIDTH, 150), (STAGE_WIDTH, STAGE_HEIGHT), (0, STAGE_HEIGHT)], look.ground)
    backdrop.disc((look.x * STAGE_WIDTH, 172), 150 * look.size, flatten=0.16, fill=lighten(look.ground, -0.3))
    backdrop.roughen(rng, strength=6, cell=2, stretch=6, top=150)
    at, size = (look.x * STAGE_WIDTH, 108.0), 0.9 * look.size
    struck = {drum: [cue.time_seconds for cue in cues if cue.note == drum] for drum in DRUM_PLACES}

    def draw(time_seconds: float) -> Canvas:
        canvas = backdrop.copy()
        flash = {drum: _ring_down(times, time_seconds, fall=0.12) for drum, times in struck.items()}
        _draw_drummer(canvas, look, at=at, size=size, nod=flash[KICK])
        _draw_kit(canvas, look, at=at, size=size, flash=flash, time_seconds=time_seconds)
        for drums, shoulder in ((LEFT_HAND, (-24.0, -62.0)), (RIGHT_HAND, (24.0, -62.0))):
            # The player faces us, so arms cross: the hand on our left of the body reaches the hi-hat.
            tip = _find_stick(cues, drums, time_seconds)
            arm = (-shoulder[0], shoulder[1]) if drums is LEFT_HAND and tip[0] > 0 else shoulder
            arm = (-24.0, -62.0) if tip[0] < -85 else arm
            hand = (0.5 * arm[0] + 0.5 * tip[0], 0.35 * arm[1] + 0.65 * tip[1] - 12)
            joints = place([arm, hand, tip], at=at, size=size)
            canvas.stroke(joints[0], joints[1], mix(look.accent, (222, 176, 146), 0.75), 8 * size)
            canvas.stroke(joints[1], joints[2], (236, 214, 170), 2.4 * size)
        return canvas

    return draw


def _ring_down(times: Sequence[float], time_seconds: float, *, fall: float) -> float:
    """1 at the latest of the times, dying away within about three `fall` seconds."""
    index = bisect_right(times, time_seconds) - 1
    return math.exp(-(time_seconds - times[index]) / fall) if index >= 0 else 0.0


def _find_stick(cues: Sequence[Cue], drums: Sequence[int], time_seconds: float) -> Point:
    """The tip of the stick of one hand: it moves to the drum of its next stroke and falls onto it."""
    strokes = [cue for cue in cues if cue.note in drums]
    if not strokes:
        return DRUM_PLACES[drums[0]]
    times = [cue.time_seconds for cue in strokes]
    index = bisect_left(times, time_seconds)
    after = strokes[min(index, len(strokes) - 1)]
    before = strokes[max(0, index - 1)]
    gap = max(1e-3, after.time_seconds - before.time_seconds)
    share = min(1.0, max(0.0, (time_seconds - before.time_seconds) / gap)) if after is not before else 0.0
    (x0, y0), (x1, y1) = DRUM_PLACES[before.note], DRUM_PLACES[after.note]
    lift = 24 * math.sin(math.pi * share) * min(1.0, gap / 0.3)
    return x0 + (x1 - x0) * share, y0 + (y1 - y0) * share - lift


def _draw_drummer(canvas: Canvas, look: Look, *, at: Point, size: float, nod: float) -> None:
    skin: Colour = (222, 176, 146)
    torso = [(-30, -66), (-14, -76), (14, -76), (30, -66), (26, 20), (-26, 20)]
    canvas.polygon(place(torso, at=at, size=size), look.accent)
    canvas.polygon(place([(-7, -84), (7, -84), (8, -72), (-8, -72)], at=at, size=size), lighten(skin, -0.15))
    head = (0.0, -91.0 + 3 * nod)
    canvas.polygon(place(make_oval(15, 18, at=(0, head[1] - 4)), at=at, size=size), (62, 44, 36))
    canvas.polygon(place(make_oval(12.5, 15, at=head), at=at, size=size), skin)
    for x in (-5, 5):
        canvas.disc(place([(x, head[1] - 2)], at=at, size=size)[0], 1.5 * size, fill=(45, 34, 30))
    canvas.line(place([(-4, head[1] + 7), (4, head[1] + 7)], at=at, size=size), (150, 84, 76), 1.4 * size)


def _draw_kit(
    canvas: Canvas, look: Look, *, at: Point, size: float, flash: dict[int, float], time_seconds: float
) -> None:
    metal: Colour = (176, 180, 188)
    skin: Colour = (214, 208, 196)

    def stand(x: float, top: float) -> None:
        for foot in (-11, 11):
            canvas.line(place([(x, 58), (x + foot, 76)], at=at, size=size), metal, 2 * size)
        canvas.line(place([(x, top), (x, 64)], at=at, size=size), metal, 2.2 * size)

    def drum(centre: Point, radius: float, depth: float, light: float) -> None:
        (x, y), high = centre, radius * 0.32
        shell = [(x - radius, y), (x + radius, y), (x + radius * 0.96, y + depth), (x - radius * 0.96, y + depth)]
        canvas.polygon(place(make_oval(radius * 0.96, high, at=(x, y + depth)), at=at, size=size), look.body)
        for k in range(6):
            left, right = x - radius + k * radius / 3, x - radius + (k + 1) * radius / 3 + 0.4
            shade = lighten(look.body, 0.3 - 0.16 * abs(k - 1.5))
            canvas.polygon(
                place([(left, y), (right, y), (right, shell[2][1]), (left, shell[2][1])], at=at, size=size), shade
            )
        canvas.polygon(place(make_oval(radius + 1.5, high + 1.5, at=centre), at=at, size=size), metal)
        canvas.polygon(
            place(make_oval(radius - 1, high - 1, at=centre), at=at, size=size), mix(skin, (255, 255, 235), light)
        )

    def cymbal(centre: Point, radius: float, light: float, lean: float) -> None:
        tilt = lean + 0.22 * light * math.sin(38 * time_seconds)
        brass = mix((196, 158, 66), (255, 240, 180), light)
        canvas.polygon(
            place(make_oval(radius, radius * 0.2, at=centre, angle=tilt), at=at, size=size), lighten(brass, -0.35)
        )
        top = (centre[0], centre[1] - 1.2)
        canvas.polygon(place(make_oval(radius - 1, radius * 0.17, at=top, angle=tilt), at=at, size=size), brass)
        canvas.polygon(
            place(make_oval(radius * 0.25, radius * 0.09, at=top, angle=tilt), at=at, size=size), lighten(brass, 0.4)
        )

    stand(-104, -34)
    stand(98, -58)
    stand(-66, 8)
    stand(74, 30)
    middle = place([(0, 34)], at=at, size=size)[0]
    canvas.disc(middle, 45 * size, fill=look.body)
    canvas.disc(middle, 45 * size, outline=metal, width=2.5 * size)
    canvas.disc(middle, 39 * size, fill=mix(skin, (255, 255, 240), flash[KICK]))
    canvas.disc(middle, (15 + 6 * flash[KICK]) * size, outline=lighten(look.body, 0.2), width=3 * size)
    canvas.disc(middle, 6 * size, fill=look.body)
    for x in (-34, 34):
        canvas.line(place([(x, 64), (x * 1.4, 78)], at=at, size=size), metal, 2.4 * size)
    drum((-29, -24), 23, 22, 0.0)
    drum((29, -24), 24, 23, flash[TOM])
    drum((-66, 2), 27, 18, flash[SNARE])
    drum((74, 14), 31, 42, flash[FLOOR_TOM])
    cymbal((-104, -36), 29, flash[HIHAT], 0.0)
    cymbal((-104, -39), 29, flash[HIHAT], 0.03)
    cymbal((98, -62), 38, flash[CRASH], -0.2)


KEYS_TOP, KEYS_BOTTOM = 92.0, 184.0
BLACK_SEMITONES = (1, 3, 6, 8, 10)


def draw_piano(look: Look, *, cues: Sequence[Cue], rng: np.random.Generator) -> Scene:
    """A piano's keyboard under its fallboard (`body`), played by two hands with sleeves in `accent`."""
    backdrop = make_backdrop(lighten(look.body, 0.12), lighten(look.body, -0.3))
    backdrop.roughen(rng, strength=7, cell=2, stretch=22)
    for left in (STAGE_WIDTH * look.x - 62, STAGE_WIDTH * look.x + 3):
        _draw_score(backdrop, rng, left=left, top=4, width=59, height=62)
    backdrop.box(0, 66, STAGE_WIDTH, 71, lighten(look.body, 0.3))
    backdrop.box(0, KEYS_TOP - 5, STAGE_WIDTH, KEYS_TOP, look.ground)
    width = STAGE_WIDTH / (N_WHITE_KEYS - 0.5) * look.size
    first = STAGE_WIDTH / 2 - width * N_WHITE_KEYS / 2
    n_keys = N_WHITE_KEYS + 8
    whites = {12 * ((k - 4) // 7) + PIANO_SCALE[(k - 4) % 7]: first + width * (k - 4) for k in range(n_keys)}
    blacks = {n + 1: x + width for n, x in whites.items() if (n + 1) % 12 in BLACK_SEMITONES}
    struck = {note: [cue.time_seconds for cue in cues if cue.note == note] for note in {cue.note for cue in cues}}
    hands = [[cue for cue in cues if (cue.note < 12) == is_left] for is_left in (True, False)]

    def draw(time_seconds: float) -> Canvas:
        canvas = backdrop.copy()
        down = {note: _ring_down(times, time_seconds, fall=0.25) for note, times in struck.items()}
        for note, x in whites.items():
            push = min(1.0, 1.6 * down.get(note, 0.0))
            shade = mix((246, 243, 234), (196, 190, 176), push)
            canvas.box(x, KEYS_TOP, x + width, STAGE_HEIGHT, (96, 92, 88))
            canvas.box(x + 0.6, KEYS_TOP, x + width - 0.6, KEYS_BOTTOM - 6 + 4 * push, shade, radius=1.5)
            canvas.box(x + 0.6, KEYS_TOP, x + width - 0.6, KEYS_TOP + 5, lighten(shade, -0.35))
        for x in blacks.values():
            half = 0.29 * width
            canvas.box(x - half - 1, KEYS_TOP, x + half + 1.5, KEYS_TOP + 53, (120, 116, 110), radius=1.5)
            canvas.box(x - half, KEYS_TOP, x + half, KEYS_TOP + 51, (22, 21, 24), radius=1.5)
            canvas.box(x - half + 1.5, KEYS_TOP, x + half - 1.5, KEYS_TOP + 45, (58, 56, 62), radius=1.5)
        for played in hands:
            _draw_hand(canvas, look, played, whites, width=width, time_seconds=time_seconds)
        return canvas

    return draw


def _draw_score(
    canvas: Canvas, rng: np.random.Generator, *, left: float, top: float, width: float, height: float
) -> None:
    canvas.box(left, top, left + width, top + height, (240, 234, 216))
    for staff in range(4):
        y = top + 7 + 14 * staff
        for k in range(5):
            canvas.line([(left + 4, y + 2 * k), (left + width - 4, y + 2 * k)], (140, 134, 124), 0.5)
        for x in np.arange(left + 8, left + width - 6, 6.5):
            note = (float(x), y + float(rng.uniform(0, 8)))
            canvas.disc(note, 1.5, flatten=0.8, fill=(40, 36, 34))
            canvas.line([(note[0] + 1.3, note[1]), (note[0] + 1.3, note[1] - 6)], (40, 36, 34), 0.5)


def _draw_hand(
    canvas: Canvas, look: Look, played: Sequence[Cue], whites: dict[int, float], *, width: float, time_seconds: float
) -> None:
    """A hand whose nearest finger presses the key of each cue; it glides from one cue to the next."""
    if not played:
        return
    skin: Colour = (228, 184, 154)
    keys = [whites[cue.note] + width / 2 for cue in played]
    times = [cue.time_seconds for cue in played]
    # A slow hand: it follows the mean of the keys near in time, and a finger reaches for the exact one.
    weights = np.exp(-0.5 * ((np.array(times) - time_seconds) / 0.6) ** 2) + 1e-9
    palm = float(np.dot(weights, keys) / weights.sum())
    index = max(0, bisect_right(times, time_seconds + 0.04) - 1)
    press = _ring_down(times, time_seconds + 0.04, fall=0.2)
    finger = min(4, max(0, round((keys[index] - palm) / width) + 2))
    for k in range(5):
        curl = 9 if k in (0, 4) else 0
        tip = (palm + (k - 2) * width * 0.82, 135.0 + curl)
        if k == finger:
            tip = (tip[0] + (keys[index] - tip[0]) * press, tip[1] + 4 * press)
        knuckle = (palm + (k - 2) * width * 0.52, 164.0)
        canvas.stroke((tip[0] + 1.5, tip[1] + 2), (knuckle[0] + 1.5, knuckle[1]), lighten(skin, -0.35), 9)
        canvas.stroke(tip, knuckle, skin, 8.5)
        canvas.disc((tip[0], tip[1] - 1), 2.2, fill=lighten(skin, 0.35))
    canvas.disc((palm, 174), width * 1.6, flatten=0.75, fill=skin)
    canvas.box(palm - width * 1.45, 180, palm + width * 1.45, STAGE_HEIGHT, look.accent, radius=3)


NUMERALS = ("XII", "I", "II", "III", "IIII", "V", "VI", "VII", "VIII", "IX", "X", "XI")


def draw_clock(look: Look, *, cues: Sequence[Cue], rng: np.random.Generator) -> Scene:
    """A wooden wall clock (`body`) with a brass pendulum on striped wallpaper; its dial is `accent`."""
    backdrop = make_backdrop(look.top, look.bottom)
    for k in range(0, STAGE_WIDTH, 24):
        backdrop.box(k, 0, k + 11, STAGE_HEIGHT, mix(look.top, look.ground, 0.35))
        for y in range(8 + 12 * (k // 24 % 2), STAGE_HEIGHT, 26):
            backdrop.disc((k + 17.5, y), 2.6, fill=mix(look.bottom, look.ground, 0.55))
    backdrop.roughen(rng, strength=4, cell=20)
    middle, size = look.x * STAGE_WIDTH, look.size
    half, dial = 60 * size, (middle, 66.0)
    backdrop.box(middle - half + 6, 4, middle + half + 8, STAGE_HEIGHT, lighten(look.bottom, -0.4), radius=4)
    wood = make_backdrop(lighten(look.body, 0.15), lighten(look.body, -0.15), width=2 * half)
    wood.roughen(rng, strength=9, cell=14, stretch=0.12)
    backdrop.paste(wood.image, middle - half, 2)
    for edge in (-half, half - 5):
        backdrop.box(middle + edge, 2, middle + edge + 5, STAGE_HEIGHT, lighten(look.body, -0.35 if edge > 0 else 0.25))
    backdrop.disc(dial, 52 * size, fill=lighten(look.body, -0.4))
    backdrop.disc(dial, 50 * size, fill=(188, 150, 70))
    backdrop.disc(dial, 46 * size, fill=look.accent)
    _draw_dial(backdrop, dial, size)
    backdrop.box(middle - half + 13, 73 + 50 * size, middle + half - 13, STAGE_HEIGHT, (188, 150, 70))
    backdrop.box(middle - half + 15, 75 + 50 * size, middle + half - 15, STAGE_HEIGHT, lighten(look.body, -0.72))
    times = [cue.time_seconds for cue in cues]
    hour = float(rng.uniform(0, 12))

    def draw(time_seconds: float) -> Canvas:
        canvas = backdrop.copy()
        index = bisect_right(times, time_seconds) - 1
        ticks = max(0, index + 1)
        angle = 0.34 * _swing_smoothly(cues, times, time_seconds)
        hang = (middle, 66.0)
        rod, bob = place([(0, 56 * size), (0, 104 * size)], at=hang, angle=angle)
        canvas.line([rod, bob], (214, 178, 96), 2.4 * size)
        canvas.disc(bob, 14 * size, fill=(150, 112, 46))
        canvas.disc((bob[0] - 1, bob[1] - 1), 12.5 * size, fill=(226, 188, 98))
        canvas.disc((bob[0] - 4, bob[1] - 4), 4 * size, fill=(252, 236, 190))
        for turn, length, width in ((hour / 12, 24, 3.4), (hour % 1, 36, 2.4)):
            tip = place([(0, 6 * size), (0, -length * size)], at=dial, angle=2 * math.pi * turn)
            canvas.line(tip, (34, 28, 30), width * size)
        second = place([(0, 9 * size), (0, -40 * size)], at=dial, angle=2 * math.pi * (ticks % 120) / 120)
        canvas.line(second, (176, 40, 34), 1.3 * size)
        canvas.disc(dial, 3 * size, fill=(176, 40, 34))
        return canvas

    return draw


def _swing_smoothly(cues: Sequence[Cue], times: Sequence[float], time_seconds: float) -> float:
    """Where the pendulum is, in [-1, 1]; the ticks are at its ends."""
    step = times[1] - times[0] if len(times) > 1 else 0.5
    return float(cues[0].note) * math.cos(math.pi * (time_seconds - times[0]) / step)


def _draw_dial(canvas: Canvas, dial: Point, size: float) -> None:
    font = ImageFont.load_default(11 * size * OVERSAMPLING)
    for k, numeral in enumerate(NUMERALS):
        turn = 2 * math.pi * k / 12
        text = Image.new("L", (round(24 * size * OVERSAMPLING), round(14 * size * OVERSAMPLING)))
        ImageDraw.Draw(text).text((text.width / 2, text.height / 2), numeral, fill=255, font=font, anchor="mm")
        turned = text.rotate(-math.degrees(turn), Image.Resampling.BICUBIC, expand=True)
        centre = (dial[0] + 36 * size * math.sin(turn), dial[1] - 36 * size * math.cos(turn))
        ink = Image.new("RGB", turned.size, (40, 34, 34))
        canvas.paste(
            ink, centre[0] - turned.width / 2 / OVERSAMPLING, centre[1] - turned.height / 2 / OVERSAMPLING, turned
        )
    for k in range(60):
        arms = [(0, -42 * size), (0, -(45 if k % 5 else 46) * size)]
        canvas.line(place(arms, at=dial, angle=2 * math.pi * k / 60), (60, 52, 50), 0.6 if k % 5 else 1.4)
