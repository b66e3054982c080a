"""All benchmarks one after the other, or those that are named, each in a process of its own.

    python -m benchmarks [NAME ...]

A file of this folder that has a ``main`` is a benchmark; one alone takes its options as ``python -m benchmarks.NAME``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def names() -> list[str]:
    """Names of all benchmarks: the files of this folder that have a ``main``."""
    found = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(path.stem for path in found if "\ndef main(" in path.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    wanted = parser.parse_args().names or names()
    if unknown := set(wanted) - set(names()):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    codes = {}
    for name in wanted:
        print(f"{name}:", flush=True)
        codes[name] = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode
    failed = [name for name, code in codes.items() if code]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
