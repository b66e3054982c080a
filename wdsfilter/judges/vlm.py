"""The compact VLM judge: a small vision-language model grades each pair in context, with its own answer.

As published (arXiv 2507.20156): image, instruction and caption go in, ``score: {N}`` and a
justification come out, and what is graded 9 or more is kept. ``readout: generate`` is that loop.
``readout: expected`` forces the answer's start and reads the grade's whole distribution in one forward
pass, which is right for checkpoints that answer with the score first: checked on a run's first pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import fsum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wdsfilter import recipe_errors
from wdsfilter.engine.contract import FILE, Contract, read_contract
from wdsfilter.errors import JudgeError
from wdsfilter.judges import JudgeOptions, Runtime, decides, locates
from wdsfilter.samples import Decision, Numbers

if TYPE_CHECKING:
    from wdsfilter.engine.checkpoint import Checkpoint
    from wdsfilter.engine.judge import VlmJudge

SCORING_VERSION = 4
"""Raised by whatever changes a score that options and weights do not show."""

PUBLISHED = "Dauka-transformers/Compact_VLM_filter"
PUBLISHED_PROCESSOR = "Qwen/Qwen2-VL-2B-Instruct"

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class AtLeast(BaseModel):
    """What a pair needs to stay: a greedy ``grade``, an expected ``score``, or a ``grade`` that is
    reached or passed ``with_probability``."""

    model_config = _STRICT

    grade: int | None = None
    score: float | None = Field(default=None, allow_inf_nan=False)
    with_probability: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_rule(self) -> AtLeast:
        if (self.grade is None) == (self.score is None):
            raise ValueError("give either grade or score")
        if self.with_probability is not None and self.grade is None:
            raise ValueError("with_probability goes with grade")
        return self


class Check(BaseModel):
    """How the forced start is checked: on the ``first`` pairs (0: not at all), needing this ``agreement``."""

    model_config = _STRICT

    first: int = Field(default=32, ge=0)
    agreement: float = Field(default=0.9, ge=0, le=1)


class Options(JudgeOptions, Contract):
    """What a recipe may say about this judge.

    Where the checkpoint brings a contract of its own, it holds for all of it that a recipe leaves unsaid.
    """

    model: str = locates(...)
    revision: str | None = locates()
    processor: str | None = locates()
    processor_revision: str | None = locates()
    readout: Literal["expected", "generate"] = "expected"
    justify: Literal["none", "kept", "all"] = "none"
    max_new_tokens: int = Field(default=512, ge=1)
    resize: Literal["torch", "pillow"] = "torch"
    scaled_decoding: bool = False
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    weights: Literal["stored", "int8", "fp8"] = "stored"
    max_tokens_per_batch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    window: int = Field(default=256, ge=1)
    check: Check = Check()
    at_least: AtLeast = decides(AtLeast(grade=9))

    @field_validator("at_least", mode="before")
    @classmethod
    def _bare_number(cls, given: Any) -> Any:
        """A bare number means a grade."""
        return {"grade": given} if isinstance(given, int) and not isinstance(given, bool) else given

    @model_validator(mode="after")
    def _consistent(self) -> Options:
        wanted = self.at_least.score if self.at_least.grade is None else self.at_least.grade
        values = self.scale.grades().values()
        # A scale that is left unsaid may be the checkpoint's own: resolve() sees to that.
        known = "scale" in self.model_fields_set or self.model == PUBLISHED
        if known and wanted is not None and not min(values) <= wanted <= max(values):
            raise ValueError(f"at_least ({wanted:g}) is not on the scale, {min(values)} to {max(values)}")
        if self.readout == "generate" and self.at_least.with_probability is not None:
            raise ValueError(
                "at_least.with_probability needs readout: expected; generating measures no probabilities"
            )
        return self


def fields(options: Options) -> Mapping[str, str]:
    """Ledger struct. ``grade`` is greedy, ``score`` the expectation over ``p`` (ascending grades),
    ``missing_mass`` what lay on no grade; ``tokens`` counts the prompt, ``truncated`` is a cut caption."""
    return {
        "grade": "int16",
        "score": "float32",
        "p": "list<float32>",
        "missing_mass": "float32",
        "tokens": "int32",
        "visual_tokens": "int32",
        "truncated": "bool",
        "justification": "string",
    }


def decide(options: Options, numbers: Numbers) -> Decision | None:
    """``unparsable`` without a grade, ``dropped`` below ``at_least``, None otherwise."""
    grade, rule = numbers["grade"], options.at_least
    if grade is None:
        return Decision("unparsable", "no_grade", _shown(numbers.get("justification")))
    if rule.score is not None:
        return _unless(numbers["score"] >= rule.score, f"score {numbers['score']:.4g} < {rule.score:g}")
    assert rule.grade is not None
    if rule.with_probability is None:
        return _unless(grade >= rule.grade, f"grade {grade} < {rule.grade}")
    reached = fsum(
        p
        for p, value in zip(numbers["p"], options.scale.grades().values(), strict=True)
        if value >= rule.grade
    )
    return _unless(
        reached >= rule.with_probability,
        f"P(grade >= {rule.grade}) = {reached:.3f} < {rule.with_probability:g}",
    )


def resolve(options: Options) -> tuple[Options, Sequence[str]]:
    """The checkpoint's own contract (``judge.json``) where the recipe leaves it unsaid. Raises JudgeError."""
    said = options.model_dump(exclude_unset=True)
    name = options.id or "vlm"
    model, _ = _checkpoints(options)
    own = read_contract(model.folder)
    remarks = _of_padding(options, model, f"judges.{name}")
    if own is not None:
        if not own.score_first and options.readout == "expected":
            raise JudgeError(
                f"judges.{name}: {options.model} says in its {FILE} that its answers do not begin with the "
                "score: readout: generate reads them"
            )
        for key, value in own.contract().model_dump().items():
            if said.setdefault(key, value) != value and getattr(options, key) != getattr(own, key):
                remarks.append(
                    f"warning: judges.{name}.{key} is {_few(said[key])} in the recipe, "
                    f"{_few(value)} in the checkpoint's own {FILE}: the recipe's counts"
                )
        if own.answers_for is not None:
            remarks.append(f"judges.{name}: this checkpoint answers for {own.answers_for}")
    said.setdefault("scale", options.scale.model_dump())
    try:
        return Options.model_validate(said), remarks
    except ValidationError as error:
        raise JudgeError("; ".join(recipe_errors.explain(error, Options, f"judges.{name}"))) from error


def identify(options: Options, runtime: Runtime) -> Mapping[str, Any]:
    from wdsfilter.engine.checkpoint import PROCESSOR, STOCK_PROCESSOR, is_packed
    from wdsfilter.engine.loading import identity

    model, processor = _checkpoints(options)
    packed = is_packed(model)
    files = PROCESSOR if packed else STOCK_PROCESSOR
    told = identity(model, processor, files, dtype=options.dtype, device=runtime.device)
    return {"scoring_version": SCORING_VERSION, **told, **({} if packed else {"engine": "padded"})}


def load(options: Options, runtime: Runtime) -> VlmJudge:
    """The judge on ``runtime.device``. Raises JudgeError, before weights are read where that can be."""
    from wdsfilter.engine.checkpoint import is_packed
    from wdsfilter.engine.judge import VlmJudge
    from wdsfilter.judges._vlm_halves import packed, padded

    options, _ = resolve(options)
    model, processor = _checkpoints(options)
    own = read_contract(model.folder)
    halves = (packed if is_packed(model) else padded)(
        options, runtime, model, processor, own.mark if own else None
    )
    return VlmJudge(
        model=halves.model,
        prepare=halves.prepare,
        readout=halves.readout,
        answers=halves.answers,
        grades=options.scale.grades(),
        start=options.answer,
        pattern=re.compile(options.pattern),
        mode=options.readout,
        max_new_tokens=options.max_new_tokens,
        justify=options.justify,
        keeps=lambda numbers: decide(options, numbers) is None,
        check_first=options.check.first,
        agreement=options.check.agreement,
        answers_for=own.answers_for if own else None,
        window=options.window,
        budget=None if options.max_tokens_per_batch == "auto" else options.max_tokens_per_batch,
    )


def _checkpoints(options: Options) -> tuple[Checkpoint, Checkpoint]:
    """Model and processor: the published fine-tune ships none and uses its base model's."""
    from wdsfilter.engine.checkpoint import PROCESSOR, STOCK_PROCESSOR, WEIGHTS, locate

    processor = (*PROCESSOR, *STOCK_PROCESSOR)
    weights = (*WEIGHTS, "generation_config.json", FILE)
    if options.processor is None and options.model != PUBLISHED:
        model = locate(options.model, options.revision, (*weights, *processor))
        return model, model
    name = options.processor or PUBLISHED_PROCESSOR
    return locate(options.model, options.revision, weights), locate(
        name, options.processor_revision, processor
    )


def _of_padding(options: Options, model: Checkpoint, where: str) -> list[str]:
    """What is to be told of a checkpoint that the engine does not run in packs."""
    from wdsfilter.engine.checkpoint import architecture, is_packed

    if is_packed(model):
        return []
    kind = architecture(model.read("config.json"))
    idle = sorted({"min_pixels", "max_pixels", "resize", "scaled_decoding"} & options.model_fields_set)
    return [
        f"{where}: {kind} is run in padded batches, by transformers' own processor and model; "
        "packed without padding are Qwen2-VL and Qwen2.5-VL",
        *(f"warning: {where}.{key} does nothing: the own processor of {kind} sizes pictures" for key in idle),
    ]


def _unless(good: bool, detail: str) -> Decision | None:
    return None if good else Decision("dropped", "at_least", detail)


def _few(value: object) -> str:
    return repr(value)[:60]


def _shown(answer: str | None) -> str:
    return "" if answer is None else f"answered {answer[:100]!r}"
