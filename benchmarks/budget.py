"""Pixel budget against the time of the forward pass and the quality of the built-in judge.

    python -m benchmarks.budget [--pairs 400] [--visual-tokens 16 25 36 64]

Labelled pairs of the small world are judged once per budget, every image with about so many visual tokens. The
checkpoint was trained with 20 to 25. Prints AUC for a true score of 9 or more by P(grade >= 9), and the CPU time of
the judging process per pair, which other work on the machine hardly touches; writes ``benchmarks/results/budget.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import measure
from wdsfilter.demo.world import write_world
from wdsfilter.evaluate.judging import Judged, bench, pick_judge
from wdsfilter.evaluate.labels import FieldLabels, labelled_shards
from wdsfilter.evaluate.report import gather, report
from wdsfilter.recipe import parse
from wdsfilter.recipe_files import read_recipe

UNIT = 28 * 28


def measured(shards: Sequence[str], visual_tokens: int) -> dict[str, float]:
    """AUC and milliseconds of CPU per pair."""
    pixels = {"min_pixels": int(0.8 * visual_tokens) * UNIT, "max_pixels": visual_tokens * UNIT}
    given = json.dumps([{"vlm": {"model": "built-in", **pixels}}])
    recipe = parse(read_recipe("img2dataset", [f"judges={given}"]), origin="benchmark")
    with bench(recipe, pick_judge(recipe, None), FieldLabels("score")) as ready:
        began = time.process_time()
        judged = [found for found in ready.judged(labelled_shards(list(shards))) if isinstance(found, Judged)]
        spent = time.process_time() - began
        figures = report(judged, gather(judged, ready.grades), 9)
    assert figures.probability is not None
    return {"auc": figures.probability.auc or 0.0, "cpu_ms_per_pair": 1e3 * spent / len(judged)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command above. Returns its exit code."""
    parser = argparse.ArgumentParser(description="Pixel budget against time and quality.")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--visual-tokens", type=int, nargs="+", default=[16, 25, 36, 64])
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        pattern = write_world(Path(folder) / "world", samples=arguments.pairs, seed=990018)
        by_budget = {tokens: measured([pattern], tokens) for tokens in arguments.visual_tokens}
    for tokens, found in by_budget.items():
        print(f"| {tokens} | {found['auc']:.3f} | {found['cpu_ms_per_pair']:.1f} |")
    ratios = {
        f"CPU time: {tokens} visual tokens / 25, built-in judge": measure.spread(
            [found["cpu_ms_per_pair"] / by_budget[25]["cpu_ms_per_pair"]]
        )
        for tokens, found in by_budget.items()
        if 25 in by_budget and tokens != 25
    }
    result = {"input": {"pairs": arguments.pairs}, "by_visual_tokens": by_budget, "ratios": ratios}
    measure.save("budget", result, ("torch", "transformers", "pillow"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
