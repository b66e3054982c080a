"""The small world: data to try everything on, and to train and check judges with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wdsfilter.cli import out
from wdsfilter.counted import counted

PLACE = 70


def register(app: typer.Typer) -> None:
    """The command ``world``."""
    app.command()(world)


def world(
    folder: Annotated[Path, typer.Argument(help="Where to write the shards.")],
    samples: Annotated[int, typer.Option(min=1, help="Pairs in all.")] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed gives other pairs.")] = 0,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Pairs in a shard.")] = 1000,
    shifted: Annotated[
        bool, typer.Option("--shifted", help="Only things that the ordinary world lacks.")
    ] = False,
    broken: Annotated[float, typer.Option(min=0, max=1, help="Share of pairs that cannot be read.")] = 0.0,
) -> None:
    """Draw pictures and captions of them whose true score is known, as shards.

    The json of each pair holds its `score`, its `defects`, and what the score would be `otherwise`.
    """
    from wdsfilter.demo.world import write_world

    pattern = write_world(
        folder,
        samples=samples,
        seed=seed,
        samples_per_shard=samples_per_shard,
        shifted=shifted,
        broken=broken,
    )
    out.print(f"wrote {counted(samples, 'pair')}: {pattern}", markup=False)
