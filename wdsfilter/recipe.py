"""What a recipe may say: typed, strict, all mistakes at once.

A recipe is one YAML file per data set. :func:`load_recipe` finds it by path or by name, applies
overrides (``judges.vlm.at_least.grade=8``) and validates the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from wdsfilter import judges, recipe_errors
from wdsfilter.counted import counted
from wdsfilter.errors import RecipeError
from wdsfilter.judges import JudgeModule, JudgeOptions
from wdsfilter.pairs import PairReader
from wdsfilter.shards.source import Pattern

RESERVED_COLUMNS = frozenset(
    {"key", "offset", "length", "status", "reason", "detail", "image_sha256", "phash", "caption_hash"}
)


def _share(value: object) -> object:
    """``1%`` is 0.01."""
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1]) / 100
        except ValueError:
            return value
    return value


def _bytes(value: object) -> object:
    """``256MiB`` is 268435456."""
    return int(TypeAdapter(ByteSize).validate_python(value)) if isinstance(value, str) else value


def listed(value: object) -> object:
    """A single pattern is a list of one, a bare path a mapping with nothing but the path."""
    entries = value if isinstance(value, list) else [value]
    return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


def _none_when(*words: object) -> BeforeValidator:
    return BeforeValidator(lambda value: None if any(value is w or value == w for w in words) else value)


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class ShardPattern(_Section):
    """Path, URL, folder, brace pattern or glob; ``as`` goes before its shards' names, so that they do not collide."""

    path: str
    prefix: str = Field("", alias="as", pattern=r"^(\w[\w.-]*(/\w[\w.-]*)*)?$")


class Tolerate(_Section):
    """How much damage still counts as success (exit code 0)."""

    damaged_shards: int = Field(0, ge=0)
    unreadable: Share = 0.01


class Input(_Section):
    """Where the shards are, and which members make a pair."""

    shards: Annotated[list[ShardPattern], BeforeValidator(listed)] = Field(default_factory=list)
    image: list[str] = Field(default_factory=lambda: ["jpg", "jpeg", "png", "webp"], min_length=1)
    caption: str = Field("txt", min_length=1)
    max_sample: Bytes = 256 << 20
    tolerate: Tolerate = Tolerate()

    @field_validator("image")
    @classmethod
    def _lower(cls, value: list[str]) -> list[str]:
        return [extension.lower().lstrip(".") for extension in value]

    @field_validator("caption")
    @classmethod
    def _extension(cls, value: str) -> str:
        return value if value.startswith("json.") else value.lower().lstrip(".")

    def patterns(self) -> list[Pattern]:
        return [Pattern(listed.path, listed.prefix) for listed in self.shards]


class Guard(_Section):
    """Stops a run early when something is off: after so many samples, shares outside these bounds."""

    after: int = Field(5000, ge=1)
    kept: Annotated[list[Share], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [0.0, 1.0]
    )
    unparsable: Share = 0.01
    unreadable: Share = 0.2

    @field_validator("kept")
    @classmethod
    def _ascending(cls, value: list[float]) -> list[float]:
        if value[0] > value[1]:
            raise ValueError("the lower share comes first")
        return value


class Output(_Section):
    """What is written. ``scores``: a member of its own, a field of the sample's json, or ledgers only."""

    folder: str | None = None
    shards: bool = True
    scores: Literal["member", "json", "none"] = "member"
    score_extension: str = Field("score.json", pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")


class LedgerOptions(_Section):
    """``columns``: fields of a sample's json that its ledger row holds, as text. ``truth``: the one of them
    that holds the pair's true score, where that is known."""

    columns: list[str] = Field(default_factory=lambda: ["uid", "url", "sha256"])
    truth: str | None = None

    @field_validator("columns")
    @classmethod
    def _free(cls, value: list[str]) -> list[str]:
        taken = RESERVED_COLUMNS.intersection(value)
        if taken or len(set(value)) < len(value):
            raise ValueError(f"taken or listed twice: {', '.join(sorted(taken or value))}")
        return value

    @field_validator("truth")
    @classmethod
    def _listed(cls, value: str | None, info: ValidationInfo) -> str | None:
        columns = info.data.get("columns", [value])
        if value is not None and value not in columns:
            raise ValueError(f"{value!r} is none of ledger.columns: {', '.join(columns)}")
        return value


class Run(_Section):
    """How the work is done; nothing in here changes a score.

    (``worker_timeout`` and memory decide which pairs cannot be prepared: those are unreadable.)

    ``in_flight`` bounds the bytes of images that were read and are not judged yet. ``stale_after``,
    in seconds, is how long another process may give no sign of life before its shard is taken over.
    """

    workers: Annotated[Annotated[int, Field(ge=0)] | None, _none_when("auto")] = None
    in_flight: Bytes = 256 << 20
    worker_timeout: float = Field(60.0, gt=0)
    stale_after: float = Field(30.0, gt=0)
    read_attempts: int = Field(3, ge=1)
    device: Annotated[str | None, _none_when("auto")] = None
    trackers: list[str] = Field(default_factory=list)


def listed_judges(value: object) -> list[object]:
    """A judge without options may be listed by its bare name."""
    entries = value if isinstance(value, list) else [value]
    return [{entry: {}} if isinstance(entry, str) else entry for entry in entries]


class _RawRecipe(_Section):
    """A recipe whose judges are not looked into yet."""

    input: Input = Input()
    judges: Annotated[list[dict[str, Any]], BeforeValidator(listed_judges), Field(min_length=1)]
    guard: Annotated[Guard | None, _none_when("off", False)] = Guard()  # YAML reads a bare off as False
    output: Output = Output()
    ledger: LedgerOptions = LedgerOptions()
    run: Run = Run()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """A judge as a recipe asks for it: module ``name``, ``id`` in ledgers and overrides, options."""

    name: str
    id: str
    options: JudgeOptions

    @property
    def module(self) -> JudgeModule:
        return judges.module(self.name)


@dataclass(frozen=True)
class Recipe:
    """A valid recipe."""

    input: Input
    judges: tuple[JudgeSpec, ...]
    guard: Guard | None
    output: Output
    ledger: LedgerOptions
    run: Run
    seed: int

    @cached_property
    def judge_ids(self) -> tuple[str, ...]:
        return tuple(spec.id for spec in self.judges)

    @cached_property
    def pair_reader(self) -> PairReader:
        return PairReader(tuple(self.input.image), self.input.caption, self.output.scores == "json")


def parse(raw: object, *, origin: str = "recipe") -> Recipe:
    """Validate a recipe's content. Raises RecipeError that lists every mistake."""
    mistakes: list[str] = []
    sections: _RawRecipe | None = None
    if not isinstance(raw, dict):
        raise RecipeError(f"{origin}: expected sections such as input and judges, found {type(raw).__name__}")
    try:
        sections = _RawRecipe.model_validate(raw)
    except ValidationError as error:
        mistakes += recipe_errors.explain(error, _RawRecipe)
    specs = _judge_specs(listed_judges(raw.get("judges", [])), mistakes)
    if sections is not None:
        for shared in sorted({spec.id for spec in specs}.intersection(sections.ledger.columns)):
            mistakes.append(f"ledger.columns: {shared!r} is a judge's id; give the judge another `id:`")
        pair = {*sections.input.image, sections.input.caption, "json"}
        if sections.output.score_extension in pair:
            mistakes.append(
                f"output.score_extension: {sections.output.score_extension} is a part of the pair"
            )
    if sections is None or mistakes:
        count = f"{origin}: {counted(len(mistakes), 'mistake')}"
        raise RecipeError("\n  ".join([count, *mistakes]))
    return Recipe(
        sections.input,
        tuple(specs),
        sections.guard,
        sections.output,
        sections.ledger,
        sections.run,
        sections.seed,
    )


def _judge_specs(listed: list[object], mistakes: list[str]) -> list[JudgeSpec]:
    specs: list[JudgeSpec] = []
    for position, entry in enumerate(listed):
        if not isinstance(entry, dict):
            continue  # told by the section's own check
        if len(entry) != 1:
            mistakes.append(
                f"judges.{position}: expected one judge, such as `- vlm: {{...}}`, found {len(entry)}"
            )
            continue
        ((name, options),) = entry.items()
        if name not in judges.names():
            mistakes.append(
                f"judges.{position}: no judge {name!r}{recipe_errors.nearest(str(name), judges.names())}"
            )
            continue
        module = judges.module(name)
        try:
            valid = module.Options.model_validate(options or {})
        except ValidationError as error:
            mistakes += recipe_errors.explain(error, module.Options, f"judges.{name}")
            continue
        specs.append(JudgeSpec(name, valid.id or name, valid))
    ids = [spec.id for spec in specs]
    for repeated in sorted({i for i in ids if ids.count(i) > 1}):
        mistakes.append(f"judges: two judges have the id {repeated!r}; give one of them an `id:`")
    for taken in sorted(RESERVED_COLUMNS.intersection(ids)):
        mistakes.append(f"judges: the id {taken!r} is a column of the ledger; give the judge another `id:`")
    return specs
