"""Whether stores are as good as a disk: a run over a slow line, and listings of many objects.

- ``link``: a run over shards behind a line of 20 ms and 30 MB/s, with a judge that only sleeps, against the
  longer of the two alone: all its sleep, and reading all shards over that line.
- ``list``: a folder of 100,000 objects in an S3 server (``crowded``), listed by a process of its own: seconds, and the
  memory that it takes more than to list nothing.

    python -m benchmarks.storage link [--rounds 3] [--pairs 3000]
    python -m benchmarks.storage list [--objects 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.link import LATENCY, RATE, serving
from benchmarks.overlap import make_shards, planned
from benchmarks.select import peak
from wdsfilter import pipeline, storage
from wdsfilter.shards.source import Pattern, find_shards

SLEEPS = {"the model is slower": 2.0, "the line is slower": 0.5}
"""All of a run's sleep, as a share of what reading takes by the line's rate alone."""


def read_all(shards: list[str]) -> None:
    for shard in shards:
        with storage.open_read(shard) as stream:
            while stream.read(1 << 20):
                pass


def seconds_of_run(shards: list[str], output: Path, seconds_per_pair: float) -> float:
    with pipeline.Runner(planned(shards, output, seconds_per_pair=seconds_per_pair)) as runner:
        runner.open()
        spent = measure.seconds(lambda: list(pipeline.run(runner)))
    shutil.rmtree(output)
    return spent


def link_part(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        paths = make_shards(folder / "shards", options.pairs, options.pairs // 6)
        size = sum(Path(path).stat().st_size for path in paths)
        with serving("benchmarks.link", str(folder / "shards")) as address:
            shards = [f"{address}/{Path(path).name}" for path in paths]
            for _ in range(options.rounds):
                reading = measure.seconds(lambda: read_all(shards))
                for name, share in SLEEPS.items():
                    model = share * size / RATE
                    spent = seconds_of_run(shards, folder / "output", model / options.pairs)
                    ratio = spent / max(reading, model)
                    found.setdefault(f"time: a run over the line / its slower part alone, {name}", []).append(
                        ratio
                    )
    facts = {
        "pairs": options.pairs,
        "bytes": size,
        "rounds": options.rounds,
        "latency": LATENCY,
        "rate": RATE,
    }
    return {"input": facts, "ratios": {name: measure.spread(values) for name, values in found.items()}}


def variables_of(address: str) -> dict[str, str]:
    """The environment in which a process speaks to an S3 server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def list_part(options: argparse.Namespace) -> dict[str, Any]:
    with serving("benchmarks.crowded", str(options.objects)) as address:
        variables = variables_of(address)
        spent = {}
        for pattern in ("s3://bucket/none-*.tar", "s3://bucket/full/*.tar", "s3://bucket/full/"):
            command = [sys.executable, "-m", "benchmarks.storage", "list-of", pattern]
            done = subprocess.run(
                command, env={**os.environ, **variables}, capture_output=True, text=True, check=True
            )
            spent[pattern] = json.loads(done.stdout)
    base = spent.pop("s3://bucket/none-*.tar")["peak"]
    ratios = {}
    for pattern, one in spent.items():
        what = f"{options.objects:,} objects listed by a {'folder' if pattern.endswith('/') else 'pattern'}"
        ratios[f"seconds: {what}"] = measure.spread([one["seconds"]])
        ratios[f"peak memory: {what} / 100 MB"] = measure.spread([(one["peak"] - base) / 1e8])
    return {"input": {"objects": options.objects}, "ratios": ratios}


def list_of(pattern: str) -> None:
    """Print what one listing takes, as JSON: for a process of its own."""
    count = 0

    def listing() -> None:
        nonlocal count
        count = len(find_shards([Pattern(pattern)])) if "none" not in pattern else len(storage.glob(pattern))

    print(json.dumps({"seconds": measure.seconds(listing), "shards": count, "peak": peak()}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["link", "list", "list-of"])
    parser.add_argument("pattern", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--dry", action="store_true", help="print, and write no result")
    options = parser.parse_args()
    if options.part == "list-of":
        list_of(options.pattern)
        return
    result = link_part(options) if options.part == "link" else list_part(options)
    if options.dry:
        print(json.dumps(result, indent=2))
    else:
        measure.save(f"storage_{options.part}", result, ("fsspec", "s3fs", "aiohttp"), module="storage")


if __name__ == "__main__":
    main()
