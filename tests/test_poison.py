"""Pairs that crash, hang or fail in a worker or on the device: each costs itself, whatever company it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests import prepares
from tests.shards import jpeg, write_shard
from wdsfilter import ledger
from wdsfilter.engine.readout import Reading, build_readout
from wdsfilter.judges import Prepare
from wdsfilter.pipeline import Runner, run
from wdsfilter.plan import plan
from wdsfilter.recipe import parse
from wdsfilter.samples import Numbers

POISON = {
    "crash": ("exit 3", "worker_crashed"),
    "fault": ("signal SIGSEGV", "worker_crashed"),
    "killed": ("signal SIGKILL", "worker_crashed"),
    "hang": ("sleep 1000", "worker_timed_out"),
    "raise": ("raise oh no", "prepare_failed"),
    "memory": ("a caption", "scripted.failed"),
    "broken": ("a caption", "scripted.failed"),
}


@dataclass(frozen=True)
class Fragile:
    """Its CPU half does what the caption says; its device half fails on two keys."""

    prepare: Prepare = prepares.obey
    window: int = 32
    batch_cost: int = 16
    inline: bool = False

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        if "memory" in batch:
            raise MemoryError("out of memory")
        if "broken" in batch:
            raise RuntimeError("device-side assert")
        return [{"grade": 1 + sum(key.encode()) % 10, "score": 1.0} for key in batch]

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


def judged(folder: Path, captions: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Ledger rows by key, of a run with two workers over these captions."""
    members = [
        (f"{k}.{e}", d) for k, c in captions.items() for e, d in (("jpg", jpeg()), ("txt", c.encode()))
    ]
    shard = write_shard(folder / "in/s.tar", members)
    listed = {"shards": [{"path": str(shard)}], "tolerate": {"unreadable": 1.0}}
    recipe = parse(
        {
            "input": listed,
            "judges": ["scripted"],
            "guard": False,
            "run": {"worker_timeout": 2.0, "workers": 2},
        }
    )
    with Runner(plan(recipe, folder / "out"), judges=[Fragile()], worker_count=2) as runner:
        runner.open()
        [*run(runner)]
    return {row["key"]: row for row in ledger.read_rows(folder / "out/wdsfilter/ledger/s.parquet")}


def test_poison_costs_its_own_sample(tmp_path: Path) -> None:
    """Every kind of poison becomes a row with its reason; all others have the numbers that they have without it."""
    sound = {f"s{number:02}": "a caption" for number in range(20)}
    mixed = dict(sound)
    for number, (key, (caption, _)) in enumerate(POISON.items()):
        before = list(mixed.items())
        mixed = dict([*before[: 3 * number], (key, caption), *before[3 * number :]])
    alone, among = judged(tmp_path / "alone", sound), judged(tmp_path / "among", mixed)
    assert list(among) == list(mixed)
    for key, (_, reason) in POISON.items():
        assert (among[key]["status"], among[key]["reason"]) == ("unreadable", reason), among[key]
    assert {key: among[key]["scripted"] for key in sound} == {key: alone[key]["scripted"] for key in sound}


def test_numbers_that_are_none_give_no_grade() -> None:
    """Where a model's probabilities are not numbers there is no grade, and none is made up."""
    readout = build_readout(lambda text: [ord(c) for c in text], "s:", [str(n) for n in range(1, 11)])
    log_p = np.full((len(readout.nodes), len(readout.tokens)), np.nan, np.float32)
    best = np.zeros(len(readout.nodes), np.int64)
    assert readout.read(log_p, best) == Reading(None, None, 1.0)
    one = log_p.copy()
    one[0] = -1.0  # only the second digit is broken
    assert readout.read(one, best) == Reading(None, None, 1.0)
