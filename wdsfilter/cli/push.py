"""Finished shards to the Hugging Face hub."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from wdsfilter.cli import FolderArgument, err, out
from wdsfilter.counted import counted

PLACE = 37


def register(app: typer.Typer) -> None:
    """The command ``push``."""
    app.command()(push)


def push(
    folder: FolderArgument,
    target: Annotated[
        str,
        typer.Argument(help="hf://datasets/OWNER/NAME; @BRANCH and /FOLDER may follow.", metavar="TARGET"),
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="What is there of a run that is not finished.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Where the data set is made: for everybody to see, not private.")
    ] = False,
) -> None:
    """Upload a run's or a selection's shards and ledgers to the hub, with its fill and a card that says what they are.

    What is there already is not sent again: run the same command again to go on. The token is that of
    `hf auth login`, or HF_TOKEN.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from wdsfilter.output import OutputFolder
    from wdsfilter.push import pushing
    from wdsfilter.push.target import parse_target
    from wdsfilter.report.opened import open_folder
    from wdsfilter.summary import EXIT_INTERRUPTED

    if not sys.stderr.isatty():
        disable_progress_bars()
    goal = parse_target(target)
    output = OutputFolder(folder)
    try:
        sent = pushing.push(
            open_folder(output),
            goal,
            partial=partial,
            public=public,
            tell=lambda remark: err.print(remark, markup=False),
        )
    except KeyboardInterrupt:
        err.print("stopped; what was committed is there. Run the same command again to go on.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        output.remove_own_temporaries()
    out.print(f"{goal}: {counted(sent, 'shard')} sent", markup=False)
