"""Preparing an image for the judge, against the stock processor, one thread each, at the published pixel budget.

    python -m benchmarks.images [--images 24] [--rounds 7]

Ours goes from stored bytes to uint8 patches as a worker sends them: checked, decoded, turned upright, resized by
torch (the default) or by Pillow, cut. The stock way is Pillow's decoder and transformers' Pillow-backed image
processor, to normalised floats. ``decoding alone`` is what nobody can save who wants every pixel: the most that any
way of preparing could reach. All run in the environment of a worker. The data is made here: JPEGs as CC12M has
them (256 to 512 pixels a side, 30 to 60 KB), and photos of 1.5 megapixels. Prints the median ratios and their
spread; writes ``benchmarks/results/images.json``.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image, ImageFilter

from benchmarks import measure
from tests import stock
from wdsfilter import images
from wdsfilter.canvas import Canvas
from wdsfilter.engine.contract import Contract
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.worker import ENVIRONMENT


def photo(rng: random.Random, width: int, height: int, quality: int) -> bytes:
    """A JPEG with structure at all scales, as photos have it."""
    picture = Image.new("RGB", (width, height))
    for share in (64, 16, 4):
        small = (max(2, width // share), max(2, height // share))
        layer = Image.frombytes("RGB", small, rng.randbytes(3 * small[0] * small[1]))
        picture = Image.blend(picture, layer.resize((width, height), Image.Resampling.BICUBIC), 0.45)
    file = io.BytesIO()
    picture.filter(ImageFilter.GaussianBlur(0.7)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def cases(count: int) -> dict[str, list[bytes]]:
    rng = random.Random(0)
    sides = [256, 320, 384, 448, 512]
    return {
        "256 to 512 px": [photo(rng, rng.choice(sides), rng.choice(sides), 94) for _ in range(count)],
        "1.5 megapixels": [photo(rng, 1500, 1000, 90) for _ in range(max(1, count // 4))],
    }


def ours(plan: PatchPlan, stored: Sequence[bytes]) -> list[Any]:
    def prepared(data: bytes) -> object:
        canvas = Canvas()
        return plan.patches(images.decode(data, canvas=canvas), canvas)

    return [prepared(data) for data in stored]


def decoded(stored: Sequence[bytes]) -> list[Any]:
    return [images.decode(data) for data in stored]


def stocks(processor: Callable[..., Any], stored: Sequence[bytes]) -> list[Any]:
    return [
        processor(images=[Image.open(io.BytesIO(data)).convert("RGB")], return_tensors="pt")
        for data in stored
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The command above. Returns its exit code."""
    parser = argparse.ArgumentParser(description="Preparing an image against the stock processor.")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args(argv)
    if not ENVIRONMENT.items() <= os.environ.items():
        command = [sys.executable, "-m", "benchmarks.images", *(sys.argv[1:] if argv is None else argv)]
        return subprocess.run(command, env=os.environ | ENVIRONMENT).returncode
    torch.set_num_threads(1)
    budget = Contract()
    plan = PatchPlan(min_pixels=budget.min_pixels, max_pixels=budget.max_pixels)
    processor = stock.image_processor()(min_pixels=budget.min_pixels, max_pixels=budget.max_pixels)
    ratios: dict[str, Any] = {}
    times: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    for name, stored in cases(arguments.images).items():
        arms: dict[str, Callable[[], object]] = {
            "stock": partial(stocks, processor, stored),
            "resize: torch": partial(ours, plan, stored),
            "resize: pillow": partial(ours, replace(plan, resize="pillow"), stored),
            "decoding alone": partial(decoded, stored),
        }
        taken = measure.in_turn(arms, arguments.rounds)
        for arm in [*arms][1:]:
            what = arm if arm == "decoding alone" else f"prepared image, {arm}"
            ratios[f"time: stock image processor / {what}, {name}"] = measure.ratios(
                taken["stock"], taken[arm]
            )
        times |= {
            f"{arm}, {name}": measure.spread([seconds / len(stored) * 1e3 for seconds in spent])
            for arm, spent in taken.items()
        }
        (patches, _), floats = ours(plan, stored[:1])[0], stocks(processor, stored[:1])[0]["pixel_values"]
        sizes[name] = {
            "stored bytes": sum(map(len, stored)) // len(stored),
            "bytes between processes": len(pickle.dumps(patches, protocol=5)),
            "bytes of stock floats": floats.numel() * floats.element_size(),
        }
    facts = {"images": arguments.images, "rounds": arguments.rounds, "sizes": sizes}
    result = {"ratios": ratios, "ms_per_image": times}
    measure.save("images", {"input": facts, **result}, ("torch", "transformers", "pillow"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
