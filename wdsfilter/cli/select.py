"""After the scores: another selection from a run's ledgers and its input shards, without a model."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from wdsfilter.cli import ShardsOption, err, out, tar_output
from wdsfilter.counted import counted
from wdsfilter.errors import Interrupted, UserError

PLACE = 20


class Scores(str, Enum):
    """What goes along with a chosen sample."""

    member = "member"
    none = "none"


def register(app: typer.Typer) -> None:
    """The command ``select``."""
    app.command()(select)


def select(
    runs: Annotated[
        list[str],
        typer.Argument(help="Output folder of a run; or several over the same shards, named: a=RUN1 b=RUN2"),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Output folder, a URL, too; a selection that is there goes on."),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="-", help="One tar to standard output.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="A list in place of shards: keys .txt, DataComp subset .npy, rows .parquet."),
    ] = None,
    shards: ShardsOption = None,
    remap: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="Shards that lay where OLD begins, or are called so, lie where NEW begins.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Expression over ledger columns: 'vlm.score >= 8.5 and rules.width >= 256'"),
    ] = None,
    top: Annotated[
        str | None, typer.Option(help="The best: a number, or a share of all readable samples (18%).")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="What is better has more of this: p_at_least(vlm, 9), or any expression."),
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="Only these: KEY or SHARD<TAB>KEY, one a line.")] = None,
    drop_keys: Annotated[Path | None, typer.Option(help="Not these: values of --on, one a line.")] = None,
    on: Annotated[str, typer.Option(help="The ledger column that --drop-keys lists values of.")] = "key",
    sample: Annotated[str | None, typer.Option(help="A seeded part of what is left: 5%")] = None,
    drop_duplicates: Annotated[
        bool,
        typer.Option("--drop-duplicates", help="Of images with the same bytes only the best, or the first."),
    ] = False,
    near: Annotated[
        int | None,
        typer.Option(
            help="With --drop-duplicates: of images whose perceptual hashes differ in so few bits, too."
        ),
    ] = None,
    samples_per_shard: Annotated[int, typer.Option(min=1)] = 10_000,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="In a seeded order; else that of the input.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of --sample and --shuffle.")] = 0,
    scores: Annotated[Scores, typer.Option(help="KEY.score.json with every sample, or not.")] = Scores.member,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that copy.")] = None,
    memory: Annotated[str, typer.Option(help="What the question may take; the rest is spilled.")] = "2GiB",
) -> None:
    """Cut new shards from a run's ledgers and its input: another threshold, the best part, a subset.

    Needs no model. Dropped samples come back when the threshold falls. Run the same command again to go on.
    """
    from wdsfilter.output import OutputFolder
    from wdsfilter.select.question import Amount, Question
    from wdsfilter.select.selection import Selection
    from wdsfilter.select.sources import open_sources
    from wdsfilter.stop import Stop
    from wdsfilter.summary import EXIT_INTERRUPTED
    from wdsfilter.workers import cores

    if near is not None and not drop_duplicates:
        raise UserError("--near goes with --drop-duplicates")
    if sum(goal is not None for goal in (output, to, export)) != 1 or to not in (None, "-"):
        raise UserError("say where to: one of --output FOLDER, --to - and --export FILE")
    question = Question(
        where=where,
        keys=keys,
        drop_keys=drop_keys,
        drop_on=on,
        drop_duplicates=drop_duplicates,
        near=near,
        top=Amount(top) if top is not None else None,
        by=by,
        sample=Amount(sample) if sample is not None else None,
        shuffle=shuffle,
        seed=seed,
    )
    stop = Stop()
    with stop.on_signals():
        try:
            with open_sources(runs) as sources:
                selection = Selection(
                    question,
                    sources,
                    tuple(shards or ()),
                    tuple(remap or ()),
                    scores is Scores.member,
                    workers or min(cores(1), 8),
                    memory,
                    lambda remark: err.print(remark, markup=False),
                )
                if output is not None:
                    folder = OutputFolder(output)
                    # Until the first shard there is no work in hand, only a question.
                    chosen = selection.into(folder, samples_per_shard, check=stop.gently)
                    count = len(folder.shard_names())
                    out.print(
                        f"{output}: {counted(chosen, 'sample')} in {counted(count, 'shard')}", markup=False
                    )
                elif export is not None:
                    chosen = selection.export(export)
                    out.print(f"{export}: {counted(chosen, 'sample')}", markup=False)
                else:
                    with suppress(BrokenPipeError), tar_output() as file:
                        selection.stream(file)
        except (Interrupted, KeyboardInterrupt):
            err.print("stopped; all that was committed is whole. Run the same command again to go on.")
            raise typer.Exit(EXIT_INTERRUPTED) from None
