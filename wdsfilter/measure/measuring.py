"""A set of shards -> its numbers, by the stages that a run uses, without a decision and without an output."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from wdsfilter import storage
from wdsfilter.bootstrap import Interval, Mean
from wdsfilter.errors import InputError
from wdsfilter.judges import Runtime, clip, perplexity
from wdsfilter.measure.facts import Distinct, Spread, Values, Words, first_bits
from wdsfilter.measure.origin import Filter, filters
from wdsfilter.panel import Panel
from wdsfilter.recipe import Recipe, parse
from wdsfilter.recipe_files import read_recipe
from wdsfilter.shards.source import Pattern, Shard, find_shards, seeded_order
from wdsfilter.stages import Case, ShardEnds, read_items

_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_INPUT = "img2dataset"  # the recipe whose ideas of image and caption hold unless --set says otherwise


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over ``pairs`` and its 95 % interval; None below two pairs."""

    value: float
    interval: Interval | None
    pairs: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a set is like. ``alignment`` and ``perplexity`` are None where no model was asked.

    ``variety`` is the type-token ratio of a thousand words in a row, ``type_token_ratio`` that of all words.
    ``filtered_by`` names the judges that decided what is in the set, as far as records beside it tell;
    ``measured_by_its_filter`` those of the two numbers whose model is among them.
    """

    name: str
    shards: int
    pairs: int
    unreadable: Mapping[str, int]
    damaged: Mapping[str, str]
    unread: Mapping[str, str]
    alignment: Estimate | None
    perplexity: Estimate | None
    words: Estimate | None
    words_spread: Spread | None
    characters: Spread | None
    vocabulary: int
    type_token_ratio: float | None
    variety: Estimate | None
    shorter_side: Spread | None
    pixels: Spread | None
    repeated_images: int
    alike_images: int | None
    repeated_captions: int
    filtered_by: Sequence[str]
    measured_by_its_filter: Sequence[str]


@dataclass(frozen=True, slots=True)
class NamedSet:
    """Shards that are measured together."""

    name: str
    shards: tuple[Shard, ...]


def find_set(argument: str, limit: int | None, seed: int) -> NamedSet:
    """The set that ``PATTERN`` or ``NAME=PATTERN`` means; of its shards the first ``limit`` in seeded order.

    Raises InputError, ReadError.
    """
    match = None if storage.exists(argument) and "://" not in argument else _NAMED.fullmatch(argument)
    name, pattern = match.groups() if match else (argument, argument)
    return NamedSet(name, tuple(seeded_order(find_shards([Pattern(pattern)]), seed)[:limit]))


def measuring_recipe(clip_model: str | None, language_model: str | None, overrides: Sequence[str]) -> Recipe:
    """The recipe that measures everything and decides nothing. Raises RecipeError."""
    judges: list[Mapping[str, object]] = [{"rules": {}}]
    if clip_model is not None:
        judges.append({"clip": {"model": clip_model}})
    if language_model is not None:
        judges.append({"perplexity": {"model": language_model}})
    raw = read_recipe(_INPUT, [f"judges={json.dumps(judges)}", "output.scores=none", *overrides])
    return parse(raw, origin="measure")


def models(recipe: Recipe, runtime: Runtime) -> dict[str, Mapping[str, str]]:
    """Name of a number -> SHA-256 of the files of the model that it is measured with."""
    named = {"clip": "alignment", "perplexity": "perplexity"}
    modules = {"clip": clip, "perplexity": perplexity}
    return {
        named[spec.name]: modules[spec.name].identify(spec.options, runtime)["model"]
        for spec in recipe.judges
        if spec.name in named
    }


@dataclass(slots=True)
class _Sums:
    """Everything that is counted over a set, pair by pair."""

    pairs: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    damaged: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    cosine: Mean = field(default_factory=Mean)
    loss: Mean = field(default_factory=Mean)
    word_count: Mean = field(default_factory=Mean)
    word_counts: Values = field(default_factory=Values)
    characters: Values = field(default_factory=Values)
    words: Words = field(default_factory=Words)
    sides: Values = field(default_factory=Values)
    pixels: Values = field(default_factory=Values)
    images: Distinct = field(default_factory=Distinct)
    looks: Distinct = field(default_factory=Distinct)
    captions: Distinct = field(default_factory=Distinct)

    def add(self, case: Case) -> None:
        if case.decision is not None or case.pair is None:
            assert case.decision is not None
            self.unreadable[case.decision.reason] += 1
            return
        self.pairs += 1
        row, rules = case.row, case.row["rules"]
        if "clip" in row:
            self.cosine.add(row["clip"]["score"])
        if "perplexity" in row:
            self.loss.add(row["perplexity"]["loss"])
        self.word_count.add(rules["words"])
        self.word_counts.add(rules["words"])
        self.characters.add(rules["chars"])
        self.words.add(case.pair.caption)
        self.sides.add(min(rules["width"], rules["height"]))
        self.pixels.add(rules["width"] * rules["height"])
        for seen, digest in (
            (self.images, row["image_sha256"]),
            (self.looks, row.get("phash")),
            (self.captions, row["caption_hash"]),
        ):
            for bits in first_bits(digest):
                seen.add(bits)

    def end(self, shard: ShardEnds) -> None:
        if shard.error is not None:
            self.unread[shard.shard.name] = str(shard.error)
        elif shard.damage is not None:
            self.damaged[shard.shard.name] = shard.damage.detail


def measure(chosen: NamedSet, panel: Panel, weights: Mapping[str, Mapping[str, str]]) -> Measured:
    """Read and measure a set with the judges of :func:`measuring_recipe`, loaded; ``weights`` are its models'.

    Raises InputError where there is no readable pair, JudgeError.
    """
    sums = _Sums()
    with closing(panel.judged(read_items(chosen.shards, panel.recipe))) as items:
        for item in items:
            if isinstance(item, Case):
                sums.add(item)
            elif isinstance(item, ShardEnds):
                sums.end(item)
    if not sums.pairs:
        raise InputError(
            f"{chosen.name}: no readable pair ({dict(sums.unreadable) or next(iter(sums.unread.values()), '')}); "
            "--set input.image and input.caption say what is one"
        )
    return _measured(chosen, sums, filters(chosen.shards), weights)


def _measured(
    chosen: NamedSet, sums: _Sums, known: Sequence[Filter], weights: Mapping[str, Mapping[str, str]]
) -> Measured:
    variety = sums.words.variety
    return Measured(
        name=chosen.name,
        shards=len(chosen.shards),
        pairs=sums.pairs,
        unreadable=dict(sorted(sums.unreadable.items())),
        damaged=sums.damaged,
        unread=sums.unread,
        alignment=_estimate(sums.cosine),
        perplexity=_exponential(_estimate(sums.loss)),
        words=_estimate(sums.word_count),
        words_spread=sums.word_counts.spread(),
        characters=sums.characters.spread(),
        vocabulary=sums.words.distinct.count,
        type_token_ratio=sums.words.ratio,
        variety=_estimate(variety),
        shorter_side=sums.sides.spread(),
        pixels=sums.pixels.spread(),
        repeated_images=sums.images.repeated,
        alike_images=sums.looks.repeated if sums.looks.total else None,
        repeated_captions=sums.captions.repeated,
        filtered_by=[judge.judge for judge in known],
        measured_by_its_filter=[
            number for number, model in weights.items() if any(judge.model == model for judge in known)
        ],
    )


def _estimate(mean: Mean) -> Estimate | None:
    return None if mean.value is None else Estimate(mean.value, mean.interval(), mean.count)


def _exponential(loss: Estimate | None) -> Estimate | None:
    """exp of the mean over captions: the paper's perplexity of a set (appendix D)."""
    if loss is None:
        return None
    within = loss.interval and Interval(math.exp(loss.interval.low), math.exp(loss.interval.high))
    return Estimate(math.exp(loss.value), within, loss.pairs)
