"""How fast shards go through, when the judge costs nothing.

Two comparisons over the same generated shards (small JPEGs padded to 30 to 60 KB, a caption and a json each, as in
CC12M, written by webdataset as img2dataset does it), the arms in turn in one process, every output flushed to the disk:

- ``run``: a whole run with the scripted judge that keeps all (scores as members, ledger, hashes,
  commits) against the shortest loop that webdataset's users write: read, add a score member, write.
- ``bytes``: ``read_samples`` and ``ShardWriter`` alone against a copy of the same files.

The folder should be in memory (the default is
/dev/shm where there is one), or the disk is measured.

    python -m benchmarks.data_path [--rounds 7] [--samples 20000] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import os
import pstats
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import measure
from wdsfilter import pipeline, plan, recipe, storage
from wdsfilter.committing import Committed
from wdsfilter.samples import Sample
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.writer import ShardWriter

SHARDS = 4
PACKAGES = ("webdataset", "pyarrow", "pillow")


def make_shards(folder: Path, samples: int) -> list[Path]:
    """``samples`` pairs in shards as img2dataset makes them, by webdataset's own writer."""
    import webdataset

    chance = random.Random(0)
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05d}.tar" for number in range(SHARDS)]
    for number, path in enumerate(paths):
        with path.open("wb") as file, webdataset.TarWriter(file) as shard:
            for position in range(samples // SHARDS):
                key = f"{number:05d}{position:04d}"
                caption = f"Picture number {position} of shard {number}, which shows noise on a plain ground."
                fields = {
                    "key": key,
                    "caption": caption,
                    "url": f"https://example.org/{key}.jpg",
                    "status": "success",
                    "width": 64,
                    "height": 48,
                    "sha256": chance.randbytes(32).hex(),
                }
                shard.write(
                    {"__key__": key, "jpg": picture(chance), "txt": caption, "json": json.dumps(fields)}
                )
    return paths


def picture(chance: random.Random) -> bytes:
    """A small JPEG that decodes, made 30 to 60 KB long by what stands behind its end."""
    file = io.BytesIO()
    Image.frombytes("RGB", (8, 6), chance.randbytes(144)).resize((64, 48)).save(file, "JPEG")
    return file.getvalue() + chance.randbytes(chance.randrange(30_000, 60_000))


def run_all(shards: Sequence[Path], output: Path) -> None:
    """The whole run, as the command line does it."""
    listed = [{"path": str(path)} for path in shards]
    parsed = recipe.parse({"input": {"shards": listed}, "judges": ["scripted"], "guard": False})
    with pipeline.Runner(plan.plan(parsed, output)) as runner:
        runner.open()
        done = [result for result in pipeline.run(runner) if isinstance(result, Committed)]
    assert len(done) == len(shards)
    assert all(result.header.counts.kept == result.header.counts.samples > 0 for result in done)


def webdataset_loop(shards: Sequence[Path], output: Path, samples: int) -> None:
    """Read, add a score, write: the same samples in shards of the same size, flushed like ours."""
    import webdataset

    output.mkdir()
    names = str(output / "%05d.tar")
    source = webdataset.WebDataset([str(path) for path in shards], shardshuffle=False)
    with webdataset.ShardWriter(names, maxcount=samples // SHARDS, maxsize=1 << 40, verbose=0) as writer:
        for sample in source:
            kept = {name: value for name, value in sample.items() if name != "__url__"}
            kept["score.json"] = b'{"scripted": {"grade": 10, "score": 10.0}}\n'
            writer.write(kept)
    for path in output.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def copy_samples(shards: Sequence[Path], output: Path) -> None:
    """Every sample through the strict reader and the writer."""
    output.mkdir()
    for path in shards:
        writer = ShardWriter(output / path.name)
        with storage.open_read(str(path)) as stream:
            for item in read_samples(stream):
                assert isinstance(item, Sample)
                writer.add(item.members)
        writer.close()


def copy_files(shards: Sequence[Path], output: Path) -> None:
    """The same bytes without a look at them, flushed like ours."""
    output.mkdir()
    for path in shards:
        with path.open("rb") as source, (output / path.name).open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())


def compare(shards: Sequence[Path], output: Path, rounds: int, samples: int) -> dict[str, Any]:
    """Both comparisons, ratios taken round by round."""
    comparisons: list[dict[str, Callable[[], object]]] = [
        {
            "webdataset read and ShardWriter loop": lambda: webdataset_loop(shards, output, samples),
            "a whole run, scripted judge, everything kept": lambda: run_all(shards, output),
        },
        {
            "read and write every sample": lambda: copy_samples(shards, output),
            "file copy": lambda: copy_files(shards, output),
        },
    ]
    ratios: dict[str, Any] = {}
    per_sample: dict[str, Any] = {}
    for arms in comparisons:
        taken = measure.in_turn(arms, rounds, between=lambda: shutil.rmtree(output))
        slower, faster = arms
        ratios[f"time: {slower} / {faster}"] = measure.ratios(taken[slower], taken[faster])
        for arm, spent in taken.items():
            per_sample[arm] = measure.spread([s / samples * 1e6 for s in spent])
    return {"ratios": ratios, "us_per_sample": per_sample}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    memory = Path("/dev/shm")
    parser.add_argument("--folder", type=Path, default=memory if memory.is_dir() else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true", help="show where one run's time goes, and stop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        shards = make_shards(folder / "shards", options.samples)
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(run_all, shards, folder / "output")
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
            return
        size = sum(path.stat().st_size for path in shards)
        result = compare(shards, folder / "output", options.rounds, options.samples)
    facts = {"samples": options.samples, "shards": SHARDS, "bytes": size, "rounds": options.rounds}
    measure.save("data_path", {"input": facts, **result}, PACKAGES)


if __name__ == "__main__":
    main()
