"""What sets of shards are like, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from wdsfilter.cli import SetOption, err, out

if TYPE_CHECKING:
    from wdsfilter.measure.facts import Spread
    from wdsfilter.measure.measuring import Estimate, Measured

PLACE = 45

_NONE = "none"


def register(app: typer.Typer) -> None:
    """The command ``measure``."""
    app.command()(measure)


def measure(
    sets: Annotated[
        list[str],
        typer.Argument(
            help="Each is a set: path, URL, folder, glob or brace pattern (quoted) of its shards, or NAME=PATTERN."
        ),
    ],
    clip: Annotated[
        str, typer.Option(help="CLIP or SigLIP for the alignment: hub name, folder, or none.")
    ] = "openai/clip-vit-large-patch14",
    lm: Annotated[
        str, typer.Option(help="Causal language model for the perplexity: hub name, folder, or none.")
    ] = "openai-community/gpt2",
    limit_shards: Annotated[
        int | None, typer.Option(min=1, help="Of each set only so many shards, the first in seeded order.")
    ] = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Measure sets of pairs side by side: alignment, perplexity, and facts that need no model.

    Exits 3 where a shard is damaged or could not be read; the rest is measured.
    """
    from wdsfilter.judges import Runtime
    from wdsfilter.measure.measuring import find_set, measuring_recipe, models
    from wdsfilter.measure.measuring import measure as measure_set
    from wdsfilter.panel import Panel
    from wdsfilter.summary import EXIT_DAMAGED
    from wdsfilter.workers import default_count

    asked = {"clip": None if clip == _NONE else clip, "perplexity": None if lm == _NONE else lm}
    recipe = measuring_recipe(asked["clip"], asked["perplexity"], overrides or [])
    found = [find_set(argument, limit_shards, recipe.seed) for argument in sets]
    runtime = Runtime(recipe.run.device)
    weights = models(recipe, runtime)
    count = default_count(1) if recipe.run.workers is None else recipe.run.workers
    measured = []
    with Panel(recipe, runtime, worker_count=count) as panel:
        for chosen in found:
            with err.status(f"measuring {chosen.name}"):
                measured.append(measure_set(chosen, panel, weights))
    if as_json:
        everything = {
            "alignment_model": asked["clip"],
            "perplexity_model": asked["perplexity"],
            "sets": [asdict(one) for one in measured],
        }
        typer.echo(json.dumps(everything, ensure_ascii=False, indent=2))
    else:
        _show(measured)
    _warn(measured)
    if any(one.damaged or one.unread for one in measured):
        raise typer.Exit(EXIT_DAMAGED)


# --- for people ------------------------------------------------------------------------------


def _show(measured: Sequence[Measured]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for one in measured:
        table.add_column(Text(one.name), justify="right", no_wrap=True)

    def line(what: str, shown: Callable[[Measured], str]) -> None:
        cells = [shown(one) for one in measured]
        if any(cells):
            table.add_row(what, *cells)

    line("pairs", lambda one: f"{one.pairs:,}")
    line("unreadable", lambda one: f"{sum(one.unreadable.values()):,}")
    line("alignment, mean cosine", lambda one: _estimate(one.alignment, ".4f"))
    line("perplexity", lambda one: _estimate(one.perplexity, ".2f"))
    line("words in a caption, mean", lambda one: _estimate(one.words, ".2f"))
    line("  median", lambda one: _spread(one.words_spread))
    line("characters", lambda one: _spread(one.characters))
    line("different words", lambda one: f"{one.vocabulary:,}")
    line("  of 1,000 in a row", lambda one: _estimate(one.variety, ".1%"))
    line("shorter side, pixels", lambda one: _spread(one.shorter_side))
    line("pixels", lambda one: _spread(one.pixels))
    line("repeated images", lambda one: _share(one.repeated_images, one.pairs))
    line("images that look alike", lambda one: _share(one.alike_images, one.pairs))
    line("repeated captions", lambda one: _share(one.repeated_captions, one.pairs))
    line("filtered by", lambda one: ", ".join(one.filtered_by))
    out.print(table)
    out.print("below a mean its 95 % interval; in brackets the 5 % and 95 % quantiles, or the share")


def _warn(measured: Sequence[Measured]) -> None:
    for one in measured:
        for number in one.measured_by_its_filter:
            err.print(
                f"{one.name}: was filtered by the very model that measures its {number} here: "
                "the number shows what was asked for, not that the set is better",
                style="bold red",
                markup=False,
            )
        for name, why in one.damaged.items():
            err.print(f"{one.name}: damaged: {name}: {why}", markup=False)
        for name, why in one.unread.items():
            err.print(f"{one.name}: not read: {name}: {why}", markup=False)


def _estimate(found: Estimate | None, form: str) -> str:
    if found is None:
        return ""
    within = found.interval
    return f"{found.value:{form}}" + (f"\n{within.low:{form}} to {within.high:{form}}" if within else "")


def _spread(found: Spread | None) -> str:
    return "" if found is None else f"{found.median:,} ({found.low:,} to {found.high:,})"


def _share(count: int | None, total: int) -> str:
    return "" if count is None else f"{count:,} ({count / total:.1%})"
