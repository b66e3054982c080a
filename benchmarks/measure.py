"""What the benchmarks share: rounds in turn, medians, and a JSON result that says how it came about."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

AIMS = {
    "time: webdataset read and ShardWriter loop / a whole run, scripted judge, everything kept": "3.5 or more",
    "time: read and write every sample / file copy": "3 or less",
    "time: select, everything kept / file copy": "1.43 or less",
    "time: the best 18% of 10,000,000 rows / 30 s": "1 or less",
    "peak memory: the best 18% of 10,000,000 rows / 2 GB": "1 or less",
    "time: a run / its slowest part alone, the model is slower": "1.10 or less",
    "time: a run / its slowest part alone, the worker is slower": "1.10 or less",
    "time: a run / its device alone, a batch ahead": "1.10 or less",
    "time: 2 workers, one pair in 1000 crashes / none does": "1.10 or less",
    "time: a run over the line / its slower part alone, the model is slower": "1.10 or less",
    "time: a run over the line / its slower part alone, the line is slower": "1.10 or less",
    "time: one rank / two ranks, a judge that sleeps": "1.9 or more",
    "peak memory: a shard of 20000 samples / 1000": "1.1 or less",
    "seconds more: import wdsfilter than python -c pass": "0.5 or less",
    "seconds more: wdsfilter --help than python -c pass": "0.5 or less",
    "time: stock image processor / prepared image, resize: torch, 256 to 512 px": "4 or more",
    "time: stock image processor / prepared image, resize: torch, 1.5 megapixels": "5 or more",
    "time: published loop / vlm judge, readout expected": "5 or more",
    "time: published loop / vlm judge, readout expected, weights: int8": "5 or more",
    "time: padded batches in arrival order / packed, mixed lengths": "1.4 or more",
    "seconds: the page of 5,000,000 rows, opened": "1 or less",
    "size: the page of 5,000,000 rows / 8 MB": "1 or less",
    "pairs/s on one GPU, 64 visual tokens, bf16, from shards": "500 or more",
    "pairs/s on one GPU, 256 visual tokens, bf16, from shards": "150 or more",
    "time: published loop, answers of 120 tokens / a run, one GPU, 256 visual tokens": "15 or more",
}
"""What a comparison is hoped to show; it is called as in its benchmark's ``ratios``."""


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(
    arms: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    between: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of every arm in every round, after ``warm_up`` rounds that do not count.

    The arms run one after the other in each round, in an order that turns round every time, so that
    whatever else the machine does falls on all of them. ``between`` is called, untimed, after each.
    """
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(warm_up + rounds):
        for name in list(arms)[:: 1 if number % 2 else -1]:
            spent = seconds(arms[name])
            between()
            if number >= warm_up:
                taken[name].append(spent)
    return taken


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Spread of the quotients, taken round by round."""
    return spread([n / d for n, d in zip(numerator, denominator, strict=True)])


def machine() -> dict[str, Any]:
    """Processor and system, without the host's name."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of ``packages`` that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def save(
    name: str, result: Mapping[str, Any], packages: Sequence[str] = (), *, module: str | None = None
) -> None:
    """Write ``results/NAME.json``, with machine, versions, date and command, and ``README.md`` from all of them.

    ``result["ratios"]`` maps what was compared with what to a spread; ``result["not_measured"]`` lists what the
    machine could not do; ``module`` is the benchmark's where it is not ``name``.
    """
    document = {
        "command": " ".join(["python -m", f"benchmarks.{module or name}", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "versions": versions(*packages),
        **result,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    for line in _rows(document):
        print(line)
    write_page()


def write_page() -> None:
    """Write ``README.md`` from all results; what has an aim and no result is not measured."""
    documents = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    rows = [row for document in documents for row in _rows(document)]
    known = {
        what for document in documents for what in (*document["ratios"], *document.get("not_measured", ()))
    }
    rows += [f"| {what} | {aim} | not measured | | | |" for what, aim in AIMS.items() if what not in known]
    (RESULTS.parent / "README.md").write_text(_README + "\n".join(rows) + "\n")


def _rows(document: Mapping[str, Any]) -> list[str]:
    at = f"`{document['command']}` | {document['machine']['cores']} x {document['machine']['cpu']} | {document['date']}"
    figures = {
        what: f"**{r['median']:.2f}** ({r['min']:.2f} to {r['max']:.2f})"
        for what, r in document["ratios"].items()
    }
    figures |= dict.fromkeys(document.get("not_measured", ()), "not measured")
    return [f"| {what} | {AIMS.get(what, '')} | {figure} | {at} |" for what, figure in figures.items()]


_README = """# Benchmarks

Each compares two ways to do the same thing, run in turn in one process (or pairwise in processes), so that what
else the machine does falls on both; the ratio is taken round by round. `python -m benchmarks` runs all of them,
`python -m benchmarks data_path` one; from the repository's root. They write `results/` and this page. Nothing
here is a timed test.

| what | aim | ratio: median (range) | command | machine | date |
|---|---|---|---|---|---|
"""
