"""What computing in fewer bits, and torch.compile, do to the time of the forward pass and to the scores. On a CPU.

    python -m benchmarks.weights [--pairs 400] [--rounds 5]

The built-in judge on labelled pairs of the small world, prepared beforehand, on one thread: ``weights: int8``,
``dtype: bf16``, and fp32 with every block and layer of transformers compiled by torch.compile, each against fp32 as it
is. Then two layers of Qwen2-VL-2B's widths with random weights, for the time alone: the built-in judge is so narrow
that rounding costs nearly as much as it saves. CPU time of the judging thread. ``weights: fp8`` is for GPUs: a CPU
computes the same numbers, so its effect on scores is measured here, and its time is not.

Also how far scores move, how many grades stay, AUC for a true score of 9 or more by P(grade >= 9), and how near fp32
is to its limit: the rate of its matrix products, had the rest cost nothing. Writes ``benchmarks/results/weights.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks import measure
from benchmarks.judge import world
from wdsfilter.engine import loading
from wdsfilter.engine.checkpoint import BUILT_IN
from wdsfilter.engine.judge import VlmJudge
from wdsfilter.engine.loading import build_model
from wdsfilter.engine.prepare import Ready
from wdsfilter.evaluate.figures import auc
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Prepared
from wdsfilter.training.nothing import Shape, build_network

WIDE = Shape(
    width=1536,
    layers=2,
    heads=12,
    key_value_heads=2,
    mlp=8960,
    vision_width=1280,
    vision_layers=2,
    vision_heads=16,
)
BATCH = 4096  # tokens of one pass, as a run has them on a CPU
GOOD = 9


def load(**options: Any) -> VlmJudge:
    """The built-in judge on one thread."""
    given = vlm.Options.model_validate({"model": BUILT_IN, **options})
    return vlm.load(given, Runtime(wanted="cpu", threads=1))


def plain() -> VlmJudge:
    """The judge with transformers' own layers, whose products a profiler can count and torch can compile."""
    with patch.object(loading, "can_pack", lambda: False):
        return load()


def compiled() -> VlmJudge:
    """The same with compiled layers; they are compiled when it is asked first."""
    judge = plain()
    model: Any = judge.model
    parts = model.network.model
    for part in (*parts.visual.blocks, *parts.language_model.layers):
        part.compile(dynamic=True)
    return judge


def wide(judge: VlmJudge, kind: str) -> VlmJudge:
    """Two layers of the 2B model's widths, asked as ``judge`` is."""
    torch.manual_seed(0)
    like: Any = judge.model
    network = build_network(judge.answers, WIDE)
    if kind == "dtype: bf16":
        network.to(torch.bfloat16)
    model = build_model(
        network,
        judge.prepare.plan,
        image_pad=like.image_pad,
        end_tokens=like.end_tokens,
        threads=1,
        weights="int8" if kind == "weights: int8" else "stored",
    )
    return replace(judge, model=model)


def asked(judge: VlmJudge, rows: Sequence[Ready]) -> list[dict[str, Any]]:
    """All numbers, in batches of about so many tokens; the pass runs in the thread that asks."""
    model: Any = judge.model
    found: list[dict[str, Any]] = []
    each = max(1, BATCH // max(len(row.ids) for row in rows))
    for start in range(0, len(rows), each):
        found += replace(judge, model=replace(model, threads=None)).expect(rows[start : start + each])
    return found


def cpu_seconds(arms: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Of every arm in every round, in turn, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, work in arms.items():
            began = time.thread_time()
            work()
            if number:
                taken[name].append(time.thread_time() - began)
    return taken


def effect(stored: Sequence[Any], other: Sequence[Any], truth: Sequence[float]) -> dict[str, float]:
    """How scores and grades of ``other`` differ, and what its AUC is."""
    moved = np.abs([a["score"] - b["score"] for a, b in zip(stored, other, strict=True)])
    good = np.array(truth) >= GOOD
    likely = np.array([sum(one["p"][GOOD - 1 :]) for one in other])
    return {
        "mean change of the score": round(float(moved.mean()), 4),
        "largest": round(float(moved.max()), 3),
        "same grade": round(
            float(np.mean([a["grade"] == b["grade"] for a, b in zip(stored, other, strict=True)])), 4
        ),
        "auc": round(auc(likely[good], likely[~good]) or 0.0, 4),
    }


def rates(rows: Sequence[Ready], seconds: float) -> dict[str, float]:
    """Matrix products of a pass that takes so many ``seconds`` of CPU, and how fast one is that is large."""
    judge = plain()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as seen:
        asked(judge, rows)
    work = sum(one.flops for one in seen.key_averages() if one.key in ("aten::mm", "aten::addmm"))
    square = torch.rand(2048, 2048)
    large = min(cpu_seconds({"": lambda: torch.mm(square, square)}, 5)[""])
    return {
        "GFLOP a pair": round(work / 1e9 / len(rows), 3),
        "GFLOP/s of the pass": round(work / 1e9 / seconds, 1),
        "GFLOP/s of one large product": round(2 * 2048**3 / 1e9 / large, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command above. Returns its exit code."""
    parser = argparse.ArgumentParser(description="Fewer bits and torch.compile against fp32.")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    pairs = world(arguments.pairs)
    judges = {
        "fp32": load(),
        "weights: int8": load(weights="int8"),
        "dtype: bf16": load(dtype="bf16"),
        "torch.compile": compiled(),
    }
    prepared = [judges["fp32"].prepare(pair) for pair in pairs]
    ready = [
        (one.value, float(pair.fields["score"]))
        for one, pair in zip(prepared, pairs, strict=True)
        if isinstance(one, Prepared)
    ]
    ready.sort(key=lambda one: len(one[0].ids))
    rows, truth = [row for row, _ in ready], [score for _, score in ready]
    began = time.perf_counter()
    asked(judges["torch.compile"], rows)
    compiling = time.perf_counter() - began
    numbers = {name: asked(judge, rows) for name, judge in judges.items()}
    numbers["weights: fp8"] = asked(load(weights="fp8"), rows)
    effects = {name: effect(numbers["fp32"], own, truth) for name, own in numbers.items()}
    taken = cpu_seconds(
        {name: partial(asked, judge, rows) for name, judge in judges.items()}, arguments.rounds
    )
    few = rows[:: max(1, len(rows) // 24)]
    broad = {name: wide(judges["fp32"], name) for name in ("fp32", "weights: int8", "dtype: bf16")}
    taken_wide = cpu_seconds(
        {name: partial(asked, judge, few) for name, judge in broad.items()}, arguments.rounds
    )
    ratios = {
        f"CPU time: fp32 / {name}, {what}": measure.ratios(own["fp32"], own[name])
        for what, own in (("built-in judge", taken), ("layers as wide as the 2B model's", taken_wide))
        for name in own
        if name != "fp32"
    }
    for name, found in effects.items():
        print(name, found)
    products = rates(rows, min(taken["fp32"]))
    print("matrix products:", products)
    result = {
        "input": {"pairs": len(rows), "rounds": arguments.rounds},
        "ratios": ratios,
        "cpu_ms_per_pair": {
            n: measure.spread([1e3 * s / len(rows) for s in own]) for n, own in taken.items()
        },
        "effects": effects,
        "matrix_products": products,
        "seconds_of_compiling": round(compiling, 1),
    }
    measure.save("weights", result, ("torch", "transformers"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
