"""Which samples a page shows: drawn by a seed, so that the same ledgers give the same ones, in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq

from wdsfilter.ledger import ROWS_PER_GROUP, Row
from wdsfilter.report.figures import Rows
from wdsfilter.report.measures import Bools, Floats, Ruler

PER_GRADE, PER_REASON, EXTREME, NEAR, RANDOM, WRONG, PER_VERDICT = 8, 8, 12, 16, 36, 16, 200
MOST_REASONS = 24

Place = tuple[str, int]
"""A shard's name, and the number of a row in its ledger."""

PlaceT = TypeVar("PlaceT", bound=tuple[object, ...])


@dataclass(slots=True)
class Picks:
    """The foremost samples of each group, in its order; :meth:`add` takes rows batch by batch.

    Groups: ``best``, ``worst``, ``above`` and ``below`` the threshold, ``random``, ``grade N``, ``reason R``, where the
    truth is known ``wrong`` (kept for nothing) and ``missed``, and ``kept`` and ``dropped``, whose captions are
    compared. Holds a few hundred places, whatever the run's size.
    """

    ruler: Ruler | None
    seed: int
    groups: dict[str, list[tuple[float, Place]]] = field(default_factory=dict)

    def add(self, rows: Rows) -> None:
        chance = chances(rows, f"{self.seed}")
        self._offer("random", RANDOM, rows, chance, rows.readable)
        self._offer("kept", PER_VERDICT, rows, chance, rows.kept)
        self._offer("dropped", PER_VERDICT, rows, chance, rows.readable & ~rows.kept)
        for reason in sorted(set(rows.reasons) - {""}):
            group = f"reason {reason}"
            if group in self.groups or sum(name.startswith("reason ") for name in self.groups) < MOST_REASONS:
                self._offer(group, PER_REASON, rows, chance, rows.reasons == reason)
        if self.ruler is not None:
            self._add_measured(self.ruler, rows, chance)

    def _add_measured(self, ruler: Ruler, rows: Rows, chance: Floats) -> None:
        values = rows.measures[ruler.main.name]
        finest = rows.measures.get("score", values)
        tie = chance * 1e-7
        known = rows.candidates & ~np.isnan(finest) & ~np.isnan(values)
        self._offer("best", EXTREME, rows, -finest + tie, known)
        self._offer("worst", EXTREME, rows, finest + tie, known)
        start = ruler.main.start
        self._offer("above", NEAR, rows, values - start + tie, known & (values >= start))
        self._offer("below", NEAR, rows, start - values + tie, known & (values < start))
        right = rows.truth >= ruler.worth
        self._offer("wrong", WRONG, rows, chance, rows.kept & (rows.truth < ruler.worth))
        self._offer("missed", WRONG, rows, chance, ~rows.kept & right)
        if "grade" in rows.measures:
            for grade in ruler.grades:
                self._offer(f"grade {grade}", PER_GRADE, rows, chance, rows.measures["grade"] == grade)

    def _offer(self, group: str, most: int, rows: Rows, order: Floats, chosen: Bools) -> None:
        if chosen.any():
            held = self.groups.get(group, [])
            self.groups[group] = foremost(
                held, most, lambda row: (rows.shard, rows.first + row), order, chosen
            )

    def listed(self) -> dict[str, list[Place]]:
        """Group -> its samples, the foremost first."""
        return {group: [place for _, place in found] for group, found in sorted(self.groups.items())}


def foremost(
    held: list[tuple[float, PlaceT]],
    most: int,
    place: Callable[[int], PlaceT],
    order: Floats,
    chosen: Bools,
) -> list[tuple[float, PlaceT]]:
    """The ``most`` foremost of what was ``held`` and of the ``chosen`` rows [n], by ``order`` [n]."""
    found = np.flatnonzero(chosen & (order <= held[-1][0]) if len(held) == most else chosen)
    first = found[np.argsort(order[found], kind="stable")[:most]]
    return sorted([*held, *((float(order[row]), place(int(row))) for row in first)])[:most]


def chances(rows: Rows, seed: str) -> Floats:
    """A number from 0 to 1 for each row [n], which depends on seed, shard and place alone."""
    digest = hashlib.sha256(f"{seed}:{rows.shard}:{rows.first}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big")).random(len(rows.kept))


def read_picked(places: set[Place], ledgers: Mapping[str, Path]) -> Iterator[tuple[Place, Row]]:
    """The ledger rows of ``places``, by shard and place in it; a row group in memory at a time."""
    for shard, here in groupby(sorted(places), key=lambda place: place[0]):
        with pq.ParquetFile(ledgers[shard]) as file:
            for group, found in groupby(here, key=lambda place: place[1] // ROWS_PER_GROUP):
                numbers = [number for _, number in found]
                table = file.read_row_group(group).take([n - group * ROWS_PER_GROUP for n in numbers])
                for number, row in zip(numbers, table.to_pylist(), strict=True):
                    yield (shard, number), row
