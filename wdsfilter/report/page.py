"""A run or a selection -> one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from wdsfilter.report import html, panels, plots
from wdsfilter.report.contents import Contents
from wdsfilter.report.measures import Ruler
from wdsfilter.report.strata import Estimate


def render(contents: Contents) -> bytes:
    """The page, as UTF-8. The same contents give the same bytes."""
    figures = contents.figures
    estimates = {}
    if contents.strata is not None:
        estimates = {m.name: contents.strata.estimate(m) for m in contents.strata.ruler.measures}
    return html.render(
        "page",
        _data(contents, estimates),
        c=contents,
        run=contents.opened,
        status=contents.opened.status,
        counts=contents.opened.status.counts,
        ruler=figures.ruler,
        figures=figures,
        flow=_flow(contents),
        decided=figures.decided,
        selects=not contents.opened.is_selection,
        heroes=panels.heroes(figures),
        curves=panels.curves(contents),
        thresholds=panels.thresholds(figures),
        truth_rows=[] if contents.strata else panels.truth_rows(figures),
        estimated=panels.estimated(figures, estimates),
        sizes=panels.sizes(figures),
        shards=panels.shards(contents),
        speed=plots.columns(contents.speed.rates) if contents.speed.rates else None,
        groups=_groups(contents),
    )


def _data(contents: Contents, estimates: Mapping[str, Estimate]) -> dict[str, Any]:
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
                "selects": ruler.expression(measure) if ruler and not contents.opened.is_selection else None,
                "kept": cuts.kept().tolist(),
                "bytes": cuts.kept_bytes().tolist(),
                "known": cuts.kept_known().tolist() if figures.with_truth else None,
                "right": cuts.kept_right().tolist() if figures.with_truth else None,
                "estimate": asdict(estimates[measure.name]) if measure.name in estimates else None,
            }
        )
    return {
        "samples": contents.opened.status.counts.samples,
        "known": figures.with_truth,
        "right": figures.worth,
        "worth": ruler.worth if ruler else None,
        "measures": measures,
        "selected": _selected(contents),
        "cards": [
            {"values": card.values, "open": card.candidate, "status": card.status, "truth": card.truth}
            for card in contents.cards
        ],
        "groups": {"wrong": [], "missed": [], **contents.groups},
    }


def _selected(contents: Contents) -> str:
    """What `select` has to be told beside a threshold: whom another judge dropped later stays out."""
    ruler, order = contents.figures.ruler, contents.opened.order
    if ruler is None or ruler.judge == order[-1]:
        return ""
    return f" and reason in ('', '{ruler.judge}.at_least')"


def _flow(contents: Contents) -> list[dict[str, Any]]:
    """From all samples to the kept ones: one step for each reason, in the order in which they are met."""
    counts = contents.opened.status.counts
    left, steps = counts.samples, []
    order = {judge: place for place, judge in enumerate(contents.opened.order)}
    reasons = sorted(
        counts.reasons.items(), key=lambda item: (order.get(item[0].partition(".")[0], -1), -item[1], item[0])
    )
    for reason, lost in reasons:
        left -= lost
        steps.append({"reason": reason, "lost": lost, "left": left})
    return steps


def _groups(contents: Contents) -> list[tuple[str, str]]:
    """Group -> what its button says, in the order in which they stand."""
    said = {
        "best": "Best",
        "worst": "Worst",
        "above": "Just above",
        "below": "Just below",
        "random": "Random",
        "wrong": "Wrongly kept",
        "missed": "Missed",
    }
    truth = ("wrong", "missed") if contents.figures.with_truth else ()
    named = [(group, said[group]) for group in said if group in contents.groups or group in truth]
    ruler: Ruler | None = contents.figures.ruler
    for grade in reversed(ruler.grades if ruler else ()):
        if f"grade {grade}" in contents.groups:
            named.append((f"grade {grade}", f"Grade {grade}"))
    return named + [
        (group, group.removeprefix("reason ")) for group in contents.groups if group.startswith("reason ")
    ]
