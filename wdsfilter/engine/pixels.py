"""Images -> uint8 patches in the order that the vision tower reads them.

Stock preprocessing with Pillow's bicubic resize, up to where bytes become floats: scaling and
normalising is left to the device, and the second, equal frame of a still image is left out, so a
patch is 588 bytes between processes instead of 4704. After normalisation the values are those of the
stock Pillow-backed processor; a torch-resized one differs by one 8-bit level here and there.
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

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3  # Pillow's number for it, which configurations use
_MAX_ASPECT = 200  # the family's own limit


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """How a checkpoint cuts images: pixel bounds, patch and merge sizes, mean and deviation per channel."""

    min_pixels: int
    max_pixels: int
    patch: int = 14
    merge: int = 2
    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing: multiples of patch * merge within the pixel bounds.

        Raises BadImage (``image_aspect``) for images longer than 200 times their width.
        """
        unit = self.patch * self.merge
        if max(width, height) > _MAX_ASPECT * min(width, height):
            raise BadImage("image_aspect", f"{width}x{height} is longer than 1:{_MAX_ASPECT}")
        wide, high = round(width / unit) * unit, round(height / unit) * unit
        if wide * high > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            wide = max(unit, math.floor(width / shrink / unit) * unit)
            high = max(unit, math.floor(height / shrink / unit) * unit)
        elif wide * high < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            wide = math.ceil(width * grow / unit) * unit
            high = math.ceil(height * grow / unit) * unit
        return wide, high

    def patches(self, image: Image.Image) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        """Patches of an RGB image, [rows * columns, 3 * patch * patch] uint8, and the grid (rows, columns).

        Patches that merge into one visual token stand together. Raises BadImage (``image_aspect``).
        """
        wide, high = self.size(*image.size)
        # reducing_gap stays off: it would trade exactness for speed on large images
        resized = (
            image if image.size == (wide, high) else image.resize((wide, high), Image.Resampling.BICUBIC)
        )
        rows, columns, merge, patch = high // self.patch, wide // self.patch, self.merge, self.patch
        pixels = np.asarray(resized, dtype=np.uint8)
        blocks = pixels.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
        ordered = blocks.transpose(
            0, 3, 1, 4, 6, 2, 5
        )  # block row and column, patch row and column, channel, y, x
        return np.ascontiguousarray(ordered).reshape(rows * columns, 3 * patch * patch), (rows, columns)


def build_plan(
    processor: Mapping[str, Any], vision: Mapping[str, Any], *, min_pixels: int, max_pixels: int
) -> PatchPlan:
    """The plan of an image processor's settings. Raises JudgeError where it would not be reproduced.

    ``vision`` is the model's ``vision_config``: both must agree on patch and merge sizes.
    """
    expected = {
        "resample": (processor.get("resample", _BICUBIC), _BICUBIC),
        "patch_size": (processor.get("patch_size", 14), vision.get("patch_size", 14)),
        "merge_size": (processor.get("merge_size", 2), vision.get("spatial_merge_size", 2)),
        "temporal_patch_size": (
            processor.get("temporal_patch_size", 2),
            vision.get("temporal_patch_size", 2),
        ),
        "do_resize": (processor.get("do_resize", True), True),
        "do_rescale": (processor.get("do_rescale", True), True),
        "do_normalize": (processor.get("do_normalize", True), True),
    }
    for name, (found, accepted) in expected.items():
        if found != accepted:
            raise JudgeError(f"image processor: {name} is {found!r}, this judge needs {accepted!r}")
    if not math.isclose(processor.get("rescale_factor", 1 / 255), 1 / 255):
        raise JudgeError(
            f"image processor: rescale_factor is {processor['rescale_factor']}, this judge needs 1/255"
        )
    return PatchPlan(
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        patch=int(processor.get("patch_size", 14)),
        merge=int(processor.get("merge_size", 2)),
        mean=tuple(processor.get("image_mean") or _CLIP_MEAN),
        std=tuple(processor.get("image_std") or _CLIP_STD),
    )
