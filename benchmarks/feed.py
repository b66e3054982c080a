"""Whether one process keeps up with a GPU: all of a run but what the GPU computes, at the pace of one at its limit.

    python -m benchmarks.feed [--rounds 5] [--seconds 3]

In place of the GPU is a clock: a batch takes 1/1062 or 1/329 of a second a pair, what the 2B model would take at 64 and
256 visual tokens if one H200 did nothing but its products at full rate, and is launched one ahead, as on a GPU.
Workers sleep for two milliseconds where they would prepare a picture, as if each had a core of its own, and send
patches of the real size. The rest is a run: reading and hashing shards of 50 KB a sample, the way to workers and back,
windows, packing for the network, decisions, ledgers, shards of everything. Against the clock's time alone.
Writes ``benchmarks/results/feed.json``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import measure
from benchmarks.data_path import SHARDS, make_shards
from benchmarks.gpu import LIMITS
from benchmarks.host import READOUT, TOKENS, batch, packing_model
from benchmarks.paced import Paced, Sleep
from wdsfilter import pipeline, plan, recipe

WORKERS = 8


def seconds_of_run(shards: Sequence[Path], output: Path, visual_tokens: int) -> float:
    """A run over ``shards``, once its workers are there."""
    listed = [{"path": str(path)} for path in shards]
    parsed = recipe.parse({"input": {"shards": listed}, "judges": ["scripted"], "guard": False})
    with packing_model() as model:
        prepare = Sleep(batch(visual_tokens)[0])
        pack = partial(model.forward, readout=READOUT)
        judge = Paced(prepare, pack, TOKENS, 1 / LIMITS[visual_tokens])
        with pipeline.Runner(plan.plan(parsed, output), worker_count=WORKERS, judges=[judge]) as runner:
            runner.open()
            spent = measure.seconds(lambda: list(pipeline.run(runner)))
    shutil.rmtree(output)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of the clock alone")
    options = parser.parse_args()
    memory = Path("/dev/shm")
    rates, ratios = {}, {}
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        folder = Path(temporary)
        for tokens, limit in LIMITS.items():
            pairs = round(limit * options.seconds) // SHARDS * SHARDS
            shards = make_shards(folder / f"{tokens}", pairs)
            spent = [seconds_of_run(shards, folder / "out", tokens) for _ in range(options.rounds)]
            ratios[f"time: a run / a GPU at its limit, a clock in its place, {tokens} visual tokens"] = (
                measure.ratios(spent, [pairs / limit] * options.rounds)
            )
            rates[f"{tokens} visual tokens"] = measure.spread([pairs / seconds for seconds in spent])
    facts = {"rounds": options.rounds, "seconds": options.seconds, "workers": WORKERS}
    measure.save("feed", {"input": facts, "ratios": ratios, "pairs_per_second": rates}, ("numpy", "torch"))


if __name__ == "__main__":
    main()
