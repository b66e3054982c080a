"""What a pilot costs beyond the run that it is the beginning of.

- A pilot of some of the shards and then the run, against the run alone: nothing is judged twice.
- A pilot of shards that are judged already, which only tells, against a run that finds nothing to do.

The judge sleeps for each pair, as a GPU would be waited for; the arms are called in turn in one process.

    python -m benchmarks.pilot [--rounds 5] [--pairs 1600] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from benchmarks import measure
from benchmarks.overlap import make_shards
from wdsfilter.cli import main as wdsfilter

SHARDS, PILOTED = 8, 4
RECIPE = """
judges: [scripted: {seed: 1, seconds_per_pair: 0.002}]
guard: off
"""


def called(*arguments: str) -> None:
    """The command line in this process, silent."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        assert wdsfilter(arguments) == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=1600)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        make_shards(folder / "shards", options.pairs, options.pairs // SHARDS)
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE)
        given = [str(recipe), "--shards", f"{folder}/shards"]

        def run(output: Path) -> None:
            called("run", *given, "-o", str(output))

        def pilot(output: Path) -> None:
            called("pilot", *given, "--shards", str(PILOTED), "--keep", "18%", "-o", str(output))

        def piloted_run() -> None:
            pilot(folder / "output")
            run(folder / "output")

        whole: dict[str, Callable[[], object]] = {
            "pilot and run": piloted_run,
            "run": lambda: run(folder / "output"),
        }
        taken = measure.in_turn(whole, options.rounds, between=lambda: shutil.rmtree(folder / "output"))
        run(folder / "done")
        again: dict[str, Callable[[], object]] = {
            "pilot again": lambda: pilot(folder / "done"),
            "run again": lambda: run(folder / "done"),
        }
        taken |= measure.in_turn(again, options.rounds)
    result = {
        "input": {"pairs": options.pairs, "shards": SHARDS, "piloted": PILOTED, "rounds": options.rounds},
        "ratios": {
            "time: a pilot of half the shards and the run / the run alone": measure.ratios(
                taken["pilot and run"], taken["run"]
            ),
            "time: a pilot of what is judged already / a run with nothing to do": measure.ratios(
                taken["pilot again"], taken["run again"]
            ),
        },
        "seconds": {name: measure.spread(spent) for name, spent in taken.items()},
    }
    measure.save("pilot", result, ("numpy", "pyarrow"))


if __name__ == "__main__":
    main()
