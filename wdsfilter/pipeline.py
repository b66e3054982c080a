"""The job without any launcher: judge shard after shard, and finish.

``run`` judges until there is nothing left for this process; ``process_shard`` does one shard, for
whoever brings a scheduler of their own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from wdsfilter import fingerprint, ledger, storage
from wdsfilter.claims import Claims
from wdsfilter.commit import is_complete, rebuild
from wdsfilter.committing import CommitStage, Committed, Failed
from wdsfilter.errors import GuardTripped, Interrupted
from wdsfilter.failpoints import hit
from wdsfilter.fill import read_unseen
from wdsfilter.filled import gaps
from wdsfilter.guard import GuardWatch
from wdsfilter.judges import Judge, Runtime
from wdsfilter.ledger import Header
from wdsfilter.output import OutputFolder
from wdsfilter.panel import Panel, ignore
from wdsfilter.plan import Job, check_record, first_samples, make_job
from wdsfilter.recipe import Recipe
from wdsfilter.samples import Pair, Sample
from wdsfilter.scorer import Note
from wdsfilter.shards.source import Shard
from wdsfilter.stages import read_items
from wdsfilter.stop import Stop
from wdsfilter.stopwatch import Stopwatch
from wdsfilter.summary import Tally, finish
from wdsfilter.worklist import Worklist

_CHECKED_SAMPLES = 1024  # looked through for pairs to check judges on


@dataclass(slots=True)
class Runner:
    """A panel of judges at work for an output folder. A context manager.

    ``judges`` are the recipe's, loaded already (they are loaded otherwise).
    """

    job: Job
    stop: Stop = field(default_factory=Stop)
    note: Note = ignore
    worker_count: int = 1
    judges: Sequence[Judge] = ()
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    commit: CommitStage = field(init=False)
    _panel: Panel = field(init=False)

    def __enter__(self) -> Runner:
        job = self.job
        self.commit = CommitStage(job.folder, job.recipe, job.fingerprints, filling=job.fills is not None)
        panel = Panel(
            job.recipe, job.runtime, self.stop, self.note, self.worker_count, self.judges, self.stopwatch
        )
        self._panel = panel.__enter__()
        self.judges = panel.judges
        return self

    def __exit__(self, *exception: object) -> None:
        self._panel.__exit__(*exception)
        self.job.folder.remove_own_temporaries()

    def open(self) -> None:
        """Make the folder this run's: judges' checks first, then ``run.json`` and ``readout.json``.

        Raises JudgeError when a check fails (nothing was committed then), OutputError when another
        run was faster.
        """
        folder = self.job.folder
        if folder.record.exists():
            check_record(self.job)  # somebody may have been faster while our judges were loaded
            if folder.readout.exists():
                self._adjust()
                return
        findings = self._panel.check(self._first_pairs)
        if not folder.put(fingerprint.canonical(self.job.record), folder.record):
            check_record(self.job)
        hit("run.committed")
        folder.put(fingerprint.canonical(findings), folder.readout)
        hit("readout.committed")
        self._adjust()

    def _adjust(self) -> None:
        self._panel.adjust(self.job.folder.findings())
        self.judges = self._panel.judges

    def _first_pairs(self) -> Iterator[Pair]:
        """Pairs of the run's first samples, broken ones passed over."""
        read = self.job.recipe.pair_reader.read
        for item in islice(first_samples(self.job.shards, self.job.recipe), _CHECKED_SAMPLES):
            if isinstance(item, Sample) and isinstance(pair := read(item), Pair):
                yield pair

    def results(self, shards: Iterator[Shard]) -> Generator[Committed | Failed, None, None]:
        """Judge and commit ``shards``, which are asked for one by one, as early as memory allows."""
        recipe, fills = self.job.recipe, self.job.fills
        items = read_items(shards, recipe) if fills is None else read_unseen(shards, recipe, fills)
        local = all(storage.protocol(shard.url) is None for shard in self.job.shards)
        with (
            closing(self._panel.judged(items, local=local)) as judged,
            closing(self.commit(judged)) as results,
        ):
            yield from self.stopwatch.timed("writing", results)


def run(runner: Runner) -> Iterator[Committed | Failed]:
    """Judge until nothing is left for this process, then write what is derived.

    Yields each shard that this process committed or could not read. Raises Interrupted and
    GuardTripped, after the derived files are up to date; OutputError and JudgeError at once.
    """
    job, stop = runner.job, runner.stop
    tally = Tally(job.folder)
    guard = GuardWatch(job.recipe.guard, tally)
    try:
        with Claims(job.folder, stale_after=job.recipe.run.stale_after) as claims:
            worklist = Worklist(job.shards, job.folder, job.recipe, claims, stop.pause, runner.note)
            stop.gently()
            guard.check(now=True)
            while True:
                with closing(runner.results(worklist.round())) as results:
                    for result in results:
                        if isinstance(result, Committed):
                            worklist.committed(result.shard)
                            tally.add(result.shard.name, result.header)
                            counts = result.header.counts
                            judged = gaps(counts, job.recipe.judge_ids) if job.fills else counts.samples
                            runner.note("committed", shard=result.shard.name, samples=judged)
                            yield result
                            guard.check()
                        else:
                            worklist.failed(result.shard, result.error)
                            yield result
                        stop.check()
                if not worklist.another_round():
                    break
    except (Interrupted, GuardTripped):
        finish(job.folder)
        raise
    finish(job.folder)


def process_shard(shard: Shard, output: str | Path, recipe: Recipe, judges: Sequence[Judge] = ()) -> Header:
    """Judge one shard and commit it, without claims or launcher; returns what its ledger says.

    ``judges`` are the recipe's, loaded already (they are loaded otherwise). Raises
    ReadError when the shard cannot be read; nothing is committed then.
    """
    folder = OutputFolder(output)
    runtime = Runtime(recipe.run.device)
    job = make_job(recipe, folder, [shard], runtime)
    recipe = job.recipe
    folder.probe()
    check_record(job)
    if folder.ledger(shard.name).exists():
        if not is_complete(folder, shard.name):
            rebuild(folder, shard, recipe)
        return ledger.read_header(folder.ledger(shard.name))
    with Runner(job, judges=judges) as runner:
        runner.open()
        [result] = runner.results(iter([shard]))
    if isinstance(result, Failed):
        raise result.error
    return result.header
