"""The commands, and every word printed to a person.

A user's mistake is one line (or one list) on stderr and exit code 1; a bug keeps its traceback.
"""

from __future__ import annotations

import errno
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import wdsfilter
from wdsfilter import launch, storage
from wdsfilter.errors import GuardTripped, Interrupted, UserError, WdsfilterError

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help is quick
    from wdsfilter.events import EventLog
    from wdsfilter.output import OutputFolder
    from wdsfilter.plan import Job
    from wdsfilter.status import Status
    from wdsfilter.stop import Stop

app = typer.Typer(
    help=wdsfilter.__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes_app = typer.Typer(help="The recipes that come with wdsfilter, and your own.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

RecipeArgument = Annotated[
    str, typer.Argument(help="Name of a recipe that comes with wdsfilter, or path of a .yaml file.")
]
FolderArgument = Annotated[Path, typer.Argument(help="Output folder of a run.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a key: judges.vlm.at_least.grade=8"),
]
ShardsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shards", help="Path, URL, folder, glob or brace pattern of the input shards; - for standard input."
    ),
]


_USERS_TO_SOLVE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        app(args=list(argv) if argv is not None else None)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except WdsfilterError as error:
        _complain(error)
        return 1
    except OSError as error:
        if error.errno not in _USERS_TO_SOLVE:
            raise
        _complain(error)
        return 1
    return 0


def _complain(error: Exception) -> None:
    where = launch.place()
    prefix = f"wdsfilter (rank {where.rank}): " if where.rank else "wdsfilter: "
    err.print(f"{prefix}{error}", markup=False)


# --- run -------------------------------------------------------------------------------------


@app.command()
def run(
    recipe: RecipeArgument,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Output folder; a run that is there goes on.")
    ] = None,
    shards: ShardsOption = None,
    limit_shards: Annotated[
        int | None, typer.Option(min=1, help="Only so many shards, the first of the run's seeded order.")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Judge every pair, write the shards worth training on, and a ledger of every sample.

    Start it as often as you like, on as many machines as you like, on one output folder: what is
    done is done, the rest is shared. Under `accelerate launch` every rank does its part.
    """
    from wdsfilter.stop import Stop
    from wdsfilter.summary import EXIT_INTERRUPTED

    where = launch.place()
    if where.launched:
        launch.exit_with_parent()
    stop = Stop()
    with stop.on_signals():
        try:
            job = _planned(recipe, output, shards, limit_shards, overrides, where)
            code = _run(job, where, stop)
        except (Interrupted, KeyboardInterrupt):
            if where.rank == 0:
                err.print("stopped; all that was committed is whole. Run the same command again to go on.")
            code = EXIT_INTERRUPTED
    raise typer.Exit(code)


def _planned(
    recipe: str,
    output: str | None,
    shards: Sequence[str] | None,
    limit: int | None,
    overrides: Sequence[str] | None,
    where: launch.Place,
) -> Job:
    from wdsfilter.judges import Runtime
    from wdsfilter.plan import plan
    from wdsfilter.recipe_files import load_recipe

    try:
        settings = load_recipe(recipe, [*(overrides or []), *_shards_override(shards)])
        folder = output or settings.output.folder
        if folder is None:
            raise UserError("no output folder: give --output FOLDER, or output.folder in the recipe")
        if storage.protocol(folder) is not None:
            raise UserError(f"{folder}: the output has to be a local or network folder; copy it from there")
        if any(pattern.path == "-" for pattern in settings.input.patterns()):
            if where.world_size > 1:
                raise UserError("standard input can be read by one process only; start without a launcher")
            err.print("standard input is judged once: a run over it cannot be resumed")
        runtime = Runtime(settings.run.device, where.local_rank)
        return plan(settings, Path(folder), runtime=runtime, limit=limit)
    except WdsfilterError as error:
        # Every rank meets the same mistake: one per machine says so.
        if where.local_rank == 0:
            _complain(error)
        raise typer.Exit(1) from error


def _shards_override(shards: Sequence[str] | None) -> list[str]:
    return [f"input.shards={json.dumps(list(shards))}"] if shards else []


def _run(job: Job, where: launch.Place, stop: Stop) -> int:
    from wdsfilter import pipeline, summary
    from wdsfilter.events import EventLog, read_events
    from wdsfilter.progress import ProgressLine
    from wdsfilter.stages import Failed
    from wdsfilter.status import note_shards
    from wdsfilter.workers import default_count

    recipe, folder = job.recipe, job.folder
    begun = time.monotonic()
    with ExitStack() as stack:
        note = stack.enter_context(EventLog(folder.events))
        try:
            workers = (
                default_count(where.local_world_size) if recipe.run.workers is None else recipe.run.workers
            )
            before = list(read_events(folder.events))
            tolerate = recipe.input.tolerate.model_dump()
            note("started", place=asdict(where), tolerate=tolerate, **note_shards(folder, job.shards))
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
            if where.rank == 0:
                tally = summary.Tally(folder)
                stack.enter_context(
                    ProgressLine(err, tally, len(job.shards), lambda: runner.commit.open_samples)
                )
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
        return _finished(folder, where, note, time.monotonic() - begun)


def _warn_of_changes(events: Sequence[Mapping[str, Any]], made_by: Mapping[str, str]) -> None:
    """Another version or device may move the last digits of scores: say so, and go on."""
    from wdsfilter.fingerprint import differences

    there = next((event["versions"] for event in reversed(events) if event["event"] == "loaded"), made_by)
    for line in differences(there, made_by):
        err.print(
            f"warning: scores may differ in their last digits from earlier shards': {line}", markup=False
        )


def _finished(folder: OutputFolder, where: launch.Place, note: EventLog, seconds: float) -> int:
    """Tell how the run ended; of a launch's ranks, the first that sees all of it done shows the table."""
    from wdsfilter.progress import duration
    from wdsfilter.status import read_status

    status = read_status(folder)
    note("finished", state=status.state, seconds=round(seconds, 1))
    held = sum((folder.claims / f"{name}.json").exists() for name in status.left)
    if held:
        if where.rank == 0:
            err.print(f"nothing left for this process; {held} shards are still with others, who are alive")
        return 0
    if not where.launched or folder.put(b"", folder.events / f"told-{launch.launcher_identity()}"):
        _show(status, folder, f"in {duration(seconds)}")
    # A rank that finished exits 0: another code would make its launcher stop the other ranks.
    return 0 if where.launched else status.code


def _show(status: Status, folder: OutputFolder, when: str = "") -> None:
    counts = status.counts
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(overflow="fold")

    def line(number: int, what: str, share: bool = True) -> None:
        part = f"{number / counts.samples:.1%}" if share and counts.samples else ""
        table.add_row(f"{number:,}", part, Text(what))

    line(counts.samples, f"samples in {status.done} of {status.total} shards", share=False)
    line(counts.kept, "kept")
    for reason, number in sorted(counts.reasons.items(), key=lambda item: -item[1]):
        line(number, reason)
    out.print(table)
    for name, why in status.damaged.items():
        out.print(f"damaged: {name}: {why}", markup=False)
    for name, why in status.unread.items():
        out.print(f"not read: {name}: {why}; the next run tries again", markup=False)
    for trouble in [*status.troubles, *([f"guard: {status.guard}"] if status.guard else [])]:
        out.print(trouble, markup=False)
    out.print(f"{status.state} {when}".rstrip() + f": {folder.root}", markup=False)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put shards, judge and output.")] = Path("demo"),
) -> None:
    """Make a few shards and a very small judge, and filter the one with the other."""
    from wdsfilter.demo.checkpoint import make_checkpoint
    from wdsfilter.demo.shards import write_shards

    pattern = write_shards(folder / "shards")
    out.print(f"wrote {pattern}")
    judge = folder / "judge"
    if not (judge / "config.json").exists():
        out.print(f"making {judge}, a checkpoint that answers in form and knows nothing about images")
        make_checkpoint(judge)
    arguments = [
        "run",
        "demo",
        "--shards",
        pattern,
        "--set",
        f"judges.vlm.model={judge}",
        "-o",
        str(folder / "out"),
    ]
    out.print(f"wdsfilter {shlex.join(arguments)}", markup=False)
    code = main(arguments)
    if code == 0:
        out.print(
            f"kept samples: {folder}/out/*.tar; a row for every sample: {folder}/out/wdsfilter/ledger/**/*.parquet\n"
            f"next: wdsfilter verify {folder}/out; wdsfilter recipes list; wdsfilter run RECIPE --shards YOURS -o OUT",
            markup=False,
        )
    raise typer.Exit(code)


# --- looking at a run ------------------------------------------------------------------------


@app.command()
def status(
    folder: FolderArgument,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show how a run stands. Exits with the run's own code: 0 done, 3 damaged or unread, 4 guard, 75 unfinished."""
    from wdsfilter.output import OutputFolder
    from wdsfilter.status import read_status

    found = read_status(OutputFolder(folder))
    if as_json:
        out.print_json(json.dumps(asdict(found)))
    else:
        _show(found, OutputFolder(folder), f"(exit code {found.code})")
    raise typer.Exit(found.code)


@app.command()
def verify(
    folder: FolderArgument,
    shards: Annotated[
        list[str] | None,
        typer.Option(
            "--shards", help="The input shards, to compare every kept member with (as given to run)."
        ),
    ] = None,
) -> None:
    """Recount and re-hash a run's output; print every broken promise. Exits 3 where there is one."""
    from wdsfilter.output import OutputFolder
    from wdsfilter.shards.source import Pattern, find_shards
    from wdsfilter.status import read_status
    from wdsfilter.summary import EXIT_DAMAGED
    from wdsfilter.verify import verify as find_broken

    inputs = find_shards([Pattern(path) for path in shards or []])
    broken = list(find_broken(OutputFolder(folder), inputs))
    for sentence in broken:
        out.print(sentence, markup=False)
    if not broken:
        found = read_status(OutputFolder(folder))
        out.print(
            f"{folder}: every promise holds; {found.done} of {found.total} shards are done", markup=False
        )
        raise typer.Exit(0)
    out.print(f"{folder}: {len(broken)} broken promise{'s' * (len(broken) > 1)}", markup=False)
    raise typer.Exit(EXIT_DAMAGED)


# --- recipes ---------------------------------------------------------------------------------


@recipes_app.command("list")
def list_recipes() -> None:
    """Names and purposes of the recipes that come with wdsfilter."""
    from wdsfilter.recipe_files import find_recipe, recipe_names

    table = Table(box=None, show_header=False, pad_edge=False)
    for name in recipe_names():
        purpose = find_recipe(name).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        table.add_row(Text(name), Text(purpose))
    out.print(table)


@recipes_app.command("show")
def show_recipe(recipe: RecipeArgument) -> None:
    """Print a recipe, to read it or to start one's own from it."""
    from wdsfilter.recipe_files import find_recipe

    sys.stdout.write(find_recipe(recipe).read_text(encoding="utf-8"))


@recipes_app.command("check")
def check_recipe(recipe: RecipeArgument, overrides: SetOption = None) -> None:
    """Validate a recipe and its overrides; all mistakes at once. Loads no model and looks for no shard."""
    from wdsfilter.recipe_files import load_recipe

    checked = load_recipe(recipe, overrides or [])
    out.print(f"{recipe}: valid; judges: {', '.join(checked.judge_ids)}", markup=False)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(wdsfilter.__version__)
