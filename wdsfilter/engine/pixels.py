"""Images -> uint8 patches in the order that the vision tower reads them.

Stock preprocessing, up to where bytes become floats: scaling and normalising is left to the device, and the
second, equal frame of a still image is left out, so a patch is 588 bytes between processes instead of 4704.
A pixel's three values stay together, as decoders and resizes have them: who multiplies patches orders weights so.
With torch's bicubic resize the values after normalisation are those of the stock torchvision-backed processor. With
Pillow's, which takes seven times as long, they are those of the Pillow-backed one: few values differ, hardly any by
more than one 8-bit level.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from wdsfilter.canvas import Canvas, Pixels, over, packed
from wdsfilter.errors import BadImage, JudgeError

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3  # Pillow's number for it, which configurations use
_MAX_ASPECT = 200  # the family's own limit

Resize: TypeAlias = Literal["torch", "pillow"]


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """How a checkpoint cuts images: pixel bounds, patch and merge sizes, mean and deviation per channel."""

    min_pixels: int
    max_pixels: int
    patch: int = 14
    merge: int = 2
    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD
    resize: Resize = "torch"

    def __post_init__(self) -> None:
        if self.resize == "torch":
            _torch()  # not later: workers will have been forked, and threads be running

    def __reduce__(self) -> tuple[Any, ...]:
        return PatchPlan, tuple(getattr(self, field.name) for field in fields(self))

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

    def patches(
        self, image: Image.Image, canvas: Canvas | None = None
    ) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        """Patches of an RGB image, [rows * columns, patch * patch * 3] uint8, and the grid (rows, columns).

        Patches that merge into one visual token stand together. ``canvas``: where the image may lie, which saves time.
        Raises BadImage (``image_aspect``).
        """
        size = self.size(*image.size)
        if image.size == size:
            pixels = packed(image)
        elif self.resize == "pillow":
            pixels = _by_pillow(image, size)
        else:
            pixels = _by_torch(image, size, canvas.pixels(image) if canvas else None)
        return self._cut(pixels), (size[1] // self.patch, size[0] // self.patch)

    def _cut(self, pixels: Pixels) -> npt.NDArray[np.uint8]:
        merge, patch = self.merge, self.patch
        height, width, _ = pixels.shape
        lines = pixels.reshape(height, 3 * width).view(f"V{3 * patch}")  # a patch's line moves as one piece
        grid = lines.reshape(height // (merge * patch), merge, patch, width // (merge * patch), merge)
        patches = np.ascontiguousarray(grid.transpose(0, 3, 1, 4, 2))
        return patches.view(np.uint8).reshape(-1, 3 * patch * patch)


@cache
def _torch() -> Any:
    """torch, which has warned already that it could write to bytes: nobody does."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(np.frombuffer(b"0", np.uint8))
    return torch


def _by_pillow(image: Image.Image, size: tuple[int, int]) -> Pixels:
    # reducing_gap stays off: it would trade exactness for speed on large images
    return packed(image.resize(size, Image.Resampling.BICUBIC))


def _by_torch(image: Image.Image, size: tuple[int, int], pixels: Pixels | None) -> Pixels:
    """``pixels``: the image's, four values each, where they need not be copied.

    Torch resizes widths first, then heights. Pixels of four values are narrowed in less time than those of three,
    and fewer of them are left to be packed.
    """
    width, height = size
    if pixels is not None and width < image.width:
        image = over(_resized(pixels, (width, image.height)))
    return _resized(packed(image), (width, height))


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    torch = _torch()
    resized = torch.empty((*size[::-1], pixels.shape[2]), dtype=torch.uint8)
    source, target = (one.permute(2, 0, 1)[None] for one in (torch.from_numpy(pixels), resized))
    # What interpolate() calls. Without ``out`` it would take the values of each pixel apart.
    torch.ops.aten._upsample_bicubic2d_aa.out(source, size[::-1], False, None, None, out=target)
    found: Pixels = resized.numpy()
    return found


def build_plan(
    processor: Mapping[str, Any],
    vision: Mapping[str, Any],
    *,
    min_pixels: int,
    max_pixels: int,
    resize: Resize = "torch",
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
        resize=resize,
    )
