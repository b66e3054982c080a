"""Looking at a run: how it stands, and whether it is whole."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wdsfilter.cli import FolderArgument, err, out
from wdsfilter.counted import counted, plural

if TYPE_CHECKING:
    from wdsfilter.ledger import Counts
    from wdsfilter.output import OutputFolder
    from wdsfilter.status import Status

PLACE = 30


def register(app: typer.Typer) -> None:
    """The commands ``status`` and ``verify``."""
    app.command()(status)
    app.command()(verify)


def status(
    folder: FolderArgument,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look on until the run ends; from another machine, too.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="With --watch: seconds between two looks.")] = 2.0,
) -> None:
    """Show how a run stands. Exits with the run's own code: 0 done, 3 damaged or unread, 4 guard, 75 unfinished."""
    from wdsfilter.output import OutputFolder
    from wdsfilter.status import read_status

    if watch:
        _look_on(OutputFolder(folder), every)
    found = read_status(OutputFolder(folder))
    if as_json:
        out.print_json(json.dumps(asdict(found)))
    else:
        show(found, OutputFolder(folder), f"(exit code {found.code})")
    raise typer.Exit(found.code)


def _look_on(folder: OutputFolder, every: float) -> None:
    """Show the run as it goes until it ends, or the onlooker has seen enough."""
    from wdsfilter.watch import Watch

    seen = Watch(folder)
    seen.look()
    with suppress(KeyboardInterrupt), Live(seen.view(), console=out, auto_refresh=False) as live:
        while not seen.done():
            time.sleep(every)
            seen.look()
            live.update(seen.view(), refresh=True)
    if not out.is_terminal:
        out.print()


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
            f"{folder}: every promise holds; {found.done} of {counted(found.total, 'shard')} done",
            markup=False,
        )
        raise typer.Exit(0)
    out.print(f"{folder}: {counted(len(broken), 'broken promise')}", markup=False)
    raise typer.Exit(EXIT_DAMAGED)


def counts_table(counts: Counts, of: str) -> Table:
    """What became of the samples ``of`` something, by reason."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(overflow="fold")

    def line(number: int, what: str, share: bool = True) -> None:
        part = f"{number / counts.samples:.1%}" if share and counts.samples else ""
        table.add_row(f"{number:,}", part, Text(what))

    line(counts.samples, f"{plural('sample', counts.samples)} in {of}", share=False)
    line(counts.kept, "kept")
    for reason, number in sorted(counts.reasons.items(), key=lambda item: -item[1]):
        line(number, reason)
    return table


def show(status: Status, folder: OutputFolder, when: str = "") -> None:
    """Print how a run stands: counts by reason, and everything that is wrong with it."""
    shards = f"{status.done} of {counted(status.total, 'shard')}"
    if status.gaps is None:
        out.print(counts_table(status.counts, shards))
    else:
        out.print(f"{_gaps(status.gaps)} in {shards}")
    _show_troubles(status)
    out.print(f"{status.state} {when}".rstrip() + f": {folder.root}", markup=False)
    if status.fill is not None:
        fill = status.fill
        out.print(
            f"fill: {fill.state}, {_gaps(fill.gaps or 0)} in {fill.done} of {counted(fill.total, 'shard')}: "
            f"{folder.fill}",
            markup=False,
        )


def show_fill(status: Status, folder: OutputFolder, when: str) -> None:
    """Print how a fill ended."""
    _show_troubles(status)
    out.print(
        f"{status.state} {when}: {_gaps(status.gaps or 0)} in {status.done} of "
        f"{counted(status.total, 'shard')}: {folder.root}",
        markup=False,
    )


def _gaps(number: int) -> str:
    return f"{counted(number, 'sample')} judged that a judge had never seen,"


def tell_full(remarks: Sequence[str]) -> None:
    """Say that there is nothing to fill."""
    for remark in remarks:
        err.print(remark, markup=False)
    out.print("nothing to fill: every judge has seen every readable sample that was judged")


def _show_troubles(status: Status) -> None:
    for name, why in status.damaged.items():
        out.print(f"damaged: {name}: {why}", markup=False)
    for name, why in status.unread.items():
        out.print(f"not read: {name}: {why}; the next run tries again", markup=False)
    for trouble in [*status.troubles, *([f"guard: {status.guard}"] if status.guard else [])]:
        out.print(trouble, markup=False)
