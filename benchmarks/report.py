"""The report of a large run: how long its page takes to make and to open, and how it follows the slider.

A run's folder with ledgers of drawn rows (judges ``rules`` and ``vlm``, probabilities and all), 5000 rows a shard as
in CC12M, and input shards that are all one archive of 200 photos of 0.2 to 2 megapixels. The page is made in a process
of its own: seconds and peak memory, against those of a tenth of the rows. Chromium then opens it from its file, as
often as ``--rounds`` says, and the slider is moved 40 times, each time until the picture stands.

    python -m benchmarks.report [--rows 5000000] [--rounds 5] [--ledgers FOLDER]

``--ledgers`` is a folder that keeps the rows for the next time. Needs Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import measure
from benchmarks.images import photo
from tests.browser import browser
from tests.shards import tar_bytes
from wdsfilter import fingerprint, ledger, recipe
from wdsfilter.judges import Runtime
from wdsfilter.ledger import Counts, Header
from wdsfilter.output import OutputFolder
from wdsfilter.streams import Stat

ROWS_PER_SHARD = 5000
PHOTOS = 200
PACKAGES = ("pyarrow", "numpy", "pillow", "jinja2")
_JUDGES = [{"rules": {"min_words": 3}}, {"vlm": {"model": "built-in", "at_least": {"grade": 9}}}]
_OPENED = """(() => {
  const [whole] = performance.getEntriesByType("navigation");
  const [paint] = performance.getEntriesByName("first-contentful-paint");
  return [whole.loadEventEnd / 1000, paint.startTime / 1000];
})()"""
_MOVED = """(async () => {
  const slider = document.getElementById("slider"), taken = [];
  for (let n = 0; n < 40; n++) {
    const began = performance.now();
    slider.value = (n * 37) % Number(slider.max);
    slider.dispatchEvent(new Event("input"));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    taken.push((performance.now() - began) / 1000);
  }
  return taken;
})()"""


def make_run(folder: Path, rows: int) -> tuple[Path, Path]:
    """A run's folder with ledgers of ``rows`` samples, and the folder of its input shards."""
    output, inputs = OutputFolder(folder / "run"), folder / "in"
    if output.ledgers.exists():
        return folder / "run", inputs
    parsed = recipe.parse({"judges": _JUDGES, "guard": False})
    record = fingerprint.record(parsed, Runtime("cpu"))
    output.put(fingerprint.canonical(record), output.record)
    Path(str(output.ledgers)).mkdir(parents=True)
    inputs.mkdir()
    archive, places = _archive(inputs)
    columns, chance = ledger.schema(parsed), np.random.default_rng(0)
    for number in range(rows // ROWS_PER_SHARD):
        name = f"cc12m-train-{number:04d}.tar"
        os.link(archive, inputs / name)
        table, counts = _drawn(chance, places, columns)
        source = Stat(archive.stat().st_size)
        known = record["fingerprints"]
        header = Header(name, source, counts, None, None, known["scoring"], known["decision"])
        with pq.ParquetWriter(output.ledger(name), columns, compression="zstd") as file:
            file.write_table(table, row_group_size=ledger.ROWS_PER_GROUP)
            file.add_key_value_metadata({b"wdsfilter": json.dumps(asdict(header)).encode()})
    archive.unlink()
    return folder / "run", inputs


def _archive(folder: Path) -> tuple[Path, list[tuple[str, int, int]]]:
    """One archive of photos with captions; key, offset and length (bytes) of each pair."""
    drawn, words = (
        random.Random(0),
        [
            "a",
            "the",
            "red",
            "old",
            "dog",
            "street",
            "two",
            "people",
            "under",
            "blue",
            "sky",
            "photo",
            "with",
            "of",
        ],
    )
    members: list[tuple[str, bytes]] = []
    for number in range(PHOTOS):
        width = drawn.choice([512, 640, 1024, 1600])
        caption = " ".join(drawn.choices(words, k=drawn.randint(4, 40)))
        members.append((f"{number:09d}.jpg", photo(drawn, width, width * 3 // 4, 88)))
        members.append((f"{number:09d}.txt", caption.encode()))
    path = folder / "archive"
    path.write_bytes(tar_bytes(members))
    with tarfile.open(path) as archive:
        starts = [info.offset for info in archive if info.name.endswith(".jpg")]
        end = archive.offset
    ends = [*starts[1:], end]
    keys = [f"{number:09d}" for number in range(PHOTOS)]
    return path, [(key, a, b - a) for key, a, b in zip(keys, starts, ends, strict=True)]


def _drawn(
    chance: np.random.Generator, places: list[tuple[str, int, int]], columns: pa.Schema
) -> tuple[pa.Table, Counts]:
    """A ledger's rows, and their counts."""
    count, grades = ROWS_PER_SHARD, np.arange(1, 11)
    middle = chance.normal(6, 2.5, (count, 1)).clip(1, 10)
    weights = np.exp(-(((grades - middle) / 1.2) ** 2))
    p = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    grade, words = p.argmax(axis=1) + 1, chance.integers(1, 60, count)
    short, kept = words < 3, (words >= 3) & (grade >= 9)
    drawn = {
        "grade": grade,
        "score": p @ grades,
        "p": pa.FixedSizeListArray.from_arrays(pa.array(p.ravel()), 10),
        "words": words,
        "chars": words * 6,
        "width": chance.integers(200, 2000, count),
        "height": chance.integers(200, 2000, count),
        "truncated": np.zeros(count, bool),
    }
    digests = chance.bytes(32 * count).hex()
    values: dict[str, Any] = {
        "key": [places[n % PHOTOS][0] for n in range(count)],
        "offset": [places[n % PHOTOS][1] for n in range(count)],
        "length": [places[n % PHOTOS][2] for n in range(count)],
        "status": np.where(kept, "kept", "dropped").tolist(),
        "reason": np.where(kept, "", np.where(short, "rules.min_words", "vlm.at_least")).tolist(),
        "detail": [""] * count,
        "image_sha256": [digests[64 * n : 64 * n + 64] for n in range(count)],
    }
    arrays = []
    for column in columns:
        if pa.types.is_struct(column.type):
            fields = [
                pa.array(drawn[f.name]).cast(f.type) if f.name in drawn else pa.nulls(count, f.type)
                for f in column.type
            ]
            unseen = pa.array(short) if column.name == "vlm" else None
            arrays.append(pa.StructArray.from_arrays(fields, fields=list(column.type), mask=unseen))
        else:
            found = values.get(column.name)
            arrays.append(pa.nulls(count, column.type) if found is None else pa.array(found, column.type))
    lost = {"rules.min_words": int(short.sum()), "vlm.at_least": int((~short & ~kept).sum())}
    counts = Counts(count, int(kept.sum()), sum(lost.values()), reasons=lost)
    return pa.table(arrays, schema=columns), counts


def make_page(run: Path, inputs: Path, page: Path) -> dict[str, float]:
    """Seconds and peak memory (bytes) of `wdsfilter report`."""
    script = (
        "import json, re, sys, time; from wdsfilter.cli import main; began = time.perf_counter(); "
        "code = main(sys.argv[1:]); status = open('/proc/self/status').read(); "
        "peak = 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]); "
        "print(json.dumps({'seconds': time.perf_counter() - began, 'peak': peak})); sys.exit(code)"
    )
    arguments = ["report", str(run), "--shards", f"{inputs}/*.tar", "-o", str(page)]
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def open_page(page: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds to the end of loading and to the first paint in each round, and of each move of the slider."""
    found: dict[str, list[float]] = {"loaded": [], "painted": [], "moved": []}
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as chromium:
        for number in range(rounds + 1):
            shown = chromium.open(page.as_uri(), width=1440)
            shown.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
            loaded, painted = shown.evaluate(_OPENED)
            if number:  # the first one pays for the browser's own start
                found["loaded"].append(loaded)
                found["painted"].append(painted)
        found["moved"] = shown.evaluate(_MOVED)
        if shown.complaints:
            raise RuntimeError(f"{page}: {shown.complaints}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ledgers", type=Path)
    parser.add_argument("--dry", action="store_true", help="print, and write no result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.ledgers or Path(temporary)
        made, pages = {}, {}
        for rows in (options.rows // 10, options.rows):
            (folder / str(rows)).mkdir(parents=True, exist_ok=True)
            run, inputs = make_run(folder / str(rows), rows)
            pages[rows] = Path(temporary, f"{rows}.html").resolve()
            made[rows] = make_page(run, inputs, pages[rows])
        size = pages[options.rows].stat().st_size
        shown = open_page(pages[options.rows], options.rounds)
    some, many = made.values()
    name = f"the page of {options.rows:,} rows"
    result = {
        "input": {"rows": options.rows, "shards": options.rows // ROWS_PER_SHARD, "page": size},
        "ratios": {
            f"seconds: {name}, opened": measure.spread(shown["loaded"]),
            f"seconds: {name}, first painted": measure.spread(shown["painted"]),
            f"seconds: {name}, a move of the slider": measure.spread(shown["moved"]),
            f"size: {name} / 8 MB": measure.ratios([size], [8e6]),
            f"seconds: {name}, made": measure.spread([many["seconds"]]),
            f"peak memory: {name}, made / of a tenth of them": measure.ratios([many["peak"]], [some["peak"]]),
        },
        "spent": {str(rows): spent for rows, spent in made.items()},
    }
    if options.dry:
        print(json.dumps(result, indent=2))
    else:
        measure.save("report", result, PACKAGES)


if __name__ == "__main__":
    main()
