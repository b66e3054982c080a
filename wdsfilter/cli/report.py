"""A run as a page to look at, and a page to grade its pairs on."""

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
    seed: Annotated[int, typer.Option(help="Another seed shows, or draws, other samples.")] = 0,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Instead, write a page about two runs or selections of the same shards: this is the other."
        ),
    ] = None,
    label: Annotated[
        int | None,
        typer.Option(
            min=1, help="Instead, write a page to grade so many drawn pairs on, without seeing scores."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A file of labels that such a page exported, to compare with.")
    ] = None,
) -> None:
    """Write one HTML page about a run or a selection: scores, thresholds to try, pictures above and below them.

    It needs no network and no other file. Pictures come from --shards, as given to run; without it from where
    a run read them, if that is on this machine, else only those of kept samples can be shown.
    """
    from wdsfilter.errors import InputError, UserError
    from wdsfilter.evaluate.labels import read_file
    from wdsfilter.output import OutputFolder
    from wdsfilter.report import compare_page, label_page, page
    from wdsfilter.report.comparison import compare as compare_runs
    from wdsfilter.report.contents import gather
    from wdsfilter.report.opened import open_folder
    from wdsfilter.storage import STDIN, replace_file
    from wdsfilter.whereabouts import input_shards

    if STDIN in (shards or []):
        raise InputError("--shards: standard input cannot be read here; give the shards' paths")
    if sum(option is not None for option in (compare, label, labels)) > 1:
        raise UserError("--compare, --label and --labels each make a page of their own; give one of them")
    inputs = input_shards(OutputFolder(folder), shards)
    runs = [OutputFolder(path) for path in (folder, compare) if path is not None]
    try:
        with err.status("reading ledgers and pictures"):
            opened, *others = [open_folder(run) for run in runs]
            if others:
                found = compare_runs(opened, others[0], seed)
                name, written = "compare.html", compare_page.render(found, inputs)
            elif label is not None:
                name, written = "label.html", label_page.render(opened, inputs, label, seed)
            else:
                if labels is not None:
                    opened = opened.graded(read_file(labels))
                name, written = "report.html", page.render(gather(opened, inputs, seed))
    finally:
        for run in runs:
            run.remove_own_temporaries()
    path = output or opened.folder.root / "wdsfilter" / name
    if isinstance(path, Path):
        replace_file(written, path)
    else:
        opened.folder.replace(written, path)
    out.print(f"wrote {path} ({len(written) / 1e6:.1f} MB)", markup=False)
