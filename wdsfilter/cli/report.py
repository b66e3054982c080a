"""A run as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wdsfilter.cli import FolderArgument, ShardsOption, err, out

PLACE = 35


def register(app: typer.Typer) -> None:
    """The command ``report``."""
    app.command()(report)


def report(
    folder: FolderArgument,
    shards: ShardsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write it; else wdsfilter/report.html in the run."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed shows other samples.")] = 0,
) -> None:
    """Write one HTML page about a run: scores, thresholds to try, pictures just above and below them.

    It needs no network and no other file. Pictures come from --shards, as given to run; without it only
    those of kept samples can be shown.
    """
    from wdsfilter.errors import InputError
    from wdsfilter.output import OutputFolder
    from wdsfilter.report.contents import gather
    from wdsfilter.report.page import render
    from wdsfilter.shards.source import Pattern, find_shards
    from wdsfilter.storage import STDIN, replace_file

    if STDIN in (shards or []):
        raise InputError("--shards: standard input cannot be read here; give the shards' paths")
    run = OutputFolder(folder)
    inputs = find_shards([Pattern(path) for path in shards or []])
    with err.status("reading ledgers and pictures"):
        page = render(gather(run, inputs, seed))
    path = output or run.root / "wdsfilter" / "report.html"
    replace_file(page, path)
    out.print(f"wrote {path} ({len(page) / 1e6:.1f} MB)", markup=False)
