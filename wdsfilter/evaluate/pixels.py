"""Defects of an image: its pixels -> the bytes of a JPEG that shows it badly, or None for one too small."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image, ImageFilter

_LEAST_SIDE = 64  # pixels of the shorter side; below it an image is bad as it is
_MOST_SIDE = 1024  # of the longer side; a judge sees no more, and memory stays bounded
_QUALITY = 92


def blur(image: Image.Image, rng: random.Random) -> bytes | None:
    """So blurred that nothing is told apart."""
    if not _is_large(image):
        return None
    image = _bounded(image)
    return _jpeg(image.filter(ImageFilter.GaussianBlur(min(image.size) * rng.uniform(0.05, 0.08))))


def noise(image: Image.Image, rng: random.Random) -> bytes | None:
    """Strong noise on every pixel; what is seen can still be told."""
    if not _is_large(image):
        return None
    image = _bounded(image)
    pixels = np.asarray(image, dtype=np.float32)
    # Coarser than a pixel, or an image that is made smaller for the judge would lose it.
    grain = max(1, round(min(image.size) / 224))
    cells = -(-image.height // grain), -(-image.width // grain), 3
    drawn = np.random.default_rng(rng.getrandbits(64)).normal(0, rng.uniform(45, 70), cells)
    noisy = pixels + np.repeat(np.repeat(drawn, grain, 0), grain, 1)[: image.height, : image.width]
    return _jpeg(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)))


def tiny(image: Image.Image, rng: random.Random) -> bytes | None:
    """Reduced to a few pixels, and left so or enlarged again."""
    if not _is_large(image):
        return None
    image = _bounded(image)
    scale = rng.randint(10, 20) / max(image.size)
    small = image.resize(
        (max(4, round(image.width * scale)), max(4, round(image.height * scale))), Image.Resampling.BOX
    )
    return _jpeg(small if rng.random() < 0.5 else small.resize(image.size, Image.Resampling.BICUBIC))


def _is_large(image: Image.Image) -> bool:
    return min(image.size) >= _LEAST_SIDE


def _bounded(image: Image.Image) -> Image.Image:
    smaller = image.copy()
    smaller.thumbnail((_MOST_SIDE, _MOST_SIDE))
    return smaller


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
