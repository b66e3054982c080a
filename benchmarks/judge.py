"""The VLM judge against the published loop, same checkpoint, same pairs, same device, in one process.

    python -m benchmarks.judge [--model built-in] [--pairs 384] [--rounds 5] [--agreement 1000]

Ours is ``readout: expected`` as a run drives it: pairs prepared by workers, sorted in windows, one packed
forward pass per batch; on a CPU also with ``weights: int8``. The published loop is the stock processor, padded
batches of 16 and greedy generation of the whole answer (at most 512 tokens). All begin with stored bytes and end with
grades, on pairs of the small world, at the checkpoint's own pixel budget. They run in turn, so that what else the
machine does falls on all.

``packed / padded`` is the forward pass alone, over pairs whose images and captions vary in length: batches by
token budget without padding, against padded batches of 16 in arrival order, for the same numbers.

``--agreement`` so many further pairs are graded once by all of them. Prints the median ratios and their spread; writes
``benchmarks/results/judge.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import measure
from tests import stock
from wdsfilter import storage
from wdsfilter.demo.checkpoint import PROMPT
from wdsfilter.demo.world import write_world
from wdsfilter.engine.checkpoint import locate
from wdsfilter.engine.judge import VlmJudge
from wdsfilter.engine.prepare import Ready
from wdsfilter.judges import Runtime, vlm
from wdsfilter.panel import Panel
from wdsfilter.recipe import parse
from wdsfilter.recipe_files import read_recipe
from wdsfilter.samples import Pair, Prepared, Sample
from wdsfilter.shards.reader import read_samples
from wdsfilter.stages import Case, batches
from wdsfilter.workers import default_count

TOGETHER = 16
SAID = {"stored": "", "int8": ", weights: int8"}
_UNIT = 28 * 28
Grades = Callable[[Sequence[Pair]], list[int | None]]


def world(count: int) -> list[Pair]:
    """Pairs of the small world."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder), samples=count, samples_per_shard=count, seed=11)
        with storage.open_read(str(next(Path(folder).glob("*.tar")))) as stream:
            for sample in read_samples(stream):
                assert isinstance(sample, Sample)
                data = {member.extension: bytes(member.data) for member in sample.members}
                pairs.append(Pair(sample.key, data["jpg"], data["txt"].decode(), json.loads(data["json"])))
    return pairs


def ours(panel: Panel) -> Grades:
    """Grades by the judge as a run drives it."""

    def grades(pairs: Sequence[Pair]) -> list[int | None]:
        cases = [Case({"key": pair.key}, pair=pair) for pair in pairs]
        return [case.row["vlm"]["grade"] for case in panel.judged(iter(cases)) if isinstance(case, Case)]

    return grades


def panel(model: str, weights: str, device: str) -> Panel:
    """The judge and its workers, as a run has them."""
    given = json.dumps([{"vlm": {"model": model, "weights": weights}}])
    recipe = parse(read_recipe("img2dataset", [f"judges={given}"]), origin="benchmark")
    return Panel(recipe, Runtime(wanted=device), worker_count=default_count(1))


def published(options: vlm.Options, folder: Path, device: str) -> Grades:
    """Grades by the published loop."""
    processor = stock.processor(folder, min_pixels=options.min_pixels, max_pixels=options.max_pixels)
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    model = stock.model(folder).to(device, dtype)

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


def mixed(judge: VlmJudge, pairs: Sequence[Pair]) -> list[Ready]:
    """The pairs with images of 4 to 64 visual tokens and one to four captions each, prepared."""
    rng = random.Random(0)
    prepare = replace(
        judge.prepare, plan=replace(judge.prepare.plan, min_pixels=4 * _UNIT, max_pixels=64 * _UNIT)
    )
    rows = []
    for pair in pairs:
        image = Image.open(io.BytesIO(bytes(pair.image))).convert("RGB")
        file = io.BytesIO()
        image.resize((rng.randrange(56, 224), rng.randrange(56, 224))).save(file, "JPEG")
        caption = " ".join(other.caption for other in rng.sample(list(pairs), rng.randint(1, 4)))
        prepared = prepare(replace(pair, image=file.getvalue(), caption=caption))
        assert isinstance(prepared, Prepared), prepared
        rows.append(prepared.value)
    return rows


def packed(judge: VlmJudge, rows: Sequence[Ready]) -> None:
    for batch in batches([len(row.ids) for row in rows], judge.batch_cost):
        judge.model.log_p([rows[i] for i in batch], judge.readout)


def padded(judge: VlmJudge, rows: Sequence[Ready]) -> None:
    for start in range(0, len(rows), TOGETHER):
        judge.model.generate(rows[start : start + TOGETHER], 1, None)


def main(argv: Sequence[str] | None = None) -> int:
    """The command above. Returns its exit code."""
    parser = argparse.ArgumentParser(description="The VLM judge against the published loop.")
    parser.add_argument("--model", default="built-in")
    parser.add_argument("--pairs", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--agreement", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args(argv)
    options, _ = vlm.resolve(vlm.Options(model=arguments.model))
    pairs = world(max(arguments.pairs, arguments.agreement))
    timed = pairs[: arguments.pairs]
    loop = published(options, locate(arguments.model, None, ()).folder, arguments.device)
    with ExitStack() as opened:
        panels = {
            weights: opened.enter_context(panel(arguments.model, weights, arguments.device))
            for weights in ("stored", *(["int8"] if arguments.device == "cpu" else []))
        }
        judge: Any = panels["stored"].judges[0]
        lines = {weights: ours(one) for weights, one in panels.items()}
        expected = loop(pairs)
        same = {
            weights: sum(a == b for a, b in zip(line(pairs), expected, strict=True))
            for weights, line in lines.items()
        }
        arms: dict[str, Callable[[], object]] = {"published": partial(loop, timed)}
        arms |= {weights: partial(line, timed) for weights, line in lines.items()}
        taken = measure.in_turn(arms, arguments.rounds)
        rows = mixed(judge, timed)
        arms = {"padded": partial(padded, judge, rows), "packed": partial(packed, judge, rows)}
        taken |= measure.in_turn(arms, arguments.rounds)
    lengths = np.array([len(row.ids) for row in rows])
    facts = {
        "device": torch.cuda.get_device_name(arguments.device) if arguments.device != "cpu" else "cpu",
        "checkpoint": arguments.model if arguments.model == "built-in" else "given",
        "pairs": len(timed),
        "rounds": arguments.rounds,
        "tokens of mixed lengths": [int(lengths.min()), int(np.median(lengths)), int(lengths.max())],
    }
    result = {
        "ratios": {
            **{
                f"time: published loop / vlm judge, readout expected{SAID[weights]}": measure.ratios(
                    taken["published"], taken[weights]
                )
                for weights in lines
            },
            "time: padded batches in arrival order / packed, mixed lengths": measure.ratios(
                taken["padded"], taken["packed"]
            ),
        },
        "pairs_per_second": {n: measure.spread([len(timed) / s for s in own]) for n, own in taken.items()},
        "same_grades": {weights: f"{count} of {len(pairs)}" for weights, count in same.items()},
    }
    measure.save("judge", {"input": facts, **result}, ("torch", "transformers", "pillow"))
    print(f"same grades: {result['same_grades']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
