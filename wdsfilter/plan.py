"""What is to be done, and everything that can be refused before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from wdsfilter import fingerprint, scores, storage
from wdsfilter.commit import Fingerprints
from wdsfilter.errors import InputError, OutputError, ReadError
from wdsfilter.judges import Runtime
from wdsfilter.output import OutputFolder
from wdsfilter.panel import CHECKED_PAIRS
from wdsfilter.recipe import Recipe
from wdsfilter.samples import Damage, Pair, Sample, Unreadable
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import Shard, find_shards, seeded_order
from wdsfilter.streams import changed

_TRIED_SHARDS = 8
_ASKED_AT_ONCE = 16  # shards whose size and entity tag are asked for together


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done: ``shards`` in the run's seeded order, of ``total`` that there are; ``record`` is
    what identifies the run.

    ``remarks`` of its judges are for whoever starts it. ``fills`` is the folder of the run whose gaps are to be
    filled, where that is what is to be done.
    """

    recipe: Recipe
    folder: OutputFolder
    shards: tuple[Shard, ...]
    record: fingerprint.Record
    runtime: Runtime
    remarks: tuple[str, ...] = ()
    total: int = 0
    fills: OutputFolder | None = None

    @property
    def fingerprints(self) -> Fingerprints:
        found = self.record["fingerprints"]
        return Fingerprints(found["scoring"], found["decision"])


def plan(
    recipe: Recipe, output: str | Path, *, runtime: Runtime | None = None, limit: int | None = None
) -> Job:
    """Find the shards and check everything that can be checked without a model.

    ``limit`` takes the first shards of the seeded order only. Raises InputError (no shard matches,
    names collide, no pair in the first samples, an input that changed), OutputError (another run's
    folder, no put-if-absent), JudgeError, ReadError.
    """
    folder = OutputFolder(output)
    runtime = runtime or Runtime(recipe.run.device)
    shards = input_shards(recipe)
    folder.check_writable(shard.name for shard in shards)
    _check_places(shards, folder)
    shards = [_spooled(shard, folder) for shard in shards]
    ordered = seeded_order(shards, recipe.seed)[:limit]
    _check_first_pairs(ordered, recipe)
    job = replace(make_job(recipe, folder, ordered, runtime), total=len(shards))
    check_record(job)
    _check_inputs(job)
    folder.probe()
    folder.remove_dead_temporaries()
    return job


def input_shards(recipe: Recipe) -> list[Shard]:
    """All shards that the recipe names. Raises InputError, ReadError."""
    shards = find_shards(recipe.input.patterns())
    if not shards:
        raise InputError("no shards given: name them in the recipe (input.shards) or with --shards PATTERN")
    return shards


def make_job(recipe: Recipe, folder: OutputFolder, shards: Sequence[Shard], runtime: Runtime) -> Job:
    """The job of judging ``shards``, with the options that hold for the recipe's judges. Raises JudgeError."""
    recipe, remarks = resolved(recipe)
    return Job(recipe, folder, tuple(shards), fingerprint.record(recipe, runtime), runtime, remarks)


def resolved(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the options that hold for its judges, and their remarks. Raises JudgeError."""
    found = [spec.module.resolve(spec.options) for spec in recipe.judges]
    specs = [replace(spec, options=options) for spec, (options, _) in zip(recipe.judges, found, strict=True)]
    return replace(recipe, judges=tuple(specs)), tuple(line for _, lines in found for line in lines)


def _check_places(shards: Sequence[Shard], folder: OutputFolder) -> None:
    """Raise OutputError where reading and writing would get in each other's way."""
    for shard in shards:
        if folder.holds(shard.url):
            raise OutputError(f"{shard.url} lies in the output folder {folder.root}; choose another one")
    folder.check_all_free(shard.name for shard in shards)


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


def first_samples(shards: Sequence[Shard], recipe: Recipe) -> Iterator[Sample | Unreadable]:
    """The samples of a run's first shards; one that cannot be read is passed over.

    Raises ReadError when none of them can be read.
    """
    unread: list[ReadError] = []
    tried = shards[:_TRIED_SHARDS]
    for shard in tried:
        try:
            with storage.open_read(shard.url) as raw:
                for item in read_samples(decompressed(raw), max_sample_bytes=recipe.input.max_sample):
                    if not isinstance(item, Damage):
                        yield item
        except ReadError as error:
            unread.append(error)
    if unread and len(unread) == len(tried):
        raise unread[-1]


def _check_first_pairs(shards: Sequence[Shard], recipe: Recipe) -> None:
    reasons: list[Unreadable] = []
    for item in islice(first_samples(shards, recipe), CHECKED_PAIRS):
        pair = recipe.pair_reader.read(item) if isinstance(item, Sample) else item
        if isinstance(item, Sample) and isinstance(pair, Pair):
            if taken := scores.taken(item, pair.fields, recipe.output):
                raise OutputError(f"sample {item.key!r} {taken}")
            return
        if isinstance(pair, Unreadable):
            reasons.append(pair)
    if reasons:
        raise no_pairs(len(reasons), reasons[0].key, reasons[0].reason, reasons[0].detail)


def no_pairs(samples: int, key: str, reason: str, detail: str) -> InputError:
    """None of so many first samples is a pair; the first of them is told."""
    return InputError(
        f"none of the first {samples} samples is an image with a caption; {key!r}: {reason} ({detail}). "
        "Set input.image and input.caption (an extension such as txt, or json.FIELD)"
    )


def check_record(job: Job) -> None:
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
    if not isinstance(there, dict):
        raise OutputError(f"{job.folder.record} is no run's record")
    lines = list(fingerprint.differences({**there, "fingerprints": {}}, {**job.record, "fingerprints": {}}))
    advice = "use another output folder"
    if all(line.startswith("decision.") for line in lines):
        advice += (
            "; its ledgers hold the scores, and another threshold needs no model: "
            f"wdsfilter select {job.folder.root} --where EXPRESSION --output NEW"
        )
    raise OutputError("\n  ".join([f"{job.folder.root} is the folder of another run; {advice}", *lines]))


def _check_inputs(job: Job) -> None:
    """Raise InputError where an input shard is not the one that its ledger was made of."""
    there = set(job.folder.shard_names())
    judged = [shard for shard in job.shards if shard.name in there]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        for shard, change in zip(judged, pool.map(partial(_change, job.folder), judged), strict=True):
            if change is not None:
                raise InputError(
                    f"{storage.shown(shard.url)} {change} when it was judged; use another output folder, or "
                    f"remove {job.folder.ledger(shard.name)} and {job.folder.shard(shard.name)}"
                )


def _change(folder: OutputFolder, shard: Shard) -> str | None:
    then = folder.header(shard.name).input
    try:
        now = storage.stat(shard.url)
    except ReadError:  # gone, and not needed any more
        return None
    return changed(then, now)
