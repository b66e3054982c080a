"""Peak memory of a run over a small and a twenty times larger shard: it must be the same.

Each run is a process of its own (scripted judge that keeps all, through the library), whose largest
resident set (``ru_maxrss``) counts; images have about 4 KB. The two sizes take turns.

    python -m benchmarks.memory [--rounds 5] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks import measure
from wdsfilter import pipeline, plan, recipe

SMALL, LARGE = 1_000, 20_000
MIB = 1 << 20


def make_shard(path: Path, samples: int) -> None:
    """One shard of small pairs."""
    chance = random.Random(samples)
    file = io.BytesIO()
    Image.frombytes("RGB", (8, 6), chance.randbytes(144)).resize((64, 48)).save(file, "JPEG")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(samples):
            image = file.getvalue() + chance.randbytes(3000)
            for extension, data in (("jpg", image), ("txt", f"Picture number {number}.".encode())):
                info = tarfile.TarInfo(f"{number:09d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def run(shard: Path, output: Path) -> int:
    """Judge ``shard`` in this process; returns the largest resident set that it ever had (bytes)."""
    listed = [{"path": str(shard)}]
    parsed = recipe.parse({"input": {"shards": listed}, "judges": ["scripted"], "guard": False})
    with pipeline.Runner(plan.plan(parsed, output)) as runner:
        runner.open()
        for _ in pipeline.run(runner):
            pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_in_child(shard: Path, output: Path) -> int:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--run", str(shard), str(output)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    shutil.rmtree(output)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where shards and outputs lie meanwhile")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--run", nargs=2, type=Path, metavar=("SHARD", "OUTPUT"), help="one run, in this process"
    )
    options = parser.parse_args()
    if options.run:
        print(run(*options.run))
        return
    peaks: dict[int, list[float]] = {SMALL: [], LARGE: []}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        for samples in peaks:
            make_shard(folder / f"{samples}.tar", samples)
        for _ in range(options.rounds):
            for samples, found in peaks.items():
                found.append(run_in_child(folder / f"{samples}.tar", folder / "output") / MIB)
    mib = {f"{samples} samples": measure.spread(found) for samples, found in peaks.items()}
    ratios = {
        f"peak memory: a shard of {LARGE} samples / {SMALL}": measure.ratios(peaks[LARGE], peaks[SMALL])
    }
    measure.save(
        "memory", {"input": {"rounds": options.rounds}, "ratios": ratios, "peak_mib": mib}, ("pyarrow",)
    )


if __name__ == "__main__":
    main()
