"""What a pair costs that takes its worker down: a run over drawn pairs with and without one, built-in judge.

The worker that dies is replaced, the pair is tried once more alone, and the worker is replaced again.

    python -m benchmarks.poison [--pairs 500] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from benchmarks import measure, poison
from wdsfilter import pipeline, plan, recipe
from wdsfilter.demo.world import write_world
from wdsfilter.judges import Judge, Prepare
from wdsfilter.panel import load_judges
from wdsfilter.samples import Pair, Prepared, Unreadable

POISON = "poison"


@dataclass(frozen=True, slots=True)
class Crashing:
    """A judge's CPU half in which the pair of one key is a segmentation fault."""

    prepare: Prepare
    key: str

    def __call__(self, pair: Pair) -> Prepared | Unreadable:
        if pair.key == self.key:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.prepare(pair)


def run(shards: str, output: Path, judges: Sequence[Judge], workers: int) -> None:
    """Judge all of ``shards``."""
    parsed = recipe.parse(recipe_of(shards))
    with pipeline.Runner(plan.plan(parsed, output), judges=judges, worker_count=workers) as runner:
        runner.open()
        for _ in pipeline.run(runner):
            pass
    shutil.rmtree(output)


def recipe_of(shards: str) -> dict[str, Any]:
    return {
        "input": {"shards": [{"path": shards}]},
        "judges": [{"vlm": {"model": "built-in"}}],
        "guard": False,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = write_world(Path(folder) / "in", samples=options.pairs)
        parsed = recipe.parse(recipe_of(shards))
        (judge,) = load_judges(parsed, plan.plan(parsed, Path(folder) / "out").runtime)

        def with_poison(key: str) -> Judge:
            # by its module's name: a worker could not import it from __main__
            return cast(Judge, replace(cast(Any, judge), prepare=poison.Crashing(judge.prepare, key)))

        key = f"0000{options.pairs // 2:05d}"
        arms = {
            name: partial(run, shards, Path(folder) / "out", [with_poison(wanted)], options.workers)
            for name, wanted in ((POISON, key), ("none", "no such key"))
        }
        taken = measure.in_turn(arms, options.rounds)
    ratios = {
        f"time: a run in which one of {options.pairs} pairs kills its worker / none does": measure.ratios(
            taken[POISON], taken["none"]
        )
    }
    seconds = {name: measure.spread(found) for name, found in taken.items()}
    measure.save(
        "poison", {"input": vars(options), "ratios": ratios, "seconds": seconds}, ("torch", "tokenizers")
    )


if __name__ == "__main__":
    main()
