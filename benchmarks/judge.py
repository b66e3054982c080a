"""The VLM judge against the published loop, same checkpoint, same pairs, same device, in one process.

    python -m benchmarks.judge [--model FOLDER] [--pairs 192] [--rounds 7]

Ours is ``readout: expected``: one packed forward pass per batch, from stored bytes to numbers. The
published loop is the stock processor, padded batches of 16 and greedy generation of the whole answer
(at most 512 tokens). Both get the published pixel bounds with --published-pixels, small ones without.
They run in turn, so that what else the machine does falls on both; it does not fall on both alike, so
a wide spread means: measure again on a quiet machine. Without --model the demo's
checkpoint is made, whose answers are about a dozen tokens long: real justifications are longer, which
favours ours more. Prints the median ratio and its spread; writes ``benchmarks/results/judge.json``.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from PIL import Image, ImageDraw

from benchmarks import measure
from tests import stock
from wdsfilter.demo.checkpoint import PROMPT, make_checkpoint
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Pair, Prepared

TOGETHER = 16


def render(count: int) -> list[Pair]:
    """JPEGs of mixed sizes with a few shapes each, and captions of 2 to 12 words."""
    rng = random.Random(0)
    words = "a red blue small large circle square on near the left right of grey plain background"
    pairs = []
    for i in range(count):
        size = rng.choice([(112, 112), (160, 120), (96, 144), (224, 112)])
        image = Image.new("RGB", size, tuple(rng.choices(range(256), k=3)))
        draw = ImageDraw.Draw(image)
        for _ in range(3):
            x, y, edge = rng.randrange(size[0]), rng.randrange(size[1]), rng.randint(10, 60)
            draw.ellipse((x, y, x + edge, y + edge), fill=tuple(rng.choices(range(256), k=3)))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        pairs.append(
            Pair(f"{i:06}", file.getvalue(), " ".join(rng.choices(words.split(), k=rng.randint(2, 12))))
        )
    return pairs


def ours(options: vlm.Options, device: str) -> Callable[[Sequence[Pair]], list[int | None]]:
    """Grades by the judge as the pipeline drives it: prepared, sorted by cost in a window, in batches."""
    judge = vlm.load(options, Runtime(wanted=device))

    def grades(pairs: Sequence[Pair]) -> list[int | None]:
        found: dict[str, int | None] = {}
        for start in range(0, len(pairs), judge.window):
            ready = []
            for pair in pairs[start : start + judge.window]:
                prepared = judge.prepare(pair)
                assert isinstance(prepared, Prepared), prepared
                ready.append((prepared.cost, pair.key, prepared.value))
            ready.sort(key=lambda one: one[:2])
            while ready:
                most = max(1, judge.batch_cost // ready[-1][0])
                batch, ready = ready[-most:], ready[:-most]
                for (_, key, _), numbers in zip(
                    batch, judge.score([value for _, _, value in batch]), strict=True
                ):
                    found[key] = numbers["grade"]
        return [found[pair.key] for pair in pairs]

    return grades


def published(options: vlm.Options, device: str) -> Callable[[Sequence[Pair]], list[int | None]]:
    """Grades by the published loop."""
    folder = Path(options.model)
    processor = stock.processor(folder, min_pixels=options.min_pixels, max_pixels=options.max_pixels)
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    model = (
        transformers.Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval().to(device)
    )

    @torch.inference_mode()
    def grades(pairs: Sequence[Pair]) -> list[int | None]:
        found: list[int | None] = []
        for start in range(0, len(pairs), TOGETHER):
            batch = pairs[start : start + TOGETHER]
            texts = [stock.rendered(processor, PROMPT + pair.caption) for pair in batch]
            images = [Image.open(io.BytesIO(bytes(pair.image))).convert("RGB") for pair in batch]
            inputs = processor(text=texts, images=images, padding=True, return_tensors="pt").to(device, dtype)
            output = model.generate(**inputs, max_new_tokens=options.max_new_tokens, do_sample=False)
            for answer in processor.batch_decode(
                output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            ):
                match = re.search(options.pattern, answer)
                found.append(int(match.group(1)) if match else None)
        return found

    return grades


def main(argv: Sequence[str] | None = None) -> int:
    """The command above. Returns its exit code."""
    parser = argparse.ArgumentParser(description="The VLM judge against the published loop.")
    parser.add_argument("--model", type=Path, help="a checkpoint folder; default: the demo's, made anew")
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--published-pixels", action="store_true", help="256 to 1280 visual tokens instead of 4 to 40"
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.model or Path(scratch)
        if arguments.model is None:
            make_checkpoint(folder)
        small = {} if arguments.published_pixels else {"min_pixels": 4 * 784, "max_pixels": 40 * 784}
        options = vlm.Options.model_validate({"model": str(folder), **small})
        runs = {"ours": ours(options, arguments.device), "published": published(options, arguments.device)}

    pairs = render(arguments.pairs)
    grades = {name: run(pairs) for name, run in runs.items()}
    # A run ends on the CPU: grades are Python numbers, so the device has finished.
    taken = measure.in_turn({name: partial(run, pairs) for name, run in runs.items()}, arguments.rounds)
    facts = {
        "device": torch.cuda.get_device_name(arguments.device) if arguments.device != "cpu" else "cpu",
        "checkpoint": "demo" if arguments.model is None else "given",
        "pixels": [options.min_pixels, options.max_pixels],
        "pairs": len(pairs),
        "rounds": arguments.rounds,
    }
    result = {
        "ratios": {
            "time: published loop / vlm judge, readout expected": measure.ratios(
                taken["published"], taken["ours"]
            )
        },
        "pairs_per_second": {n: measure.spread([len(pairs) / s for s in own]) for n, own in taken.items()},
        "same_grades": f"{sum(a == b for a, b in zip(*grades.values(), strict=True))} of {len(pairs)}",
    }
    measure.save("judge", {"input": facts, **result}, ("torch", "transformers", "pillow"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
