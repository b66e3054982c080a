"""Judges asked about what they never saw in a run, because an earlier one had rejected it.

A fill is a run of its own into ``OUT/wdsfilter/fill``, with the run's judges, claims and order of commits, so that it
is shared, killed and gone on with like any other. Nothing of the run changes: what was kept stays kept, what was
dropped stays dropped by the same rule. A sample that turns out to be unreadable is called so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from wdsfilter import fingerprint, ledger
from wdsfilter.counted import counted
from wdsfilter.errors import InputError, OutputError
from wdsfilter.filled import gaps, unseen_by
from wdsfilter.ledger import Row
from wdsfilter.output import OutputFolder
from wdsfilter.plan import Job, check_record
from wdsfilter.recipe import Recipe
from wdsfilter.samples import Decision
from wdsfilter.shards.source import Shard
from wdsfilter.stages import Case, Item, ShardBegins, read_items
from wdsfilter.summary import Tally


def check_run(folder: OutputFolder) -> None:
    """Raise OutputError where there is no run yet that could be filled; leaves nothing there."""
    if not folder.readout.exists():
        raise OutputError(
            f"{folder.root} is not the output folder of a run: there is nothing to fill; run first"
        )


def fill_job(run: Job) -> Job:
    """The job of filling the shards of ``run`` that it has committed, and in which a judge rejected before the last.

    It holds no shards where every judge saw all that it can. Raises OutputError where another run was filled there.
    """
    there = run.folder
    headers = Tally(there).refresh().headers
    committed = [shard for shard in run.shards if shard.name in headers]
    remarks = list(run.remarks)
    if missing := len(run.shards) - len(committed):
        remarks.append(
            f"not judged yet, and so not filled: {missing:,} of {counted(len(run.shards), 'shard')}; "
            "run, and fill again"
        )
    shards = tuple(s for s in committed if gaps(headers[s.name].counts, run.recipe.judge_ids))
    folder = OutputFolder(there.fill)
    job = replace(
        run,
        # Shares are the run's, which its guard has seen.
        recipe=replace(run.recipe, guard=None, output=run.recipe.output.model_copy(update={"shards": False})),
        folder=folder,
        shards=shards,
        record=fingerprint.without_shards(run.record),
        remarks=tuple(remarks),
        total=len(shards),
        fills=there,
    )
    if shards:
        check_record(job)
        # What the run's judges found out about themselves holds here, so that scores are comparable.
        folder.put(there.readout.read_bytes(), folder.readout)
        folder.put(fingerprint.canonical(job.record), folder.record)
        folder.remove_dead_temporaries()
    return job


def read_unseen(shards: Iterable[Shard], recipe: Recipe, run: OutputFolder) -> Iterator[Item]:
    """Everything in ``shards``, decided as in the run's ledgers, but for what a judge never saw: that waits for it.

    Raises InputError where a shard is not the one that was judged.
    """
    rows: Iterator[Row] = iter(())
    for item in read_items(shards, recipe):
        if isinstance(item, ShardBegins):
            shard, path = item.shard, run.ledger(item.shard.name)
            rows = ledger.read_rows(path)
        elif isinstance(item, Case):
            row = next(rows, None)
            if row is None or any(row.get(name) != value for name, value in item.row.items()):
                raise _another(shard, f"{item.row['key']!r} is not what its ledger says")
            _take_up(item, row, recipe)
        elif item.source is not None:
            header = ledger.read_header(path)
            if next(rows, None) is not None or header.damage != item.damage:
                raise _another(shard, "it ends elsewhere")
        yield item


def _take_up(case: Case, row: Row, recipe: Recipe) -> None:
    decision = Decision(row.pop("status"), row.pop("reason"), row.pop("detail"))
    unseen = unseen_by({**row, "status": decision.status}, recipe.judge_ids)
    case.row = row
    if unseen:
        case.standing = decision
    else:
        case.settle(decision)


def _another(shard: Shard, how: str) -> InputError:
    return InputError(f"{shard.url} is not the file that was judged: {how}")
