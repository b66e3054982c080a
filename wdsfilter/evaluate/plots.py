"""Pictures of a report: confusion of grades, calibration, P(grade >= threshold) of right and wrong pairs.

Colours are Okabe and Ito's, which colour-blind people tell apart; no picture rests on colour alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wdsfilter.errors import MissingExtra
from wdsfilter.evaluate.figures import Floats
from wdsfilter.evaluate.report import Answers, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

_BLUE, _VERMILION, _GREY = "#0072B2", "#D55E00", "#767676"
_WRITTEN_CELLS = 15  # a table with more columns shows its colours only
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "wdsfilter",  # the same figures give the same bytes
}


def write_plots(
    report: Report, answers: Answers, folder: Path, kind: Literal["svg", "png"] = "svg"
) -> list[Path]:
    """Write ``confusion`` and, where the judge gives probabilities, ``calibration`` and ``probability``
    into ``folder``; returns the files. Raises MissingExtra."""
    check_installed()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawings: dict[str, tuple[tuple[float, float], Callable[[Axes], None]]] = {
        "confusion": (
            (1.8 + 0.45 * len(report.grades), 1.6 + 0.45 * len(report.true_scores)),
            lambda axes: _confusion(axes, report),
        )
    }
    if report.calibrated is not None:
        reached = answers.at_least(report.threshold)
        drawings["calibration"] = (5.2, 5.0), lambda axes: _calibration(axes, report)
        drawings["probability"] = (6.4, 3.8), lambda axes: _probability(axes, report, answers, reached)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with rc_context(_STYLE):
        for name, (size, draw) in drawings.items():
            figure = Figure(figsize=size, layout="constrained")
            draw(figure.add_subplot())
            path = folder / f"{name}.{kind}"
            figure.savefig(path, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            written.append(path)
    return written


def check_installed() -> None:
    """Raise MissingExtra where nothing can be drawn."""
    try:
        import matplotlib  # noqa: F401  # asked for, not used here
    except ImportError as error:
        raise MissingExtra("--plots", "plots") from error


def _confusion(axes: Axes, report: Report) -> None:
    """A row per true score, shaded by the share of its pairs that got a grade; counts in the cells."""
    counts = np.array(report.counts)
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(report.grades)), ["none" if g is None else str(g) for g in report.grades])
    axes.set_yticks(range(len(report.true_scores)), [str(score) for score in report.true_scores])
    if len(report.grades) <= _WRITTEN_CELLS:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.55 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=9)
    for row, score in enumerate(report.true_scores):  # where the grade is the true score
        if score in report.grades:
            column = report.grades.index(score)
            axes.add_patch(_square(column - 0.5, row - 0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("grade (framed: the true score)")
    axes.set_ylabel("true score")
    axes.set_title(f"{report.pairs} pairs, {report.exact:.0%} exact", loc="left", fontsize=10)


def _square(left: float, top: float) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((left, top), 1, 1, fill=False, edgecolor=_VERMILION, linewidth=1.2)


def _calibration(axes: Axes, report: Report) -> None:
    """Predicted against observed; a point's area follows its number of pairs."""
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, zorder=1)
    lines = (
        (f"P(grade ≥ {report.threshold})", report.calibrated, _BLUE, "o", "-"),
        ("likeliest grade", report.top_grade, _VERMILION, "s", ":"),
    )
    for name, found, color, marker, line in lines:
        if found is None:
            continue
        x = [b.predicted for b in found.bins]
        y = [b.observed for b in found.bins]
        sizes = [14 + 160 * b.pairs / report.pairs for b in found.bins]
        axes.plot(x, y, color=color, linestyle=line, linewidth=1.2, zorder=2)
        label = f"{name}, error {found.error:.3f}"
        axes.scatter(x, y, s=sizes, color=color, marker=marker, label=label, zorder=3, edgecolor="white")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.set_xlabel("predicted probability (area: pairs)")
    axes.set_ylabel("how often it was so")
    axes.legend(loc="upper left", frameon=False, fontsize=9)


def _probability(axes: Axes, report: Report, answers: Answers, reached: Floats) -> None:
    """Shares of the right and of the wrong pairs by P(grade >= threshold)."""
    here = ~np.isnan(reached)
    right = answers.true >= report.threshold
    edges = np.linspace(0, 1, 21)
    groups = (
        (right, _BLUE, "", f"true score ≥ {report.threshold}"),
        (~right, _VERMILION, "////", f"true score < {report.threshold}"),
    )
    for members, color, hatch, name in groups:
        values = np.clip(reached[here & members], 0, 1)
        weights = np.full(len(values), 1 / max(1, len(values)))
        axes.hist(
            values,
            bins=list(edges),
            weights=weights,
            histtype="stepfilled",
            facecolor=(*_rgb(color), 0.35),
            edgecolor=color,
            hatch=hatch,
            linewidth=1.3,
            label=f"{name}: {len(values)} pairs",
        )
    axes.set(xlim=(0, 1))
    axes.set_xlabel(f"P(grade ≥ {report.threshold})")
    axes.set_ylabel("share of its pairs")
    axes.legend(loc="upper center", frameon=False, fontsize=9)


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = bytes.fromhex(color[1:])
    return red / 255, green / 255, blue / 255
