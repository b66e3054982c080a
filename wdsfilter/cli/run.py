"""The job itself: judge every pair, keep those worth training on."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wdsfilter import launch, storage
from wdsfilter.cli import RecipeArgument, SetOption, ShardsOption, complain, err
from wdsfilter.cli._pipe import InputStream, input_stream, stream, warn_of_strangers
from wdsfilter.cli.look import show, show_fill, tell_full
from wdsfilter.counted import counted
from wdsfilter.errors import GuardTripped, Interrupted, UserError, WdsfilterError

if TYPE_CHECKING:
    from wdsfilter.events import EventLog
    from wdsfilter.plan import Job
    from wdsfilter.recipe import Recipe
    from wdsfilter.stop import Stop

PLACE = 10
STDOUT = "-"
WHOLE = "all that was committed is whole. Run the same command again to go on."
IN_A_TAR = "the tar ends in its middle"


def register(app: typer.Typer) -> None:
    """The command ``run``."""
    app.command()(run)


def run(
    recipe: RecipeArgument,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Output folder; a run that is there goes on. Or -: one tar of kept samples to standard output.",
        ),
    ] = None,
    shards: ShardsOption = None,
    limit_shards: Annotated[
        int | None, typer.Option(min=1, help="Only so many shards, the first of the run's seeded order.")
    ] = None,
    fill: Annotated[
        bool,
        typer.Option(
            "--fill",
            help="After a run: judge just what a later judge never saw, because an earlier one rejected it.",
        ),
    ] = False,
    overrides: SetOption = None,
) -> None:
    """Judge every pair, write the shards worth training on, and a ledger of every sample.

    Start it as often as you like, on as many machines as you like, on one output folder: what is
    done is done, the rest is shared. Under `accelerate launch` every rank does its part.
    """
    from wdsfilter.fill import check_run, fill_job
    from wdsfilter.output import OutputFolder
    from wdsfilter.recipe_files import load_recipe
    from wdsfilter.stop import Stop
    from wdsfilter.summary import EXIT_INTERRUPTED

    where = launch.place()
    if where.launched:
        launch.exit_with_parent()
    stop = Stop()
    source: InputStream | None = None
    with stop.on_signals():
        try:
            try:
                settings = load_recipe(recipe, overrides or (), shards or ())
                folder = output or settings.output.folder
                if folder == STDOUT:
                    if fill:
                        raise UserError("--fill goes on from a run's folder: give --output FOLDER")
                    source = input_stream(settings, limit_shards, where, stop)
                else:
                    if fill and folder is not None:
                        check_run(OutputFolder(folder))
                    job = planned(settings, folder, limit_shards, where)
                    job = fill_job(job) if fill else job
            except WdsfilterError as error:
                # Every rank meets the same mistake: one per machine says so.
                if where.local_rank == 0:
                    complain(error)
                raise typer.Exit(1) from error
            if source is not None:
                code = stream(source)
            elif fill and not job.shards:
                if where.rank == 0:
                    tell_full(job.remarks)
                code = 0
            else:
                code = carry_out(job, where, stop)
        except (Interrupted, KeyboardInterrupt):
            if where.rank == 0:
                err.print(f"stopped; {IN_A_TAR if source is not None else WHOLE}")
            code = EXIT_INTERRUPTED
    raise typer.Exit(code)


def planned(settings: Recipe, folder: str | None, limit: int | None, where: launch.Place) -> Job:
    """The job of judging the first ``limit`` shards into ``folder``. Raises UserError, ReadError."""
    from wdsfilter.judges import Runtime
    from wdsfilter.plan import plan

    if folder is None:
        raise UserError("no output folder: give --output FOLDER, or output.folder in the recipe")
    if any(pattern.path == storage.STDIN for pattern in settings.input.patterns()):
        if where.world_size > 1:
            raise UserError("standard input can be read by one process only; start without a launcher")
        err.print("standard input is judged once: a run over it cannot be resumed")
    runtime = Runtime(settings.run.device, where.local_rank)
    return plan(settings, folder, runtime=runtime, limit=limit)


def carry_out(job: Job, where: launch.Place, stop: Stop, *, table: bool = True) -> int:
    """Judge what is left of the job, with progress on stderr; returns the exit code.

    ``table``: show how the run ended. Raises Interrupted, JudgeError, OutputError.
    """
    from wdsfilter import pipeline, summary
    from wdsfilter.committing import Failed
    from wdsfilter.events import EventLog, last_time, read_events
    from wdsfilter.progress import FolderProgress, ProgressLine, figures
    from wdsfilter.pulse import Pulse
    from wdsfilter.status import note_shards
    from wdsfilter.trackers import check_installed, tracking
    from wdsfilter.whereabouts import as_noted
    from wdsfilter.workers import default_count

    recipe, folder = job.recipe, job.folder
    begun = time.monotonic()
    check_installed(recipe.run.trackers)
    with ExitStack() as stack:
        earlier = list(read_events(folder.events))
        note = stack.enter_context(EventLog(folder, after=last_time(earlier)))
        try:
            workers = (
                default_count(where.local_world_size) if recipe.run.workers is None else recipe.run.workers
            )
            before = [*(read_events(job.fills.events) if job.fills else ()), *earlier]
            tolerate = recipe.input.tolerate.model_dump()
            note(
                "started",
                place=asdict(where),
                tolerate=tolerate,
                input=as_noted(recipe.input.patterns()),
                **note_shards(folder, job.shards),
            )
            if where.local_rank == 0:
                for remark in job.remarks:
                    err.print(remark, markup=False)
            runner = stack.enter_context(pipeline.Runner(job, stop, note, workers))
            made_by = {
                **launch.versions(),
                "device": job.runtime.device.partition(":")[0] if "torch" in sys.modules else "",
            }
            note("loaded", versions=made_by)
            if where.local_rank == 0:
                _warn_of_changes(before, made_by)
            if where.rank == 0 and not folder.readout.exists() and not all(j.inline for j in runner.judges):
                err.print(
                    "asking the judge about the first pairs, to check that its answers are read rightly"
                )
            runner.open()
            note("opened")
            if where.local_rank == 0:
                warn_of_strangers(folder.findings())

            def judging() -> int:
                return runner.commit.open_samples

            stack.enter_context(Pulse(note, judging, runner.stopwatch))
            if where.rank == 0:
                track = stack.enter_context(tracking(recipe.run.trackers, folder.trackers, err.print))
                filling = recipe.judge_ids if job.fills else ()
                sofar = FolderProgress(summary.Tally(folder), judging, filling)
                stack.callback(lambda: track(figures(last := sofar.fresh()), last.judged))
                stack.enter_context(ProgressLine(err, len(job.shards), sofar, track))
            for result in pipeline.run(runner):
                if isinstance(result, Failed):
                    err.print(f"not read: {result.error}", markup=False)
                elif result.header.damage is not None:
                    err.print(f"{result.shard.name}: damaged: {result.header.damage.detail}", markup=False)
        except (Interrupted, KeyboardInterrupt):
            note("interrupted")
            raise
        except GuardTripped as error:
            note("guard", why=str(error))
            err.print(f"stopped by the guard: {error}", markup=False)
            return summary.EXIT_GUARD
        return _finished(job, where, note, time.monotonic() - begun, table)


def _warn_of_changes(events: Sequence[Mapping[str, Any]], made_by: Mapping[str, str]) -> None:
    """Another version or device may move the last digits of scores: say so, and go on."""
    from wdsfilter.fingerprint import differences

    there = next((event["versions"] for event in reversed(events) if event["event"] == "loaded"), made_by)
    for line in differences(there, made_by):
        err.print(
            f"warning: scores may differ in their last digits from earlier shards': {line}", markup=False
        )


def _finished(job: Job, where: launch.Place, note: EventLog, seconds: float, table: bool) -> int:
    """Tell how the run ended; of a launch's ranks, the first that sees all of it done shows the table."""
    from wdsfilter.progress import duration
    from wdsfilter.status import read_status

    folder = job.folder
    status = read_status(folder)
    note("finished", state=status.state, seconds=round(seconds, 1))
    held = sum((folder.claims / f"{name}.json").exists() for name in status.left)
    if status.left and not held:
        status = read_status(folder)  # whoever held them may have ended between our two looks
    if held:
        if where.rank == 0:
            err.print(f"nothing left for this process; with others, who are alive: {counted(held, 'shard')}")
        return 0
    if table and (
        not where.launched or folder.put(b"", folder.events / f"told-{launch.launcher_identity()}")
    ):
        when = f"in {duration(seconds)}"
        if job.fills is None:
            show(status, folder, when)
        else:
            show_fill(status, folder, when)
    # A rank that finished exits 0: another code would make its launcher stop the other ranks.
    return 0 if where.launched else status.code
