"""Labelled shards, made of one's own clean pairs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from wdsfilter.cli import err, out

PLACE = 45


def register(app: typer.Typer) -> None:
    """The command ``perturb``."""
    app.command()(perturb)


def perturb(
    shards: Annotated[list[str], typer.Argument(help="Shards of clean pairs: they are taken to be right.")],
    output: Annotated[str, typer.Argument(help="Folder for the labelled shards.")],
    score: Annotated[int, typer.Option(min=1, max=10, help="The true score of a clean pair.")] = 9,
    per_sample: Annotated[int, typer.Option(min=1, help="Versions of each pair, one defect each.")] = 2,
    defects: Annotated[
        str | None, typer.Option(metavar="NAME,NAME,...", help="Only these defects; all without it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other versions.")] = 0,
    caption: Annotated[str, typer.Option(help="Where captions are: an extension, or json.FIELD.")] = "txt",
) -> None:
    """Make labelled shards of clean pairs: each as it is, and versions of it with one defect each.

    A version's true score is what the paper's rubric leaves of a pair with its defect.
    `wdsfilter check-judge` reads the result.
    """
    from wdsfilter import rubric, storage
    from wdsfilter.errors import UserError
    from wdsfilter.evaluate.perturb import Options, chosen, write_perturbed
    from wdsfilter.shards.source import Pattern, find_shards

    if storage.protocol(output) is not None:
        raise UserError(f"{output}: the output has to be a local or network folder; copy it from there")
    options = Options(score, per_sample, chosen(defects), seed, caption)
    clean = 0
    versions: Counter[str] = Counter()
    unreadable: Counter[str] = Counter()
    for shard in find_shards([Pattern(path) for path in shards]):
        tally = write_perturbed(shard, Path(output), options)
        clean += tally.clean
        versions += tally.versions
        unreadable += tally.unreadable
        if tally.damage is not None:
            err.print(f"{shard.name}: damaged: {tally.damage.detail}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "pairs", "score"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("clean", f"{clean:,}", f"{score}")
    for defect in options.defects:
        table.add_row(Text(defect), f"{versions[defect]:,}", f"{rubric.capped(score, [defect])}")
    out.print(table)
    for reason, count in sorted(unreadable.items()):
        out.print(f"unreadable: {count:,} {reason}", markup=False)
