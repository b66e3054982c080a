"""How good a judge is, on pairs whose true score is known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from wdsfilter.cli import SetOption, err, out
from wdsfilter.counted import counted

if TYPE_CHECKING:
    from wdsfilter.evaluate.figures import Cut
    from wdsfilter.evaluate.judging import Agreement, Bench, Judged
    from wdsfilter.evaluate.report import Report
    from wdsfilter.recipe import Recipe
    from wdsfilter.shards.source import Shard

PLACE = 40


class Picture(str, Enum):
    """What ``--plots`` writes."""

    svg = "svg"
    png = "png"


def register(app: typer.Typer) -> None:
    """The command ``check-judge``."""
    app.command()(check_judge)


def check_judge(
    judge: Annotated[
        str, typer.Argument(help="Checkpoint folder, hub name, built-in, recipe name or .yaml file.")
    ],
    shards: Annotated[
        list[str],
        typer.Argument(help="Labelled shards: a .json holds the true score, perhaps otherwise and defects."),
    ],
    id: Annotated[str | None, typer.Option(help="Which of the recipe's judges.")] = None,
    label: Annotated[str, typer.Option(help="Field of the .json that holds the true score.")] = "score",
    labels: Annotated[
        Path | None,
        typer.Option(help="A file of labels of some of their pairs, as `report --label` exports it."),
    ] = None,
    threshold: Annotated[int, typer.Option(help="A pair is right from this true score on.")] = 9,
    generate: Annotated[
        int, typer.Option(min=0, help="Compare the readout with generated answers on so many pairs.")
    ] = 64,
    plots: Annotated[Path | None, typer.Option(help="Folder for pictures.")] = None,
    picture: Annotated[Picture, typer.Option(help="What pictures are written as.")] = Picture.svg,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare a judge's grades with true scores: ranking, error, calibration, what each defect does.

    Nothing is written but --plots. `wdsfilter perturb` makes labelled shards of clean pairs.
    """
    from wdsfilter.evaluate.judging import bench, pick_judge
    from wdsfilter.evaluate.labels import FieldLabels, labelled_shards, read_file
    from wdsfilter.evaluate.plots import check_installed, write_plots
    from wdsfilter.evaluate.report import gather, report

    if plots is not None:
        check_installed()  # before the work, not after it
    truth = FieldLabels(label) if labels is None else read_file(labels)
    recipe = _recipe(judge, threshold, overrides or [])
    spec = pick_judge(recipe, id)
    found = labelled_shards(shards)
    with bench(recipe, spec, truth) as ready:
        for remark in ready.remarks:
            err.print(remark, markup=False)
        with err.status("generating answers"):
            agreement = ready.agreement(found, generate)
        judged, unreadable = _judged(ready, found)
    answers = gather(judged, ready.grades)
    figures = report(judged, answers, threshold)
    if as_json:
        everything = {
            "judge": judge,
            "id": spec.id,
            "unreadable": dict(unreadable),
            **asdict(figures),
            "generated": asdict(agreement) if agreement else None,
        }
        typer.echo(json.dumps(everything, ensure_ascii=False, indent=2))
    else:
        _show(figures, unreadable, agreement)
    for path in write_plots(figures, answers, plots, picture.value) if plots is not None else []:
        err.print(f"wrote {path}", markup=False)


def _recipe(judge: str, threshold: int, overrides: list[str]) -> Recipe:
    """The recipe named ``judge``, or one that judges with the checkpoint of that name."""
    from wdsfilter.engine.checkpoint import BUILT_IN
    from wdsfilter.recipe import parse
    from wdsfilter.recipe_files import load_recipe, read_recipe, recipe_names

    path = Path(judge)
    is_recipe = judge in recipe_names() or path.suffix in (".yaml", ".yml") or path.is_file()
    is_name = judge == BUILT_IN or (not is_recipe and (path.is_dir() or "/" in judge))
    if is_name or (path / "config.json").is_file():
        alone = json.dumps([{"vlm": {"model": judge, "at_least": {"grade": threshold}}}])
        return parse(read_recipe("img2dataset", [f"judges={alone}", *overrides]), origin=judge)
    return load_recipe(judge, overrides)


def _judged(bench: Bench, shards: Iterable[Shard]) -> tuple[list[Judged], Counter[str]]:
    """All pairs that could be judged, and how many could not, by reason. Raises InputError without any."""
    from wdsfilter.errors import InputError
    from wdsfilter.evaluate.judging import Damaged, Judged

    judged: list[Judged] = []
    reasons: Counter[str] = Counter()
    last = ""
    with err.status("judging") as line:
        for found in bench.judged(shards):
            if isinstance(found, Judged):
                judged.append(found)
                if len(judged) % 16 == 0:
                    line.update(f"judged {counted(len(judged), 'pair')}")
            elif isinstance(found, Damaged):
                err.print(f"{found.shard}: damaged: {found.damage.detail}", markup=False)
            else:
                reasons[found.reason] += 1
                last = f"{found.key}: {found.reason} ({found.detail})"
    if not judged:
        what = "readable" if bench.labels.needs_fields else "labelled"
        raise InputError(f"no {what} pair in these shards{f'; {last}' if last else ''}")
    return judged, reasons


# --- for people ------------------------------------------------------------------------------


def _show(report: Report, unreadable: Mapping[str, int], agreement: Agreement | None) -> None:
    t = report.threshold
    out.print(f"{counted(report.pairs, 'pair')}, {report.right} of them with a true score of {t} or more")
    if unreadable:
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(unreadable.items()))
        out.print(f"unreadable: {listed}", markup=False)
    if report.without_grade:
        out.print(f"{report.without_grade} answers name no grade")
    _show_rankings(report)
    if report.defects:
        _show_defects(report)
    _show_thresholds(report)
    _show_confusion(report)
    if agreement is not None:
        distance = "" if agreement.distance is None else f", mean distance {agreement.distance:.2f}"
        out.print(
            f"generated answers: of {agreement.pairs} pairs {agreement.naming_a_grade} name a grade, "
            f"{agreement.agreeing} the readout's own{distance}"
        )


def _show_rankings(report: Report) -> None:
    t = report.threshold
    table = _table("", "Spearman", "error", f"AUC ≥ {t}", "exact", "calibration")
    top, reached = report.top_grade, report.calibrated
    grade, expected, probability = report.grade, report.expected, report.probability
    errors = ("" if top is None else f"{top.error:.3f}", "" if reached is None else f"{reached.error:.3f}")
    table.add_row(
        "grade", *map(_number, (grade.spearman, grade.mae, grade.auc)), f"{report.exact:.1%}", errors[0]
    )
    if expected is not None:
        table.add_row("expected score", *map(_number, (expected.spearman, expected.mae, expected.auc)))
    if probability is not None:
        table.add_row(
            f"P(grade ≥ {t})", _number(probability.spearman), "", _number(probability.auc), "", errors[1]
        )
    _print(table, "against the true score; error: mean absolute, calibration: expected calibration error")
    if report.at_recall is not None:
        kept = report.at_recall
        out.print(
            f"cutting at P(grade ≥ {t}) ≥ {kept.at:.3g} keeps {kept.kept}: "
            f"precision {_number(kept.precision)} at recall {_number(kept.recall)}"
        )


def _show_defects(report: Report) -> None:
    table = _table("defect", "pairs", "grade", "expected", f"P(grade ≥ {report.threshold})")
    for name, found in report.defects.items():
        by = (found.grade, found.expected, found.probability)
        table.add_row(Text(name), f"{found.pairs}", *map(_number, by))
    _print(table, "AUC of faultless pairs over pairs whose only defect is this one")


def _show_thresholds(report: Report) -> None:
    table = _table("≥", "right", "kept", "precision", "recall", "kept", "precision", "recall")
    for row in report.thresholds:
        table.add_row(f"{row.threshold}", f"{row.right}", *_cut(row.grade), *_cut(row.probability))
    _print(table, "cutting at each threshold: by grade; by P(grade ≥ threshold) ≥ 0.5")


def _show_confusion(report: Report) -> None:
    table = _table("true", *("none" if grade is None else f"{grade}" for grade in report.grades))
    for score, counts in zip(report.true_scores, report.counts, strict=True):
        table.add_row(f"{score}", *(f"{count}" if count else "·" for count in counts))
    _print(table, "true score (down) and grade (across)")


def _table(first: str, *rest: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in rest:
        table.add_column(name, justify="right")
    return table


def _print(table: Table, title: str) -> None:
    out.print(f"\n{title}", markup=False)
    out.print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cut(cut: Cut | None) -> tuple[str, str, str]:
    return ("", "", "") if cut is None else (f"{cut.kept}", _number(cut.precision), _number(cut.recall))
