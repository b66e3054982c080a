"""Everything that a pilot tells, gathered from ledgers and events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wdsfilter.events import read_events
from wdsfilter.pilot.cost import Cost, cost, rate
from wdsfilter.pilot.forecast import Forecast, Threshold, as_it_is, sampling, threshold
from wdsfilter.pilot.ledgers import Judged, read_judged
from wdsfilter.pilot.trial import Agreement, Trial, agreement
from wdsfilter.plan import Job
from wdsfilter.report.measures import Measure

_BARS = 20


@dataclass(frozen=True, slots=True)
class Bar:
    """So many pairs whose measure is ``low`` or more, and below ``high``; the last bar's ``high`` is in it."""

    low: float
    high: float
    pairs: int


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial beside the recipe's own setting."""

    trial: Trial
    agreement: Agreement
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class Contents:
    """``expressions`` say of each measure how a selection names it, ``wanted`` is the share that was asked for,
    ``recipe_at`` where the recipe cuts ``measure``, if it does."""

    shards: int
    total: int
    samples: int
    judge: str | None
    measure: str | None
    label: str
    bars: Sequence[Bar]
    recipe: Forecast
    recipe_at: float | None
    wanted: float | None
    thresholds: Sequence[Threshold]
    expressions: dict[str, str]
    cost: Cost | None
    trials: Sequence[Tried]


def gather(
    job: Job,
    trials: Sequence[tuple[Trial, Job]],
    *,
    wanted: float | None,
    gpus: int,
    price: float | None,
) -> Contents | None:
    """What is known of a job's first shards; None where none is judged."""
    judged = read_judged(job)
    if not judged.shards:
        return None
    drawn = sampling(judged, job.total)
    recipe = as_it_is(judged, drawn)
    ruler = judged.ruler
    measures = ruler.measures if ruler else ()

    def priced(one: Job) -> Cost | None:
        return cost(rate(read_events(one.folder.events)), recipe.samples.value, gpus, price)

    return Contents(
        shards=len(judged.shards),
        total=job.total,
        samples=judged.samples,
        judge=ruler.judge if ruler else None,
        measure=ruler.main.name if ruler else None,
        label=ruler.main.label if ruler else "",
        bars=_bars(judged, ruler.main) if ruler else (),
        recipe=recipe,
        recipe_at=ruler.main.recipe if ruler else None,
        wanted=wanted,
        thresholds=[threshold(judged, m.name, wanted, drawn) for m in measures] if wanted is not None else [],
        expressions={
            m.name: (
                f"p_at_least({ruler.judge}, {ruler.worth:g})"
                if m.name == "probability"
                else f"{ruler.judge}.{m.name}"
            )
            for m in measures
            if ruler
        },
        cost=priced(job),
        trials=[
            Tried(trial, agreement(judged, read_judged(other)), priced(other)) for trial, other in trials
        ],
    )


def _bars(judged: Judged, measure: Measure) -> list[Bar]:
    values = judged.joined(measure.name)
    if not len(values):
        return []
    if measure.name == "grade":
        grades, counts = np.unique(values, return_counts=True)
        return [Bar(float(g), float(g), int(n)) for g, n in zip(grades, counts, strict=True)]
    within = (0.0, 1.0) if measure.name == "probability" else (float(values.min()), float(values.max()))
    counts, edges = np.histogram(values, _BARS, within)
    return [Bar(float(a), float(b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]
