"""Limits of time and of device memory: a run ends after the batch in hand, and gets by with less memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.runs import make_shards, tree, write_recipe
from wdsfilter.cli import main
from wdsfilter.events import read_events
from wdsfilter.judges import Runtime, scripted
from wdsfilter.samples import Numbers, Pair, Prepared
from wdsfilter.scorer import Scorer

RECIPE = "judges: [scripted: {seed: 7, at_least: 5}]\nguard: off\n"


@dataclass
class Watched:
    """The scripted judge with small batches; ``on_batch`` is told of each before it is scored."""

    real: scripted.ScriptedJudge
    on_batch: Callable[[Sequence[Any]], None]
    window: int = 8
    batch_cost: int = 4
    inline: bool = True

    def prepare(self, pair: Pair) -> Prepared:
        return self.real.prepare(pair)

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        self.on_batch(batch)
        return self.real.score(batch)

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


def watch_batches(patch: pytest.MonkeyPatch, on_batch: Callable[[Sequence[Any]], None]) -> None:
    def load(options: scripted.Options, runtime: Runtime) -> Watched:
        return Watched(scripted.ScriptedJudge(options), on_batch)

    patch.setattr(scripted, "load", load)


@pytest.fixture
def arguments(tmp_path: Path, ram_path: Path) -> list[str]:
    """A run of three shards of 20 samples."""
    pattern = make_shards(tmp_path / "in", 3, 20)
    return ["run", str(write_recipe(tmp_path, RECIPE)), "--shards", pattern, "-o", str(ram_path / "out")]


@pytest.mark.parametrize("at", [1, 2, 6, 11])
def test_sigterm_ends_after_the_batch_in_hand(
    at: int, arguments: list[str], monkeypatch: pytest.MonkeyPatch, ram_path: Path
) -> None:
    """The batch that SIGTERM comes into is finished, no other one begins, and the code asks for another run."""
    batches: list[int] = []

    def on_batch(batch: Sequence[Any]) -> None:
        batches.append(len(batch))
        if len(batches) == at:
            os.kill(os.getpid(), signal.SIGTERM)

    watch_batches(monkeypatch, on_batch)
    assert main(arguments) == 75
    assert len(batches) == at
    assert main(["status", str(ram_path / "out")]) == 75
    assert list((ram_path / "out/wdsfilter/tmp").iterdir()) == []
    assert list((ram_path / "out/wdsfilter/claims").iterdir()) == [], "nobody has to wait for it"
    assert main(arguments) == 0
    assert main(["verify", str(ram_path / "out"), "--shards", arguments[3]]) == 0


@dataclass
class Device:
    """Memory that can be used up; what is taken is free again when nobody holds it any more."""

    size: int
    used: int = 0
    failures: int = 0

    def take(self, size: int) -> Taken:
        if self.used + size > self.size:
            self.failures += 1
            import torch

            raise torch.OutOfMemoryError(f"tried to allocate {size} of {self.size - self.used}")
        return Taken(self, size)


@dataclass
class Taken:
    device: Device
    size: int

    def __post_init__(self) -> None:
        self.device.used += self.size

    def __del__(self) -> None:
        self.device.used -= self.size


@dataclass
class Hungry:
    """A judge that needs two parts of its device's memory for each pair, one after the other."""

    device: Device
    window: int = 64
    batch_cost: int = 64
    inline: bool = True
    sizes: list[int] = field(default_factory=list)

    def prepare(self, pair: Pair) -> Prepared:
        return Prepared(pair)

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        activations = self.device.take(len(batch))
        logits = self.device.take(len(batch))
        self.sizes.append(len(batch))
        assert activations.size == logits.size
        return [{"grade": value} for value in batch]

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


def test_what_filled_the_memory_is_let_go_before_its_halves_are_tried() -> None:
    """A failure holds nothing of its batch: with room for 8 pairs, 32 are scored in four batches, not one by one."""
    noted: list[dict[str, Any]] = []
    judge = Hungry(Device(16))
    scorer = Scorer("hungry", judge, lambda name, **facts: noted.append({"event": name, **facts}))
    assert scorer.score(range(32)) == [{"grade": value} for value in range(32)]
    assert judge.sizes == [8, 8, 8, 8]
    assert [note["pairs"] for note in noted] == [32, 16, 16]
    assert judge.device.used == 0


def test_out_of_memory_on_the_device_halves_is_recorded_and_goes_on(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, ram_path: Path
) -> None:
    """A device with room for one pair gives the tree of one with room for all; the events tell of every halving."""
    assert main(arguments) == 0
    expected = tree(ram_path / "out")
    (ram_path / "out").rename(ram_path / "roomy")
    device = Device(1)

    def on_batch(batch: Sequence[Any]) -> None:
        device.take(len(batch))

    watch_batches(monkeypatch, on_batch)
    assert main(arguments) == 0
    assert tree(ram_path / "out") == expected
    halved = [e for e in read_events(ram_path / "out/wdsfilter/events") if e["event"] == "batch_halved"]
    assert len(halved) == device.failures == 3 * 5 * 3  # shards, batches of 4, halvings of each
    assert all("OutOfMemoryError" in event["error"] for event in halved)
