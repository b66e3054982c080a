"""What a threshold can be put on: the grades, expected scores and probabilities that a run's ledgers hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PROBABILITY_BINS = 100
_DEFAULT_GRADES = tuple(range(1, 11))
_DEFAULT_WORTH = 9.0
_COSINES = tuple(n / 200 for n in range(-200, 201))  # what a judge without grades scores by


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that a pair is kept by from a threshold on.

    ``edges`` (ascending) are all places where the threshold can stand; counts between two of them are
    exact. ``recipe`` is where the recipe put it, None where the recipe decides by another measure;
    ``start`` is where it stands at first.
    """

    name: str
    label: str
    edges: tuple[float, ...]
    recipe: float | None
    start: float

    def places(self, values: Floats) -> npt.NDArray[np.intp]:
        """For each value, the last edge that it reaches: it is kept by this one and all before it."""
        found: npt.NDArray[np.intp] = np.searchsorted(self.edges, values, side="right") - 1
        return np.maximum(found, 0)


@dataclass(frozen=True, slots=True)
class Ruler:
    """The judge whose threshold the page moves, its grades, and its measures: the recipe's comes first.

    ``worth`` is the grade from which on a pair is worth keeping.
    """

    judge: str
    grades: tuple[int, ...]
    worth: float
    measures: tuple[Measure, ...]

    @property
    def main(self) -> Measure:
        return self.measures[0]

    def expression(self, measure: Measure) -> str:
        """The measure as `wdsfilter select` names it."""
        judge = self.judge if self.judge.isidentifier() else f'"{self.judge}"'
        return (
            f"p_at_least({judge}, {self.worth:g})"
            if measure.name == "probability"
            else f"{judge}.{measure.name}"
        )

    def read(self, batch: pa.RecordBatch) -> dict[str, Floats]:
        """Every measure of a batch of ledger rows [n]; nan where the judge gave none."""
        numbers = batch.column(self.judge)
        found = {}
        for measure in self.measures:
            if measure.name == "probability":
                found[measure.name] = self._reached(pc.struct_field(numbers, "p"))
            else:
                found[measure.name] = floats(pc.struct_field(numbers, measure.name))
        return found

    def _reached(self, probabilities: pa.ListArray) -> Floats:
        """P(grade >= worth) [n]."""
        counts = pc.list_value_length(probabilities).fill_null(0).to_numpy(zero_copy_only=False)
        values = pc.list_flatten(probabilities).to_numpy(zero_copy_only=False).astype(np.float64)
        rows = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
        good = places >= sum(grade < self.worth for grade in self.grades)
        sums: Floats = np.bincount(rows[good], values[good], len(counts)).astype(np.float64)
        sums[counts == 0] = np.nan
        return sums


def floats(column: pa.Array) -> Floats:
    """A column of numbers; nan for null."""
    found: Floats = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    return found


def find_ruler(
    order: Sequence[str], options: Mapping[str, Mapping[str, Any]], schema: pa.Schema
) -> Ruler | None:
    """The last judge of some ledgers that gives a grade or a score; None where none does.

    ``options`` are the judges', where they are known; without them a threshold starts where it keeps everything.
    """
    for judge in reversed([name for name in order if name in schema.names]):
        fields = {field.name for field in schema.field(judge).type}
        if fields & {"grade", "score"}:
            known = options.get(judge)
            return _ruler(judge, fields, known or {}, everything=known is None)
    return None


def _ruler(judge: str, fields: set[str], options: Mapping[str, Any], *, everything: bool) -> Ruler:
    """The ruler of a judge that has these ``fields``, by its ``at_least``."""
    grades, rule = _grades(options.get("scale")), options.get("at_least")
    graded = "grade" in fields
    said = rule if isinstance(rule, dict) else {"grade" if graded else "score": rule}
    grade, score, probability = said.get("grade"), said.get("score"), said.get("with_probability")
    worth = next((float(value) for value in (grade, score) if value is not None), _DEFAULT_WORTH)
    measures: list[Measure] = []

    def offer(name: str, label: str, edges: set[float], recipe: float | None, usual: float) -> None:
        places = tuple(sorted(edges if recipe is None else edges | {float(recipe)}))
        nearest = places[0] if everything else min(places, key=lambda edge: abs(edge - usual))
        measures.append(Measure(name, label, places, recipe, nearest if recipe is None else float(recipe)))

    if graded:
        edges = {*map(float, grades), grades[-1] + 1.0}
        offer("grade", "Grade", edges, grade if probability is None else None, worth)
    if "score" in fields and graded:
        offer("score", "Expected score", _score_edges(grades), score, worth)
    elif "score" in fields:
        offer("score", "Score", set(_COSINES), score, _COSINES[0])
    if "p" in fields:
        label = f"P(grade \N{GREATER-THAN OR EQUAL TO} {worth:g})"
        hundredths = {n / PROBABILITY_BINS for n in range(PROBABILITY_BINS + 1)}
        offer("probability", label, hundredths, probability, 0.5)
    measures.sort(key=lambda measure: measure.recipe is None)
    return Ruler(judge, grades, worth, tuple(measures))


def _score_edges(grades: tuple[int, ...]) -> set[float]:
    """Hundredths, tenths, ... of a grade: about a thousand."""
    lowest, highest = grades[0], grades[-1]
    step = 0.01
    while (highest - lowest) / step > 1000:
        step *= 10
    return {round(lowest + n * step, 6) for n in range(round((highest - lowest) / step) + 1)}


def _grades(scale: Mapping[str, Any] | None) -> tuple[int, ...]:
    if not scale:
        return _DEFAULT_GRADES
    if scale.get("values"):
        return tuple(sorted(scale["values"].values()))
    return tuple(range(scale["lowest"], scale["highest"] + 1))
