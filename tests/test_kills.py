"""Kill anything, run again, get the same tree (promise 4); nothing half-done is visible (promise 3)."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.runs import committed, finished, make_shards, start, tree, write_recipe
from wdsfilter import failpoints
from wdsfilter.cli import main

SHARDS = 5
_EVERY_SHARD = (
    "claim.taken",
    "shard.begun",
    "shard.written",
    "ledger.written",
    "ledger.linked",
    "shard.linked",
    "temporaries.removed",
    "claim.released",
)
KILLS = [
    *(f"{name}:{hit}" for name in _EVERY_SHARD for hit in (1, 2, 5)),
    "run.committed:1",
    "readout.committed:1",
    *(f"index.written:{hit}" for hit in (1, 2, 5)),
    *(f"index.replaced:{hit}" for hit in (1, 2, 4)),
    "summary.replaced:1",
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, str]]:
    """Recipe, shards, and the tree of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    pattern = make_shards(folder / "in", SHARDS)
    recipe = write_recipe(folder)
    assert main(["run", str(recipe), "--shards", pattern, "-o", str(folder / "out")]) == 0
    return recipe, pattern, tree(folder / "out")


def test_every_failpoint_is_killed_at() -> None:
    """The kills below leave out no step of a commit."""
    assert {kill.split(":")[0] for kill in KILLS} == set(failpoints.NAMES)
    assert len(KILLS) >= 30


@pytest.mark.parametrize("kill", KILLS)
def test_kill_and_run_again(kill: str, undisturbed: tuple[Path, str, dict[str, str]], tmp_path: Path) -> None:
    """A run that is killed anywhere and run again gives the undisturbed tree, and rewrites nothing committed."""
    recipe, pattern, expected = undisturbed
    arguments = ["run", str(recipe), "--shards", pattern, "-o", str(tmp_path / "out")]
    code, _, err = finished(start(*arguments, WDSFILTER_FAILPOINT=kill))
    assert code == -signal.SIGKILL, err
    before = committed(tmp_path / "out")
    assert {name: sha for name, (_, _, sha) in before.items()}.items() <= expected.items()
    assert all(
        (tmp_path / "out/wdsfilter/ledger" / f"{shard.stem}.parquet").exists()
        for shard in (tmp_path / "out").glob("*.tar")
    ), "no shard is visible before its ledger"
    assert main(arguments) == 0
    assert tree(tmp_path / "out") == expected
    assert list((tmp_path / "out/wdsfilter/tmp").iterdir()) == []
    after = committed(tmp_path / "out")
    assert {name: after[name] for name in before} == before


def test_a_stopped_twin_wakes_up(undisturbed: tuple[Path, str, dict[str, str]], tmp_path: Path) -> None:
    """A process that sleeps on a claim while another finishes its shard changes nothing when it wakes up."""
    recipe, pattern, expected = undisturbed
    arguments = ["run", str(recipe), "--shards", pattern, "-o", str(tmp_path / "out")]
    sleeper = start(*arguments, WDSFILTER_FAILPOINT="ledger.written:2", WDSFILTER_FAILPOINT_ACTION="stop")
    try:
        _wait_until_stopped(sleeper.pid)
        assert main(arguments) == 0
        assert tree(tmp_path / "out") == expected
        before = committed(tmp_path / "out")
    finally:
        sleeper.send_signal(signal.SIGCONT)
    code, _, err = finished(sleeper)
    assert code == 0, err
    assert committed(tmp_path / "out") == before
    assert tree(tmp_path / "out") == expected


def _wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "the sleeper never came to its failpoint"
        time.sleep(0.05)
