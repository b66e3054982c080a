"""Kill anything, run again, get the same tree (promise 4); nothing half-done is visible (promise 3)."""

from __future__ import annotations

import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forks import Watch, fork, judged_by, wait_until_stopped, wake
from tests.runs import committed, make_shards, tree, write_recipe
from wdsfilter import failpoints
from wdsfilter.cli import main

SHARDS = 14  # one of which keeps nothing
HITS = (1, 2, 3, 7, 13)  # all others at night
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
_EVERY_END = ("replacement.written", "index.replaced", "summary.replaced")


@dataclass(frozen=True)
class Run:
    """A recipe, its shards, and the tree of a run that nobody disturbed."""

    folder: Path
    pattern: str
    expected: dict[str, str]

    def arguments(self, output: Path) -> list[str]:
        return ["run", str(self.folder / "recipe.yaml"), "--shards", self.pattern, "-o", str(output)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed")
    run = Run(folder, make_shards(folder / "in", SHARDS, 5), {})
    write_recipe(folder)
    assert main(run.arguments(folder / "out")) == 0
    assert len(list((folder / "out").glob("*.tar"))) == SHARDS - 1, "so many can be linked"
    return Run(folder, run.pattern, tree(folder / "out"))


def kill_and_run_again(run: Run, output: Path, kill: str, *, grow: bool = False) -> None:
    """A run that is killed at ``kill``, and one that goes on, both watched. ``grow``: shard by shard."""
    watch = Watch(output, run.expected)
    arguments = run.arguments(output)
    more, times = (["--limit-shards", "{}"], SHARDS) if grow else ([], 1)
    killed = fork(
        *arguments, *more, log=output.with_name("killed.log"), times=times, WDSFILTER_FAILPOINT=kill
    )
    assert watch.until(killed) == -signal.SIGKILL, (output.with_name("killed.log")).read_text()
    assert all(
        (output / "wdsfilter/ledger" / f"{shard.stem}.parquet").exists() for shard in output.glob("*.tar")
    ), "no shard is visible before its ledger"
    resumed = fork(*arguments, log=output.with_name("resumed.log"))
    assert watch.until(resumed) == 0, (output.with_name("resumed.log")).read_text()
    assert tree(output) == run.expected
    assert list((output / "wdsfilter/tmp").iterdir()) == []


@pytest.mark.parametrize("hit", HITS)
@pytest.mark.parametrize("name", ["file.written", *_EVERY_SHARD])
def test_killed_while_it_commits(name: str, hit: int, undisturbed: Run, ram_path: Path) -> None:
    """Killed at any step of a shard's commit, the next run completes the same tree, and touches nothing committed."""
    kill_and_run_again(undisturbed, ram_path / "out", f"{name}:{hit}")


@pytest.mark.parametrize("hit", HITS)
@pytest.mark.parametrize("name", _EVERY_END)
def test_killed_while_it_finishes(name: str, hit: int, undisturbed: Run, ram_path: Path) -> None:
    """Killed while indexes and summary are renewed, as a run grows shard by shard, the next one makes them whole."""
    kill_and_run_again(undisturbed, ram_path / "out", f"{name}:{hit}", grow=True)


@pytest.mark.parametrize("name", ["run.committed", "readout.committed"])
def test_killed_while_it_opens(name: str, undisturbed: Run, ram_path: Path) -> None:
    """Killed between the files that make a folder a run's, which come once, the next run goes on."""
    kill_and_run_again(undisturbed, ram_path / "out", name)


@pytest.mark.parametrize("hit", HITS)
@pytest.mark.parametrize("name", ["shard.rebuilt", "shard.linked"])
def test_killed_while_it_rebuilds(name: str, hit: int, undisturbed: Run, ram_path: Path) -> None:
    """Killed while shards are made of ledgers that have none, the next run makes the rest."""
    shutil.copytree(undisturbed.folder / "out", ram_path / "out")
    for shard in (ram_path / "out").glob("*.tar"):
        shard.unlink()
    kill_and_run_again(undisturbed, ram_path / "out", f"{name}:{hit}")


@pytest.mark.nightly
@pytest.mark.parametrize("hit", set(range(1, SHARDS)) - set(HITS))
@pytest.mark.parametrize("name", ["file.written", *_EVERY_SHARD, *_EVERY_END])
def test_killed_at_every_hit(name: str, hit: int, undisturbed: Run, ram_path: Path) -> None:
    """Every step of a commit, every time that a run comes past it."""
    kill_and_run_again(undisturbed, ram_path / "out", f"{name}:{hit}", grow=name in _EVERY_END)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 40))]
)
def test_killed_at_any_moment(seed: int, undisturbed: Run, ram_path: Path) -> None:
    """Killed again and again at moments that no failpoint names, one run in the end has the same tree."""
    chance, longest, kills = random.Random(seed), 0.8, 0
    while not kills:  # a machine may be so fast that a whole run fits in
        longest /= 2
        output = ram_path / f"out-{longest}"
        watch = Watch(output, undisturbed.expected)
        while True:
            process = fork(*undisturbed.arguments(output), log=ram_path / "log")
            time.sleep(chance.uniform(0.02, longest) * (1.2**kills))
            process.kill()
            if watch.until(process) == 0:
                break
            kills += 1
    assert tree(output) == undisturbed.expected


def test_every_failpoint_is_killed_at() -> None:
    """A failpoint that no test names is one that nobody tried."""
    tried = {
        "file.written",
        *_EVERY_SHARD,
        *_EVERY_END,
        "run.committed",
        "readout.committed",
        "shard.rebuilt",
    }
    assert tried == set(failpoints.NAMES)


@pytest.mark.parametrize(
    "other_scores",
    [pytest.param(False, marks=pytest.mark.nightly, id="same-scores"), pytest.param(True, id="other-scores")],
)
@pytest.mark.parametrize(
    "place",
    [
        "claim.taken",
        pytest.param("shard.begun", marks=pytest.mark.nightly),
        "shard.written",
        pytest.param("ledger.written", marks=pytest.mark.nightly),
        "ledger.linked",
        pytest.param("shard.linked", marks=pytest.mark.nightly),
    ],
)
def test_a_stopped_twin_wakes_up(place: str, other_scores: bool, undisturbed: Run, ram_path: Path) -> None:
    """Who sleeps on a claim while another finishes its shard changes nothing on waking, whatever its scores are."""
    output = ram_path / "out"
    watch = Watch(output, None if other_scores else undisturbed.expected)
    sleeper = fork(
        *undisturbed.arguments(output),
        log=ram_path / "sleeper.log",
        set_scores=other_scores,
        WDSFILTER_FAILPOINT=f"{place}:3",
        WDSFILTER_FAILPOINT_ACTION="stop",
    )
    try:
        wait_until_stopped(sleeper)
        other = fork(
            *undisturbed.arguments(output), "--set", "run.stale_after=0.8", log=ram_path / "other.log"
        )
        assert watch.until(other) == 0, (ram_path / "other.log").read_text()
        before, whole = committed(output), tree(output)
        assert len(whole) == len(undisturbed.expected) or other_scores
    finally:
        wake(sleeper)
    assert watch.until(sleeper) == 0, (ram_path / "sleeper.log").read_text()
    assert committed(output) == before
    assert tree(output) == whole
    assert whole == undisturbed.expected or other_scores
    if place.startswith(("ledger.linked", "shard.linked")):
        assert (whole != undisturbed.expected) == other_scores, "the sleeper's ledger was the first"
    assert main(["verify", str(output), "--shards", undisturbed.pattern]) == 0


def test_launches_share_the_work(tmp_path: Path, ram_path: Path) -> None:
    """Three independent launches on one folder each judge a part of it, no shard twice, and give the tree of one."""
    run = Run(
        tmp_path, make_shards(tmp_path / "in", 9, 70), {}
    )  # enough for all, however far each reads ahead
    write_recipe(tmp_path)
    assert main(run.arguments(ram_path / "alone")) == 0
    output = ram_path / "out"
    slow = ["--set", "judges.scripted.seconds_per_pair=0.02"]
    launches = [fork(*run.arguments(output), *slow, log=ram_path / f"{number}.log") for number in range(3)]
    watch = Watch(output, None)
    assert [watch.until(launch) for launch in launches] == [0, 0, 0]
    done = judged_by(output)
    assert sorted(name for names in done.values() for name in names) == [f"s-{i:04d}.tar" for i in range(9)]
    assert all(done.values())
    shards = {name: sha for name, sha in tree(output).items() if name.endswith(".tar")}
    assert shards == {name: sha for name, sha in tree(ram_path / "alone").items() if name.endswith(".tar")}
