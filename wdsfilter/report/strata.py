"""What a person said of some drawn pairs -> what it says about all: precision and recall with intervals.

Pairs are drawn in strata (one for each grade, one for pairs that an earlier judge dropped), at random within each,
so that seldom grades are asked about too. A threshold splits every stratum in a part above it and one below; how
many pairs each part has is known from the ledgers. The share of a part that is worth keeping has a
Beta(k + 1/2, n - k + 1/2) posterior (Jeffreys prior; k of n labelled ones were worth it), how many of its other
pairs are is binomial. Precision and recall are ratios of sums over parts. Their intervals are the central 95 % of
seeded draws, widened where need be to the plain estimate, which takes each part's labelled pairs for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wdsfilter.report.figures import Ints, Rows, from_above
from wdsfilter.report.measures import Floats, Measure, Ruler

_DRAWS = 1000
_MOST_PLACES = 101
_LEVELS = (0.025, 0.975)

Interval = tuple[float, float, float]
"""Lower end, estimate, upper end."""


def stratum_names(ruler: Ruler | None) -> list[str]:
    """Names of all strata; a stratum's number is its place here."""
    if ruler is None:
        return ["dropped", "kept"]
    return ["not graded", *(f"grade {grade}" for grade in ruler.grades)]


def strata(rows: Rows, ruler: Ruler | None) -> Ints:
    """The stratum of each row [n]; -1 for what cannot be looked at."""
    if ruler is None:
        found = rows.kept.astype(np.int64)
    else:
        finest = rows.measures.get("grade", rows.measures[ruler.main.name])
        known = ~np.isnan(finest)
        found = np.searchsorted(ruler.grades, np.where(known, finest, -np.inf), side="right")
        found = np.where(known, np.maximum(found, 1), 0)
    return np.where(rows.readable, found, -1)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Precision and recall at the measure's edges with the numbers ``places``; no precision where nothing is kept."""

    places: Sequence[int]
    precision: Sequence[Interval | None]
    recall: Sequence[Interval]


@dataclass(slots=True)
class Strata:
    """Counts by stratum, of all readable pairs and of labelled ones; :meth:`add` takes rows batch by batch."""

    ruler: Ruler
    pairs: Ints = field(init=False)
    labelled: Ints = field(init=False)
    right: Ints = field(init=False)
    _above: dict[str, tuple[Ints, Ints, Ints]] = field(init=False)

    def __post_init__(self) -> None:
        count = len(stratum_names(self.ruler))
        self.pairs, self.labelled, self.right = (np.zeros(count, np.int64) for _ in range(3))
        self._above = {}
        for measure in self.ruler.measures:
            shape = (count, len(measure.edges))
            self._above[measure.name] = tuple(np.zeros(shape, np.int64) for _ in range(3))  # type: ignore[assignment]

    def add(self, rows: Rows) -> None:
        """Count a batch of rows."""
        where = strata(rows, self.ruler)
        known = (where >= 0) & ~np.isnan(rows.truth)
        right = known & (rows.truth >= self.ruler.worth)
        for counts, chosen in ((self.pairs, where >= 0), (self.labelled, known), (self.right, right)):
            counts += np.bincount(where[chosen], minlength=len(counts))
        for measure in self.ruler.measures:
            values = rows.measures[measure.name]
            here = rows.candidates & ~np.isnan(values) & (where >= 0)
            for counts, chosen in zip(
                self._above[measure.name], (here, here & known, here & right), strict=True
            ):
                np.add.at(counts, (where[chosen], measure.places(values[chosen])), 1)

    def estimate(self, measure: Measure) -> Estimate:
        """What keeping from an edge on means, at about a hundred of the measure's edges."""
        every = -(-len(measure.edges) // _MOST_PLACES)
        places = sorted({*range(0, len(measure.edges), every), measure.edges.index(measure.start)})
        pairs, labelled, right = (from_above(c)[:, places] for c in self._above[measure.name])
        precision, recall = self._estimate(pairs, labelled, right)
        return Estimate(places, precision, recall)

    def _estimate(
        self, pairs: Ints, labelled: Ints, right: Ints
    ) -> tuple[list[Interval | None], list[Interval]]:
        """Of what lies above each of some thresholds [strata, thresholds]."""
        chance = np.random.default_rng(0)
        whole = (self.pairs, self.labelled, self.right)
        over = (pairs, labelled, right)
        under = tuple(a[:, None] - b for a, b in zip(whole, over, strict=True))
        above, below = (_draws(chance, *part) for part in (over, under))
        plain_above, plain_below = (self._plain(*part) for part in (over, under))
        kept = pairs.sum(axis=0)
        any_right = np.maximum(above + below, 1e-9), np.maximum(plain_above + plain_below, 1e-9)
        precision = _intervals(above / np.maximum(kept, 1), plain_above / np.maximum(kept, 1))
        return (
            [found if there else None for found, there in zip(precision, kept, strict=True)],
            _intervals(above / any_right[0], plain_above / any_right[1]),
        )

    def _plain(self, pairs: Ints, labelled: Ints, right: Ints) -> Floats:
        """How many are worth keeping if each part is as its labelled pairs, or else as its stratum's [thresholds]."""
        stratum = np.where(self.labelled > 0, self.right / np.maximum(self.labelled, 1), 0.5)
        share = np.where(labelled > 0, right / np.maximum(labelled, 1), stratum[:, None])
        found: Floats = (pairs * share).sum(axis=0)
        return found


def _draws(chance: np.random.Generator, pairs: Ints, labelled: Ints, right: Ints) -> Floats:
    """How many of so many pairs in each part [strata, thresholds] are worth keeping, summed [draws, thresholds]."""
    found: Floats = np.zeros((_DRAWS, pairs.shape[1]))
    for n, seen, good in zip(pairs, labelled, right, strict=True):
        share = chance.beta(good + 0.5, seen - good + 0.5, (_DRAWS, len(n)))
        found += good + chance.binomial(n - seen, share)
    return found


def _intervals(drawn: Floats, plain: Floats) -> list[Interval]:
    low, high = np.quantile(drawn, _LEVELS, axis=0)
    ends = np.stack([np.minimum(low, plain), plain, np.maximum(high, plain)], axis=1)
    return [(a, b, c) for a, b, c in np.round(ends, 4).tolist()]
