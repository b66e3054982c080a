"""Scored pairs -> batches of examples: what is trained on when a judge is fine-tuned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

from wdsfilter.engine.prepare import Prepare, Ready
from wdsfilter.errors import InputError
from wdsfilter.samples import Prepared, Unreadable
from wdsfilter.training.answers import Answer, AnswerForm
from wdsfilter.training.scored import Pairs, ScoredPair

_THREADS = 4  # that decode images


@dataclass(frozen=True, slots=True)
class Example:
    """A pair as the judge would be asked about it, the answer to learn, and its grade as answers write it."""

    prompt: Ready
    answer: Answer
    grade: str


@dataclass(frozen=True, slots=True)
class ExampleMaker:
    """Prepares pairs by the judge's own code, in threads, and their answers by ``form``.

    A pair that cannot be read is told to ``unreadable``, each time that it is met.
    """

    prepare: Prepare
    form: AnswerForm
    unreadable: Callable[[Unreadable], None]
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, "prepare"))

    def example(self, scored: ScoredPair) -> Example | None:
        """The pair's example; None where its image or caption cannot be read. Raises JudgeError."""
        prepared = self.prepare(scored.pair)
        if not isinstance(prepared, Prepared):
            self.unreadable(prepared)
            return None
        return Example(prepared.value, self.form.answer(scored.grade, scored.justification), scored.grade)

    def examples(self, pairs: Pairs, numbers: Iterable[int]) -> Iterator[Example]:
        """Examples of the readable ones among these pairs, in order."""
        made = self._pool.map(lambda number: self.example(pairs[number]), numbers)
        return (example for example in made if example is not None)


@dataclass(frozen=True, slots=True)
class PairSource:
    """Batches of ``size`` examples: all pairs once an epoch, in an order that ``seed`` and the epoch give.

    Where a pair cannot be read the next one in the order stands in for it, so that a batch is a
    function of its number.
    """

    pairs: Pairs
    make: ExampleMaker
    size: int
    seed: int

    def batch(self, number: int) -> Sequence[Example]:
        """Batch ``number``. Raises InputError when no pair can be read."""
        places = range(number * self.size, (number + 1) * self.size)
        batch = list(self.make.examples(self.pairs, map(self._number, places)))
        following = places.stop
        while len(batch) < self.size:
            if following == places.stop + len(self.pairs):
                raise InputError(f"data: none of {len(self.pairs)} pairs can be read")
            batch += self.make.examples(self.pairs, [self._number(following)])
            following += 1
        return batch

    def _number(self, place: int) -> int:
        epoch, at = divmod(place, len(self.pairs))
        return order(len(self.pairs), self.seed, epoch)[at]


@lru_cache(maxsize=2)
def order(count: int, seed: int, epoch: int) -> Sequence[int]:
    """All of ``count`` numbers in an epoch's order, a function of ``seed`` and ``epoch`` alone."""
    return sorted(range(count), key=lambda n: hashlib.sha256(f"{seed}:{epoch}:{n}".encode()).digest())
