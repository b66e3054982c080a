"""A recipe's kept samples as a stream: the stages of a run without its folder.

Nothing is written, so nothing can be gone on with: no ledger, no claims, no scores of what was dropped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice

from wdsfilter import scores, storage
from wdsfilter.errors import GuardTripped
from wdsfilter.guard import guard_trouble
from wdsfilter.judges import Runtime
from wdsfilter.ledger import Counting
from wdsfilter.panel import CHECKED_PAIRS, Panel, ignore
from wdsfilter.plan import no_pairs
from wdsfilter.recipe import Recipe
from wdsfilter.samples import KEPT, Member, Pair
from wdsfilter.scorer import Note
from wdsfilter.shards.source import Shard
from wdsfilter.stages import Case, Item, ShardBegins, ShardEnds, read_items
from wdsfilter.stop import Stop

_LOOKED_THROUGH = 1024  # first samples, for pairs to check judges on
_GUARD_EVERY = 256  # samples
_FIRST_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class KeptSample:
    """The members of a kept sample as they are to be written, its scores among them."""

    shard: Shard
    key: str
    members: Sequence[Member]


@dataclass(slots=True)
class KeptStream:
    """Judges what comes past. ``recipe`` has the options that hold for its judges (``plan.resolved``).

    ``counting`` knows what became of the samples so far; ``note`` is told what the judges ``checked``.
    """

    recipe: Recipe
    runtime: Runtime
    worker_count: int = 0
    stop: Stop = field(default_factory=Stop)
    note: Note = ignore
    counting: Counting = field(default_factory=Counting)

    def kept(self, shards: Iterable[Shard]) -> Generator[KeptSample | ShardEnds, None, None]:
        """Kept samples in stored order, and how each shard ended: sound, damaged, or not to be read.

        A shard that cannot be read is tried again and goes on behind the last sample that came of it.
        A sample whose key is the key of the one before it, in another shard, gets its shard's name in front:
        readers of a tar would take the two for one. Raises what :meth:`judged` does.
        """
        last = ""
        with closing(self.judged(self._read(shards))) as items:
            for item in items:
                if isinstance(item, ShardBegins):
                    shard = item.shard
                elif isinstance(item, ShardEnds):
                    yield item
                elif item.decision is None and item.sample is not None:
                    sample = item.sample
                    if sample.key == last:
                        sample = sample.under(f"{shard.name.removesuffix('.tar')}/{sample.key}")
                    last = sample.key
                    members = scores.with_scores(sample, item.row, self.recipe.judge_ids, self.recipe.output)
                    yield KeptSample(shard, sample.key, members)

    def judged(self, items: Iterator[Item]) -> Generator[Item, None, None]:
        """The same items in the same order, judged; the judges are loaded first, and checked on the first pairs.

        Raises InputError where none of the first samples is a pair, JudgeError, MissingExtra; GuardTripped
        when the shares are off.
        """
        first = list(_first(items))
        cases = [item for item in first if isinstance(item, Case)]
        pairs = [case.pair for case in cases if case.pair is not None]
        if cases and not pairs:
            decision = cases[0].decision or KEPT
            raise no_pairs(len(cases), cases[0].row["key"], decision.reason, decision.detail)
        if not first:
            return
        with Panel(self.recipe, self.runtime, self.stop, self.note, self.worker_count) as panel:
            self.note("checked", **panel.check(lambda: iter(pairs)))
            with closing(panel.judged(chain(first, items))) as judged:
                for item in judged:
                    if isinstance(item, Case):
                        decision = item.decision or KEPT
                        self.counting.add(decision.status, decision.reason)
                        if self.counting.samples % _GUARD_EVERY == 0:
                            self._ask_guard()
                    yield item
            self._ask_guard()

    def _ask_guard(self) -> None:
        if self.recipe.guard and (trouble := guard_trouble(self.recipe.guard, self.counting.counts)):
            raise GuardTripped(trouble)

    def _read(self, shards: Iterable[Shard]) -> Iterator[Item]:
        for shard in shards:
            attempts = 1 if shard.url == storage.STDIN else self.recipe.run.read_attempts
            passed = 0
            for attempt in range(attempts):
                for item in islice(read_items([shard], self.recipe), passed, None):
                    if isinstance(item, ShardEnds) and item.error is not None and attempt + 1 < attempts:
                        break
                    passed += 1
                    yield item
                else:
                    break
                self.note("read_failed", shard=shard.name, error=str(item.error))
                self.stop.pause(_FIRST_PAUSE * 4.0**attempt)


def _first(items: Iterator[Item]) -> Iterator[Item]:
    """The items up to the last pair that judges are checked on."""
    pairs = 0
    for item in islice(items, _LOOKED_THROUGH):
        yield item
        pairs += isinstance(item, Case) and isinstance(item.pair, Pair)
        if pairs == CHECKED_PAIRS:
            return
