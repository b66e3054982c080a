"""How long near duplicates among many ledger rows take to be found, and how much memory: no aim but to end.

Rows have drawn perceptual hashes, but for a fifth that lies within six bits of another one, a twentieth that is nearly
blank, and another one that is blank. Each distance is asked in a process of its own; the time is that of the whole
question, the one of distance 0 that of everything but the search. ``--ledgers`` is a folder that keeps the rows for
the next time.

    python -m benchmarks.near [--rows 10000000] [--distances 0 1 3 8] [--workers 2] [--ledgers FOLDER] [--memory 2GiB]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.select import PACKAGES, Values, make_ledgers, peak
from wdsfilter.output import OutputFolder
from wdsfilter.select.near import Hashes
from wdsfilter.select.question import Question
from wdsfilter.select.selection import Selection
from wdsfilter.select.sources import open_sources


def drawn(count: int) -> Hashes:
    """So many hashes, in a drawn order."""
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 1 << 64, count, dtype=np.uint64)
    near, blank = count // 5, count // 20
    hashes[:near] = flipped(hashes[chance.integers(0, count, near)], chance)
    hashes[near : near + blank] = flipped(np.zeros(blank, dtype=np.uint64), chance)
    hashes[near + blank : near + 2 * blank] = 0
    chance.shuffle(hashes)
    return hashes


def flipped(hashes: Hashes, chance: np.random.Generator) -> Hashes:
    """The same with one to six bits turned over."""
    most = chance.integers(1, 7, len(hashes))
    for turned in range(6):
        bits = np.uint64(1) << chance.integers(0, 64, len(hashes), dtype=np.uint64)
        hashes = np.where(turned < most, hashes ^ bits, hashes)
    return hashes


def drawn_hashes(rows: int) -> Values:
    """Perceptual hashes for so many samples, one after the other, and hashes of their images."""
    hashes = drawn(rows)

    def values(shard: int, count: int) -> Mapping[str, Any]:
        chance = np.random.default_rng(shard)
        part = hashes[shard * count :][:count]
        return {
            "image_sha256": [chance.bytes(32).hex() for _ in range(count)],
            "phash": [f"{value:016x}" for value in part.tolist()],
        }

    return values


def ask_here(run: Path, distance: int, export: Path, workers: int, memory: str) -> None:
    """Print seconds, peak memory (bytes) and the number chosen, as JSON: for a process of its own."""
    question = Question(drop_duplicates=True, near=distance)
    chosen = 0

    def ask() -> None:
        nonlocal chosen
        chosen = selection.export(export)

    with open_sources([str(run)]) as sources:
        selection = Selection(question, sources, workers=workers, memory=memory, tell=to_stderr)
        spent = measure.seconds(ask)
    print(json.dumps({"seconds": spent, "peak": peak(), "chosen": chosen}))


def to_stderr(remark: str) -> None:
    print(remark, file=sys.stderr, flush=True)


def ask(run: Path, distance: int, workers: int, memory: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--run", run, "--distances", distance, "--export", f"{folder}/keys.txt"]
        options = ["--workers", workers, "--memory", memory]
        command = [sys.executable, "-m", "benchmarks.near", *map(str, [*arguments, *options])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--distances", type=int, nargs="+", default=[0, 1, 3, 8])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--ledgers", type=Path)
    parser.add_argument("--dry", action="store_true", help="print, and write no result")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        ask_here(options.run, options.distances[0], options.export, options.workers, options.memory)
        return
    with tempfile.TemporaryDirectory() as temporary:
        run = OutputFolder((options.ledgers or Path(temporary)) / f"near-{options.rows}")
        if not run.record.exists():
            make_ledgers(run, options.rows, drawn_hashes(options.rows))
        root = Path(str(run.root))
        spent = {n: ask(root, n, options.workers, options.memory) for n in options.distances}
    name = f"without near duplicates, {options.rows:,} rows, within"
    result = {
        "input": {"rows": options.rows},
        "ratios": {
            f"seconds: {name} {n} bits": measure.ratios([one["seconds"]], [1.0]) for n, one in spent.items()
        }
        | {
            f"peak memory: {name} {n} bits / 2 GB": measure.ratios([one["peak"]], [2e9])
            for n, one in spent.items()
        },
        "spent": spent,
    }
    if options.dry:
        print(json.dumps(result, indent=2))
    else:
        measure.save(f"near_{options.rows}", result, PACKAGES, module="near")


if __name__ == "__main__":
    main()
