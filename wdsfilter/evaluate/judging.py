"""Labelled shards -> what a judge says of every pair, by the stages that a run uses."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

from wdsfilter import storage
from wdsfilter.errors import JudgeError
from wdsfilter.evaluate.labels import Label, Labels
from wdsfilter.judges import Judge, Runtime
from wdsfilter.panel import Panel
from wdsfilter.recipe import JudgeSpec, Recipe
from wdsfilter.samples import Damage, Decision, Unreadable
from wdsfilter.shards.source import Shard
from wdsfilter.stages import Case, Item, ShardEnds, batches, read_items
from wdsfilter.workers import default_count


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair, its label, and what the judge says: ``grade`` (None: its answer names none), ``expected``
    score, probabilities ``p`` of its grades in ascending order; None where it does not measure them."""

    shard: str
    key: str
    label: Label
    grade: int | None
    expected: float | None = None
    p: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Damaged:
    """A shard that ended before its archive did."""

    shard: str
    damage: Damage


Found: TypeAlias = "Judged | Unreadable | Damaged"


@runtime_checkable
class Graded(Protocol):
    """A judge that knows its scale: what an answer writes -> its number, in ascending order."""

    @property
    def grades(self) -> Mapping[str, int]: ...


@runtime_checkable
class Generating(Protocol):
    """A judge that can both read its grade after a forced start and write a whole answer."""

    def expect(self, batch: Sequence[Any]) -> Sequence[Mapping[str, Any]]: ...

    def generate(self, batch: Sequence[Any]) -> Sequence[str]: ...

    def grade(self, answer: str) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the first ``pairs``: generated answers that name a grade, that name the forced readout's grade,
    and the mean distance of the two where both name one."""

    pairs: int
    naming_a_grade: int
    agreeing: int
    distance: float | None


@dataclass(frozen=True, slots=True)
class Bench:
    """A loaded judge, the only one of its panel, at work on labelled pairs.

    ``labels`` say what a pair is worth; ``remarks`` of the judge are for whoever starts it.
    """

    panel: Panel
    labels: Labels
    remarks: Sequence[str] = ()

    @property
    def recipe(self) -> Recipe:
        return self.panel.recipe

    @property
    def spec(self) -> JudgeSpec:
        return self.recipe.judges[0]

    @property
    def judge(self) -> Judge:
        return self.panel.judges[0]

    @property
    def grades(self) -> tuple[int, ...] | None:
        """The judge's scale, ascending; None where it does not tell."""
        return tuple(self.judge.grades.values()) if isinstance(self.judge, Graded) else None

    def judged(self, shards: Iterable[Shard]) -> Generator[Found, None, None]:
        """Every labelled sample of ``shards`` in stored order: judged, or why it could not be.

        Raises InputError where the labels do, ReadError, JudgeError.
        """
        labels: deque[tuple[str, Label | None]] = deque()
        with closing(self.panel.judged(self._labelled(shards, labels))) as items:
            for item in items:
                if isinstance(item, Case):
                    yield self._found(item, *labels.popleft())
                elif isinstance(item, ShardEnds) and item.damage is not None:
                    yield Damaged(storage.shown(item.shard.url), item.damage)

    def agreement(self, shards: Iterable[Shard], first: int) -> Agreement | None:
        """Whether the forced readout is what the judge would have answered, on the ``first`` pairs that
        can be prepared; None for a judge that cannot do both."""
        judge = self.judge
        if not isinstance(judge, Generating) or not first:
            return None
        pairs = (item.pair for item in self._read(shards) if isinstance(item, Case) and item.pair)
        ready = self.panel.ready(0, pairs, first)
        generated: list[int | None] = [None] * len(ready)
        forced: list[int | None] = [None] * len(ready)
        for batch in batches([p.cost for p in ready], self.judge.batch_cost):
            values = [ready[i].value for i in batch]
            answers, numbers = judge.generate(values), judge.expect(values)
            for i, answer, measured in zip(batch, answers, numbers, strict=True):
                generated[i], forced[i] = judge.grade(answer), measured["grade"]
        both = [(a, b) for a, b in zip(generated, forced, strict=True) if a is not None and b is not None]
        return Agreement(
            pairs=len(ready),
            naming_a_grade=sum(grade is not None for grade in generated),
            agreeing=sum(a == b for a, b in both),
            distance=sum(abs(a - b) for a, b in both) / len(both) if both else None,
        )

    def _read(self, shards: Iterable[Shard]) -> Iterator[Item]:
        """As a run reads; a shard that cannot be read raises its error."""
        for item in read_items(shards, self.recipe):
            if isinstance(item, ShardEnds) and item.error is not None:
                raise item.error
            yield item

    def _labelled(
        self, shards: Iterable[Shard], labels: deque[tuple[str, Label | None]]
    ) -> Generator[Item, None, None]:
        shard: Shard | None = None
        for item in self._read(shards):
            if not isinstance(item, Case):
                shard = item.shard
            elif shard is not None:
                needed, pair = self.labels.needs_fields, item.pair
                if needed and pair and item.sample and not pair.fields and item.sample.first(("json",)):
                    item.settle(Decision("unreadable", "no_fields", "its .json cannot be read, or is empty"))
                label = None
                if item.pair or not needed:
                    label = self.labels.find(item.pair.fields if item.pair else {}, shard, item.row["key"])
                if label is None and not needed:
                    continue
                labels.append((storage.shown(shard.url), label))
            yield item

    def _found(self, case: Case, shard: str, label: Label | None) -> Judged | Unreadable:
        numbers = case.row.get(self.spec.id)
        if numbers is None or label is None:
            assert case.decision is not None, "a pair that was not judged has a reason"
            return Unreadable(case.row["key"], case.decision.reason, case.decision.detail)
        p = numbers.get("p")
        return Judged(
            shard,
            case.row["key"],
            label,
            numbers["grade"],
            numbers.get("score"),
            None if p is None else tuple(p),
        )


@contextmanager
def bench(recipe: Recipe, spec: JudgeSpec, labels: Labels) -> Iterator[Bench]:
    """Load the judge, on the recipe's device and with its workers. Raises JudgeError, MissingExtra."""
    options, remarks = spec.module.resolve(spec.options)
    # nothing is written, so that pairs which were filtered before are as good as others
    output = recipe.output.model_copy(update={"scores": "none"})
    recipe = replace(recipe, judges=(replace(spec, options=options),), output=output)
    count = default_count(1) if recipe.run.workers is None else recipe.run.workers
    with Panel(recipe, Runtime(recipe.run.device), worker_count=count) as panel:
        yield Bench(panel, labels, remarks)


def pick_judge(recipe: Recipe, wanted: str | None) -> JudgeSpec:
    """The recipe's judge with the id ``wanted``, or its only one that grades. Raises JudgeError."""
    grading = {spec.id: spec for spec in recipe.judges if "grade" in spec.module.fields(spec.options)}
    if wanted is not None and wanted not in recipe.judge_ids:
        raise JudgeError(f"this recipe has no judge {wanted!r}, only {', '.join(recipe.judge_ids)}")
    if wanted is not None and wanted not in grading:
        raise JudgeError(f"judge {wanted!r} measures no grade, there is nothing to compare with labels")
    if wanted is None and len(grading) != 1:
        listed = ", ".join(grading) or "none"
        raise JudgeError(f"name one of the recipe's judges that grade with --id: {listed}")
    return grading[wanted] if wanted is not None else next(iter(grading.values()))
