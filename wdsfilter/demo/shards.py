"""Shards to try everything on: drawn shapes, captions from thorough to empty, and the usual damage.

Seeded and deterministic; laid out as img2dataset does it (nine-digit keys, ``.jpg .txt .json``).
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from wdsfilter.samples import Member
from wdsfilter.shards.writer import ShardWriter

_COLORS = ("red", "orange", "gold", "green", "teal", "blue", "purple", "black")
_GROUNDS = ("white", "beige", "lightblue", "lightgray", "mistyrose")
_SHAPES = ("circle", "square", "triangle", "bar")
_PLACES = ("on the left", "in the middle", "on the right")
_SIZES = ("small", "large")


def write_shards(folder: Path, *, shards: int = 4, samples: int = 60, seed: int = 0) -> str:
    """Write ``demo-0000.tar`` and so on into ``folder``; returns their brace pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        path = folder / f"demo-{shard:04d}.tar"
        path.unlink(missing_ok=True)
        writer = ShardWriter(path)
        for number in range(samples):
            key = f"{shard:05d}{number:04d}"
            writer.add(_members(key, random.Random(f"{seed}/{key}")))
        writer.close()
    return f"{folder}/demo-{{0000..{shards - 1:04d}}}.tar"


def _members(key: str, rng: random.Random) -> Iterator[Member]:
    image, caption = _scene(rng)
    kind = rng.random()
    if kind < 0.02:
        image = image[: len(image) // 2]  # cut short
    elif kind < 0.04:
        image = b"<html>404 Not Found</html>"
    fields = {"key": key, "caption": caption, "url": f"https://example.org/{key}.jpg", "status": "success"}
    yield Member(f"{key}.jpg", "jpg", image)
    if kind < 0.98:
        yield Member(f"{key}.txt", "txt", caption.encode())
    yield Member(f"{key}.json", "json", json.dumps(fields).encode())


def _scene(rng: random.Random) -> tuple[bytes, str]:
    """A JPEG of one to three shapes side by side, and a caption that says much, little or nothing of it."""
    side = rng.choice((112, 140, 168, 196))
    ground = rng.choice(_GROUNDS)
    image = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(image)
    said = []
    for place in sorted(rng.sample(range(3), rng.randint(1, 3))):
        size, color, shape = rng.choice(_SIZES), rng.choice(_COLORS), rng.choice(_SHAPES)
        _draw(
            draw,
            shape,
            color,
            side * (2 * place + 1) / 6,
            side / 2,
            side * (0.08 if size == "small" else 0.15),
        )
        said.append(f"a {size} {color} {shape} {_PLACES[place]}")
    captions = (
        f"{' and '.join(said)}, drawn before a plain {ground} background",
        " and ".join(said),
        said[0],
        f"some shapes before {ground}",
        "image",
        "Buy now! Free shipping on all orders over 50 dollars, click here",
    )
    data = io.BytesIO()
    image.save(data, "JPEG", quality=rng.choice((60, 85, 95)))
    return data.getvalue(), rng.choice(captions)


def _draw(draw: ImageDraw.ImageDraw, shape: str, color: str, x: float, y: float, radius: float) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=color)
    elif shape == "square":
        draw.rectangle(box, fill=color)
    elif shape == "bar":
        draw.rectangle((x - radius, y - radius / 3, x + radius, y + radius / 3), fill=color)
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=color)
