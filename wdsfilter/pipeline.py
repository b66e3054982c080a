"""The job, without any launcher: plan it, run it shard after shard, finish it.

``plan`` finds shards and refuses what cannot work, before any model is loaded; ``run`` judges until
there is nothing left for this process; ``process_shard`` does one shard, for whoever brings a
scheduler of their own.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from wdsfilter import fingerprint, ledger, scores, storage
from wdsfilter.claims import Claims
from wdsfilter.errors import GuardTripped, InputError, Interrupted, JudgeError, OutputError, ReadError
from wdsfilter.failpoints import hit
from wdsfilter.judges import Judge, Runtime
from wdsfilter.ledger import Counts, Header
from wdsfilter.output import Fingerprints, OutputFolder
from wdsfilter.prefetch import prefetched
from wdsfilter.recipe import Guard, Recipe
from wdsfilter.samples import Damage, Pair, Prepared, Sample, Unreadable
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import Shard, find_shards, seeded_order
from wdsfilter.stages import (
    CommitStage,
    Committed,
    Event,
    Failed,
    JudgeStage,
    Note,
    event_size,
    read_events,
)
from wdsfilter.summary import Tally, finish
from wdsfilter.workers import Workers
from wdsfilter.worklist import Worklist

CHECKED_PAIRS = 32
_TALLY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done: ``shards`` in the run's seeded order; ``record`` is what identifies the run."""

    recipe: Recipe
    folder: OutputFolder
    shards: tuple[Shard, ...]
    record: fingerprint.Record
    runtime: Runtime

    @property
    def fingerprints(self) -> Fingerprints:
        found = self.record["fingerprints"]
        return Fingerprints(found["scoring"], found["decision"])


# --- planning --------------------------------------------------------------------------------


def plan(recipe: Recipe, output: Path, *, runtime: Runtime | None = None, limit: int | None = None) -> Job:
    """Find the shards and check everything that can be checked without a model.

    ``limit`` takes the first shards of the seeded order only. Raises InputError (no shard matches,
    names collide, no pair in the first samples, an input that changed), OutputError (another run's
    folder, no put-if-absent), JudgeError, ReadError.
    """
    folder = OutputFolder(output)
    runtime = runtime or Runtime(recipe.run.device)
    shards = find_shards(recipe.input.patterns())
    if not shards:
        raise InputError("no shards given: name them in the recipe (input.shards) or with --shards PATTERN")
    folder.probe()
    folder.remove_dead_temporaries()
    shards = [_spooled(shard, folder) for shard in shards]
    ordered = seeded_order(shards, recipe.seed)[:limit]
    _check_first_pairs(ordered, recipe)
    job = Job(recipe, folder, tuple(ordered), fingerprint.record(recipe, runtime), runtime)
    _check_record(job)
    _check_inputs(job)
    return job


def _spooled(shard: Shard, folder: OutputFolder) -> Shard:
    """Standard input comes once: keep it, so that the shard can be read again like any other."""
    if shard.url != storage.STDIN:
        return shard
    if folder.ledger(shard.name).exists():
        raise OutputError(f"{folder.root} holds a run over standard input, which cannot be resumed")
    copy = folder.temporary()
    with storage.open_read(shard.url) as stream, copy.open("xb") as file:
        while chunk := stream.read(1 << 20):
            file.write(chunk)
    return replace(shard, url=str(copy))


def _first_samples(shards: Sequence[Shard], recipe: Recipe) -> Iterator[Sample | Unreadable]:
    """The samples of the first shard that can be read and has any."""
    for shard in shards:
        found = False
        try:
            with storage.open_read(shard.url) as raw:
                for item in read_samples(decompressed(raw), max_sample_bytes=recipe.input.max_sample):
                    if not isinstance(item, Damage):
                        found = True
                        yield item
        except ReadError:
            continue
        if found:
            return


def _check_first_pairs(shards: Sequence[Shard], recipe: Recipe) -> None:
    reasons: list[Unreadable] = []
    for item in islice(_first_samples(shards, recipe), CHECKED_PAIRS):
        pair = recipe.pair_reader.read(item) if isinstance(item, Sample) else item
        if isinstance(item, Sample) and isinstance(pair, Pair):
            scores.check_free(item, pair.fields, recipe.output)
            return
        if isinstance(pair, Unreadable):
            reasons.append(pair)
    if reasons:
        first = reasons[0]
        raise InputError(
            f"none of the first {len(reasons)} samples is an image with a caption; {first.key!r}: {first.reason}"
            f" ({first.detail}). Set input.image and input.caption (an extension such as txt, or json.FIELD)"
        )


def _check_record(job: Job) -> None:
    """Raise OutputError where the folder belongs to another run."""
    try:
        there = json.loads(job.folder.record.read_bytes())
    except FileNotFoundError:
        if job.folder.shard_names():
            raise OutputError(
                f"{job.folder.root} has ledgers but no run.json: it is no run's folder"
            ) from None
        return
    except ValueError as error:
        raise OutputError(f"{job.folder.record}: {error}") from error
    if there == job.record:
        return
    lines = list(fingerprint.differences({**there, "fingerprints": {}}, {**job.record, "fingerprints": {}}))
    advice = "use another output folder"
    if all(line.startswith("decision.") for line in lines):
        advice += ", or `wdsfilter select`, which applies other thresholds to finished scores in minutes"
    raise OutputError("\n  ".join([f"{job.folder.root} is the folder of another run; {advice}", *lines]))


def _check_inputs(job: Job) -> None:
    """Raise InputError where a local input shard is not the one that its ledger was made of."""
    for shard in job.shards:
        path = job.folder.ledger(shard.name)
        if storage.protocol(shard.url) is None and path.exists() and storage.exists(shard.url):
            then, now = ledger.read_header(path).input.size, storage.stat(shard.url).size
            if then != now:
                raise InputError(
                    f"{shard.url} has {now} bytes, and had {then} when it was judged; "
                    f"use another output folder, or remove {path} and {job.folder.shard(shard.name)}"
                )


# --- running ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Stop:
    """Set by a signal; asked between batches and pauses."""

    _asked: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        self._asked.set()

    def check(self) -> None:
        """Raise Interrupted if somebody asked."""
        if self._asked.is_set():
            raise Interrupted("interrupted")

    def pause(self, seconds: float) -> None:
        """Sleep, unless somebody asks. Raises Interrupted then."""
        self._asked.wait(seconds)
        self.check()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask to stop; a second SIGINT ends the process at once."""

        def ask(number: int, frame: object) -> None:
            if self._asked.is_set() and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.ask()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
    _inline: Workers = field(init=False)
    _pool: Workers = field(init=False)

    def __enter__(self) -> Runner:
        recipe = self.job.recipe
        self.commit = CommitStage(self.job.folder, recipe, self.job.fingerprints)
        self.judges = self.judges or load_judges(recipe, self.job.runtime)
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

    def open(self) -> None:
        """Make the folder this run's: judges' checks first, then ``run.json`` and ``readout.json``.

        Raises JudgeError when a check fails (nothing was committed then), OutputError when another
        run was faster.
        """
        folder = self.job.folder
        if folder.record.exists() and folder.readout.exists():
            return
        findings = self._check_judges()
        if not folder.put(fingerprint.canonical(self.job.record), folder.record):
            _check_record(self.job)
        hit("run.committed")
        folder.put(fingerprint.canonical(findings), folder.readout)
        hit("readout.committed")

    def _check_judges(self) -> dict[str, Any]:
        pairs = [
            pair
            for item in islice(_first_samples(self.job.shards, self.job.recipe), 4 * CHECKED_PAIRS)
            if isinstance(item, Sample) and isinstance(pair := self.job.recipe.pair_reader.read(item), Pair)
        ][:CHECKED_PAIRS]
        findings: dict[str, Any] = {}
        for number, (spec, judge) in enumerate(zip(self.job.recipe.judges, self.judges, strict=True)):
            workers = self._inline if judge.inline else self._pool
            ready = [
                result.value
                for _, result in workers.prepared(number, pairs, lambda pair: pair, lookahead=CHECKED_PAIRS)
                if isinstance(result, Prepared)
            ]
            if ready:
                findings[spec.id] = dict(judge.check(ready))
        return findings

    def results(self, shards: Iterator[Shard]) -> Iterator[Committed | Failed]:
        """Judge and commit ``shards``, which are asked for one by one, as early as memory allows."""
        recipe = self.job.recipe
        reading = prefetched(
            read_events(shards, recipe), size_of=event_size, max_bytes=recipe.run.in_flight // 4
        )
        with closing(reading):
            events: Iterator[Event] = reading
            for number, (spec, judge) in enumerate(zip(recipe.judges, self.judges, strict=True)):
                stage = JudgeStage(
                    spec,
                    judge,
                    number,
                    self._inline if judge.inline else self._pool,
                    recipe.run.in_flight // 4,
                    self.stop.check,
                    self.note,
                )
                events = stage(events)
            yield from self.commit(events)


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
    guard = _GuardWatch(job.recipe.guard, tally)
    try:
        with Claims(job.folder, stale_after=job.recipe.run.stale_after) as claims:
            worklist = Worklist(job.shards, job.folder, job.recipe, claims, stop.pause)
            stop.check()
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
                        runner.note("read_failed", shard=result.shard.name, error=str(result.error))
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
    job = Job(recipe, folder, (shard,), fingerprint.record(recipe, runtime), runtime)
    folder.probe()
    _check_record(job)
    if folder.ledger(shard.name).exists():
        return ledger.read_header(folder.ledger(shard.name))
    with Runner(job, judges=judges) as runner:
        runner.open()
        for result in runner.results(iter([shard])):
            if isinstance(result, Failed):
                raise result.error
            return result.header
    raise JudgeError("no result")


@dataclass(slots=True)
class _GuardWatch:
    """Asks the recipe's guard about everything committed so far, by all processes."""

    guard: Guard | None
    tally: Tally
    _refreshed: float = 0.0

    def check(self, *, now: bool = False) -> None:
        if self.guard is None:
            return
        if now or time.monotonic() - self._refreshed > _TALLY_SECONDS:
            self.tally.refresh()
            self._refreshed = time.monotonic()
        if trouble := guard_trouble(self.guard, self.tally.counts):
            raise GuardTripped(trouble)


def guard_trouble(guard: Guard, counts: Counts) -> str | None:
    """What is off, as a sentence; None when all is well or it is too early to tell."""
    if counts.samples < guard.after:
        return None
    lowest, highest = guard.kept
    shares: list[tuple[str, int, float, float]] = [
        ("kept", counts.kept, lowest, highest),
        ("unparsable", counts.unparsable, 0.0, guard.unparsable),
        ("unreadable", counts.unreadable, 0.0, guard.unreadable),
    ]
    for name, count, least, most in shares:
        share = count / counts.samples
        if not least <= share <= most:
            common = sorted(counts.reasons.items(), key=lambda item: -item[1])[:3]
            return (
                f"{share:.2%} of {counts.samples} samples are {name}, the recipe's guard expects {least:.2%} to "
                f"{most:.2%}; most frequent reasons: {', '.join(f'{r} ({n})' for r, n in common) or 'none'}. "
                "Nothing is lost: change guard in the recipe, or add --set guard=off, and run again"
            )
    return None
