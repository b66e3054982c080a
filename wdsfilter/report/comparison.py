"""Two runs over the same shards, pair by pair: what each keeps, how far their scores go together, who moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from wdsfilter.errors import OutputError
from wdsfilter.report.figures import Ints, Rows
from wdsfilter.report.measures import Bools, Floats, Measure, Ruler
from wdsfilter.report.opened import Opened
from wdsfilter.report.picks import foremost

_MOST_EDGES = 101
_PER_GROUP = 16

Both = tuple[str, int, int]
"""A shard's name, and the number of a pair's row in the first and in the second ledger."""


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
    """Raises OutputError for a selection, which knows nothing of what it left out."""
    if opened.is_selection:
        raise OutputError(
            f"{opened.folder.root} is a selection; compare the runs that selections are made of"
        )
    if opened.ruler is None:
        return Side(opened, (0.0,), 0)
    edges, start = opened.ruler.main.edges, opened.ruler.main.start
    fewer = tuple(sorted({*edges[:: -(-len(edges) // _MOST_EDGES)], start}))
    return Side(opened, fewer, fewer.index(start))


@dataclass(slots=True)
class Comparison:
    """Counts over all pairs that both runs have; ``only`` counts the pairs that one of them has alone.

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
        """Count one shard that both runs have."""
        sides = self.first, self.second
        columns = [_Columns.of(side, name) for side in sides]
        rows = _matched(sides, name)
        here = [column.take(numbers) for column, numbers in zip(columns, rows, strict=True)]
        a, b = here
        for number, column in enumerate(columns):
            self.only[number] += len(column.places) - len(rows[number])
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
    """Reads every shard that both runs judged. Raises OutputError where there is none."""
    found = Comparison(side(first), side(second))
    shared = [name for name in first.headers if name in second.headers]
    if not shared:
        raise OutputError(
            f"{first.folder.root} and {second.folder.root} have judged no shard of the same name"
        )
    for name in shared:
        found.add(name, seed)
    for number, (opened, other) in enumerate(((first, second), (second, first))):
        alone = (h.counts.samples for name, h in opened.headers.items() if name not in other.headers)
        found.only[number] += sum(alone)
    if not found.joint.sum():
        raise OutputError(f"{first.folder.root} and {second.folder.root} have no pair in common")
    return found


@dataclass(frozen=True, slots=True)
class _Columns:
    """What is compared of a shard's rows [n]."""

    places: Ints
    scores: Floats
    kept: Bools
    readable: Bools
    fates: npt.NDArray[np.object_]

    @classmethod
    def of(cls, side: Side, name: str) -> _Columns:
        batches = list(side.opened.rows_of(name))
        finest = side.finest
        return cls(
            np.concatenate([side.places(rows) for rows in batches]),
            np.concatenate(
                [
                    rows.measures[finest.name] if finest else np.full(len(rows.kept), np.nan)
                    for rows in batches
                ]
            ),
            np.concatenate([rows.kept for rows in batches]),
            np.concatenate([rows.readable for rows in batches]),
            np.concatenate([np.where(rows.kept, "kept", rows.reasons) for rows in batches]),
        )

    def take(self, rows: Ints) -> _Columns:
        return _Columns(
            self.places[rows], self.scores[rows], self.kept[rows], self.readable[rows], self.fates[rows]
        )


def _matched(sides: tuple[Side, Side], name: str) -> tuple[Ints, Ints]:
    """Numbers of the rows of the same pairs in both ledgers [n]: same key, and same offset, for keys may repeat."""
    tables = [pq.read_table(s.opened.ledgers[name], columns=["key", "offset"]) for s in sides]
    if tables[0].equals(tables[1]):
        every = np.arange(len(tables[0]))
        return every, every
    listed = [list(zip(*table.to_pydict().values(), strict=True)) for table in tables]
    there = {pair: number for number, pair in enumerate(listed[1])}
    found = [(number, there[pair]) for number, pair in enumerate(listed[0]) if pair in there]
    rows = np.array(found, np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]
