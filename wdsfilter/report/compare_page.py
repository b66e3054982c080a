"""Two runs side by side -> one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wdsfilter import fingerprint
from wdsfilter.report import html, plots
from wdsfilter.report.cards import Card, make_card, read_pair
from wdsfilter.report.comparison import ABSENT, NOT_SELECTED, Both, Comparison
from wdsfilter.report.figures import Ints
from wdsfilter.report.finding import Found
from wdsfilter.report.measures import Floats
from wdsfilter.report.opened import Opened
from wdsfilter.shards.source import Shard

_MOST_PICTURE_BYTES = 4_500_000
_CELLS = 40
_MOST_FATES, _MOST_SHARDS = 30, 20
_GROUPS = {
    "first": "Only A keeps",
    "second": "Only B keeps",
    "rose": "Rose most",
    "fell": "Fell most",
    "both": "Both keep",
    "neither": "Neither keeps",
}


@dataclass(frozen=True, slots=True)
class Twin:
    """One pair as both runs saw it; the picture is the first card's."""

    first: Card
    second: Card


def render(comparison: Comparison, inputs: Sequence[Shard]) -> bytes:
    """The page, as UTF-8."""
    groups = {group: [both for _, both in comparison.groups.get(group, [])] for group in _GROUPS}
    twins = dict(sorted(_twins(comparison, inputs, {both for shown in groups.values() for both in shown})))
    numbers = {both: number for number, both in enumerate(twins)}
    sides = comparison.first, comparison.second
    data = {
        "sides": [
            {
                "label": side.ruler.main.label if side.ruler else "kept",
                "edges": side.edges,
                "start": side.start,
            }
            for side in sides
        ],
        "joint": comparison.joint.tolist(),
        "groups": {group: [numbers[both] for both in shown] for group, shown in groups.items()},
    }
    shards = sorted(comparison.shards, key=lambda shard: (shard[2] / max(shard[1], 1), shard[0]))
    return html.render(
        "compare",
        data,
        comparison=comparison,
        pairs=int(comparison.joint.sum()),
        sides=list(zip("AB", sides, strict=True)),
        differences=_differences(sides[0].opened, sides[1].opened),
        together=_together(comparison),
        map=_map(comparison),
        fates=comparison.fates.most_common(_MOST_FATES),
        shards=shards[:_MOST_SHARDS],
        twins=list(twins.values()),
        groups=[(group, label) for group, label in _GROUPS.items() if groups[group]],
    )


def _differences(first: Opened, second: Opened) -> list[str] | None:
    """What one run, or selection, was told otherwise than the other; None where they are no two of a kind."""
    if first.is_selection != second.is_selection:
        return None
    parts = ("sources", "question") if first.is_selection else ("scoring", "decision")
    a, b = ({part: opened.record[part] for part in parts} for opened in (first, second))
    return list(fingerprint.differences(a, b, words=("in A", "in B")))


@dataclass(frozen=True, slots=True)
class Together:
    """How far both runs' scores go together; ``distance`` and ``change`` (B less A) where they have one scale.

    Of scores in steps of their measure's edges, a hundredth of a grade.
    """

    pairs: int
    pearson: float | None
    spearman: float | None
    distance: float | None
    change: float | None


def _together(comparison: Comparison) -> Together | None:
    counts = comparison.scores
    ends = comparison.first.finest, comparison.second.finest
    if counts is None or ends[0] is None or ends[1] is None or not counts.sum():
        return None
    values = [np.array(measure.edges) for measure in ends if measure is not None]
    margins = counts.sum(axis=1), counts.sum(axis=0)
    ranks = [np.cumsum(margin) - (margin - 1) / 2 for margin in margins]
    distance = change = None
    if comparison.same_scale:
        gaps = values[1][None, :] - values[0][:, None]
        distance, change = (float((counts * by).sum() / counts.sum()) for by in (np.abs(gaps), gaps))
    return Together(
        int(counts.sum()), _correlation(counts, *values), _correlation(counts, *ranks), distance, change
    )


def _correlation(counts: Ints, a: Floats, b: Floats) -> float | None:
    """Pearson's correlation of values ``a`` [rows] and ``b`` [columns] that occur together so often."""
    total = counts.sum()
    x = a - (counts.sum(axis=1) @ a) / total
    y = b - (counts.sum(axis=0) @ b) / total
    spread = float(np.sqrt((counts.sum(axis=1) @ x**2) * (counts.sum(axis=0) @ y**2)))
    return float(x @ counts @ y) / spread if spread > 0 else None


def _map(comparison: Comparison) -> dict[str, Any] | None:
    """A map of both scores: cells with how many pairs they have, as a share of the fullest (square roots)."""
    counts = comparison.scores
    ends = comparison.first.finest, comparison.second.finest
    if counts is None or ends[0] is None or ends[1] is None or not counts.sum():
        return None
    size = [min(len(measure.edges), _CELLS) for measure in ends if measure is not None]
    rows, columns = counts.nonzero()
    cells = np.zeros(size, np.int64)
    np.add.at(
        cells,
        (rows * size[0] // counts.shape[0], columns * size[1] // counts.shape[1]),
        counts[rows, columns],
    )
    width, height = plots.WIDTH / size[0], plots.WIDTH / size[1]
    drawn = [
        {
            "x": round(x * width, 1),
            "y": round(plots.WIDTH - (y + 1) * height, 1),
            "strength": round(0.15 + 0.85 * float(np.sqrt(cells[x, y] / cells.max())), 3),
        }
        for x, y in zip(*cells.nonzero(), strict=True)
    ]
    return {
        "cells": drawn,
        "cell": (round(width, 2), round(height, 2)),
        "side": plots.WIDTH,
        "ends": [(f"{measure.edges[0]:g}", f"{measure.edges[-1]:g}") for measure in ends if measure],
        "labels": [measure.label for measure in ends if measure],
    }


def _twins(comparison: Comparison, inputs: Sequence[Shard], shown: set[Both]) -> Iterator[tuple[Both, Twin]]:
    """The shown pairs as both runs saw them; pictures from the inputs, or from whichever run kept the pair."""
    sides = comparison.first, comparison.second
    reader = min((side.opened for side in sides), key=lambda opened: opened.is_selection).reader
    places = [{(name, row) for name, *rows in shown if (row := rows[number]) != ABSENT} for number in (0, 1)]
    found = [dict(side.opened.find(inputs, there)) for side, there in zip(sides, places, strict=True)]
    held = 0
    for name, a, b in sorted(shown):
        seen = _seen(found[0].get((name, a)), found[1].get((name, b)))
        sample = seen[0].sample or seen[1].sample
        pair = read_pair(reader, sample)
        first, second = (
            make_card(
                name,
                Found(one.row, sample, "" if sample else one.why),
                pair,
                side.ruler,
                None,
                with_picture=side is sides[0] and held < _MOST_PICTURE_BYTES,
            )
            for side, one in zip(sides, seen, strict=True)
        )
        held += len(first.picture.url) if first.picture else 0
        yield (name, a, b), Twin(first, second)


def _seen(first: Found | None, second: Found | None) -> tuple[Found, Found]:
    """What both know of a pair: a selection without it knows that it was not selected."""
    known = first or second
    assert known is not None
    place = {name: known.row[name] for name in ("key", "offset", "length")}
    absent = Found({**place, "status": "dropped", "reason": NOT_SELECTED, "detail": ""}, None, known.why)
    return first or absent, second or absent
