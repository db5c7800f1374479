"""Drawing for the demo's scenes: a supersampled canvas, textures and the camera that films it.

Scenes draw on a stage of `STAGE_WIDTH` x `STAGE_HEIGHT` units, one unit being one pixel of the film; the canvas holds
two pixels a unit, so that edges come out smooth. The camera sees a window of the stage that drifts slowly.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]
Frame = npt.NDArray[np.uint8]

FRAME_WIDTH, FRAME_HEIGHT = 320, 180
STAGE_WIDTH, STAGE_HEIGHT = 340, 190
FRAMES_PER_SECOND = 25
OVERSAMPLING = 2


@dataclass(frozen=True)
class Look:
    """What a scene's picture looks like, in words that every kind of scene understands.

    Attributes:
        top: colour of the background at its upper edge (sky, wall).
        bottom: colour of the background at its lower edge.
        ground: colour of what lies at the bottom or behind (meadow, road, floor).
        body: colour of the thing that sounds.
        accent: a second colour of it.
        x: where its middle stands, as a share of the stage's width.
        size: its size relative to the scene's usual one.
        mirror: whether the whole picture is flipped left to right.
        grain: standard deviation of the film grain in grey levels (0-255).
    """

    top: Colour
    bottom: Colour
    ground: Colour
    body: Colour
    accent: Colour
    x: float = 0.5
    size: float = 1.0
    mirror: bool = False
    grain: float = 3.0


class Canvas:
    """A picture of the stage to draw on; all lengths are in stage units."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)

    def copy(self) -> "Canvas":
        """A canvas of its own with the same picture."""
        return Canvas(self.image.copy())

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill the polygon through the points."""
        self._draw.polygon([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points], fill=fill)

    def line(self, points: Sequence[Point], fill: Colour, width: float = 1.0) -> None:
        """Draw a line through the points, `width` units wide, with rounded joints."""
        scaled = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        self._draw.line(scaled, fill=fill, width=max(1, round(width * OVERSAMPLING)), joint="curve")

    def stroke(self, start: Point, stop: Point, fill: Colour, width: float) -> None:
        """Draw a line with round ends: an arm, a branch, a finger."""
        self.line([start, stop], fill, width)
        for point in (start, stop):
            self.disc(point, width / 2, fill=fill)

    def disc(
        self,
        centre: Point,
        radius: float,
        *,
        flatten: float = 1.0,
        fill: Colour | None = None,
        outline: Colour | None = None,
        width: float = 1.0,
    ) -> None:
        """Draw a circle, or with `flatten` < 1 an ellipse that much lower than wide."""
        (x, y), high = centre, radius * flatten
        box = [
            (x - radius) * OVERSAMPLING,
            (y - high) * OVERSAMPLING,
            (x + radius) * OVERSAMPLING,
            (y + high) * OVERSAMPLING,
        ]
        self._draw.ellipse(box, fill=fill, outline=outline, width=max(1, round(width * OVERSAMPLING)) if outline else 0)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour, *, radius: float = 0.0) -> None:
        """Fill the rectangle with corners rounded by `radius`."""
        box = [left * OVERSAMPLING, top * OVERSAMPLING, right * OVERSAMPLING, bottom * OVERSAMPLING]
        if box[2] > box[0] and box[3] > box[1]:
            self._draw.rounded_rectangle(box, radius=radius * OVERSAMPLING, fill=fill)

    def paste(self, patch: Image.Image, left: float, top: float, mask: Image.Image | None = None) -> None:
        """Lay another picture of the same oversampling over this one."""
        self.image.paste(patch, (round(left * OVERSAMPLING), round(top * OVERSAMPLING)), mask)

    def glow(self, centre: Point, radius: float, colour: Colour, strength: float) -> None:
        """Add a soft spot of light; `strength` in [0, 1] is its opacity in the middle."""
        size = max(2, round(2 * radius * OVERSAMPLING))
        mask = _SPOT.resize((size, size), Image.Resampling.BILINEAR).point(lambda value: value * strength)
        self.paste(Image.new("RGB", (size, size), colour), centre[0] - radius, centre[1] - radius, mask)

    def blur(self, radius: float) -> None:
        """Blur everything drawn so far by `radius` units."""
        self.image = self.image.filter(ImageFilter.GaussianBlur(radius * OVERSAMPLING))
        self._draw = ImageDraw.Draw(self.image)

    def roughen(
        self,
        rng: np.random.Generator,
        *,
        strength: float,
        cell: float,
        stretch: float = 1.0,
        top: float = 0.0,
        bottom: float = STAGE_HEIGHT,
    ) -> None:
        """Lighten and darken the rows [top, bottom) by smooth noise, so that surfaces look like matter.

        Args:
            rng: source of the noise.
            strength: standard deviation in grey levels.
            cell: size of the noise's spots in units.
            stretch: how many times wider than high they are.
            top: first row.
            bottom: where the rows stop.
        """
        rows = slice(round(top * OVERSAMPLING), round(bottom * OVERSAMPLING))
        pixels = np.asarray(self.image, dtype=np.float32).copy()
        pixels[rows] += strength * value_noise(rng, pixels[rows].shape[:2], cell=cell, stretch=stretch)[..., None]
        self.image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        self._draw = ImageDraw.Draw(self.image)


Scene = Callable[[float], Canvas]
"""Draws the stage at a time in seconds."""


def _make_spot(size: int = 128) -> Image.Image:
    axis = np.linspace(-1, 1, size)
    distance = np.hypot(axis[:, None], axis[None, :])
    return Image.fromarray((255 * np.clip(1 - distance, 0, 1) ** 2).astype(np.uint8))


_SPOT = _make_spot()


def make_backdrop(top: Colour, bottom: Colour, *, width: float = STAGE_WIDTH, height: float = STAGE_HEIGHT) -> Canvas:
    """A canvas that shades from one colour at the top to another at the bottom."""
    share = np.linspace(0, 1, round(height * OVERSAMPLING), dtype=np.float32)[:, None, None]
    column = np.array(top, np.float32) * (1 - share) + np.array(bottom, np.float32) * share  # (rows, 1, 3)
    return Canvas(Image.fromarray(np.repeat(column.astype(np.uint8), round(width * OVERSAMPLING), axis=1)))


def value_noise(
    rng: np.random.Generator, shape: tuple[int, ...], *, cell: float, stretch: float = 1.0
) -> npt.NDArray[np.float32]:
    """Smooth noise of the given (rows, columns), mean about 0 and deviation 1; `cell` is in stage units."""
    rows = max(2, round(shape[0] / OVERSAMPLING / cell))
    columns = max(2, round(shape[1] / OVERSAMPLING / cell / stretch))
    coarse = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
    smooth = np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), dtype=np.float32)
    return smooth / np.float32(smooth.std() + 1e-6)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour that lies `share` of the way from the first to the second; share is cut to [0, 1]."""
    share = min(1.0, max(0.0, share))
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def lighten(colour: Colour, share: float) -> Colour:
    """Towards white for a positive share, towards black for a negative one."""
    return mix(colour, (255, 255, 255), share) if share >= 0 else mix(colour, (0, 0, 0), -share)


def place(points: Sequence[Point], *, at: Point, size: float = 1.0, angle: float = 0.0) -> list[Point]:
    """Points of a shape scaled, turned clockwise by `angle` radians about its own origin, and moved to `at`."""
    cos, sin = math.cos(angle) * size, math.sin(angle) * size
    return [(at[0] + x * cos - y * sin, at[1] + x * sin + y * cos) for x, y in points]


def make_oval(rx: float, ry: float, *, at: Point = (0.0, 0.0), angle: float = 0.0, n_points: int = 28) -> list[Point]:
    """Corners of an ellipse that can be turned."""
    turn = [2 * math.pi * k / n_points for k in range(n_points)]
    return place([(rx * math.cos(a), ry * math.sin(a)) for a in turn], at=at, angle=angle)


def film(draw: Scene, *, n_frames: int, look: Look, rng: np.random.Generator) -> Iterator[Frame]:
    """Film a scene with a slowly drifting camera and film grain.

    Args:
        draw: gives the stage at a time in seconds.
        n_frames: how many pictures to take, `FRAMES_PER_SECOND` a second.
        look: for `grain` and `mirror`.
        rng: source of grain and drift.

    Yields:
        (FRAME_HEIGHT, FRAME_WIDTH, 3) uint8 RGB pictures.
    """
    grain = rng.normal(0, look.grain, (6, FRAME_HEIGHT, FRAME_WIDTH, 1)).astype(np.int16)
    tempo, phase = rng.uniform(0.25, 0.5, 2), rng.uniform(0, 2 * math.pi, 2)
    room = np.array([STAGE_WIDTH - FRAME_WIDTH, STAGE_HEIGHT - FRAME_HEIGHT]) * OVERSAMPLING / 2
    for index in range(n_frames):
        time_seconds = index / FRAMES_PER_SECOND
        left, top = np.rint(room * (1 + np.sin(tempo * time_seconds + phase))).astype(int).tolist()
        window = (left, top, left + FRAME_WIDTH * OVERSAMPLING, top + FRAME_HEIGHT * OVERSAMPLING)
        picture = np.asarray(draw(time_seconds).image.crop(window).reduce(OVERSAMPLING), dtype=np.int16)
        if look.mirror:
            picture = picture[:, ::-1]
        yield np.clip(picture + grain[index % len(grain)], 0, 255).astype(np.uint8)
