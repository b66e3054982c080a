"""Everything at once, on data that is drawn for it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from wdsfilter.cli import main, out

PLACE = 20

_SAMPLES, _SAMPLES_PER_SHARD, _BROKEN = 900, 300, 0.02
_SEED = 2026
_THRESHOLD = 9


def register(app: typer.Typer) -> None:
    """The command ``demo``."""
    app.command()(demo)


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put shards and output.")] = Path("demo"),
) -> None:
    """Draw a few shards of a small world, filter them with the judge that comes along, compare with the truth."""
    from wdsfilter.demo.truth import compare
    from wdsfilter.demo.world import write_world
    from wdsfilter.output import OutputFolder

    shards = folder / "shards"
    if any(shards.glob("*.tar")):
        pattern = f"{shards}/world-*.tar"
        out.print(f"the shards are there: {pattern}", markup=False)
    else:
        pattern = write_world(
            shards, samples=_SAMPLES, samples_per_shard=_SAMPLES_PER_SHARD, seed=_SEED, broken=_BROKEN
        )
        out.print(f"drew {_SAMPLES} pairs whose true score is known: {pattern}", markup=False)
    arguments = ["run", "demo", "--shards", pattern, "-o", str(folder / "out")]
    out.print(f"wdsfilter {shlex.join(arguments)}\n", markup=False)
    code = main(arguments)
    if code == 0:
        shown = ["report", str(folder / "out"), "--shards", pattern]
        out.print(f"\nwdsfilter {shlex.join(shown)}", markup=False)
        code = main(shown)
    if code == 0:
        found = compare(OutputFolder(folder / "out"), _THRESHOLD)
        worth = found.kept_right + found.dropped_wrong
        out.print(
            f"\nin truth {worth} of these pairs are worth {_THRESHOLD} or more: {found.kept_right} of them were kept "
            f"(recall {found.recall:.2f}),\nand {found.kept_wrong} others (precision {found.precision:.2f}). "
            "This judge knows the small world only.\n\n"
            f"kept samples     tar tf {folder}/out/world-0000.tar\n"
            f"why each pair    duckdb -c \"select key, reason, vlm.grade from '{folder}/out/wdsfilter/ledger/*'\"\n"
            f"is it whole      wdsfilter verify {folder}/out\n"
            "the real job     wdsfilter recipes list; wdsfilter run RECIPE --shards YOURS --output OUT\n"
            f"LOOK AT IT       {(folder / 'out/wdsfilter/report.html').resolve().as_uri()}",
            markup=False,
        )
    raise typer.Exit(code)
