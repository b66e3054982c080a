"""Exact figures about scores and labels: rank correlation, AUC, precision and recall, calibration.

Pure functions of arrays [n]; nothing is drawn at random. A figure that is not defined (no positive,
a constant) is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def average_ranks(values: Floats) -> Floats:
    """Ranks from 1 on; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[place]
    return ranks


def spearman(a: Floats, b: Floats) -> float | None:
    """Spearman's rank correlation, ties by average ranks; None when either is constant."""
    if len(a) < 2:
        return None
    x, y = average_ranks(a), average_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread else None


def auc(positives: Floats, negatives: Floats) -> float | None:
    """How often a positive's score is higher than a negative's, an equal one counting half (Mann-Whitney)."""
    n, m = len(positives), len(negatives)
    if not n or not m:
        return None
    ranks = average_ranks(np.concatenate([positives, negatives]))
    return (float(ranks[:n].sum()) - n * (n + 1) / 2) / (n * m)


@dataclass(frozen=True, slots=True)
class Cut:
    """What a cut keeps of n pairs: how many, and how right that is. ``at`` is the lowest score kept."""

    kept: int
    precision: float | None
    recall: float | None
    at: float | None = None


def cut(kept: Bools, right: Bools) -> Cut:
    """Precision and recall of the ``kept`` pairs for those that are ``right`` to keep."""
    both, all_kept, all_right = int((kept & right).sum()), int(kept.sum()), int(right.sum())
    return Cut(all_kept, both / all_kept if all_kept else None, both / all_right if all_right else None)


def cut_at_recall(scores: Floats, right: Bools, recall: float) -> Cut | None:
    """The strictest cut of ``scores`` that still keeps a share of ``recall`` of the right pairs.

    Equal scores are kept or dropped together. None where nothing is right.
    """
    ranked = np.sort(scores[right])[::-1]
    if not len(ranked):
        return None
    # 0.9 of 10 is 9, whatever binary fractions make of it
    needed = max(1, int(np.ceil(recall * len(ranked) - 1e-9)))
    at = float(ranked[needed - 1])
    found = cut(scores >= at, right)
    return Cut(found.kept, found.precision, found.recall, at)


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs whose predicted probability lies in one bin: its mean, and how often it came true."""

    pairs: int
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Bins of equal width from 0 to 1 that hold pairs, and the expected calibration error over them."""

    error: float
    bins: tuple[Bin, ...]


def calibration(predicted: Floats, happened: Bools, bins: int = 10) -> Calibration | None:
    """How far predicted probabilities are from what happened: the mean of |predicted - observed|
    over ``bins``, weighted by their pairs. A value on a border belongs to the bin above; None without pairs."""
    if not len(predicted):
        return None
    # rounded first, so that a sum of float32 probabilities does not fall short of its border
    places = np.clip(np.floor(np.round(predicted * bins, 6)).astype(int), 0, bins - 1)
    found = []
    for place in np.unique(places):
        here = places == place
        found.append(Bin(int(here.sum()), float(predicted[here].mean()), float(happened[here].mean())))
    error = sum(b.pairs * abs(b.predicted - b.observed) for b in found) / len(predicted)
    return Calibration(error, tuple(found))


def confusion(truth: Sequence[int], said: Sequence[int | None]) -> dict[int, dict[int | None, int]]:
    """How often each true score (ascending) got each grade, None being no grade."""
    found: dict[int, dict[int | None, int]] = {}
    for true, grade in sorted(zip(truth, said, strict=True), key=lambda pair: pair[0]):
        row = found.setdefault(true, {})
        row[grade] = row.get(grade, 0) + 1
    return found
