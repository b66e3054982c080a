"""Whether a run takes as long as its slowest part, and two ranks half as long as one.

- A judge that decodes and shrinks pictures in a worker process and then sleeps, as a GPU would be waited for; against
  the longer of the two alone: all its sleep, and all pictures through the same workers.
- The same with a device that is given a batch ahead, as a GPU is, by a host that takes half as long for it as the
  device; against the device alone.
- Two processes with a judge that only sleeps, against one. Clocks start when both have imported everything.

Pictures are JPEGs of 384 x 384 pixels.

    python -m benchmarks.overlap [--rounds 5] [--pairs 1200] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import measure
from benchmarks.paced import Paced
from benchmarks.sleeper import Sleeper, shrink
from wdsfilter import pipeline, plan, recipe, storage
from wdsfilter.judges import Judge
from wdsfilter.samples import Member, Pair, Sample
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.writer import ShardWriter
from wdsfilter.workers import Workers

SIDE = 384
WORKERS = 1
SLEEPS = {"the model is slower": 6e-3, "the worker is slower": 1e-3}
"""Seconds a pair; preparing takes about 3 ms."""
DEVICE, HOST = 6e-3, 3e-3
"""Seconds a pair of a device that is given a batch ahead, and of its host before that: 9 in turn."""
RANK_SLEEP = 2e-3


def make_shards(folder: Path, pairs: int, each: int) -> list[str]:
    """``pairs`` pairs in shards of ``each``."""
    folder.mkdir(parents=True)
    pictures = []
    for number in range(16):
        file = io.BytesIO()
        noise = [Image.effect_noise((SIDE, SIDE), 20 + number) for _ in range(3)]
        Image.merge("RGB", noise).resize((SIDE, SIDE)).save(file, "JPEG", quality=60)
        pictures.append(file.getvalue())
    paths = []
    for first in range(0, pairs, each):
        paths.append(folder / f"{first // each:05d}.tar")
        shard = ShardWriter(paths[-1])
        for number in range(first, first + each):
            key = f"{number:09d}"
            caption = f"Noise number {number}.".encode()
            shard.add(
                [Member(f"{key}.jpg", "jpg", pictures[number % 16]), Member(f"{key}.txt", "txt", caption)]
            )
        shard.close()
    return [str(path) for path in paths]


def planned(shards: Sequence[str], output: Path, **options: Any) -> plan.Job:
    listed = [{"path": path} for path in shards]
    raw = {"input": {"shards": listed}, "judges": [{"scripted": options}], "guard": False}
    return plan.plan(recipe.parse(raw), output)


def seconds_of_run(shards: Sequence[str], output: Path, judge: Judge) -> float:
    with pipeline.Runner(planned(shards, output), worker_count=WORKERS, judges=[judge]) as runner:
        runner.open()  # its check has started the workers
        spent = measure.seconds(lambda: list(pipeline.run(runner)))
    shutil.rmtree(output)
    return spent


def hosted(batch: Sequence[Any]) -> None:
    """What the host does before a device has a batch."""
    time.sleep(HOST * len(batch))


def seconds_of_preparing(shards: Sequence[str]) -> float:
    """All pictures through as many workers, and nothing else."""
    pairs = []
    for path in shards:
        with storage.open_read(path) as stream:
            for item in read_samples(stream):
                assert isinstance(item, Sample)
                pairs.append(Pair(item.key, bytes(item.members[0].data), "a caption"))
    with Workers([shrink], WORKERS) as workers:
        list(workers.prepared(0, pairs[:1], lambda pair: pair, lookahead=1))
        return measure.seconds(lambda: list(workers.prepared(0, pairs, lambda pair: pair, lookahead=96)))


def seconds_of_ranks(count: int, shards: Sequence[str], output: Path) -> float:
    """Until the last of ``count`` processes has ended its run over ``shards``."""
    command = [sys.executable, "-m", "benchmarks.overlap", "--rank", str(output), *shards]
    ranks = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for rank in ranks:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "ready\n"
    started = time.perf_counter()
    for rank in ranks:
        assert rank.stdin is not None
        rank.stdin.close()
    assert [rank.wait() for rank in ranks] == [0] * count
    spent = time.perf_counter() - started
    shutil.rmtree(output)
    return spent


def be_a_rank(output: Path, shards: Sequence[str]) -> None:
    """One of those processes: ready when everything is imported, and off when its input ends."""
    with pipeline.Runner(planned(shards, output, seconds_per_pair=RANK_SLEEP)) as runner:
        runner.open()
        print("ready", flush=True)
        sys.stdin.read()
        list(pipeline.run(runner))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rank", nargs="+", metavar="PATH", help="one process, of OUTPUT and SHARDs")
    options = parser.parse_args()
    if options.rank:
        be_a_rank(Path(options.rank[0]), options.rank[1:])
        return
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        shards = make_shards(folder / "shards", options.pairs, options.pairs // 4)
        small = make_shards(folder / "small", 4 * options.pairs, 50)
        for _ in range(options.rounds):
            preparing = seconds_of_preparing(shards)
            for name, seconds in SLEEPS.items():
                spent = seconds_of_run(shards, folder / "output", Sleeper(seconds))
                longer = max(preparing, seconds * options.pairs)
                found.setdefault(f"time: a run / its slowest part alone, {name}", []).append(spent / longer)
            for name, ahead in (("a batch ahead", 1), ("each waits for the other", 0)):
                judge = Paced(shrink, hosted, 8, DEVICE, window=32, ahead=ahead)
                spent = seconds_of_run(shards, folder / "output", judge)
                ratio = spent / (DEVICE * options.pairs)
                found.setdefault(f"time: a run / its device alone, {name}", []).append(ratio)
            one, two = (seconds_of_ranks(count, small, folder / "output") for count in (1, 2))
            found.setdefault("time: one rank / two ranks, a judge that sleeps", []).append(one / two)
    facts = {
        "pairs": options.pairs,
        "rounds": options.rounds,
        "workers": WORKERS,
        "sleeps": SLEEPS,
        "device": DEVICE,
        "host": HOST,
    }
    ratios = {name: measure.spread(values) for name, values in found.items()}
    measure.save("overlap", {"input": facts, "ratios": ratios}, ("pillow", "pyarrow"))


if __name__ == "__main__":
    main()
