"""A scene -> a JPEG. Light falls from the top left, and frames are bevelled, so that places can be told."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from wdsfilter.demo.scene import FRAMES, GROUNDS, Cell, Scene
from wdsfilter.demo.things import COLORS, SHAPES, picture

Color = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

_SHORT_SIDES = (112, 140, 168, 224)
_FRAME = 0.05  # of the short side
_RADIUS = {"small": 0.085, "large": 0.15}  # of the short side
_JITTER = 0.015


def render(scene: Scene, rng: random.Random) -> bytes:
    """A JPEG of the scene, 112 to 298 pixels a side; ``rng`` draws what a scene leaves open."""
    short = rng.choice(_SHORT_SIDES)
    wide, high = scene.format
    size = (round(short * wide / min(wide, high)), round(short * high / min(wide, high)))
    image = _ground(size, scene.ground, scene.texture, rng)
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        radius = _RADIUS[thing.size] * short * rng.uniform(0.94, 1.06)
        for cell in thing.cells:
            x, y = _center(cell, size, short, rng)
            if thing.name in SHAPES:
                assert thing.color is not None
                _draw_shape(draw, thing.name, _varied(COLORS[thing.color], rng), x, y, radius)
            else:
                side = round(2.2 * radius)
                drawn = picture(thing.name).resize((side, side), Image.Resampling.BILINEAR)
                image.paste(drawn, (round(x - side / 2), round(y - side / 2)), drawn)
    _draw_frame(draw, size, scene.frame, max(3, round(_FRAME * short)))
    lit = np.asarray(image, dtype=np.float32) * _light(size)
    return _jpeg(_spoiled(lit, scene, rng), scene, rng)


def _center(cell: Cell, size: tuple[int, int], short: int, rng: random.Random) -> tuple[float, float]:
    row, column = cell
    margin = 0.04 * short

    def at(index: int, length: int) -> float:
        return margin + (index + 0.5) * (length - 2 * margin) / 3 + rng.uniform(-_JITTER, _JITTER) * short

    return at(column, size[0]), at(row, size[1])


def _varied(color: Color, rng: random.Random, by: int = 10) -> Color:
    red, green, blue = (min(255, max(0, channel + rng.randint(-by, by))) for channel in color)
    return red, green, blue


def _ground(size: tuple[int, int], ground: str, texture: str, rng: random.Random) -> Image.Image:
    color = _varied(GROUNDS[ground], rng, 5)
    image = Image.new("RGB", size, color)
    darker = tuple(round(0.84 * channel) for channel in color)
    draw, (wide, high) = ImageDraw.Draw(image), size
    step = max(6, round(min(size) / rng.choice((9, 11, 13))))
    if texture == "striped":
        for y in range(0, high, 2 * step):
            draw.rectangle((0, y, wide, y + step - 1), fill=darker)
    elif texture == "dotted":
        radius = step / 3.2
        for y in range(step, high, 2 * step):
            for x in range(step, wide, 2 * step):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=darker)
    elif texture == "checkered":
        for row, y in enumerate(range(0, high, step)):
            for x in range(step * (row % 2), wide, 2 * step):
                draw.rectangle((x, y, x + step - 1, y + step - 1), fill=darker)
    elif texture == "hatched":
        for x in range(-high, wide, 2 * step):
            draw.line((x, high, x + high, 0), fill=darker, width=max(2, step // 3))
    return image


def _draw_frame(draw: ImageDraw.ImageDraw, size: tuple[int, int], frame: str | None, width: int) -> None:
    if frame is None:
        return
    (wide, high), color = size, FRAMES[frame]
    light = tuple(min(255, round(1.12 * channel + 18)) for channel in color)
    dark = tuple(round(0.72 * channel) for channel in color)
    corners = ((0, 0), (wide, 0), (wide, high), (0, high))
    inner = ((width, width), (wide - width, width), (wide - width, high - width), (width, high - width))
    for side, fill in enumerate((light, dark, dark, light)):  # top, right, bottom, left
        after = (side + 1) % 4
        draw.polygon([corners[side], corners[after], inner[after], inner[side]], fill=fill)


@lru_cache(maxsize=32)
def _light(size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """[height, width, 3]: brightest at the top left; warmer on the left, cooler below."""
    wide, high = size
    across, down = np.linspace(0, 1, wide)[None, :], np.linspace(0, 1, high)[:, None]
    warm, cool = 1.03 - 0.10 * across - 0.14 * down, 1.03 - 0.18 * across - 0.06 * down
    return np.stack([warm, (warm + cool) / 2, cool + 0 * down], axis=2).astype(np.float32)


def _spoiled(pixels: npt.NDArray[np.float32], scene: Scene, rng: random.Random) -> Image.Image:
    noise = np.random.default_rng(rng.getrandbits(32))
    if scene.flaw == "noise":
        pixels = pixels + noise.normal(0, rng.uniform(45, 70), pixels.shape).astype(np.float32)
    elif scene.flaw == "empty":
        pixels = 0.03 * pixels + 0.97 * rng.choice((20, 128, 235))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    short = min(image.size)
    if scene.flaw == "blur":
        return image.filter(ImageFilter.GaussianBlur(short * rng.uniform(0.045, 0.07)))
    if scene.flaw == "tiny":
        shrink = rng.uniform(9, 14) / short
        wide, high = (max(8, round(side * shrink)) for side in image.size)
        return image.resize((wide, high), Image.Resampling.BILINEAR)
    return image


def _jpeg(image: Image.Image, scene: Scene, rng: random.Random) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=rng.randint(3, 5) if scene.flaw == "artifacts" else rng.randint(70, 95))
    return data.getvalue()


def _draw_shape(
    draw: ImageDraw.ImageDraw, name: str, color: Color, x: float, y: float, radius: float
) -> None:
    def placed(points: Points) -> list[tuple[float, float]]:
        return [(x + radius * px, y + radius * py) for px, py in points]

    def box(wide: float, high: float) -> tuple[float, float, float, float]:
        return (x - radius * wide, y - radius * high, x + radius * wide, y + radius * high)

    if name == "circle":
        draw.ellipse(box(1, 1), fill=color)
    elif name == "oval":
        draw.ellipse(box(1.15, 0.55), fill=color)
    elif name == "square":
        draw.rectangle(box(0.9, 0.9), fill=color)
    elif name == "ring":
        draw.ellipse(box(1, 1), outline=color, width=max(3, round(radius / 3)))
    elif name == "crescent":
        outer, inner = _arc(0, 0, 1, 60, 300), _arc(0.5, 0, 0.87, 278, 82)
        draw.polygon(placed([*outer, *inner]), fill=color)
    elif name == "heart":
        draw.polygon(placed(_HEART), fill=color)
    else:
        draw.polygon(placed(_OUTLINES[name]), fill=color)


def _arc(x: float, y: float, radius: float, start: float, end: float) -> Points:
    """Points of an arc, in degrees, clockwise from the right or back."""
    steps = [math.radians(start + (end - start) * i / 16) for i in range(17)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in steps]


def _polygon(corners: int, inner: float = 1.0) -> Points:
    """A regular polygon with a corner at the top; with ``inner`` below 1 a star."""
    points = []
    for i in range(2 * corners if inner < 1 else corners):
        angle = math.radians(-90 + i * (180 if inner < 1 else 360) / corners)
        length = inner if inner < 1 and i % 2 else 1.0
        points.append((length * math.cos(angle), length * math.sin(angle)))
    return points


def _heart() -> Points:
    angles = [math.tau * i / 40 for i in range(40)]
    return [
        (
            math.sin(a) ** 3,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16,
        )
        for a in angles
    ]


_HEART = _heart()
_OUTLINES: dict[str, Points] = {
    "triangle": [(0, -1), (-1, 0.85), (1, 0.85)],
    "star": _polygon(5, 0.42),
    "pentagon": _polygon(5),
    "cross": [
        *((-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33)),
        *((0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33)),
    ],
    "arrow": [
        *((-1, -0.28), (0.15, -0.28), (0.15, -0.8), (1, 0)),
        *((0.15, 0.8), (0.15, 0.28), (-1, 0.28)),
    ],
    "lightning bolt": [(0.25, -1), (-0.65, 0.2), (-0.05, 0.2), (-0.3, 1), (0.65, -0.25), (0.05, -0.25)],
}
