"""A judge that works ahead: its device has the next batch before anybody asks for the last one's numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from wdsfilter.errors import JudgeError
from wdsfilter.recipe import parse
from wdsfilter.samples import Numbers, Pair, Prepared
from wdsfilter.scorer import Scorer
from wdsfilter.shards.source import Shard
from wdsfilter.stages import Case, Item, JudgeStage, ShardBegins, ShardEnds
from wdsfilter.workers import Workers

RECIPE = parse({"judges": ["scripted"], "guard": "off"})


@dataclass(slots=True)
class Launcher:
    """Batches of two pairs, windows of four; ``bad`` pairs fail when they are launched or when they are read."""

    ahead: int = 1
    bad: Mapping[str, str] = field(default_factory=dict)
    window: int = 4
    batch_cost: int = 2
    inline: bool = True
    events: list[str] = field(default_factory=list)

    def prepare(self, pair: Pair) -> Prepared:
        return Prepared(pair.key)

    def launch(self, batch: Sequence[str]) -> Callable[[], Sequence[Numbers]]:
        self._event("launch", batch)
        return lambda: self._read(batch)

    def _read(self, batch: Sequence[str]) -> Sequence[Numbers]:
        self._event("read", batch)
        return [{"grade": 10, "score": float(key)} for key in batch]

    def score(self, batch: Sequence[str]) -> Sequence[Numbers]:
        return self.launch(batch)()

    def _event(self, name: str, batch: Sequence[str]) -> None:
        self.events.append(f"{name} {' '.join(batch)}")
        if name in {self.bad.get(key) for key in batch}:
            raise MemoryError(name)

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


def items(*shards: int) -> Iterator[Item]:
    """Shards of so many samples, numbered through."""
    keys = map(str, itertools.count())
    for number, length in enumerate(shards):
        shard = Shard(f"{number}.tar", "")
        yield ShardBegins(shard)
        for key in itertools.islice(keys, length):
            yield Case({"key": key}, pair=Pair(key, b"", ""))
        yield ShardEnds(shard)


def judged(judge: Launcher, *shards: int, notes: list[str] | None = None) -> list[Item]:
    def note(name: str, **facts: Any) -> None:
        if notes is not None:
            notes.append(name)

    with Workers([judge.prepare], 0) as workers:
        scorer = Scorer("scripted", judge, note)
        stage = JudgeStage(RECIPE.judges[0], scorer, 0, workers, 1 << 20, lambda: None)
        return list(stage(items(*shards)))


def test_the_next_batch_is_launched_before_the_last_one_is_read() -> None:
    """Within a window, from window to window and across a shard's border the device always has a batch ahead."""
    judge = Launcher()
    judged(judge, 6, 2)
    assert judge.events == [
        *("launch 0 1", "launch 2 3", "read 0 1", "launch 4 5", "read 2 3"),
        *("launch 6 7", "read 4 5", "read 6 7"),
    ]


@pytest.mark.parametrize("shards", [(), (0,), (0, 0), (1,), (4,), (5, 0, 9), (0, 3, 3, 0)])
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_all_leaves_in_order_and_judged(shards: tuple[int, ...], ahead: int) -> None:
    """Every item once, in its place, each case with its own numbers, however far ahead the device is."""
    out = judged(Launcher(ahead), *shards)
    assert [type(item) for item in out] == [type(item) for item in items(*shards)]
    cases = [item for item in out if isinstance(item, Case)]
    assert [case.row["key"] for case in cases] == [str(number) for number in range(sum(shards))]
    assert [case.row["scripted"]["score"] for case in cases] == list(range(sum(shards)))


def test_who_works_on_the_spot_holds_nothing_back() -> None:
    """Without a batch ahead a window's items leave before the next window is judged."""
    judge = Launcher(0)
    with Workers([judge.prepare], 0) as workers:
        scorer = Scorer("scripted", judge, lambda name, **facts: None)
        for item in JudgeStage(RECIPE.judges[0], scorer, 0, workers, 1 << 20, lambda: None)(items(12)):
            if isinstance(item, Case):
                assert len(judge.events) == 4 * (1 + int(item.row["key"]) // 4)


@pytest.mark.parametrize("when", ["launch", "read"])
def test_a_batch_that_fails_is_halved_whenever_it_fails(when: str) -> None:
    """Where a pair fails at its launch, or when its numbers are read behind the next batch: it alone is blamed."""
    notes: list[str] = []
    cases = [case for case in judged(Launcher(bad={"2": when}), 6, notes=notes) if isinstance(case, Case)]
    failed = [case for case in cases if case.decision is not None]
    assert [case.row["key"] for case in failed] == ["2"]
    assert failed[0].decision is not None
    assert failed[0].decision.reason == "scripted.failed"
    assert [case.row["scripted"]["score"] for case in cases if case not in failed] == [0, 1, 3, 4, 5]
    assert notes == ["batch_halved"]


@pytest.mark.parametrize("when", ["launch", "read"])
def test_a_judge_that_only_fails_stops_before_a_shard_is_committed(when: str) -> None:
    """Its first shard does not leave the stage."""
    judge = Launcher(bad={str(number): when for number in range(9)})
    with pytest.raises(JudgeError, match="first shard"):
        judged(judge, 3)
