"""The hashes that CI installs by are those of what constraints.txt and setup.cfg ask for."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from tests.runs import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Name -> version of a requirements file, without a build's local part."""
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    found = [line[0].partition("==") for line in lines]
    return {normal(name): version.partition("+")[0] for name, _, version in found}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_holds_what_is_asked_for(path: Path) -> None:
    """Every direct dependency is locked, in the version of constraints.txt, by a SHA-256. `make lock` renews it."""
    locked, wanted = pins(path), pins(ROOT / "constraints.txt")
    assert {name: locked[name] for name in wanted if name in locked} == {
        name: version for name, version in wanted.items() if name in locked
    }
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = setup["options"]["install_requires"] + setup["options.extras_require"]["dev"]
    names = {normal(re.split(r"[<>=~! ]", line)[0]) for line in asked.split("\n") if line}
    assert names <= locked.keys()
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
