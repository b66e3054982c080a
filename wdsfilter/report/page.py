"""A run's folder -> one HTML page that needs nothing else: no network, no font, no clock."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wdsfilter.report import plots
from wdsfilter.report.contents import Contents
from wdsfilter.report.figures import SIZES, Figures, bin_edges
from wdsfilter.report.measures import Measure, Ruler

_MOST_SHARDS = 4000  # dots
_LISTED_SHARDS = 40  # rows of a table
_BINS = 100
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render(contents: Contents) -> bytes:
    """The page, as UTF-8. The same contents give the same bytes."""
    environment = Environment(
        loader=PackageLoader("wdsfilter.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        n=_count, share=_share, size=_size, fixed=_fixed, short=plots.short, nice=_nice
    )
    style, script = _file("style.css"), _file("script.js")
    figures, ruler = contents.figures, contents.figures.ruler
    text = environment.get_template("page.html").render(
        c=contents,
        counts=contents.status.counts,
        ruler=ruler,
        figures=figures,
        flow=_flow(contents),
        heroes=_heroes(figures),
        curves=_curves(contents),
        thresholds=_thresholds(figures),
        truth_rows=_truth_rows(figures),
        sizes=_sizes(figures),
        shards=_shards(contents),
        speed=plots.columns(contents.speed.rates) if contents.speed.rates else None,
        groups=_groups(contents),
        style=Markup(style),
        script=Markup(script),
        data=Markup(escaped_json(_data(contents))),
        policy="default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        box=(plots.WIDTH, plots.HEIGHT),
    )
    return text.encode()


def escaped_json(value: object) -> str:
    """JSON that can stand in a script element: nothing in it can end the element or begin a line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)


def _file(name: str) -> str:
    return resources.files("wdsfilter.report").joinpath("templates").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(contents: Contents) -> dict[str, Any]:
    """What the script needs: counts at every edge of every measure, and numbers of the shown samples."""
    figures, ruler = contents.figures, contents.figures.ruler
    measures = []
    for measure in ruler.measures if ruler else ():
        cuts = figures.cuts[measure.name]
        measures.append(
            {
                "name": measure.name,
                "label": measure.label,
                "edges": measure.edges,
                "start": measure.start,
                "kept": cuts.kept().tolist(),
                "bytes": cuts.kept_bytes().tolist(),
                "right": cuts.kept_right().tolist() if figures.with_truth else None,
            }
        )
    return {
        "samples": contents.status.counts.samples,
        "worth": figures.worth,
        "measures": measures,
        "cards": [
            {"values": card.values, "open": card.candidate, "status": card.status} for card in contents.cards
        ],
        "groups": contents.groups,
    }


def _flow(contents: Contents) -> list[dict[str, Any]]:
    """From all samples to the kept ones: one step for each reason, in the order in which they are met."""
    counts = contents.status.counts
    left, steps = counts.samples, []
    order = {judge: place for place, judge in enumerate(contents.record["scoring"]["order"])}
    reasons = sorted(
        counts.reasons.items(), key=lambda item: (order.get(item[0].partition(".")[0], -1), -item[1], item[0])
    )
    for reason, lost in reasons:
        left -= lost
        steps.append({"reason": reason, "lost": lost, "left": left})
    return steps


def _heroes(figures: Figures) -> list[tuple[Measure, list[plots.Bar], list[plots.Tick]]]:
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


def _curves(contents: Contents) -> list[tuple[Measure, plots.Chart]]:
    """Share of all samples that each threshold keeps."""
    figures, samples = contents.figures, max(contents.status.counts.samples, 1)
    found = []
    for measure in figures.ruler.measures if figures.ruler else ():
        lowest, span = measure.edges[0], measure.edges[-1] - measure.edges[0]
        xs = [(edge - lowest) / span for edge in measure.edges]
        ys = [int(kept) / samples for kept in figures.cuts[measure.name].kept()]
        ticks = [
            plots.Tick(n / 5 * plots.WIDTH, f"{lowest + span * n / 5:.3g}", bool(n % 5)) for n in range(6)
        ]
        found.append((measure, plots.line(xs, ys, ticks)))
    return found


def _thresholds(figures: Figures) -> list[tuple[Measure, list[dict[str, Any]]]]:
    """What about ten thresholds of each measure keep, and the recipe's own."""
    found = []
    for measure in figures.ruler.measures if figures.ruler else ():
        cuts = figures.cuts[measure.name]
        kept, sizes = cuts.kept(), cuts.kept_bytes()
        every = max(1, len(measure.edges) // 10)
        places = set(range(0, len(measure.edges), every)) | {measure.edges.index(measure.start)}
        rows = [
            {"edge": measure.edges[n], "kept": int(kept[n]), "bytes": int(sizes[n])} for n in sorted(places)
        ]
        found.append((measure, rows))
    return found


def _truth_rows(figures: Figures) -> list[dict[str, Any]]:
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


def _sizes(figures: Figures) -> list[tuple[str, plots.Chart, list[tuple[str, int, int]]]]:
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


def _shards(contents: Contents) -> dict[str, Any]:
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


def _groups(contents: Contents) -> list[tuple[str, str]]:
    """Group -> what its button says, in the order in which they stand."""
    said = {
        "best": "Best",
        "worst": "Worst",
        "above": "Just above",
        "below": "Just below",
        "random": "Random",
    }
    named = [(group, said[group]) for group in said if group in contents.groups]
    ruler: Ruler | None = contents.figures.ruler
    for grade in reversed(ruler.grades if ruler else ()):
        if f"grade {grade}" in contents.groups:
            named.append((f"grade {grade}", f"Grade {grade}"))
    return named + [
        (group, group.removeprefix("reason ")) for group in contents.groups if group.startswith("reason ")
    ]


def _count(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _share(value: float | None, of: float = 1) -> str:
    if value is None or not of:
        return "\N{EN DASH}"
    return f"{100 * value / of:.1f}\N{NARROW NO-BREAK SPACE}%"


def _size(value: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g}\N{NARROW NO-BREAK SPACE}{unit}"
    return f"{value:.0f}\N{NARROW NO-BREAK SPACE}B"


def _fixed(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"


def _nice(value: Any) -> str:
    """Options as JSON that a person reads; those that say nothing are left out."""
    kept = (
        {k: v for k, v in value.items() if v not in (None, [], {}, "")}
        if isinstance(value, Mapping)
        else value
    )
    return json.dumps(kept, indent=2, ensure_ascii=False)
