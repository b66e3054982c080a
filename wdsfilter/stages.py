"""The stages that a sample comes past: read, judge after judge; committing.py has the last one.

Each takes an iterator of items and gives one, in the same order; none knows about ranks, claims or
the launcher. Shards follow one another without a gap: while one's last batch is judged, the next
one is being read. Batches never cross a shard's border, so that a sample's neighbours, and with
them the last bits of its scores, depend on its shard alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from wdsfilter import scores, storage
from wdsfilter.decide import decide_one
from wdsfilter.errors import ReadError
from wdsfilter.ledger import Row
from wdsfilter.recipe import JudgeSpec, Recipe
from wdsfilter.samples import KEPT, Damage, Decision, Numbers, Pair, Prepared, Sample, Unreadable
from wdsfilter.scorer import Scorer
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import Shard
from wdsfilter.stopwatch import Stopwatch
from wdsfilter.streams import Stat
from wdsfilter.workers import Workers


@dataclass(frozen=True, slots=True)
class ShardBegins:
    """What comes next belongs to this shard."""

    shard: Shard


@dataclass(frozen=True, slots=True)
class ShardEnds:
    """All of a shard was read (then ``source`` is known), or it could not be: ``error``."""

    shard: Shard
    source: Stat | None = None
    damage: Damage | None = None
    error: ReadError | None = None


@dataclass(slots=True)
class Case:
    """A sample on its way: its ledger row as far as it is known, and its decision once there is one.

    ``standing`` is what becomes of it where there is none in the end. Where that is not to be kept, judges that
    have numbers in the row already are passed by, and the others cannot reject it any more.
    """

    row: Row
    sample: Sample | None = None
    pair: Pair | None = None
    decision: Decision | None = None
    standing: Decision = KEPT

    def settle(self, decision: Decision) -> None:
        """It is decided and will not be kept: its bytes need not wait for its neighbours."""
        self.decision = decision
        self.sample = self.pair = None

    @property
    def size(self) -> int:
        """Bytes of the sample that are held."""
        return self.sample.length if self.sample is not None else 0


Item: TypeAlias = "ShardBegins | Case | ShardEnds"


# --- reading ---------------------------------------------------------------------------------


def read_items(shards: Iterable[Shard], recipe: Recipe) -> Iterator[Item]:
    """Everything in ``shards``; a shard that cannot be read ends with its error."""
    for shard in shards:
        yield ShardBegins(shard)
        damage: Damage | None = None
        try:
            source = storage.stat(shard.url)
            with storage.open_read(shard.url, source) as raw:
                for found in read_samples(decompressed(raw), max_sample_bytes=recipe.input.max_sample):
                    if isinstance(found, Damage):
                        damage = found
                        _check_whole(shard, source, found)
                    else:
                        yield read_case(found, recipe)
        except ReadError as error:
            yield ShardEnds(shard, error=error)
        else:
            yield ShardEnds(shard, source, damage)


_ENDS = frozenset({"empty_file", "cut_in_member", "cut_in_header", "no_end_of_archive", "bad_compression"})


def _check_whole(shard: Shard, source: Stat, damage: Damage) -> None:
    """Raise ReadError where a stream of unknown length may just have been cut on the way."""
    if source.size is None and shard.url != storage.STDIN and damage.reason in _ENDS:
        raise ReadError(f"{storage.shown(shard.url)}: {damage.detail}, and its server does not tell its size")


def read_case(sample: Sample | Unreadable, recipe: Recipe) -> Case:
    """The sample at the beginning of its way: its pair and what is known without a judge, or why there is none."""
    row: Row = {"key": sample.key, "offset": sample.offset, "length": sample.length}
    if isinstance(sample, Unreadable):
        return Case(row, decision=Decision("unreadable", sample.reason, sample.detail))
    pair = recipe.pair_reader.read(sample)
    if isinstance(pair, Unreadable):
        return Case(row, decision=Decision("unreadable", pair.reason, pair.detail))
    if taken := scores.taken(sample, pair.fields, recipe.output):
        return Case(row, decision=Decision("unreadable", "score_name_taken", taken))
    for name in recipe.ledger.columns:
        row[name] = _text(pair.fields.get(name))
    row["image_sha256"] = hashlib.sha256(pair.image).hexdigest()
    row["caption_hash"] = hashlib.blake2b(pair.caption.encode(), digest_size=8).hexdigest()
    return Case(row, sample, pair)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    return json.dumps(value)


def item_size(item: Item) -> int:
    """Bytes that an item holds in memory, roughly."""
    return item.size + 1024 if isinstance(item, Case) else 64


# --- judging ---------------------------------------------------------------------------------


_PASSING = 8  # items in a window, in multiples of the judge's own, where most are decided already
_AHEAD = 64  # pairs that are prepared beyond a window
_WINDOW_BYTES = 64 << 20  # of samples in a window; fixed, for a window's end decides about neighbours


@dataclass(frozen=True, slots=True)
class _Launched:
    """A batch that the judge is at: its cases, their outcomes once they are asked for, and the items that leave
    the stage after it."""

    cases: Sequence[Case]
    outcomes: Callable[[], list[Numbers | Exception]]
    behind: list[Item] = field(default_factory=list)


@dataclass(slots=True)
class JudgeStage:
    """One judge's place in the line: prepares ahead, forms batches inside a window, scores, decides.

    A judge that works ahead is given a window's first batch before it is asked for the last one's numbers of the
    window before, whose items leave then.
    """

    spec: JudgeSpec
    scorer: Scorer
    number: int
    workers: Workers
    max_bytes: int
    check_stop: Callable[[], None]
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    _launched: deque[_Launched] = field(default_factory=deque)

    def __call__(self, items: Iterator[Item]) -> Generator[Item, None, None]:
        most = self.scorer.judge.window
        window: list[tuple[Item, Prepared | Unreadable | None]] = []
        waiting = held = 0
        preparing = self.workers.prepared(
            self.number,
            items,
            self._pair_of,
            lookahead=most + _AHEAD,
            max_bytes=self.max_bytes,
            size_of=item_size,
        )
        for item, prepared in self.stopwatch.timed(f"{self.spec.id}, preparing", preparing):
            window.append((item, prepared))
            waiting += prepared is not None
            held += item_size(item)
            full = waiting >= most or len(window) >= _PASSING * most or held >= _WINDOW_BYTES
            if full or not isinstance(item, Case):
                yield from self._judged(window)
                window, waiting, held = [], 0, 0
        yield from self._judged(window)
        yield from self._arrived(0)

    def _judged(self, window: list[tuple[Item, Prepared | Unreadable | None]]) -> Iterator[Item]:
        ready: list[tuple[Case, Prepared]] = []
        for item, prepared in window:
            if isinstance(item, Case) and isinstance(prepared, Unreadable):
                item.settle(Decision("unreadable", prepared.reason, prepared.detail))
            elif isinstance(item, Case) and isinstance(prepared, Prepared):
                if prepared.phash is not None:
                    item.row["phash"] = prepared.phash
                ready.append((item, prepared))
        costs = [prepared.cost for _, prepared in ready]
        for batch in batches(costs, self.scorer.judge.batch_cost):
            self.check_stop()
            outcomes = self.scorer.launch([ready[i][1].value for i in batch])
            self._launched.append(_Launched([ready[i][0] for i in batch], outcomes))
            yield from self._arrived(self.scorer.ahead)
        items = [item for item, _ in window]
        if self._launched:
            self._launched[-1].behind.extend(items)
        else:
            yield from self._leave(items)

    def _arrived(self, most: int) -> Iterator[Item]:
        """Settle batches, the first ones first, until the judge is at ``most``; what waited for them leaves."""
        while len(self._launched) > most:
            launched = self._launched.popleft()
            for case, outcome in zip(launched.cases, launched.outcomes(), strict=True):
                self._settle(case, outcome)
            yield from self._leave(launched.behind)

    def _leave(self, items: Sequence[Item]) -> Iterator[Item]:
        if any(isinstance(item, ShardEnds) for item in items):
            self.scorer.shard_ends()  # before anybody downstream commits it
        yield from items

    def _settle(self, case: Case, outcome: Numbers | Exception) -> None:
        if isinstance(outcome, Exception):
            detail = f"{type(outcome).__name__}: {outcome}"[:200]
            case.settle(Decision("unreadable", f"{self.spec.id}.failed", detail))
            return
        decision = decide_one(self.spec, outcome)
        if decision is None or decision.status != "unreadable":
            case.row[self.spec.id] = dict(outcome)
        if decision is not None and (case.standing is KEPT or decision.status == "unreadable"):
            case.settle(decision)

    def _pair_of(self, item: Item) -> Pair | None:
        if not isinstance(item, Case) or item.decision is not None or item.row.get(self.spec.id) is not None:
            return None
        return item.pair


def batches(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Positions grouped into batches whose costs sum to ``budget`` at most, cheapest first, each to about as much.

    Like costs come together, so that padding or packing wastes little; equal batches, so that each lasts long enough
    for the next one to be made meanwhile. A pair that alone costs more is a batch of its own.
    """
    total = sum(costs)
    share = total / max(1, math.ceil(total / budget))
    found: list[list[int]] = []
    filled = 0
    for position in sorted(range(len(costs)), key=lambda i: (costs[i], i)):
        cost = costs[position]
        if not found or filled + cost > budget or filled + cost / 2 > share:
            found.append([])
            filled = 0
        found[-1].append(position)
        filled += cost
    return found
