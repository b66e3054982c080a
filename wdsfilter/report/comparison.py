"""Two runs over the same shards, pair by pair: what each keeps, how far their scores go together, who moved.

A selection knows nothing of what it left out. Beside a run, all that the run judged and the selection does not have
is *not selected*; of two selections each has not selected what the other alone has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from wdsfilter.errors import OutputError
from wdsfilter.report.figures import Ints, Rows
from wdsfilter.report.measures import Bools, Floats, Measure, Ruler
from wdsfilter.report.opened import Opened
from wdsfilter.report.picks import foremost
from wdsfilter.report.regrouped import regrouped

_MOST_EDGES = 101
_PER_GROUP = 16

NOT_SELECTED = "not selected"
ABSENT = -1
"""In place of the row's number where a selection does not have the pair."""

Both = tuple[str, int, int]
"""A shard's name, and the number of a pair's row in the first and in the second ledger, or :data:`ABSENT`."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs. ``edges`` are the places that its threshold can stand at; a threshold that keeps what
    the recipe keeps has the number ``start``. Without a judge that grades there is one place, which means kept."""

    opened: Opened
    edges: tuple[float, ...]
    start: int

    @property
    def ruler(self) -> Ruler | None:
        return self.opened.ruler

    @property
    def finest(self) -> Measure | None:
        """The expected score, or the grade."""
        named = {measure.name: measure for measure in self.ruler.measures} if self.ruler else {}
        return named.get("score", named.get("grade"))

    def places(self, rows: Rows) -> Ints:
        """For each row [n] 0 where no threshold keeps it, else 1 + the number of the last edge that it reaches."""
        if self.ruler is None:
            return rows.kept.astype(np.int64)
        values = rows.measures[self.ruler.main.name]
        known = rows.candidates & ~np.isnan(values)
        found = np.searchsorted(self.edges, np.where(known, values, -np.inf), side="right")
        return np.where(known, found, 0)


def side(opened: Opened) -> Side:
    """A run, or a selection by the shards that it was made of. Raises OutputError."""
    if opened.is_selection:
        opened = regrouped(opened)
    if opened.ruler is None:
        return Side(opened, (0.0,), 0)
    edges, start = opened.ruler.main.edges, opened.ruler.main.start
    fewer = tuple(sorted({*edges[:: -(-len(edges) // _MOST_EDGES)], start}))
    return Side(opened, fewer, fewer.index(start))


@dataclass(slots=True)
class Comparison:
    """Counts over all pairs that are compared; ``only`` counts those that one run (or selection) alone knows of.

    ``joint`` [places of the first, places of the second] by :meth:`Side.places`; ``scores`` the same by the edges
    of each side's finest measure, without pairs that one of them did not score; ``fates`` by both reasons
    (``kept`` where it was). ``shards`` are (name, pairs, pairs with the same fate). ``groups`` are examples.
    """

    first: Side
    second: Side
    joint: Ints = field(init=False)
    scores: Ints | None = field(init=False)
    fates: Counter[tuple[str, str]] = field(default_factory=Counter)
    only: list[int] = field(default_factory=lambda: [0, 0])
    shards: list[tuple[str, int, int]] = field(default_factory=list)
    groups: dict[str, list[tuple[float, Both]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.joint = np.zeros((len(self.first.edges) + 1, len(self.second.edges) + 1), np.int64)
        ends = self.first.finest, self.second.finest
        shape = [len(measure.edges) for measure in ends if measure is not None]
        self.scores = np.zeros(shape, np.int64) if len(shape) == 2 else None

    @property
    def same_scale(self) -> bool:
        """Whether a difference of the two runs' scores means something."""
        scales = [
            (side.ruler.grades, side.finest.name) if side.ruler and side.finest else None
            for side in (self.first, self.second)
        ]
        return scales[0] is not None and scales[0] == scales[1]

    def add(self, name: str, seed: int) -> None:
        """Count the pairs of one shard."""
        sides = self.first, self.second
        columns = [_Columns.of(side, name) for side in sides]
        rows = _matched(sides, name)
        here = [column.take(numbers) for column, numbers in zip(columns, rows, strict=True)]
        a, b = here
        for number, column in enumerate(columns):
            self.only[number] += column.count - int((rows[number] != ABSENT).sum())
        np.add.at(self.joint, (a.places, b.places), 1)
        self.fates.update(zip(a.fates, b.fates, strict=True))
        self.shards.append((name, len(a.places), int((a.kept == b.kept).sum())))
        digest = np.random.default_rng([seed, *name.encode()]).random(len(a.places))
        both: list[Both] = [(name, int(x), int(y)) for x, y in zip(*rows, strict=True)]
        readable = a.readable & b.readable
        self._offer("first", both, digest, a.kept & ~b.kept)
        self._offer("second", both, digest, ~a.kept & b.kept)
        self._offer("both", both, digest, a.kept & b.kept)
        self._offer("neither", both, digest, ~a.kept & ~b.kept & readable)
        if self.scores is None:
            return
        known = ~np.isnan(a.scores) & ~np.isnan(b.scores)
        places = [
            side.finest.places(column.scores[known])  # type: ignore[union-attr]
            for side, column in zip(sides, here, strict=True)
        ]
        np.add.at(self.scores, tuple(places), 1)
        if self.same_scale:
            change = np.where(known, b.scores - a.scores, 0.0)
            self._offer("rose", both, -change + digest * 1e-7, change > 0)
            self._offer("fell", both, change + digest * 1e-7, change < 0)

    def _offer(self, group: str, both: Sequence[Both], order: Floats, chosen: Bools) -> None:
        self.groups[group] = foremost(self.groups.get(group, []), _PER_GROUP, both.__getitem__, order, chosen)


def compare(first: Opened, second: Opened, seed: int) -> Comparison:
    """Reads every shard that both know. Raises OutputError where there is none."""
    found = Comparison(side(first), side(second))
    both = [side.opened for side in (found.first, found.second)]
    known = [set(opened.headers) for opened in both]
    if not known[0] & known[1]:
        raise OutputError(
            f"{first.folder.root} and {second.folder.root} have judged no shard of the same name"
        )
    runs = [names for names, opened in zip(known, both, strict=True) if not opened.is_selection]
    compared = set.intersection(*runs) if runs else set.union(*known)
    for name in sorted(compared):
        found.add(name, seed)
    for number, opened in enumerate(both):
        alone = (h.counts.samples for name, h in opened.headers.items() if name not in compared)
        found.only[number] += sum(alone)
    if not found.joint.sum():
        raise OutputError(f"{first.folder.root} and {second.folder.root} have no pair in common")
    return found


@dataclass(frozen=True, slots=True)
class _Columns:
    """What is compared of a shard's rows [count + 1]; the last is what stands for :data:`ABSENT`."""

    places: Ints
    scores: Floats
    kept: Bools
    readable: Bools
    fates: npt.NDArray[np.object_]

    @classmethod
    def of(cls, side: Side, name: str) -> _Columns:
        batches = list(side.opened.rows_of(name)) if name in side.opened.ledgers else []
        finest = side.finest
        scores = [
            rows.measures[finest.name] if finest else np.full(len(rows.kept), np.nan) for rows in batches
        ]
        fates = [np.where(rows.kept, "kept", rows.reasons) for rows in batches]
        return cls(
            np.concatenate([*(side.places(rows) for rows in batches), np.zeros(1, np.int64)]),
            np.concatenate([*scores, np.full(1, np.nan)]),
            np.concatenate([*(rows.kept for rows in batches), np.zeros(1, bool)]),
            np.concatenate([*(rows.readable for rows in batches), np.ones(1, bool)]),
            np.concatenate([*fates, np.array([NOT_SELECTED], object)]),
        )

    @property
    def count(self) -> int:
        return len(self.places) - 1

    def take(self, rows: Ints) -> _Columns:
        return _Columns(
            self.places[rows], self.scores[rows], self.kept[rows], self.readable[rows], self.fates[rows]
        )


def _matched(sides: tuple[Side, Side], name: str) -> tuple[Ints, Ints]:
    """Numbers of the rows of the same pairs in both ledgers [n]: same key, and same offset, for keys may repeat."""
    tables = [_identities(side.opened, name) for side in sides]
    if tables[0].equals(tables[1]):
        every = np.arange(len(tables[0]))
        return every, every
    how = {
        (False, False): "inner",
        (True, False): "right outer",
        (False, True): "left outer",
        (True, True): "full outer",
    }[sides[0].opened.is_selection, sides[1].opened.is_selection]
    a, b = (
        table.append_column(side, pa.array(np.arange(len(table))))
        for side, table in zip("ab", tables, strict=True)
    )
    joined = a.join(b, ["key", "offset"], join_type=how, use_threads=False)
    first, second = (joined.column(side).fill_null(ABSENT).to_numpy().astype(np.int64) for side in "ab")
    order = np.lexsort((second, first))
    return first[order], second[order]


def _identities(opened: Opened, name: str) -> pa.Table:
    """Key and offset of each of a shard's rows."""
    if name in opened.ledgers:
        return pq.read_table(opened.ledgers[name], columns=["key", "offset"])
    return pa.table({"key": pa.array([], pa.string()), "offset": pa.array([], pa.int64())})
