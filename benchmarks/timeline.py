"""A picture of who works when, over the last samples of one shard and the first ones of the next.

    python -m benchmarks.timeline docs/timeline.png [--folder FOLDER]

Four shards of 384-pixel pictures, one worker, a judge that sleeps 4 ms a pair. Needs the extra ``plots``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure

from benchmarks import overlap
from benchmarks.sleeper import Sleeper
from wdsfilter import pipeline, stages
from wdsfilter.commit import ShardOutput
from wdsfilter.samples import Numbers

Span = tuple[float, float]
LANES = {
    "read, parse, hash images": "#4477aa",
    "prepare (worker)": "#66aa55",
    "model": "#cc6677",
    "write": "#aa7744",
}
READ, PREPARE, MODEL, WRITE = LANES
COMMIT = "commit"
PAIRS = 320
spans: dict[str, list[Span]] = defaultdict(list)


@dataclass(frozen=True, slots=True)
class TimedSleeper(Sleeper):
    """Notes when its pairs were prepared, and when it slept."""

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        spans[PREPARE] += batch
        began = time.monotonic()
        numbers = Sleeper.score(self, batch)
        spans[MODEL].append((began, time.monotonic()))
        return numbers


def timed_pulls(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, and how long each took to come."""
    while True:
        began = time.monotonic()
        item = next(items, None)
        spans[READ].append((began, time.monotonic()))
        if item is None:
            return
        yield item


def timed(lane: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def called(*arguments: Any) -> Any:
        began = time.monotonic()
        result = function(*arguments)
        spans[lane].append((began, time.monotonic()))
        return result

    return called


def run(folder: Path) -> None:
    shards = overlap.make_shards(folder / "shards", 4 * PAIRS, PAIRS)
    job = overlap.planned(shards, folder / "output")
    with (
        patch.object(pipeline, "read_items", lambda *a: timed_pulls(stages.read_items(*a))),
        patch.object(ShardOutput, "add", timed(WRITE, ShardOutput.add)),
        patch.object(ShardOutput, "commit", timed(COMMIT, ShardOutput.commit)),
        pipeline.Runner(job, judges=[TimedSleeper(4e-3)]) as runner,
    ):
        runner.open()
        spans.clear()
        list(pipeline.run(runner))


def draw(path: Path) -> None:
    """Half a second before and after the second shard's commit."""
    middle = sorted(spans[COMMIT])[1][0]
    figure = Figure(figsize=(9, 2.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    for row, (lane, color) in enumerate(LANES.items()):
        bars = [
            (begun - middle, max(ended - begun, 5e-4))
            for begun, ended in spans[lane]
            if abs(begun - middle) < 0.6
        ]
        axes.broken_barh(bars, (-row - 0.35, 0.7), color=color, linewidth=0)
    for begun, ended in spans[COMMIT]:
        axes.broken_barh([(begun - middle, ended - begun)], (-3.35, 0.7), color="black", linewidth=0)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set(
        xlim=(-0.5, 0.5),
        ylim=(-3.6, 0.6),
        xlabel="seconds; at 0 a shard's last sample is written, and its commit begins (black)",
    )
    axes.set_yticks([-row for row in range(len(LANES))], list(LANES))
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        run(Path(temporary))
    draw(options.picture)
