"""The hashes that LOCKED=1 installs by are those of what constraints.txt asks for."""

from __future__ import annotations

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
    """What is locked has the version of constraints.txt, and a SHA-256. `make lock` renews it."""
    locked, wanted = pins(path), pins(ROOT / "constraints.txt")
    assert {name: locked[name] for name in wanted if name in locked} == {
        name: version for name, version in wanted.items() if name in locked
    }
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
