"""How fast a selection is: copying against `cp`, and a question to many ledger rows.

- ``copy``: everything kept, cut into new shards without scores, against a copy of the same files; the arms in
  turn, every output flushed to the disk. A ratio below 1 means that wdsfilter took less time. One process copies; it
  keeps two cores busy.
- ``top``: the best 18 % of generated ledger rows, in a process of its own: seconds and peak memory, against 30 s and
  2 GB, and against those of a tenth of the rows. ``--ledgers`` is a folder that keeps the rows for the next time.

    python -m benchmarks.select copy [--rounds 5] [--samples 40000] [--workers 1] [--folder FOLDER]
    python -m benchmarks.select top [--rows 10000000] [--workers 2] [--ledgers FOLDER] [--memory 1GiB]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import measure
from benchmarks.data_path import copy_files, make_shards, run_all
from wdsfilter import fingerprint, ledger, recipe
from wdsfilter.judges import Runtime
from wdsfilter.ledger import Counts, Header
from wdsfilter.output import OutputFolder
from wdsfilter.select.question import Amount, Question
from wdsfilter.select.selection import Selection
from wdsfilter.select.sources import open_sources
from wdsfilter.streams import Stat

ROWS_PER_SHARD = 5000
PACKAGES = ("duckdb", "pyarrow", "numpy")


Values = Callable[[int, int], Mapping[str, Any]]
"""Number of a shard and of its samples -> columns of its ledger; what is not among them is empty."""


def make_ledgers(folder: OutputFolder, rows: int, values: Values) -> None:
    """A run's record, and ledgers of ``rows`` kept samples, as many a shard as in CC12M."""
    parsed = recipe.parse({"judges": ["scripted"], "guard": False})
    record = fingerprint.record(parsed, Runtime("cpu"))
    folder.put(fingerprint.canonical(record), folder.record)
    Path(str(folder.ledgers)).mkdir(parents=True)
    columns = ledger.schema(parsed)
    known = record["fingerprints"]
    for number in range(rows // ROWS_PER_SHARD):
        name = f"cc12m-train-{number:04d}.tar"
        counts = Counts(ROWS_PER_SHARD, ROWS_PER_SHARD)
        header = Header(name, Stat(1), counts, None, None, known["scoring"], known["decision"])
        with pq.ParquetWriter(folder.ledger(name), columns, compression="zstd") as file:
            table = _table(number, values(number, ROWS_PER_SHARD), columns)
            file.write_table(table, row_group_size=ledger.ROWS_PER_GROUP)
            file.add_key_value_metadata({b"wdsfilter": json.dumps(asdict(header)).encode()})


def _table(shard: int, values: Mapping[str, Any], columns: pa.Schema) -> pa.Table:
    count = ROWS_PER_SHARD
    found = {
        "key": [f"{shard:05d}{n:04d}" for n in range(count)],
        "offset": np.arange(count) * 50_000,
        "length": np.full(count, 50_000),
        "status": ["kept"] * count,
        "reason": [""] * count,
        "detail": [""] * count,
        **values,
    }
    return pa.table(
        [pa.array(found[c.name], c.type) if c.name in found else pa.nulls(count, c.type) for c in columns],
        schema=columns,
    )


def drawn_scores(shard: int, count: int) -> Mapping[str, Any]:
    """A score for each sample, an address and a hash of its image."""
    chance = np.random.default_rng(shard)
    score = chance.normal(6, 2, count).clip(1, 10).astype(np.float32)
    grade = score.round().astype(np.int16)
    return {
        "scripted": pa.StructArray.from_arrays([pa.array(grade), pa.array(score)], names=["grade", "score"]),
        "url": [f"https://example.org/{shard}/{n}.jpg" for n in range(count)],
        "image_sha256": [chance.bytes(32).hex() for _ in range(count)],
    }


def top(run: Path, export: Path, workers: int, memory: str) -> None:
    """Print seconds and peak memory (bytes) of one question, as JSON: for a process of its own."""
    with open_sources([str(run)]) as sources:
        selection = Selection(Question(top=Amount("18%")), sources, workers=workers, memory=memory)
        spent = measure.seconds(lambda: selection.export(export))
    print(json.dumps({"seconds": spent, "peak": peak()}))


def peak() -> int:
    """Bytes; getrusage would count what the process that started this one had."""
    found = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(found[0].split()[1]) * 1024


def ask(ledgers: Path, rows: int, workers: int, memory: str) -> dict[str, float]:
    run = OutputFolder(ledgers / f"run-{rows}")
    if not run.ledgers.exists():
        make_ledgers(run, rows, drawn_scores)
    with tempfile.TemporaryDirectory(dir=ledgers) as folder:
        arguments = [run.root, "--folder", f"{folder}/keys.txt", "--workers", workers, "--memory", memory]
        command = [sys.executable, "-m", "benchmarks.select", "top-of", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def copy(
    shards: Sequence[Path], folder: Path, rounds: int, samples: int, workers: int
) -> list[dict[str, float]]:
    """Ratios of everything kept to a copy, and seconds of the first."""
    run_all(shards, folder / "run")
    output = folder / "output"

    def cut() -> None:
        with open_sources([str(folder / "run")]) as sources:
            patterns = [str(path) for path in shards]
            selection = Selection(Question(), sources, patterns=patterns, scores=False, workers=workers)
            assert selection.into(OutputFolder(output), samples // len(shards)) == samples

    arms = {"select": cut, "cp": lambda: copy_files(shards, output)}
    taken = measure.in_turn(arms, rounds, between=lambda: shutil.rmtree(output))
    return [measure.ratios(taken["select"], taken["cp"]), measure.spread(taken["select"])]


def copy_part(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        shards = make_shards(folder / "shards", options.samples)
        size = sum(path.stat().st_size for path in shards)
        ratio, seconds = copy(shards, folder, options.rounds, options.samples, options.workers)
    return {
        "input": {
            "samples": options.samples,
            "bytes": size,
            "rounds": options.rounds,
            "workers": options.workers,
        },
        "ratios": {"time: select, everything kept / file copy": ratio},
        "seconds": seconds,
    }


def top_part(options: argparse.Namespace) -> dict[str, Any]:
    rows = options.rows
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        ledgers = options.ledgers or Path(temporary)
        some, many = (ask(ledgers, n, options.workers, options.memory) for n in (rows // 10, rows))
    name = f"the best 18% of {rows:,} rows"
    return {
        "input": {"rows": rows},
        "ratios": {
            f"time: {name} / 30 s": measure.ratios([many["seconds"]], [30.0]),
            f"peak memory: {name} / 2 GB": measure.ratios([many["peak"]], [2e9]),
            f"peak memory: {name} / of a tenth of them": measure.ratios([many["peak"]], [some["peak"]]),
        },
        "spent": {str(rows // 10): some, str(rows): many},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    memory = Path("/dev/shm")
    parser.add_argument("part", choices=["copy", "top", "top-of"])
    parser.add_argument("run", type=Path, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=memory if memory.is_dir() else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ledgers", type=Path)
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print, and write no result")
    options = parser.parse_args()
    if options.part == "top-of":
        top(options.run, options.folder, options.workers, options.memory)
        return
    result = copy_part(options) if options.part == "copy" else top_part(options)
    if options.dry:
        print(json.dumps(result, indent=2))
    else:
        measure.save(f"select_{options.part}", result, PACKAGES, module="select")


if __name__ == "__main__":
    main()
