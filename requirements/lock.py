"""Writes down the files that pip takes for this platform, with their SHA-256: what CI installs, and nothing else.

python requirements/lock.py            # requirements/SYSTEM-MACHINE-cpXY.txt, out of constraints.txt
python requirements/lock.py --name     # only that name
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
_HEAD = "# Made by `make lock`: every file that LOCKED=1 installs on this platform, by its SHA-256.\n"


def name() -> str:
    """``linux-x86_64-cp311.txt``, say."""
    return f"{sys.platform}-{platform.machine()}-cp{sys.version_info[0]}{sys.version_info[1]}.txt"


def lock() -> str:
    """A requirements file for ``pip install --require-hashes``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        ask = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        command = [sys.executable, "-m", "pip", *ask, "-c", "constraints.txt", ".[dev]"]
        subprocess.run(command, cwd=ROOT, check=True)
        found = json.loads(report.read_text())["install"]
    lines = []
    for one in found:
        facts, source = one["metadata"], one["download_info"]
        if "dir_info" not in source:  # that is wdsfilter itself
            digest = source["archive_info"]["hashes"]["sha256"]
            lines.append(f"{facts['name']}=={facts['version']} --hash=sha256:{digest}\n")
    return _HEAD + "".join(sorted(lines, key=str.lower))


if __name__ == "__main__":
    if "--name" in sys.argv:
        print(name())
    else:
        Path(__file__).with_name(name()).write_text(lock())
