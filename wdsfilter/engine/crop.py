"""Images -> the square that an image encoder looks at, as bytes.

Stock preprocessing of CLIP (shortest side to a size, centre cut out) and SigLIP (stretched to a size), up to
where bytes become floats: scaling and normalising is left to the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wdsfilter.errors import BadImage, JudgeError

_MAX_ASPECT = 200  # a longer picture would be blown up beyond all memory before its centre is cut out


@dataclass(frozen=True, slots=True)
class Crop:
    """``size`` is what comes out (width, height). ``shortest``: the side that is resized to so many pixels
    before the centre is cut out; None where the whole image is stretched. ``mean`` and ``std`` per channel."""

    size: tuple[int, int]
    shortest: int | None
    resample: Image.Resampling
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """An RGB image as [height, width, 3] uint8. Raises BadImage (``image_aspect``)."""
        if self.shortest is None:
            return np.array(image.resize(self.size, self.resample))
        width, height = image.size
        short, long = sorted(image.size)
        if long > _MAX_ASPECT * short:
            raise BadImage("image_aspect", f"{width}x{height} is longer than 1:{_MAX_ASPECT}")
        other = int(self.shortest * long / short)
        resized = image.resize(
            (self.shortest, other) if width <= height else (other, self.shortest), self.resample
        )
        left, top = ((have - want) // 2 for have, want in zip(resized.size, self.size, strict=True))
        return np.array(resized.crop((left, top, left + self.size[0], top + self.size[1])))


def build_crop(processor: Mapping[str, Any]) -> Crop:
    """The crop of an image processor's settings. Raises JudgeError where it would not be reproduced."""
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if processor.get(step, True) is not True:
            raise JudgeError(f"image processor: {step} is {processor[step]!r}, this judge needs True")
    if not math.isclose(processor.get("rescale_factor", 1 / 255), 1 / 255):
        raise JudgeError(f"image processor: rescale_factor is {processor['rescale_factor']}, not 1/255")
    try:
        resample = Image.Resampling(processor.get("resample", Image.Resampling.BICUBIC))
        shortest, stretched = _side(processor["size"])
        size = stretched
        if processor.get("do_center_crop", shortest is not None):
            _, size = _side(processor["crop_size"], square=True)
        if size is None or (shortest is not None and max(size) > shortest):
            raise ValueError(f"size {processor['size']} without a crop_size that fits in")
        if shortest is None and size != stretched:
            raise ValueError(f"crop_size {size} of a picture that is stretched to {stretched}")
        return Crop(size, shortest, resample, tuple(processor["image_mean"]), tuple(processor["image_std"]))
    except (KeyError, TypeError, ValueError) as error:
        raise JudgeError(f"image processor: settings that this judge does not know: {error!r}") from error


def _side(size: Any, *, square: bool = False) -> tuple[int | None, tuple[int, int] | None]:
    """(shortest side, None) or (None, (width, height)) of a ``size`` as processors write it."""
    if isinstance(size, int):  # older files; a crop of one number is a square, a size the shortest side
        return (None, (size, size)) if square else (size, None)
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), None
    return None, (int(size["width"]), int(size["height"]))
