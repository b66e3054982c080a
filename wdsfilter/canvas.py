"""Memory that an image is decoded into, and that numpy and torch see where it lies.

Pillow keeps four bytes for each pixel of an RGB image, clears them before it decodes, and gives them away as a copy
only. (Its Arrow interface copies nothing, but needs pyarrow, which brings a thread along.)
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, _imaging

_lay = _imaging.map_buffer  # what Image.frombuffer() calls, but for RGB

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""[height, width, 3], or [height, width, 4] whose fourth values mean nothing."""


class Canvas:
    """For one image. Who fills it must write every pixel: it holds whatever lay in memory before."""

    def __init__(self) -> None:
        self._pixels: Pixels | None = None
        self._core: _imaging.ImagingCore | None = None

    def spread(self, size: tuple[int, int]) -> _imaging.ImagingCore:
        """What Pillow calls the ``im`` of an RGB image: (width, height) pixels that nobody has written yet."""
        width, height = size
        self._pixels = np.empty((height, width, 4), np.uint8)
        core: _imaging.ImagingCore = _lay(self._pixels, size, "raw", 0, ("RGB", 0, 1))
        self._core = core
        return core

    def pixels(self, image: Image.Image) -> Pixels | None:
        """Those of ``image``, not copied; None where it lies elsewhere."""
        return self._pixels if self._core is not None and image.im is self._core else None


def over(pixels: Pixels) -> Image.Image:
    """An image, RGBX, of pixels of four values each, not copied."""
    height, width, _ = pixels.shape
    return Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)


def packed(image: Image.Image) -> Pixels:
    """A copy of an RGB or RGBX image's pixels, three values each, read-only.

    ``tobytes`` would make it in pieces and join them: twice the time.
    """
    image.load()
    width, height = image.size
    encoder = Image._getencoder(image.mode, "raw", "RGB")
    encoder.setimage(image.im, (0, 0, width, height))
    _, _, values = encoder.encode(3 * width * height)
    return np.frombuffer(values, np.uint8).reshape(height, width, 3)
