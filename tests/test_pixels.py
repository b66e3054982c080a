from __future__ import annotations

import io
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import stock
from wdsfilter import images
from wdsfilter.canvas import Canvas
from wdsfilter.engine.pixels import PatchPlan, Resize, build_plan
from wdsfilter.errors import BadImage, JudgeError

MIN, MAX = 56 * 56, 40 * 28 * 28


@pytest.fixture(scope="module")
def plan() -> PatchPlan:
    return PatchPlan(min_pixels=MIN, max_pixels=MAX)


def test_sizes_are_the_stock_ones() -> None:
    """Every size is resized to what the family's own rule says, published bounds included."""
    smart_resize = sys.modules[stock.image_processor().__module__].smart_resize
    rng = random.Random(0)
    sizes = [(rng.randint(1, 3000), rng.randint(1, 3000)) for _ in range(2000)] + [(1, 1), (13, 14), (200, 1)]
    for lowest, highest in ((MIN, MAX), (256 * 784, 1280 * 784)):
        ours = PatchPlan(min_pixels=lowest, max_pixels=highest)
        for width, height in sizes:
            if max(width, height) <= 200 * min(width, height):
                high, wide = smart_resize(height, width, 28, lowest, highest)
                assert ours.size(width, height) == (wide, high)


@pytest.mark.parametrize(
    ("width", "height"),
    [
        pytest.param(84, 56, id="as-it-is"),
        pytest.param(500, 333, id="reduced"),
        pytest.param(20, 31, id="enlarged"),
        pytest.param(900, 41, id="wide"),
    ],
)
def test_patches_are_the_stock_ones(plan: PatchPlan, tiny_checkpoint: Path, width: int, height: int) -> None:
    """Patches, normalised and with their frame doubled, equal the stock Pillow-backed processor's."""
    plan = replace(plan, resize="pillow")
    image = stock.noise(width, height)
    reference = stock.processor(tiny_checkpoint, min_pixels=MIN, max_pixels=MAX).image_processor
    expected = reference(images=[image], return_tensors="np")

    patches, grid = plan.patches(image)
    values = patches.reshape(-1, 14, 14, 3).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    values = (values - np.array(plan.mean, np.float32)[:, None, None]) / np.array(plan.std, np.float32)[
        :, None, None
    ]
    doubled = np.repeat(values[:, :, None], 2, axis=2).reshape(len(patches), -1)

    assert (1, *grid) == tuple(expected["image_grid_thw"][0])
    np.testing.assert_allclose(doubled, expected["pixel_values"], atol=2e-6)


@pytest.mark.parametrize("size", [(333, 250), (1, 40), (60, 1)])
def test_a_torch_resize_is_the_torchvision_one(plan: PatchPlan, size: tuple[int, int]) -> None:
    """As it comes, pixels are those of its 8-bit antialiased bicubic, which torchvision calls, patch by patch;
    Pillow's lie a level away."""
    import torch

    image = stock.noise(*size)
    wide, high = plan.size(*image.size)
    pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())[None]
    theirs = torch.nn.functional.interpolate(pixels, (high, wide), mode="bicubic", antialias=True)
    expected, grid = plan.patches(Image.fromarray(theirs[0].permute(1, 2, 0).numpy()))
    ours = plan.patches(image)
    assert grid == ours[1]
    assert np.array_equal(expected, ours[0])
    difference = replace(plan, resize="pillow").patches(image)[0].astype(int) - ours[0]
    assert 0 < abs(difference).max() <= 1


@pytest.mark.parametrize("size", [(333, 250), (333, 28), (28, 333), (84, 56), (20, 31)], ids=str)
@pytest.mark.parametrize("resize", ["torch", "pillow"])
def test_a_canvas_changes_no_patch(plan: PatchPlan, resize: Resize, size: tuple[int, int]) -> None:
    """Patches of a JPEG on a canvas are those of the same JPEG elsewhere, reduced, enlarged and as it is."""
    stock.noise(*size).save(file := io.BytesIO(), "JPEG")
    plan, canvas = replace(plan, resize=resize), Canvas()
    image = images.decode(file.getvalue(), canvas=canvas)
    assert canvas.pixels(image) is not None
    patches, grid = plan.patches(image, canvas)
    expected = plan.patches(images.decode(file.getvalue()))
    assert grid == expected[1]
    assert np.array_equal(patches, expected[0])


def test_an_image_that_is_not_read_yet_is(plan: PatchPlan) -> None:
    """Patches of a file that was only opened are those of its pixels."""
    image = stock.noise(84, 56)
    image.save(file := io.BytesIO(), "PNG")
    assert np.array_equal(plan.patches(Image.open(file))[0], plan.patches(image)[0])


def test_a_ribbon_is_refused(plan: PatchPlan) -> None:
    """An image longer than 200 times its width costs its sample, with a reason."""
    with pytest.raises(BadImage) as caught:
        plan.patches(Image.new("RGB", (201, 1)))
    assert caught.value.reason == "image_aspect"


@pytest.mark.parametrize(
    ("processor", "named"),
    [
        pytest.param({"patch_size": 16}, "patch_size is 16", id="patch"),
        pytest.param({"resample": 2}, "resample is 2", id="bilinear"),
        pytest.param({"do_normalize": False}, "do_normalize is False", id="raw"),
        pytest.param({"rescale_factor": 1.0}, "rescale_factor is 1.0", id="unscaled"),
    ],
)
def test_other_preprocessing_is_refused(processor: dict[str, object], named: str) -> None:
    """An image processor that this code would not reproduce is an error, not a silent difference."""
    with pytest.raises(JudgeError, match=named):
        build_plan(processor, {}, min_pixels=MIN, max_pixels=MAX)
