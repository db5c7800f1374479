"""The demo's outdoor scenes: a church bell, an emergency vehicle, a songbird and rain on a pond.

`draw_*` prepares a scene once and returns the function that draws the stage at a time in seconds.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from visxp_search.demo.canvas import (
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
from visxp_search.demo.cues import Cue

BELL_SIDE: tuple[Point, ...] = ((8, 0), (20, 3), (25, 12), (28, 34), (33, 54), (43, 70), (46, 78))
"""The right half of a bell's outline, from the crown down, in units."""


def draw_bell(look: Look, *, cues: Sequence[Cue], rng: np.random.Generator) -> Scene:
    """A bronze bell (`body`) that swings in the arch of a stone tower (`accent`) above hills (`ground`)."""
    backdrop = make_backdrop(look.top, look.bottom)
    backdrop.roughen(rng, strength=7, cell=26, stretch=3)
    _draw_hills(backdrop, look.ground, rng, top=140)
    middle, size = look.x * STAGE_WIDTH, look.size
    tower = 88 * size
    stone = make_backdrop(lighten(look.accent, 0.12), lighten(look.accent, -0.15), width=2 * tower)
    for row in range(0, STAGE_HEIGHT, 11):
        stone.line([(0, row), (2 * tower, row)], lighten(look.accent, -0.28), 0.7)
        for column in np.arange(-20 + row % 22, 2 * tower, 24):
            shade = lighten(look.accent, float(rng.uniform(-0.2, 0.2)))
            stone.box(column + 1, row + 1, column + 23, row + 10.5, shade)
    stone.roughen(rng, strength=8, cell=2)
    backdrop.paste(stone.image, middle - tower, 0)
    for edge, light in ((-tower, 0.25), (tower - 4, -0.4)):
        backdrop.box(middle + edge, 0, middle + edge + 4, STAGE_HEIGHT, lighten(look.accent, light))
    # The arch: a light rim of dressed stone around the dark chamber.
    for grow, shade in ((7, lighten(look.accent, 0.3)), (0, (34, 30, 34))):
        radius = 66 * size + grow
        backdrop.disc((middle, 80), radius, flatten=0.95, fill=shade)
        backdrop.box(middle - radius, 80, middle + radius, 176 + grow, shade)
    times = [cue.time_seconds for cue in cues]
    pivot = (middle, 42.0)

    def draw(time_seconds: float) -> Canvas:
        canvas = backdrop.copy()
        angle = 0.4 * _swing(cues, times, time_seconds)
        canvas.polygon(place([(-52, -8), (52, -8), (48, 4), (-48, 4)], at=pivot, size=size, angle=angle), (92, 60, 34))
        clapper = place([(0, 30), (9 * angle, 86)], at=pivot, size=size, angle=1.5 * angle)
        canvas.line(clapper, (96, 84, 74), 5 * size)
        canvas.disc(clapper[1], 8 * size, fill=(112, 98, 86))
        # Strips from left to right, each with its own light, make the metal look round.
        for k in range(8):
            left, right = -1 + 2 * k / 8, -1 + 2 * (k + 1) / 8 + 0.02
            strip = [(x * left, y) for x, y in BELL_SIDE] + [(x * right, y) for x, y in reversed(BELL_SIDE)]
            shine = 0.42 - 0.95 * abs((left + right) / 2 + 0.38)
            canvas.polygon(place(strip, at=pivot, size=size, angle=angle), lighten(look.body, shine))
        for height, half in ((20, 26), (58, 35), (72, 44)):
            band = place([(-half, height), (half, height)], at=pivot, size=size, angle=angle)
            canvas.line(band, lighten(look.body, -0.4), 1.6 * size)
        return canvas

    return draw


def _swing(cues: Sequence[Cue], times: Sequence[float], time_seconds: float) -> float:
    """Where a thing is, in [-1, 1], that swings from the side of one cue to the side of the next."""
    index = bisect_right(times, time_seconds) - 1
    if index < 0:
        return float(cues[0].note) * math.sin(math.pi / 2 * time_seconds / max(times[0], 1e-6))
    step = times[1] - times[0] if len(times) > 1 else 1.0
    return float(cues[index].note) * math.cos(math.pi * min(2.0, (time_seconds - times[index]) / step))


def _draw_hills(canvas: Canvas, colour: Colour, rng: np.random.Generator, *, top: float) -> None:
    for layer in range(3):
        heights = top + 14 * layer + np.cumsum(rng.normal(0, 2.2, 23))
        ridge = [(float(x), float(y)) for x, y in zip(np.linspace(0, STAGE_WIDTH, 23), heights, strict=True)]
        shade = mix(lighten(colour, 0.25), lighten(colour, -0.25), layer / 2)
        canvas.polygon([(0, STAGE_HEIGHT), *ridge, (STAGE_WIDTH, STAGE_HEIGHT)], shade)
    canvas.roughen(rng, strength=5, cell=3, stretch=2, top=top - 15)


FLASHES_PER_SECOND = 2.4
BLUE_LIGHT: Colour = (70, 130, 255)


def draw_siren(look: Look, *, cues: Sequence[Cue], rng: np.random.Generator) -> Scene:
    """A van (`body`, its stripe in `accent`) with flashing blue lights that drives past houses on a road (`ground`)."""
    horizon = 128.0
    street = make_backdrop(look.top, look.bottom, width=2 * STAGE_WIDTH, height=horizon)
    night = sum(look.top) < 240
    left = 0.0
    while left < 2 * STAGE_WIDTH:
        width, roof = float(rng.uniform(38, 70)), float(rng.uniform(14, 66))
        wall = mix(lighten(look.ground, float(rng.uniform(-0.15, 0.3))), (165, 120, 95), float(rng.uniform(0, 0.5)))
        wall = lighten(wall, -0.45) if night else wall
        street.box(left, roof, left + width, horizon, wall)
        for x in np.arange(left + 6, left + width - 8, 13):
            for y in np.arange(roof + 8, horizon - 20, 18):
                lit = rng.random() < (0.45 if night else 0.1)
                street.box(x, y, x + 7, y + 10, (250, 215, 140) if lit else lighten(wall, -0.4))
        left += width + float(rng.choice([0, 0, 9]))
    street.roughen(rng, strength=5, cell=3)
    road = make_backdrop(lighten(look.ground, -0.3), lighten(look.ground, -0.55))
    road.box(0, horizon, STAGE_WIDTH, horizon + 7, lighten(look.ground, 0.15))
    road.roughen(rng, strength=6, cell=1.5, stretch=3, top=horizon)
    at, size = (look.x * STAGE_WIDTH, 158.0), 1.06 * look.size
    period = cues[1].time_seconds - cues[0].time_seconds
    flashes = max(1, round(FLASHES_PER_SECOND * period)) / period
    speed = 105.0

    def draw(time_seconds: float) -> Canvas:
        canvas = road.copy()
        offset = -(0.55 * speed * time_seconds) % (2 * STAGE_WIDTH)
        for start in (offset, offset - 2 * STAGE_WIDTH):
            if -2 * STAGE_WIDTH < start < STAGE_WIDTH:
                canvas.paste(street.image, start, 0)
        for k in range(6):
            x = (k * 80 - 1.4 * speed * time_seconds) % 480 - 60
            canvas.polygon([(x, 178), (x + 38, 178), (x + 36, 182), (x - 3, 182)], (225, 225, 215))
        phase = (time_seconds - cues[0].time_seconds) * flashes % 1
        bounce = 0.8 * math.sin(9 * time_seconds)
        _draw_van(canvas, look, at=(at[0], at[1] + bounce), size=size, roll=speed * time_seconds / 13)
        for side, is_on in ((-22, phase % 0.5 < 0.22 and phase < 0.5), (12, phase % 0.5 < 0.22 and phase >= 0.5)):
            lamp = place([(side, -84)], at=(at[0], at[1] + bounce), size=size)[0]
            shade = (205, 225, 255) if is_on else (25, 50, 150)
            canvas.box(lamp[0] - 9 * size, lamp[1] - 5 * size, lamp[0] + 9 * size, lamp[1] + 4 * size, shade, radius=3)
            if is_on:
                canvas.glow(lamp, 62 * size, BLUE_LIGHT, 0.9)
                canvas.glow(lamp, 20 * size, (235, 242, 255), 0.95)
        return canvas

    return draw


def _draw_van(canvas: Canvas, look: Look, *, at: Point, size: float, roll: float) -> None:
    def shape(points: Sequence[Point], colour: Colour) -> None:
        canvas.polygon(place(points, at=at, size=size), colour)

    shape([(-102, 14), (108, 14), (100, 20), (-96, 20)], (25, 25, 28))
    shape([(-100, -78), (42, -78), (50, -74), (78, -38), (104, -28), (108, 4), (108, 10), (-100, 10)], look.body)
    shape([(-100, -78), (42, -78), (46, -72), (-100, -72)], lighten(look.body, 0.35))
    shape([(-100, -34), (92, -34), (105, -26), (106, -17), (-100, -17)], look.accent)
    for k in range(0, 180, 20):
        shape([(-96 + k, -17), (-86 + k, -17), (-86 + k, -9), (-96 + k, -9)], lighten(look.accent, -0.35))
    glass = (60, 84, 105)
    shape([(34, -69), (46, -69), (70, -39), (34, -39)], glass)
    shape([(38, -66), (44, -66), (58, -47), (52, -47)], lighten(glass, 0.35))
    shape([(-84, -66), (-36, -66), (-36, -43), (-84, -43)], glass)
    shape([(-80, -63), (-66, -63), (-76, -46), (-80, -46)], lighten(glass, 0.3))
    seam = lighten(look.body, -0.35)
    for x in (-22, 28, 74):
        canvas.line(place([(x, -70 if x < 70 else -34), (x, 8)], at=at, size=size), seam, 1)
    shape([(-36, -84), (26, -84), (26, -78), (-36, -78)], (40, 44, 52))
    shape([(98, -24), (106, -22), (107, -12), (99, -12)], (255, 250, 215))
    shape([(-102, -30), (-97, -30), (-97, -12), (-102, -12)], (200, 30, 30))
    shape([(-104, 4), (112, 4), (112, 11), (-104, 11)], (55, 57, 62))
    for x in (-62, 66):
        hub = place([(x, 9)], at=at, size=size)[0]
        canvas.disc(hub, 19 * size, fill=(30, 30, 33))
        canvas.disc(hub, 11 * size, fill=(170, 174, 180))
        for k in range(5):
            turn = roll + 2 * math.pi * k / 5
            rim = (hub[0] + 10 * size * math.cos(turn), hub[1] + 10 * size * math.sin(turn))
            canvas.line([hub, rim], (75, 78, 84), 2 * size)


def draw_bird(look: Look, *, cues: Sequence[Cue], rng: np.random.Generator) -> Scene:
    """A songbird (`body`, its breast in `accent`) that opens its beak on a branch before blurred leaves (`ground`)."""
    backdrop = make_backdrop(look.top, look.bottom)
    for _ in range(90):
        centre = (float(rng.uniform(0, STAGE_WIDTH)), float(rng.triangular(0, 150, STAGE_HEIGHT + 20)))
        shade = mix(look.ground, lighten(look.top, 0.2), float(rng.uniform(0, 0.75)))
        backdrop.disc(centre, float(rng.uniform(8, 26)), fill=lighten(shade, float(rng.uniform(-0.3, 0.15))))
    backdrop.blur(5)
    at, size = (look.x * STAGE_WIDTH, 92.0), 1.3 * look.size
    perch = at[1] + 37 * size
    bark: Colour = (104, 78, 56)
    bends = [
        (-10.0, perch + 16),
        (at[0] - 90, perch + 8),
        (at[0], perch + 4),
        (at[0] + 95, perch - 6),
        (350.0, perch - 2),
    ]
    for start, stop in pairwise(bends):
        backdrop.stroke(start, stop, lighten(bark, -0.25), 13)
        backdrop.stroke((start[0], start[1] - 2), (stop[0], stop[1] - 2), bark, 8)
    backdrop.stroke(bends[3], (bends[3][0] + 45, bends[3][1] - 70), bark, 5)
    backdrop.stroke(bends[1], (bends[1][0] - 40, bends[1][1] - 48), bark, 4)
    for stem in (bends[1], bends[3], bends[3], bends[4], bends[0]):
        for _ in range(5):
            leaf = (stem[0] + float(rng.uniform(-45, 50)), stem[1] + float(rng.uniform(-62, 12)))
            if abs(leaf[0] - at[0]) > 62 * size:
                shade = lighten(look.ground, float(rng.uniform(-0.1, 0.35)))
                backdrop.polygon(make_oval(13, 5.5, at=leaf, angle=float(rng.uniform(0, math.pi))), shade)
    backdrop.roughen(rng, strength=4, cell=1.5)
    times = [cue.time_seconds for cue in cues]

    def draw(time_seconds: float) -> Canvas:
        canvas = backdrop.copy()
        index = bisect_right(times, time_seconds) - 1
        since = time_seconds - times[index] if index >= 0 else 9.0
        gape = max(0.0, 1 - since / 0.13) if since >= 0 else 0.0
        singing = max(0.0, 1 - max(0.0, since - 0.15) / 0.3)
        _draw_songbird(canvas, look, at=at, size=size, gape=gape, lift=singing, breath=math.sin(5 * time_seconds))
        return canvas

    return draw


def _draw_songbird(
    canvas: Canvas, look: Look, *, at: Point, size: float, gape: float, lift: float, breath: float
) -> None:
    def shape(points: Sequence[Point], colour: Colour, *, angle: float = 0.0, about: Point = (0, 0)) -> None:
        turned = place([(x - about[0], y - about[1]) for x, y in points], at=about, angle=angle)
        canvas.polygon(place(turned, at=at, size=size), colour)

    dark = lighten(look.body, -0.35)
    for x in (-2, 8):
        canvas.line(place([(x, 18), (x + 2, 38)], at=at, size=size), (88, 58, 50), 1.8 * size)
    shape([(-34, 4), (-78, 30), (-72, 37), (-26, 18)], dark)
    shape([(-34, 8), (-72, 33), (-66, 38), (-24, 18)], look.body)
    shape(make_oval(39, 25 + 0.7 * breath, angle=-0.35), look.body)
    shape(make_oval(27, 19 + 0.7 * breath, at=(13, 5), angle=-0.6), look.accent)
    shape(make_oval(20, 9, at=(2, 16), angle=-0.25), lighten(look.accent, 0.45))
    shape([(14, -8), (-6, -16), (-34, 0), (-54, 20), (-30, 18), (4, 10)], dark)
    for k in range(4):
        feather = [(8 - 9 * k, -6 + 3 * k), (-36 - 3 * k, 14 + 2 * k), (-34 - 3 * k, 16 + 2 * k)]
        shape(feather, lighten(look.body, 0.3))
    tilt, neck = -0.38 * lift, (26.0, -14.0)
    head = (32.0, -26.0)
    shape([(44, -32), (62, -28 - 5 * gape), (44, -26)], (226, 166, 62), angle=tilt - 0.28 * gape, about=neck)
    shape([(43, -28), (59, -25 + 7 * gape), (42, -22)], (196, 132, 48), angle=tilt + 0.30 * gape, about=neck)
    shape(make_oval(18, 16.5, at=head), look.body, angle=tilt, about=neck)
    shape(make_oval(10, 9, at=(38, -20)), look.accent, angle=tilt, about=neck)
    shape(make_oval(12, 5, at=(29, -37), angle=-0.1), dark, angle=tilt, about=neck)
    shape(make_oval(3.6, 3.6, at=(38, -30)), (18, 16, 18), angle=tilt, about=neck)
    shape(make_oval(1.2, 1.2, at=(39.2, -31.2)), (245, 245, 245), angle=tilt, about=neck)


RING_SECONDS = 0.8


def draw_rain(look: Look, *, cues: Sequence[Cue], rng: np.random.Generator) -> Scene:
    """Rain that draws rings on a pond (`body`) before a misty shore (`ground`), with lily leaves in `accent`."""
    shore = 52.0 + 14 * (look.size - 1)
    backdrop = make_backdrop(look.top, look.bottom)
    for layer in range(3):
        haze = mix(mix(look.ground, look.top, 0.72), look.ground, layer / 2)
        for x in np.arange(-10, STAGE_WIDTH + 10, 7 + 3 * layer):
            tall = float(rng.uniform(8, 32)) * (1.25 - 0.3 * layer)
            oval = make_oval(float(rng.uniform(7, 15)), tall, at=(float(x), shore - tall * 0.45))
            backdrop.polygon(oval, lighten(haze, float(rng.uniform(-0.08, 0.08))))
    backdrop.blur(1.2)
    water = make_backdrop(mix(look.body, look.ground, 0.45), lighten(look.body, 0.12), height=STAGE_HEIGHT - shore)
    water.roughen(rng, strength=7, cell=2.5, stretch=9, bottom=STAGE_HEIGHT - shore)
    backdrop.paste(water.image, 0, shore)
    for _ in range(7):
        leaf = (look.x * STAGE_WIDTH + float(rng.normal(0, 75)), float(rng.uniform(shore + 42, STAGE_HEIGHT - 8)))
        radius = (leaf[1] - shore) * 0.17
        backdrop.disc((leaf[0], leaf[1] + 1.5), radius, flatten=0.36, fill=lighten(look.body, -0.4))
        backdrop.disc(leaf, radius, flatten=0.36, fill=lighten(look.accent, float(rng.uniform(-0.15, 0.15))))
        notch = (leaf[0] + radius * 0.9, leaf[1] - radius * 0.25)
        backdrop.line([leaf, notch], lighten(look.accent, -0.4), 1.2)
    times = [cue.time_seconds for cue in cues]
    depths = rng.uniform(0, 1, len(cues)) ** 0.8
    places = [
        (float(x), shore + 6 + (STAGE_HEIGHT - shore) * float(d))
        for x, d in zip(rng.uniform(0, STAGE_WIDTH, len(cues)), depths, strict=True)
    ]
    streaks = rng.uniform((0, 0, 0.6), (STAGE_WIDTH + 40, 1, 1.4), (70, 3))

    def draw(time_seconds: float) -> Canvas:
        canvas = backdrop.copy()
        for k in range(bisect_right(times, time_seconds - RING_SECONDS), bisect_right(times, time_seconds)):
            (x, y), age = places[k], (time_seconds - times[k]) / RING_SECONDS
            reach = (0.35 + 0.65 * (y - shore) / (STAGE_HEIGHT - shore)) * (13 + 24 * cues[k].strength)
            for delay, light in ((0.0, 0.85), (0.28, 0.6)):
                if age > delay:
                    share = age - delay
                    colour = mix(lighten(look.body, light), look.body, share)
                    canvas.disc((x, y), 1 + reach * share, flatten=0.34, outline=colour, width=1.5)
            if age < 0.14:
                top = y - 9 * cues[k].strength * math.sin(math.pi * age / 0.14)
                canvas.line([(x, y), (x, top)], lighten(look.body, 0.85), 1.4)
        rain = lighten(look.top, 0.35)
        for x, start, speed in streaks.tolist():
            y = (start + 2.3 * speed * time_seconds) % 1 * (STAGE_HEIGHT + 40) - 30
            canvas.line([(x - 0.12 * y, y), (x - 0.12 * y - 2.6 * speed, y + 20 * speed)], rain, 0.5)
        return canvas

    return draw
