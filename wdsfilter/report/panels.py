"""Figures -> what the page's template draws and tabulates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wdsfilter.report import plots
from wdsfilter.report.contents import Contents
from wdsfilter.report.figures import SIZES, Figures, bin_edges
from wdsfilter.report.measures import Measure
from wdsfilter.report.strata import Estimate

_MOST_SHARDS = 4000  # dots
_LISTED_SHARDS = 40  # rows of a table
_BINS = 100


def heroes(figures: Figures) -> list[tuple[Measure, list[plots.Bar], list[plots.Tick]]]:
    """For each measure its histogram, and ticks below it (percent of the width)."""
    found = []
    for measure in figures.ruler.measures if figures.ruler else ():
        edges = measure.edges
        if measure.name == "grade":  # a grade's bar stands between its threshold and the next one's
            shown = plots.bars(
                edges[:-1], figures.cuts["grade"].pairs[:-1], round(edges[-1] - edges[0]), edges[-1]
            )
            marks = [(edge + 0.5, f"{edge:g}") for edge in edges[:-1]]
        else:
            rooted = measure.name == "probability"  # most pairs lie at its ends
            shown = plots.bars(edges, figures.cuts[measure.name].pairs, _BINS, edges[-1], rooted=rooted)
            marks = [(edges[0] + (edges[-1] - edges[0]) * n / 9, "") for n in range(10)]
            if measure.name == "probability":
                marks = [(n / 5, f"{n / 5:g}") for n in range(6)]
            marks = [(at, text or f"{at:g}") for at, text in marks]
        every = -(-len(marks) // 11)
        span = edges[-1] - edges[0]
        ticks = [plots.Tick(round((at - edges[0]) / span * 100, 2), text) for at, text in marks[::every]]
        found.append((measure, shown, ticks))
    return found


def curves(contents: Contents) -> list[tuple[Measure, plots.Chart]]:
    """Share of all samples that each threshold keeps."""
    figures, samples = contents.figures, max(contents.opened.status.counts.samples, 1)
    found = []
    for measure in figures.ruler.measures if figures.ruler else ():
        lowest, span = measure.edges[0], measure.edges[-1] - measure.edges[0]
        xs = [(edge - lowest) / span for edge in measure.edges]
        ys = [int(kept) / samples for kept in figures.cuts[measure.name].kept()]
        found.append((measure, plots.line(xs, ys, _axis(measure))))
    return found


def _axis(measure: Measure) -> list[plots.Tick]:
    lowest, span = measure.edges[0], measure.edges[-1] - measure.edges[0]
    return [plots.Tick(n / 5 * plots.WIDTH, f"{lowest + span * n / 5:.3g}", bool(n % 5)) for n in range(6)]


def thresholds(figures: Figures) -> list[tuple[Measure, list[dict[str, Any]]]]:
    """What about ten thresholds of each measure keep, and the recipe's own."""
    found = []
    for measure in figures.ruler.measures if figures.ruler else ():
        cuts = figures.cuts[measure.name]
        kept, sizes = cuts.kept(), cuts.kept_bytes()
        every = max(1, len(measure.edges) // 10)
        ends = len(measure.edges) - (measure.name == "grade")  # its last one is above all grades
        places = set(range(0, ends, every)) | {measure.edges.index(measure.start)}
        rows = [
            {"edge": measure.edges[n], "kept": int(kept[n]), "bytes": int(sizes[n])} for n in sorted(places)
        ]
        found.append((measure, rows))
    return found


def truth_rows(figures: Figures) -> list[dict[str, Any]]:
    """For each grade as threshold, to pairs worth as much in truth: what is kept, and how right that is."""
    if figures.ruler is None or not figures.confusion.sum():
        return []
    found = []
    for place, grade in enumerate(figures.ruler.grades):
        both = int(figures.confusion[place:, place:].sum())
        kept, worth = int(figures.confusion[:, place:].sum()), int(figures.confusion[place:].sum())
        total = int(figures.confusion.sum())
        found.append(
            {
                "grade": grade,
                "cells": [int(n) for n in figures.confusion[place]],
                "kept": kept,
                "both": both,
                "wrong": kept - both,
                "missed": worth - both,
                "rest": total - kept - worth + both,
                "precision": both / kept if kept else None,
                "recall": both / worth if worth else None,
            }
        )
    return found


def estimated(
    figures: Figures, estimates: Mapping[str, Estimate]
) -> list[tuple[Measure, plots.Chart, list[dict[str, Any]]]]:
    """For each measure precision and recall with their intervals: a drawing, and about ten thresholds."""
    found = []
    for measure in figures.ruler.measures if figures.ruler and estimates else ():
        estimate, cuts = estimates[measure.name], figures.cuts[measure.name]
        known, right = cuts.kept_known(), cuts.kept_right()
        rows = [
            {
                "edge": measure.edges[place],
                "known": int(known[place]),
                "right": int(right[place]),
                "precision": estimate.precision[number],
                "recall": estimate.recall[number],
            }
            for number, place in enumerate(estimate.places)
            if number % max(1, len(estimate.places) // 10) == 0 or measure.edges[place] == measure.start
        ]
        lowest, span = measure.edges[0], measure.edges[-1] - measure.edges[0]
        xs = [(measure.edges[place] - lowest) / span for place in estimate.places]
        chart = plots.bands(xs, [estimate.precision, estimate.recall], _axis(measure))
        found.append((measure, chart, rows))
    return found


def sizes(figures: Figures) -> list[tuple[str, plots.Chart, list[tuple[str, int, int]]]]:
    """Name, drawing and numbers (from which size on, kept, others) of every known size."""
    found = []
    for name, label in SIZES.items():
        counts = figures.sizes.get(name)
        chart = plots.compared(counts) if counts is not None else None
        if counts is None or chart is None:
            continue
        edges = bin_edges(counts.shape[1])
        rows = [
            (plots.short(float(edges[place])), int(counts[0, place]), int(counts[1, place]))
            for place in counts.sum(axis=0).nonzero()[0]
        ]
        found.append((label, chart, rows))
    return found


def shards(contents: Contents) -> dict[str, Any]:
    """A drawing of all shards' shares, and a table that begins with the striking ones."""
    every = contents.shards[:: -(-len(contents.shards) // _MOST_SHARDS) or 1]
    striking = [s for s in contents.shards if s.outlier or s.damage]
    ordinary = [s for s in contents.shards if not (s.outlier or s.damage)]
    listed = [*striking[:_LISTED_SHARDS], *ordinary[: max(0, _LISTED_SHARDS - len(striking))]]
    return {
        "chart": plots.dots([s.share for s in every], [s.outlier for s in every]) if every else None,
        "listed": listed,
        "outliers": sum(s.outlier for s in contents.shards),
        "total": len(contents.shards),
    }
