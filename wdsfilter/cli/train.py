"""Training a judge of one's own on scored pairs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from wdsfilter import launch, storage
from wdsfilter.cli import RecipeArgument, SetOption, complain, err, out
from wdsfilter.counted import counted
from wdsfilter.errors import Interrupted, UserError, WdsfilterError

if TYPE_CHECKING:
    from wdsfilter.stop import Stop
    from wdsfilter.training.recipe import TrainRecipe
    from wdsfilter.training.scratch import ScratchRecipe

PLACE = 50


def register(app: typer.Typer) -> None:
    """The command ``train``."""
    app.command()(train)


def train(
    recipe: RecipeArgument,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder for the judge; a training that is there goes on.")
    ],
    overrides: SetOption = None,
) -> None:
    """Train a judge on scored pairs: a checkpoint that `run` takes as `model`, and so does transformers.

    Start it again to go on after an interruption. Under `accelerate launch` all ranks train together.
    """
    from wdsfilter.stop import Stop
    from wdsfilter.summary import EXIT_INTERRUPTED
    from wdsfilter.training.recipe import load_train_recipe

    where = launch.place()
    if where.launched:
        launch.exit_with_parent()
    stop = Stop()
    with stop.on_signals():
        try:
            settings = load_train_recipe(recipe, overrides or [])
            if storage.protocol(output) is not None:
                raise UserError(
                    f"{output}: the output has to be a local or network folder; copy it from there"
                )
            _train(settings, Path(output), where, stop)
        except (Interrupted, KeyboardInterrupt) as error:
            if where.rank == 0:
                err.print(f"{str(error) or 'interrupted'}. Run the same command again to go on.")
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except WdsfilterError as error:
            # Every rank meets the same mistake: one per machine says so.
            if where.local_rank == 0:
                complain(error)
            raise typer.Exit(1) from error


def _train(recipe: TrainRecipe | ScratchRecipe, root: Path, where: launch.Place, stop: Stop) -> None:
    from wdsfilter.training import finetune, job, ranks, scratch
    from wdsfilter.training.folder import TrainingFolder
    from wdsfilter.training.recipe import TrainRecipe
    from wdsfilter.training.report import Report

    def note(line: str) -> None:
        if where.rank == 0:
            err.print(line, markup=False)

    folder = TrainingFolder(root)
    together = ranks.join(recipe.run.trackers, folder.inner)
    first = together.rank == 0
    made_by = {**launch.versions(), "device": together.device.type, "ranks": together.world_size}
    report = Report(
        err, folder.log if first else None, recipe.training.pairs_per_step, made_by, together.track
    )
    with ExitStack() as stack:
        stack.callback(together.leave)
        if isinstance(recipe, TrainRecipe):
            work = finetune.prepare(recipe, together, note=note, unreadable=report.unreadable)
        else:
            beginning = stack.enter_context(TemporaryDirectory())
            work, close = scratch.prepare(recipe, together, Path(beginning), note=note)
            stack.callback(close)
        stack.enter_context(report)
        job.run(work, folder, ranks=together, listener=report, stop=stop)
    if report.unreadable_pairs:
        err.print(f"{counted(report.unreadable_pairs, 'pair')} could not be read")
    if first:
        out.print(f"trained: {root} (how it went: {folder.log})", markup=False)
