"""Output folders that cannot be written to, are no folders, or change under a run's hands; clocks that are set."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.runs import make_shards, tree, write_recipe
from wdsfilter import claims, commit
from wdsfilter.cli import main
from wdsfilter.judges import scripted

NOBODY = 65534
PARTS = ["", "wdsfilter", "wdsfilter/ledger", "wdsfilter/claims", "wdsfilter/events", "wdsfilter/tmp"]


@pytest.fixture
def arguments(ram_path: Path) -> list[str]:
    """A run of six shards, in a folder that anybody may read."""
    ram_path.chmod(0o755)
    shards = make_shards(ram_path / "in", 6)
    return ["run", str(write_recipe(ram_path)), "--shards", shards, "-o", str(ram_path / "out")]


@pytest.fixture
def expected(arguments: list[str], ram_path: Path) -> dict[str, str]:
    """The tree that it gives undisturbed."""
    assert main([*arguments[:-1], str(ram_path / "sound")]) == 0
    return tree(ram_path / "sound")


@pytest.fixture
def begun(arguments: list[str], ram_path: Path) -> Path:
    """Its output folder when half of its shards are done."""
    assert main([*arguments, "--limit-shards", "3"]) == 0
    return ram_path / "out"


@contextmanager
def as_nobody() -> Iterator[None]:
    """A superuser may write anywhere: be somebody else meanwhile."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def no_judge(*anything: object) -> None:
    raise AssertionError("a judge was loaded")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="tests' own folders are closed to others")
@pytest.mark.parametrize("part", PARTS)
def test_a_folder_that_cannot_be_written_to(
    part: str,
    begun: Path,
    arguments: list[str],
    expected: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever folder of the output is not this user's: one line names it, before a judge is loaded."""
    for path in (begun, *begun.rglob("*")):
        if not os.geteuid():
            os.chown(path, NOBODY, NOBODY)
    closed = begun / part
    if not os.geteuid():
        os.chown(closed, 0, 0)
    closed.chmod(0o555)
    capsys.readouterr()
    with monkeypatch.context() as patch, as_nobody():
        patch.setattr(scripted, "load", no_judge)
        assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"wdsfilter: {closed}")
    assert said.count("\n") == 1
    closed.chmod(0o755)
    assert main(arguments) == 0
    assert tree(begun) == expected


@pytest.mark.parametrize("part", PARTS)
def test_a_file_in_a_folders_place(
    part: str,
    begun: Path,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a folder of the output is a file one line names it, before a judge is loaded, and the file stays."""
    shutil.rmtree(begun / part)
    (begun / part).write_text("somebody's")
    capsys.readouterr()
    monkeypatch.setattr(scripted, "load", no_judge)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"wdsfilter: {begun / part}")
    assert said.count("\n") == 1
    assert (begun / part).read_text() == "somebody's"


def strike(monkeypatch: pytest.MonkeyPatch, step: str, blow: Callable[[], object], hits: int = 2) -> None:
    """When a run is at a step of its commits for so manyth time, in this process: do something to it."""
    seen = 0

    def hit(name: str) -> None:
        nonlocal seen
        seen += name == step
        if name == step and seen == hits:
            blow()

    for module in (commit, claims):
        monkeypatch.setattr(module, "hit", hit)


@pytest.mark.parametrize("step", ["shard.begun", "ledger.written", "ledger.linked", "claim.released"])
@pytest.mark.parametrize("part", ["", "wdsfilter/claims", "wdsfilter/events", "wdsfilter/tmp"])
def test_a_folder_that_is_moved_away_meanwhile(
    part: str,
    step: str,
    arguments: list[str],
    expected: dict[str, str],
    ram_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run ends with one line or goes on as if nothing were; the next one completes the tree."""
    output = ram_path / "out"
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        strike(patch, step, lambda: (output / part).replace(ram_path / "gone"))
        code = main(arguments)
    said = capsys.readouterr().err
    assert code == (0 if part in ("wdsfilter/claims", "wdsfilter/events") else code)
    assert code in (0, 1)
    if code:
        assert str(output) in said
        assert "Traceback" not in said
    if not part:
        assert not [*output.rglob("*.*")], "nothing is made again without what says whose it is"
    assert main(arguments) == 0
    assert tree(output) == expected


@pytest.mark.parametrize("part", ["wdsfilter", "wdsfilter/ledger"])
def test_ledgers_that_are_moved_away_meanwhile(
    part: str, arguments: list[str], ram_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shards of which no ledger speaks are never taken for the run's: each is told, and none is replaced."""
    output = ram_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        strike(patch, "claim.released", lambda: (output / part).replace(ram_path / "gone"))
        assert main(arguments) in (1, 75)
    orphans = {path: path.read_bytes() for path in output.glob("*.tar")}
    capsys.readouterr()
    assert main(arguments) == 1
    assert "is in the way: no ledger speaks of it; remove it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in output.glob("*.tar")} == orphans


def test_a_clock_that_is_set_back_between_two_runs(
    arguments: list[str], ram_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What counts is the later launch, not the later time of day: a run that was carried through is done."""
    tripped = ["--set", "guard.after=10", "--set", "guard.kept=[0%, 1%]"]
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 4e9)
        assert main([*arguments, *tripped]) == 4
        assert main(["status", str(ram_path / "out")]) == 4
    assert main(arguments) == 0
    assert main(["status", str(ram_path / "out")]) == 0
    assert main(["verify", str(ram_path / "out")]) == 0


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_during_a_run(
    hours: int,
    arguments: list[str],
    expected: dict[str, str],
    ram_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A clock that jumps by an hour at every look changes no tree, and `status` knows what was not read."""
    now = time.time()
    looks = count()
    monkeypatch.setattr(time, "time", lambda: now + 3600 * hours * next(looks))
    missing = ram_path / "in/s-0002.tar"
    missing.rename(ram_path / "aside")
    missing.mkdir()
    assert main([*arguments, "--set", "run.read_attempts=2"]) == 3
    assert main(["status", str(ram_path / "out")]) == 3
    assert "not read: s-0002.tar" in capsys.readouterr().out
    missing.rmdir()
    (ram_path / "aside").rename(missing)
    assert main(arguments) == 0
    assert main(["status", str(ram_path / "out")]) == 0
    assert tree(ram_path / "out") == expected
