"""What poison costs: a share of pairs that take their worker down, among drawn pairs; the built-in judge's CPU half.

Only the workers are measured, as if the model took no time: behind a real one they have time to spare, and poison
costs less. A worker that dies is replaced, its pair is tried once more, alone, and the worker is replaced again.
What eats memory takes as long as it takes to fill half a gigabyte, the limit here: some hundred pairs' time.
Hanging pairs are left out: each takes one worker away for twice ``run.worker_timeout``, whatever else is measured.

    python -m benchmarks.poison [--pairs 2000] [--every 1000] [--rounds 3] [--workers 2]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.poisonous import POISON, Poisonous
from wdsfilter import plan, recipe
from wdsfilter.demo.world import write_world
from wdsfilter.judges import Prepare
from wdsfilter.panel import load_judges
from wdsfilter.samples import Pair, Unreadable
from wdsfilter.stages import Case, read_items
from wdsfilter.workers import Workers

MEMORY = 512 << 20  # bytes that a pair may take


def run(prepare: Prepare, pairs: Sequence[Pair], count: int, reason: str = "") -> None:
    """Prepare all of ``pairs`` in ``count`` workers; those that are poison must come back with their ``reason``."""
    with Workers([prepare], count, memory=MEMORY) as pool:
        for pair, result in pool.prepared(0, pairs, lambda pair: pair, lookahead=128):
            found = result.reason if isinstance(result, Unreadable) else ""
            assert found == ("" if pair.caption else reason)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--every", type=int, default=1000, help="one pair of so many is poison")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = write_world(Path(folder) / "in", samples=options.pairs)
        parsed = recipe.parse(
            {"input": {"shards": [{"path": shards}]}, "judges": [{"vlm": {"model": "built-in"}}]}
        )
        job = plan.plan(parsed, Path(folder) / "out")
        (judge,) = load_judges(job.recipe, job.runtime)
        items = read_items(job.shards, job.recipe)
        sound = [item.pair for item in items if isinstance(item, Case) and item.pair]
    poisoned = [
        replace(pair, caption="") if number % options.every == options.every // 2 else pair
        for number, pair in enumerate(sound)
    ]
    arms: dict[str, Callable[[], None]] = {"none": partial(run, judge.prepare, sound, options.workers)}
    for kind, (_, reason) in POISON.items():
        arms[kind] = partial(run, Poisonous(judge.prepare, kind), poisoned, options.workers, reason)
    taken = measure.in_turn(arms, options.rounds)
    ratios = {
        f"time: {options.workers} workers, one pair in {options.every} {kind} / none does": measure.ratios(
            taken[kind], taken["none"]
        )
        for kind in POISON
    }
    seconds = {name: measure.spread(found) for name, found in taken.items()}
    result: dict[str, Any] = {"input": vars(options), "ratios": ratios, "seconds": seconds}
    measure.save("poison", result, ("pillow", "tokenizers"))


if __name__ == "__main__":
    main()
