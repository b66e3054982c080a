"""How much longer than an empty Python it takes to import wdsfilter, and to say --help.

The figure is in seconds of CPU, which on a machine that has nothing else to do are seconds.

python -m benchmarks.startup [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Sequence

from benchmarks import measure

EMPTY = "python -c pass"
ARMS = {
    EMPTY: ["-c", "pass"],
    "import wdsfilter": ["-c", "import wdsfilter"],
    "wdsfilter --help": ["-m", "wdsfilter", "--help"],
}


def cpu_seconds(arguments: Sequence[str]) -> float:
    """What a process of its own takes; bytecode is cached, as it is for whoever installed the package."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in ARMS}
    for number in range(1 + options.rounds):
        for name, arguments in ARMS.items():
            spent = cpu_seconds(arguments)
            if number:  # the first round fills caches
                taken[name].append(spent)
    figures = {
        f"seconds more: {name} than {EMPTY}": measure.spread(
            [spent - empty for spent, empty in zip(taken[name], taken[EMPTY], strict=True)]
        )
        for name in ARMS
        if name != EMPTY
    }
    facts = {"rounds": options.rounds}
    measure.save("startup", {"input": facts, "ratios": figures}, ("typer", "rich", "pydantic"))


if __name__ == "__main__":
    main()
