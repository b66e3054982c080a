"""What each step of the data path costs, in microseconds of CPU per sample: the smallest of many rounds.

The steps run alone, one after the other, over the samples of one shard of ``benchmarks.data_path`` in memory; so they
can be added up, and what threads do at the same time is not seen.

    python -m benchmarks.costs [--rounds 300]
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from benchmarks import data_path, measure
from wdsfilter import ledger, recipe, scores, storage
from wdsfilter.ledger import Header, LedgerWriter
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import Shard
from wdsfilter.shards.writer import ShardWriter, stored
from wdsfilter.stages import Case, ShardEnds, read_items

SAMPLES = 100


def steps(folder: Path) -> dict[str, Callable[[], object]]:
    """Name of a step -> what does it for all samples."""
    path = data_path.make_shards(folder / "shards", SAMPLES * data_path.SHARDS)[0]
    parsed = recipe.parse({"judges": ["scripted"], "guard": False})
    shard = Shard("s.tar", str(path))
    items = list(read_items([shard], parsed))
    [end] = [item for item in items if isinstance(item, ShardEnds)]
    cases = [item for item in items if isinstance(item, Case)]
    for case in cases:
        case.row |= {"status": "kept", "reason": "", "detail": "", "scripted": {"grade": 10, "score": 10.0}}
    samples = [case.sample for case in cases if case.sample is not None]
    kept = [
        scores.with_scores(sample, case.row, parsed.judge_ids, parsed.output)
        for sample, case in zip(samples, cases, strict=True)
    ]
    assert end.source is not None
    header = Header("s.tar", end.source, ledger.Counts(SAMPLES, SAMPLES), None, None, "", "")

    def read() -> None:
        with storage.open_read(str(path)) as stream:
            while stream.read(1 << 16):
                pass

    def parse() -> None:
        with storage.open_read(str(path)) as stream:
            for _ in read_samples(stream):
                pass

    def write() -> None:
        writer = ShardWriter(folder / "out.tar")
        for members in kept:
            writer.add(members)
        writer.close()
        (folder / "out.tar").unlink()

    def rows() -> None:
        writer = LedgerWriter(folder / "out.parquet", ledger.schema(parsed))
        for case in cases:
            writer.add(case.row)
        writer.close(header)
        (folder / "out.parquet").unlink()

    return {
        "read": read,
        "parse": parse,
        "items": lambda: deque(read_items([shard], parsed), maxlen=0),
        "image hash": lambda: [hashlib.sha256(s.members[0].data).hexdigest() for s in samples],
        "scores": lambda: [
            scores.with_scores(sample, case.row, parsed.judge_ids, parsed.output)
            for sample, case in zip(samples, cases, strict=True)
        ],
        "headers": lambda: [list(stored(members)) for members in kept],
        "shard hash": lambda: [hashlib.sha256(b).digest() for m in kept for b in stored(m)],
        "write": write,
        "row": rows,
    }


def least(work: Callable[[], object], rounds: int) -> float:
    """Microseconds of CPU per sample, of all threads."""
    found = []
    for _ in range(rounds):
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    return min(found) / SAMPLES * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        spent = {name: least(work, options.rounds) for name, work in steps(Path(temporary)).items()}
    costs = {
        "read the bytes": spent["read"],
        "parse headers, group members": spent["parse"] - spent["read"],
        "caption, json, columns of it": spent["items"] - spent["parse"] - spent["image hash"],
        "SHA-256 of the image": spent["image hash"],
        "scores as JSON": spent["scores"],
        "headers of the output": spent["headers"],
        "SHA-256 of the output shard": spent["shard hash"] - spent["headers"],
        "write": spent["write"] - spent["shard hash"],
        "ledger row, with a hundredth of its file": spent["row"],
    }
    for name, cost in costs.items():
        print(f"{name:42} {cost:6.1f}")
    rounded = {name: round(cost, 1) for name, cost in costs.items()}
    facts = {"samples": SAMPLES, "rounds": options.rounds}
    measure.save("costs", {"input": facts, "ratios": {}, "us_per_sample": rounded}, data_path.PACKAGES)


if __name__ == "__main__":
    main()
