"""The job without any launcher: judge shard after shard, and finish.

``run`` judges until there is nothing left for this process; ``process_shard`` does one shard, for
whoever brings a scheduler of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from wdsfilter import fingerprint, ledger
from wdsfilter.claims import Claims
from wdsfilter.errors import GuardTripped, Interrupted
from wdsfilter.failpoints import hit
from wdsfilter.guard import GuardWatch
from wdsfilter.judges import Judge, Runtime
from wdsfilter.ledger import Header
from wdsfilter.output import OutputFolder, is_complete, rebuild
from wdsfilter.plan import CHECKED_PAIRS, Job, check_record, first_samples, make_job
from wdsfilter.prefetch import prefetched
from wdsfilter.recipe import Recipe
from wdsfilter.samples import Pair, Prepared, Sample
from wdsfilter.scorer import Note, Scorer
from wdsfilter.shards.source import Shard
from wdsfilter.stages import CommitStage, Committed, Failed, Item, JudgeStage, item_size, read_items
from wdsfilter.stop import Stop
from wdsfilter.summary import Tally, finish
from wdsfilter.workers import Workers
from wdsfilter.worklist import Worklist

_CHECKED_SAMPLES = 1024  # looked through for pairs to check judges on


def _ignore(name: str, **facts: Any) -> None:
    """A note that nobody reads."""


@dataclass(slots=True)
class Runner:
    """Loaded judges and their workers, ready for shards. A context manager."""

    job: Job
    stop: Stop = field(default_factory=Stop)
    note: Note = _ignore
    worker_count: int = 1
    judges: Sequence[Judge] = ()
    commit: CommitStage = field(init=False)
    _scorers: list[Scorer] = field(init=False)
    _inline: Workers = field(init=False)
    _pool: Workers = field(init=False)

    def __enter__(self) -> Runner:
        recipe = self.job.recipe
        self.commit = CommitStage(self.job.folder, recipe, self.job.fingerprints)
        self.judges = self.judges or load_judges(recipe, self.job.runtime)
        self._scorers = [
            Scorer(spec.id, j, self.note) for spec, j in zip(recipe.judges, self.judges, strict=True)
        ]
        prepares = [judge.prepare for judge in self.judges]
        needs_pool = not all(judge.inline for judge in self.judges)
        self._inline = Workers(prepares, 0)
        self._pool = Workers(
            prepares, self.worker_count if needs_pool else 0, timeout=recipe.run.worker_timeout
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()
        self._inline.close()
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
                return
        findings = self._check_judges()
        if not folder.put(fingerprint.canonical(self.job.record), folder.record):
            check_record(self.job)
        hit("run.committed")
        folder.put(fingerprint.canonical(findings), folder.readout)
        hit("readout.committed")

    def _check_judges(self) -> dict[str, Any]:
        findings: dict[str, Any] = {}
        for number, (spec, judge) in enumerate(zip(self.job.recipe.judges, self.judges, strict=True)):
            workers = self._inline if judge.inline else self._pool
            with closing(
                workers.prepared(number, self._first_pairs(), lambda pair: pair, lookahead=CHECKED_PAIRS)
            ) as results:
                ready = (result.value for _, result in results if isinstance(result, Prepared))
                findings[spec.id] = dict(judge.check(list(islice(ready, CHECKED_PAIRS))))
        return findings

    def _first_pairs(self) -> Iterator[Pair]:
        """Pairs of the run's first samples, broken ones passed over."""
        read = self.job.recipe.pair_reader.read
        for item in islice(first_samples(self.job.shards, self.job.recipe), _CHECKED_SAMPLES):
            if isinstance(item, Sample) and isinstance(pair := read(item), Pair):
                yield pair

    def results(self, shards: Iterator[Shard]) -> Iterator[Committed | Failed]:
        """Judge and commit ``shards``, which are asked for one by one, as early as memory allows."""
        recipe = self.job.recipe
        share = recipe.run.in_flight // (len(self.judges) + 1)
        reading = prefetched(
            read_items(shards, recipe), size_of=item_size, max_bytes=share, check=self.stop.check
        )
        with closing(reading):
            items: Iterator[Item] = reading
            for number, (spec, scorer) in enumerate(zip(recipe.judges, self._scorers, strict=True)):
                workers = self._inline if scorer.judge.inline else self._pool
                items = JudgeStage(spec, scorer, number, workers, share, self.stop.check)(items)
            yield from self.commit(items)


def load_judges(recipe: Recipe, runtime: Runtime) -> list[Judge]:
    """All judges of the recipe, ready. Raises JudgeError, MissingExtra."""
    return [spec.module.load(spec.options, runtime) for spec in recipe.judges]


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
                for result in runner.results(worklist.round()):
                    if isinstance(result, Committed):
                        worklist.committed(result.shard)
                        tally.add(result.shard.name, result.header)
                        runner.note(
                            "committed", shard=result.shard.name, samples=result.header.counts.samples
                        )
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


def process_shard(shard: Shard, output: Path, recipe: Recipe, judges: Sequence[Judge] = ()) -> Header:
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
