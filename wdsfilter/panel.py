"""A recipe's judges, loaded, and the workers that prepare pairs for them: items in, decided items out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from wdsfilter.errors import Interrupted
from wdsfilter.judges import Adjustable, Judge, Runtime
from wdsfilter.overlap import prefetched
from wdsfilter.recipe import Recipe
from wdsfilter.samples import Pair, Prepared
from wdsfilter.scorer import Note, Scorer
from wdsfilter.stages import Item, JudgeStage, item_size
from wdsfilter.stop import AtOnce, Stop
from wdsfilter.stopwatch import Stopwatch
from wdsfilter.workers import Workers

CHECKED_PAIRS = 32
"""So many of the first pairs the judges are checked on."""

_READ_AHEAD = 64  # samples, and more where a judge asks for more at a time


def ignore(name: str, **facts: Any) -> None:
    """A note that nobody reads."""


@dataclass(slots=True)
class Panel:
    """A context manager. ``recipe`` has the options that hold for its judges (``plan.resolved``);
    ``judges`` may be given where they are loaded already.

    Raises JudgeError, MissingExtra when it is entered.
    """

    recipe: Recipe
    runtime: Runtime
    stop: Stop = field(default_factory=Stop)
    note: Note = ignore
    worker_count: int = 1
    judges: Sequence[Judge] = ()
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    _scorers: list[Scorer] = field(init=False)
    _inline: Workers = field(init=False)
    _pool: Workers = field(init=False)

    def __enter__(self) -> Panel:
        self.judges = self.judges or load_judges(self.recipe, self.runtime)
        self._scorers = [
            Scorer(spec.id, judge, self.note)
            for spec, judge in zip(self.recipe.judges, self.judges, strict=True)
        ]
        prepares = [judge.prepare for judge in self.judges]
        count = 0 if all(judge.inline for judge in self.judges) else self.worker_count
        self._inline = Workers(prepares, 0)
        self._pool = Workers(prepares, count, timeout=self.recipe.run.worker_timeout)
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()
        self._inline.close()

    def check(self, first: Callable[[], Iterator[Pair]]) -> dict[str, Any]:
        """What each judge finds out about itself on the first pairs; ``first`` gives them, again each time.

        Raises JudgeError when a judge must not be trusted.
        """
        findings: dict[str, Any] = {}
        for number, (spec, judge) in enumerate(zip(self.recipe.judges, self.judges, strict=True)):
            ready = self.ready(number, first(), CHECKED_PAIRS)
            findings[spec.id] = dict(judge.check([prepared.value for prepared in ready]))
        return findings

    def adjust(self, findings: Mapping[str, Any]) -> None:
        """Take up what was found out, here or by whichever process committed its findings first."""
        self.judges = [
            judge.adjusted(findings.get(spec.id, {})) if isinstance(judge, Adjustable) else judge
            for spec, judge in zip(self.recipe.judges, self.judges, strict=True)
        ]
        for scorer, judge in zip(self._scorers, self.judges, strict=True):
            scorer.judge = judge

    def ready(self, number: int, pairs: Iterable[Pair], most: int) -> list[Prepared]:
        """The first of ``pairs``, ``most`` at most, that can be prepared for judge ``number``."""
        workers = self._workers(self.judges[number])
        with closing(workers.prepared(number, pairs, lambda pair: pair, lookahead=most)) as results:
            return list(islice((result for _, result in results if isinstance(result, Prepared)), most))

    def judged(self, items: Iterator[Item], *, local: bool = False) -> Generator[Item, None, None]:
        """The same items in the same order; every case is decided or passed all judges.

        A thread reads ahead, but for ``local`` files where all judges are inline: there nothing waits for
        anything, and two threads would only take turns.
        """
        share = self.recipe.run.in_flight // (len(self.judges) + 1)
        if local and all(judge.inline for judge in self.judges):
            reading = _as_asked_for(items, self.stop)
        else:
            most = max(_READ_AHEAD, *(judge.window for judge in self.judges))
            reading = prefetched(
                items, size_of=item_size, max_bytes=share, max_items=most, check=self.stop.check
            )
        with closing(reading):
            line = self.stopwatch.timed("reading", reading)
            for number, (spec, scorer) in enumerate(zip(self.recipe.judges, self._scorers, strict=True)):
                workers = self._workers(scorer.judge)
                stage = JudgeStage(spec, scorer, number, workers, share, self.stop.check, self.stopwatch)
                line = self.stopwatch.timed(f"{spec.id}, judging", stage(line))
            yield from line

    def _workers(self, judge: Judge) -> Workers:
        return self._inline if judge.inline else self._pool


def _as_asked_for(items: Iterator[Item], stop: Stop) -> Generator[Item, None, None]:
    """The same items, pulled in this thread; a read that hangs does not hold up a stop. Raises Interrupted."""
    try:
        while True:
            stop.reading = True
            item = next(items, None)
            stop.reading = False
            if item is None:
                return
            yield item
    except AtOnce as error:
        raise Interrupted("interrupted") from error
    finally:
        stop.reading = False


def strangers(findings: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each judge that is asked about what it knows nothing of: it gives numbers all the same.

    ``findings`` are those of :meth:`Panel.check`.
    """
    for name, found in findings.items():
        if number := found.get("strangers"):
            yield (
                f"judges.{name} answers for {found['answers_for']}. {number} of the first {found['pairs']} pairs "
                "are none of these: its scores of them mean nothing."
            )


def load_judges(recipe: Recipe, runtime: Runtime) -> list[Judge]:
    """All judges of the recipe, ready. Raises JudgeError, MissingExtra."""
    return [spec.module.load(spec.options, runtime) for spec in recipe.judges]
