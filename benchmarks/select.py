"""How fast a selection is: copying against `cp`, and a question to many ledger rows.

- ``copy``: everything kept, cut into new shards without scores, against a copy of the same files; the arms in
  turn, every output flushed to the disk. A ratio below 1 means that wdsfilter took less time.
- ``top``: the best 18 % of generated ledger rows, in a process of its own: seconds, and peak memory with all rows
  against that with a tenth of them.

    python -m benchmarks.select [--rounds 7] [--samples 2000] [--rows 10000000] [--workers 1] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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


def make_ledgers(folder: OutputFolder, rows: int) -> None:
    """A run's record, and ledgers of ``rows`` samples with a drawn score, as many a shard as in CC12M."""
    parsed = recipe.parse({"judges": ["scripted"], "guard": False})
    record = fingerprint.record(parsed, Runtime("cpu"))
    folder.put(fingerprint.canonical(record), folder.record)
    folder.ledgers.mkdir(parents=True)
    columns = ledger.schema(parsed)
    known = record["fingerprints"]
    chance = np.random.default_rng(0)
    for number in range(rows // ROWS_PER_SHARD):
        name = f"cc12m-train-{number:04d}.tar"
        counts = Counts(ROWS_PER_SHARD, ROWS_PER_SHARD)
        header = Header(name, Stat(1), counts, None, None, known["scoring"], known["decision"])
        with pq.ParquetWriter(folder.ledger(name), columns, compression="zstd") as file:
            file.write_table(_drawn(chance, number, columns), row_group_size=ledger.ROWS_PER_GROUP)
            file.add_key_value_metadata({b"wdsfilter": json.dumps(asdict(header)).encode()})


def _drawn(chance: np.random.Generator, shard: int, columns: pa.Schema) -> pa.Table:
    count = ROWS_PER_SHARD
    score = chance.normal(6, 2, count).clip(1, 10).astype(np.float32)
    grade = score.round().astype(np.int16)
    values: dict[str, Any] = {
        "key": [f"{shard:05d}{n:04d}" for n in range(count)],
        "offset": np.arange(count) * 50_000,
        "length": np.full(count, 50_000),
        "status": ["kept"] * count,
        "scripted": pa.StructArray.from_arrays([pa.array(grade), pa.array(score)], names=["grade", "score"]),
        "url": [f"https://example.org/{shard}/{n}.jpg" for n in range(count)],
        "image_sha256": [chance.bytes(32).hex() for _ in range(count)],
    }
    empty = {"reason": [""] * count, "detail": [""] * count}
    found = {**values, **empty}
    return pa.table(
        [pa.array(found[c.name], c.type) if c.name in found else pa.nulls(count, c.type) for c in columns],
        schema=columns,
    )


def top(run: Path, export: Path, workers: int) -> None:
    """Print seconds and peak memory (bytes) of one question, as JSON: for a process of its own."""
    selection = Selection(Question(top=Amount("18%")), open_sources([str(run)]), workers=workers)
    spent = measure.seconds(lambda: selection.export(export))
    print(json.dumps({"seconds": spent, "peak": _peak()}))


def _peak() -> int:
    """Bytes; getrusage would count what the process that started this one had."""
    found = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(found[0].split()[1]) * 1024


def ask(folder: Path, rows: int, workers: int) -> dict[str, float]:
    run = OutputFolder(folder / f"run-{rows}")
    make_ledgers(run, rows)
    arguments = ["--top-of", run.root, "--folder", folder / f"keys-{rows}.txt", "--workers", workers]
    command = [sys.executable, "-m", "benchmarks.select", *map(str, arguments)]
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
        selection = Selection(
            Question(),
            open_sources([str(folder / "run")]),
            patterns=[str(path) for path in shards],
            scores=False,
            workers=workers,
        )
        assert selection.into(OutputFolder(output), samples // len(shards)) == samples

    arms = {"select": cut, "cp": lambda: copy_files(shards, output)}
    taken = measure.in_turn(arms, rounds, between=lambda: shutil.rmtree(output))
    return [measure.ratios(taken["select"], taken["cp"]), measure.spread(taken["select"])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    memory = Path("/dev/shm")
    parser.add_argument("--folder", type=Path, default=memory if memory.is_dir() else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print, and write no result")
    parser.add_argument("--top-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.top_of is not None:
        top(options.top_of, options.folder, options.workers)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        shards = make_shards(folder / "shards", options.samples)
        size = sum(path.stat().st_size for path in shards)
        ratio, seconds = copy(shards, folder, options.rounds, options.samples, options.workers)
        some = ask(folder, options.rows // 10, options.workers)
        many = ask(folder, options.rows, options.workers)
    result = {
        "input": {"samples": options.samples, "bytes": size, "rounds": options.rounds, "rows": options.rows},
        "ratios": {
            "time: select, everything kept / file copy": ratio,
            f"peak memory: the top 18% of {options.rows} rows / of a tenth": measure.ratios(
                [many["peak"]], [some["peak"]]
            ),
        },
        "copy_seconds": seconds,
        "top": {str(options.rows // 10): some, str(options.rows): many},
    }
    if options.dry:
        print(json.dumps(result, indent=2))
    else:
        measure.save("select", result, PACKAGES)


if __name__ == "__main__":
    main()
