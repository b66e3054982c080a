"""Kept samples for a training loop, as webdataset has them: a recipe's stream, and a stage behind other readers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.utils.data import IterableDataset, get_worker_info

from wdsfilter import launch, scores, storage
from wdsfilter.errors import InputError
from wdsfilter.judges import Runtime
from wdsfilter.kept import KeptStream
from wdsfilter.panel import strangers
from wdsfilter.plan import input_shards, resolved
from wdsfilter.recipe import Recipe
from wdsfilter.recipe_files import load_recipe
from wdsfilter.samples import Member, Sample
from wdsfilter.shards.source import Shard, seeded_order
from wdsfilter.stages import Case, ShardEnds, read_case
from wdsfilter.workers import default_count

LoaderSample: TypeAlias = dict[str, Any]
"""A sample as webdataset has it: ``__key__``, ``__url__``, and the bytes of each member by its extension."""

_log = logging.getLogger("wdsfilter")


def stream(
    recipe: str, *, shards: str | Sequence[str] = (), overrides: Iterable[str] = ()
) -> IterableDataset[LoaderSample]:
    """A recipe's kept samples, judged as they come: one pass each time it is iterated over.

    ``recipe`` is a name or a path; ``shards`` takes the place of its own, ``overrides`` are as ``--set`` takes
    them. The shards are shared out to ranks and DataLoader workers, so that each sample comes to one of them.
    Raises RecipeError, InputError, JudgeError, ReadError; while it is iterated over, ReadError for a shard that
    cannot be read, and GuardTripped.
    """
    loaded = load_recipe(recipe, overrides, [shards] if isinstance(shards, str) else shards)
    found = seeded_order(input_shards(loaded), loaded.seed)
    return KeptSamples(_resolved(loaded), found)


def keep(
    recipe: str, *, overrides: Iterable[str] = ()
) -> Callable[[Iterable[LoaderSample]], Iterator[LoaderSample]]:
    """A stage for ``wds.WebDataset(...).compose(...)``: undecoded samples in, those that the recipe keeps out.

    What makes a pair and the judges are the recipe's; where the samples come from is the pipeline's business.
    Raises RecipeError, JudgeError; while it works, InputError where samples are decoded already or no pairs.
    """
    return KeepStage(_resolved(load_recipe(recipe, overrides)))


def _resolved(recipe: Recipe) -> Recipe:
    recipe, remarks = resolved(recipe)
    for remark in remarks:
        _log.warning("%s", remark)
    return recipe


class KeptSamples(IterableDataset[LoaderSample]):
    """What :func:`stream` gives; a class since DataLoader knows an iterable data set by its class."""

    def __init__(self, recipe: Recipe, shards: Sequence[Shard]) -> None:
        super().__init__()
        self._recipe = recipe
        self._shards = tuple(shards)

    def __iter__(self) -> Iterator[LoaderSample]:
        place = _place()
        share = self._shards[place.number :: place.total]
        if not share:
            _log.warning("%d shards for %d readers: this one has none", len(self._shards), place.total)
        judged = place.stream(self._recipe)
        with closing(judged.kept(share)) as found:
            for item in found:
                if not isinstance(item, ShardEnds):
                    url = storage.shown(item.shard.url)
                    yield {"__key__": item.key, "__url__": url, **_by_extension(item.members)}
                elif item.error is not None:
                    raise item.error
                elif item.damage is not None:
                    _log.warning("%s: damaged: %s", item.shard.name, item.damage.detail)
        _tell(judged)


@dataclass(frozen=True, slots=True)
class KeepStage:
    """What :func:`keep` gives."""

    recipe: Recipe

    def __call__(self, samples: Iterable[LoaderSample]) -> Generator[LoaderSample, None, None]:
        waiting: deque[LoaderSample] = deque()

        def cases() -> Iterator[Case]:
            for sample in samples:
                waiting.append(sample)
                yield read_case(_sample(sample), self.recipe)

        judged = _place().stream(self.recipe)
        with closing(judged.judged(cases())) as items:
            for item in items:  # as many as there are samples, and in their order
                sample = waiting.popleft()
                if isinstance(item, Case) and item.decision is None and item.sample is not None:
                    members = scores.with_scores(
                        item.sample, item.row, self.recipe.judge_ids, self.recipe.output
                    )
                    yield {**sample, **_by_extension(members)}
        _tell(judged)


@dataclass(frozen=True, slots=True)
class _Place:
    """Reader ``number`` of ``total``, over all ranks and their DataLoader workers."""

    number: int
    total: int
    runtime_rank: int
    worker_count: int | None

    def stream(self, recipe: Recipe) -> KeptStream:
        count = recipe.run.workers if self.worker_count is None else self.worker_count
        if count is None:
            count = default_count(launch.place().local_world_size)
        return KeptStream(recipe, Runtime(recipe.run.device, self.runtime_rank), count, note=_note)


def _place() -> _Place:
    where = launch.place()
    rank, world_size = where.rank, where.world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    worker = get_worker_info()
    if worker is None:
        return _Place(rank, world_size, where.local_rank, None)
    # the loader's workers are processes already: each prepares its own pairs
    number = rank * worker.num_workers + worker.id
    return _Place(number, world_size * worker.num_workers, where.local_rank, 0)


def _sample(sample: LoaderSample) -> Sample:
    key = str(sample["__key__"])
    members = []
    for extension, data in sample.items():
        if extension.startswith("__"):
            continue
        if not isinstance(data, bytes):
            raise InputError(
                f"sample {key!r}: .{extension} holds {type(data).__name__}, expected bytes; "
                "judge samples before they are decoded"
            )
        members.append(Member(f"{key}.{extension}", extension, data))
    return Sample(key, tuple(members), 0, sum(len(member.data) for member in members))


def _by_extension(members: Iterable[Member]) -> LoaderSample:
    return {member.extension: bytes(member.data) for member in members}


def _note(name: str, **facts: Any) -> None:
    if name == "checked":
        for sentence in strangers(facts):
            _log.warning("%s", sentence)
    elif name == "read_failed":
        _log.warning("%s: %s; trying again", facts["shard"], facts["error"])


def _tell(judged: KeptStream) -> None:
    counts = judged.counting.counts
    reasons = ", ".join(f"{reason} {number}" for reason, number in counts.reasons.items())
    _log.info("kept %d of %d samples; %s", counts.kept, counts.samples, reasons or "none dropped")
