"""No process waits for another, and neither rank nor world size leaves a trace (promises 4, 5 and 6)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runs import environment, finished, make_shards, sleepless, start, tree, write_recipe
from wdsfilter import status
from wdsfilter.cli import main
from wdsfilter.errors import UserError
from wdsfilter.events import read_events
from wdsfilter.launch import Place, place
from wdsfilter.output import OutputFolder

SLOW = """
judges:
  - rules: {min_words: 2}
  - scripted: {seed: 7, at_least: 5, seconds_per_pair: 0.02}
guard: off
run: {stale_after: 2}
"""


def launch(*arguments: str | Path, ranks: int = 2) -> subprocess.Popen[str]:
    """``accelerate launch -m wdsfilter ARGUMENTS`` on the CPU, really on ``ranks`` ranks, in its own session."""
    flags = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(ranks), "--main_process_port", "0"]
    return subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m", "wdsfilter", *map(str, arguments)],
        env=environment(ACCELERATE_USE_CPU="true", PYTHONWARNINGS="ignore"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ranks_of(output: Path, pids: Sequence[int] = ()) -> set[tuple[int, int]]:
    """(rank, world size) of every process that took part, or of ``pids``."""
    events = [e for e in read_events(output / "wdsfilter" / "events") if e["event"] == "started"]
    places = [e["place"] for e in events if not pids or _pid(e) in pids]
    return {(where["rank"], where["world_size"]) for where in places}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, str]]:
    """Recipe, shards, and the tree that one process makes of them."""
    folder = tmp_path_factory.mktemp("single")
    pattern = make_shards(folder / "in", 8, 20)
    recipe = write_recipe(folder, SLOW)
    with sleepless():
        assert main(["run", str(recipe), "--shards", pattern, "-o", str(folder / "out")]) == 0
    return recipe, pattern, tree(folder / "out")


def test_two_ranks_give_the_bytes_of_one(single: tuple[Path, str, dict[str, str]], tmp_path: Path) -> None:
    """accelerate launch on two ranks, world size asserted, writes what one process writes, and both work."""
    recipe, pattern, expected = single
    code, out, err = finished(launch("run", recipe, "--shards", pattern, "-o", tmp_path / "out"))
    assert code == 0, err
    assert ranks_of(tmp_path / "out") == {(0, 2), (1, 2)}
    assert tree(tmp_path / "out") == expected
    workers = {
        e["process"] for e in read_events(tmp_path / "out/wdsfilter/events") if e["event"] == "committed"
    }
    assert len(workers) == 2
    assert out.count("160") == 1, "the summary is told once"


def test_a_damaged_shard_does_not_stop_a_launch(tmp_path: Path) -> None:
    """Under a launcher ranks exit 0 over damage, so that none stops the others; `status` has the run's code."""
    pattern = make_shards(tmp_path / "in", 4)
    cut = tmp_path / "in/s-0002.tar"
    cut.write_bytes(cut.read_bytes()[:20000])
    recipe = write_recipe(tmp_path)
    code, _, err = finished(launch("run", recipe, "--shards", pattern, "-o", tmp_path / "out"))
    assert code == 0, err
    assert ranks_of(tmp_path / "out") == {(0, 2), (1, 2)}
    assert main(["status", str(tmp_path / "out")]) == 3


_TURNS = [(1, "all"), (2, "launcher"), (3, "rank")]


def _turns(seed: int) -> list[tuple[int, str]]:
    chance = random.Random(seed)
    return [(chance.choice([1, 2, 3]), chance.choice(["rank", "launcher", "all"])) for _ in range(6)]


@pytest.mark.parametrize(
    "turns",
    [
        pytest.param(_TURNS, id="each"),
        *(pytest.param(_turns(n), id=f"seed{n}", marks=pytest.mark.nightly) for n in range(5)),
    ],
)
def test_killed_in_turn(turns: list[tuple[int, str]], tmp_path: Path) -> None:
    """1, 2, 3 processes in turn on one folder; a rank, the launcher or all killed: the same tree, and no orphan."""
    pattern, output = make_shards(tmp_path / "in", 6 + 2 * len(turns), 40), tmp_path / "out"
    arguments = ["run", str(write_recipe(tmp_path, SLOW)), "--shards", pattern, "-o"]
    chance, known = random.Random(len(turns)), set[int]()
    for number, (ranks, victim) in enumerate(turns):
        alone = ranks == 1
        launcher = start(*arguments, output) if alone else launch(*arguments, output, ranks=ranks)
        pids = _wait_for_ranks(output, ranks, known)
        assert {size for _, size in ranks_of(output, pids)} == {ranks}, "the world size that was asked for"
        time.sleep(chance.uniform(0, 0.5))
        targets = {"rank": [chance.choice(pids)], "launcher": [launcher.pid], "all": [launcher.pid, *pids]}[
            victim
        ]
        for pid in set(targets):
            os.kill(pid, signal.SIGKILL)
        launcher.communicate(timeout=60)
        _wait_until_gone(pids)
        assert main(["status", str(output)]) == 75, f"turn {number} left nothing for the next"
        known.update(pids)
    with sleepless():
        assert main([*arguments, str(output)]) == 0
        assert main([*arguments, str(tmp_path / "alone")]) == 0
    assert tree(output) == tree(tmp_path / "alone")


def test_sigterm_stops_a_launch(single: tuple[Path, str, dict[str, str]], tmp_path: Path) -> None:
    """A launcher that is told to end takes its ranks with it, `status` says unfinished, and the next run goes on."""
    recipe, pattern, expected = single
    arguments = ["run", str(recipe), "--shards", pattern, "-o", str(tmp_path / "out")]
    launcher = launch(*arguments)
    pids = _wait_for_ranks(tmp_path / "out", 2, set())
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=60)
    _wait_until_gone(pids)
    assert main(["status", str(tmp_path / "out")]) == 75
    with sleepless():
        assert main(arguments) == 0
    assert tree(tmp_path / "out") == expected


def _wait_until_gone(pids: Sequence[int]) -> None:
    deadline = time.monotonic() + 30
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a rank outlived its launcher"
        time.sleep(0.1)


def _wait_for_ranks(output: Path, ranks: int, known: Set[int]) -> list[int]:
    """Process numbers of the ranks that are not ``known``, once each of them is at work."""
    deadline = time.monotonic() + 120
    while True:
        events = list(read_events(output / "wdsfilter" / "events")) if output.exists() else []
        pids = {_pid(event) for event in events if event["event"] == "loaded"} - known
        if len(pids) == ranks:
            return sorted(pids)
        assert time.monotonic() < deadline, "the ranks never started"
        time.sleep(0.05)


def _pid(event: Mapping[str, Any]) -> int:
    return int(event["process"].rpartition(".")[2])


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_place_is_read_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank and world size come from the launcher's environment, or Slurm's, and are 0 of 1 without one."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    assert place() == Place()
    for name, value in {"SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "16"}.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(9, 1, 16, 1, launched=False)
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(5, 1, 8, 4, launched=True)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UserError, match="RANK"):
        place()


def test_who_ended_between_two_looks_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that others held when the folder was looked at, and have released by now, is no unfinished one."""
    arguments = ["run", str(write_recipe(tmp_path)), "--shards", make_shards(tmp_path / "in", 2)]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    real, looks = status.read_status, [0]

    def early(folder: OutputFolder) -> status.Status:
        looks[0] += 1
        found = real(folder)
        return replace(found, left=["s-0001.tar"], code=75) if looks[0] == 1 else found

    monkeypatch.setattr(status, "read_status", early)
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert looks == [2]
