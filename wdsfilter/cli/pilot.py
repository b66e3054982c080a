"""Before the whole run: what it would keep, and what it would cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.bar import Bar
from rich.filesize import decimal
from rich.table import Table

from wdsfilter import launch
from wdsfilter.cli import RecipeArgument, SetOption, complain, err, out
from wdsfilter.cli.run import WHOLE, carry_out, planned
from wdsfilter.counted import counted, plural
from wdsfilter.errors import Interrupted, UserError, WdsfilterError

if TYPE_CHECKING:
    from wdsfilter.pilot.contents import Contents, Tried
    from wdsfilter.pilot.cost import Cost
    from wdsfilter.pilot.forecast import Estimate, Forecast
    from wdsfilter.pilot.trial import Trial
    from wdsfilter.plan import Job

PLACE = 5

_SHARDS = 8
_BAR_WIDTH = 50


def register(app: typer.Typer) -> None:
    """The command ``pilot``."""
    app.command()(pilot)


def pilot(
    recipe: RecipeArgument,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Output folder of the run, which goes on from there.")
    ] = None,
    shards: Annotated[
        list[str] | None,
        typer.Option(
            "--shards",
            help=f"How many shards to judge ({_SHARDS}); anything but a number says which there are, as for run.",
        ),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Where is the threshold for this share of all readable samples? 18%")
    ] = None,
    trials: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="PATH=VALUE,VALUE",
            help="Judge the same shards with other values of a key: judges.vlm.max_pixels=200704,401408",
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Processes of the whole run; else those of this launch.")
    ] = None,
    gpu_price: Annotated[float | None, typer.Option(min=0, help="Of one GPU for an hour.")] = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Judge a run's first shards; tell what the whole of it would keep, how large that is, and what it costs.

    They are the first of the run's own seeded order: `run` with the same output folder goes on from there.
    """
    from wdsfilter.pilot.contents import gather
    from wdsfilter.pilot.trial import parse_trials
    from wdsfilter.recipe_files import load_recipe
    from wdsfilter.stop import Stop
    from wdsfilter.summary import EXIT_INTERRUPTED

    where = launch.place()
    if where.launched:
        launch.exit_with_parent()
    count, patterns = _counted(shards or [])
    wanted = _share(keep) if keep is not None else None
    asked = parse_trials(trials or [])
    stop = Stop()
    with stop.on_signals():
        try:
            try:
                settings = load_recipe(recipe, overrides or (), patterns)
                job = planned(settings, output or settings.output.folder, count, where)
                tried = [
                    (trial, _planned_trial(trial, job, recipe, patterns, count, overrides or (), where))
                    for trial in asked
                ]
            except WdsfilterError as error:
                # Every rank meets the same mistake: one per machine says so.
                if where.local_rank == 0:
                    complain(error)
                raise typer.Exit(1) from error
            code = carry_out(job, where, stop, table=False)
            for trial, other in tried:
                if where.rank == 0:
                    err.print(f"trying {trial.override}", markup=False)
                carry_out(other, where, stop, table=False)
        except (Interrupted, KeyboardInterrupt):
            if where.rank == 0:
                err.print(f"stopped; {WHOLE}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
    if _is_last(where, [job, *(other for _, other in tried)]):
        found = gather(job, tried, wanted=wanted, gpus=gpus or where.world_size, price=gpu_price)
        if found is None:
            err.print("no shard could be judged, so there is nothing to tell")
        elif as_json:
            typer.echo(json.dumps(asdict(found), indent=2))
        else:
            _show(found, job)
    raise typer.Exit(code)


def _counted(given: Sequence[str]) -> tuple[int, list[str]]:
    """How many shards, and which there are."""
    numbers = [int(value) for value in given if value.isdecimal()]
    if len(numbers) > 1 or 0 in numbers:
        raise UserError(f"--shards {' --shards '.join(given)}: expected one number of shards, above 0")
    patterns = [value for value in given if not value.isdecimal()]
    if "-" in patterns:
        raise UserError("standard input comes once; a pilot needs shards that can be read again")
    return numbers[0] if numbers else _SHARDS, patterns


def _share(text: str) -> float:
    from wdsfilter.select.question import Amount

    share = Amount(text).share
    if share is None:
        raise UserError(f"--keep {text}: expected a share such as 18%")
    return float(share)


def _planned_trial(
    trial: Trial,
    base: Job,
    recipe: str,
    patterns: Sequence[str],
    count: int,
    overrides: Sequence[str],
    where: launch.Place,
) -> Job:
    from wdsfilter.pilot.trial import check_scores
    from wdsfilter.recipe_files import load_recipe

    settings = load_recipe(recipe, [*overrides, *trial.overrides], patterns)
    job = planned(settings, trial.folder(base.folder), count, where)
    check_scores(trial, base, job)
    return job


def _is_last(where: launch.Place, jobs: Sequence[Job]) -> bool:
    """Whether this process shall tell: the only one, or the first of a launch that sees everything judged."""
    if not where.launched:
        return True
    there = all(job.folder.ledger(shard.name).exists() for job in jobs for shard in job.shards)
    folder = jobs[0].folder
    return there and folder.put(b"", folder.events / f"told-pilot-{launch.launcher_identity()}")


# --- for people ------------------------------------------------------------------------------


def _show(found: Contents, job: Job) -> None:
    _show_distribution(found)
    _show_forecasts(found)
    _show_cost(found.cost)
    if found.trials:
        _show_trials(found)
    if found.shards < 2:
        out.print("one shard tells nothing of how much shards differ: no intervals; give --shards 8")
    if found.shards < found.total:
        out.print(f"the run goes on from here with the same --output: {job.folder.root}", markup=False)
    if found.thresholds:
        at = found.thresholds[0]
        out.print(
            f"another threshold needs no model: wdsfilter select {job.folder.root} "
            f"--where '{found.expressions[at.measure]} >= {at.at.value:.6g}' --output NEW --shards ...",
            markup=False,
        )


def _show_distribution(found: Contents) -> None:
    out.print(
        f"{counted(found.samples, 'sample')} in {found.shards} of {counted(found.total, 'shard')}",
        markup=False,
    )
    if not found.bars or found.measure is None:
        return
    out.print(f"\n{found.label} of {found.judge}", markup=False)
    most = max(bar.pairs for bar in found.bars)
    pairs = sum(bar.pairs for bar in found.bars)
    marks = [(at.at.value, f"{at.forecast.share.value:.1%}") for at in found.thresholds[:1]]
    if found.recipe_at is not None:
        marks.append((found.recipe_at, "recipe"))
    table = Table(box=None, show_header=False, pad_edge=False)
    for justify in ("right", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    first, last = found.bars[0], found.bars[-1]
    for at, text in marks:
        if at < first.low:
            table.add_row(f"{at:.4g}", "", "0.0%", f"\N{LEFTWARDS ARROW} {text}")
    for bar in found.bars:
        here = [
            text
            for at, text in marks
            if bar.low <= at and (at < bar.high or at == bar.low or (bar is last and at <= bar.high))
        ]
        table.add_row(
            f"{bar.low:.4g}",
            Bar(most, 0, bar.pairs, width=_BAR_WIDTH),
            f"{bar.pairs / pairs:.1%}",
            f"\N{LEFTWARDS ARROW} {', '.join(here)}" if here else "",
        )
    for at, text in marks:
        if at > last.high:
            table.add_row(f"{at:.4g}", "", "0.0%", f"\N{LEFTWARDS ARROW} {text}")
    out.print(table)


def _show_forecasts(found: Contents) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("of the whole run", "keeps", "samples", "size"):
        table.add_column(name, justify="left" if name == "of the whole run" else "right", no_wrap=True)

    def line(name: str, forecast: Forecast) -> None:
        table.add_row(
            name,
            _estimate(forecast.share, lambda value: f"{value:.1%}"),
            _estimate(forecast.kept, lambda value: f"{value:,.0f}"),
            _estimate(forecast.bytes, lambda value: decimal(round(max(value, 0)))),
        )

    line("the recipe as it is", found.recipe)
    for at in found.thresholds:
        where = _estimate(at.at, lambda value: f"{value:.4g}")
        line(f"{found.expressions[at.measure]} >= {where}", at.forecast)
    out.print()
    out.print(table)
    samples = _estimate(found.recipe.samples, lambda value: f"{value:,.0f}").replace("\n", ", ")
    noun = plural("sample", round(found.recipe.samples.value))
    out.print(f"of {samples} {noun}; below each figure its 95 % interval over shards")


def _show_cost(found: Cost | None) -> None:
    if found is None:
        out.print("how fast it went is not known: these shards were judged before")
        return
    money = "" if found.money is None else f", {found.money:,.2f} at the price given"
    out.print(
        f"{found.pairs_per_second:,.1f} pairs/s for each process: the whole run takes {_hours(found.gpu_hours)} "
        f"GPU-hours, {_hours(found.hours)} h on {found.gpus}{money}"
    )


def _show_trials(found: Contents) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("setting", "Spearman", "same decisions", "keeps", "pairs/s", "GPU-hours", "money"):
        table.add_column(name, justify="left" if name == "setting" else "right", no_wrap=True)
    table.add_row("the recipe's own", "", "", f"{found.recipe.share.value:.1%}", *_priced(found.cost))
    for tried in found.trials:
        table.add_row(tried.trial.name, *_agreement(tried), *_priced(tried.cost))
    out.print()
    out.print(table)


def _agreement(tried: Tried) -> tuple[str, str, str]:
    found = tried.agreement
    return (
        "" if found.spearman is None else f"{found.spearman:.3f}",
        "" if found.same_decisions is None else f"{found.same_decisions:.1%}",
        "" if found.kept is None else f"{found.kept:.1%}",
    )


def _priced(cost: Cost | None) -> tuple[str, str, str]:
    if cost is None:
        return "", "", ""
    money = "" if cost.money is None else f"{cost.money:,.2f}"
    return f"{cost.pairs_per_second:,.1f}", _hours(cost.gpu_hours), money


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 1 else f"{hours:.2g}"


def _estimate(found: Estimate, form: Callable[[float], str]) -> str:
    within = found.interval
    ends = (form(within.low), form(within.high)) if within else ()
    return form(found.value) + (
        f"\n{' to '.join(ends)}" if any(end != form(found.value) for end in ends) else ""
    )
