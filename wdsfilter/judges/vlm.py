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
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wdsfilter.judges import JudgeOptions, Runtime, decides, locates
from wdsfilter.samples import Decision, Numbers

if TYPE_CHECKING:
    from wdsfilter.engine.checkpoint import Checkpoint
    from wdsfilter.engine.judge import VlmJudge

SCORING_VERSION = 1
"""Raised by whatever changes a score that options and weights do not show."""

PUBLISHED = "Dauka-transformers/Compact_VLM_filter"
PUBLISHED_PROCESSOR = "Qwen/Qwen2-VL-2B-Instruct"

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)
_INT16 = 2**15 - 1
_UNIT = 28 * 28  # pixels of one visual token


class Scale(BaseModel):
    """Grades that an answer can name: all whole numbers from ``lowest`` to ``highest``, or ``values``,
    which gives a number to each text: ``{values: {A: 3, B: 2, C: 1}}``, ``{values: {"yes": 1, "no": 0}}``."""

    model_config = _STRICT

    lowest: int | None = Field(default=None, ge=0, le=_INT16)
    highest: int | None = Field(default=None, ge=0, le=_INT16)
    values: dict[str, int] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Scale:
        span = (self.lowest, self.highest)
        if (self.values is None) == (span == (None, None)):
            raise ValueError("give either lowest and highest, or values")
        if self.values is None and (None in span or not self.grades()):
            raise ValueError("lowest and highest must both be given, lowest being the lower one")
        if self.values is not None and len(set(self.values.values())) < max(2, len(self.values)):
            raise ValueError("values needs two texts or more, each with a number of its own")
        if any(abs(value) > _INT16 for value in self.grades().values()):
            raise ValueError(f"grades lie between -{_INT16} and {_INT16}")
        return self

    def grades(self) -> dict[str, int]:
        """Text of an answer -> its number, ascending."""
        if self.values is not None:
            return dict(sorted(self.values.items(), key=lambda item: item[1]))
        assert self.lowest is not None
        assert self.highest is not None
        return {str(n): n for n in range(self.lowest, self.highest + 1)} if self.lowest < self.highest else {}


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


class Options(JudgeOptions):
    """What a recipe may say about this judge."""

    model: str = locates(...)
    revision: str | None = locates()
    processor: str | None = locates()
    processor_revision: str | None = locates()
    system: str = "You are helpful AI assistant"
    prompt: str = "Analyze and assess the quality of following image-caption pair:\n{caption}"
    answer: str = Field(default="score: {", min_length=1)
    pattern: str = r"score:\s*\{(\d+)\}"
    scale: Scale = Scale(lowest=1, highest=10)
    readout: Literal["expected", "generate"] = "expected"
    justification: bool = True
    max_new_tokens: int = Field(default=512, ge=1)
    # fewer visual tokens would not be bit-identical on a CPU (engine/model.py)
    min_pixels: int = Field(default=256 * _UNIT, ge=4 * _UNIT)
    max_pixels: int = Field(default=1280 * _UNIT, ge=16 * _UNIT)
    max_caption_tokens: int = Field(default=1024, ge=1)
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    max_tokens_per_batch: int = Field(default=16384, ge=1)
    window: int = Field(default=256, ge=1)
    check: Check = Check()
    at_least: AtLeast = decides(AtLeast(grade=9))

    @field_validator("at_least", mode="before")
    @classmethod
    def _bare_number(cls, given: Any) -> Any:
        """A bare number means a grade."""
        return {"grade": given} if isinstance(given, int) and not isinstance(given, bool) else given

    @field_validator("prompt")
    @classmethod
    def _one_caption(cls, prompt: str) -> str:
        if prompt.count("{caption}") != 1:
            raise ValueError(
                f"must hold {{caption}} exactly once, holds it {prompt.count('{caption}')} times"
            )
        return prompt

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"must have one group, the grade; has {groups}")
        return pattern

    @model_validator(mode="after")
    def _consistent(self) -> Options:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels ({self.min_pixels}) is more than max_pixels ({self.max_pixels})")
        wanted = self.at_least.score if self.at_least.grade is None else self.at_least.grade
        values = self.scale.grades().values()
        if wanted is not None and not min(values) <= wanted <= max(values):
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


def identify(options: Options, runtime: Runtime) -> Mapping[str, Any]:
    """Hashes of all files that determine a score, the dtype that is computed in, and our own version."""
    from wdsfilter.engine.checkpoint import PROCESSOR, WEIGHTS
    from wdsfilter.engine.loading import resolve_dtype

    model, processor = _checkpoints(options)
    return {
        "scoring_version": SCORING_VERSION,
        "dtype": resolve_dtype(options.dtype, runtime.device),
        "model": model.digests(WEIGHTS),
        "processor": processor.digests(PROCESSOR),
    }


def load(options: Options, runtime: Runtime) -> VlmJudge:
    """The judge on ``runtime.device``. Raises JudgeError, before weights are read where that can be."""
    from wdsfilter.engine.checkpoint import model_config
    from wdsfilter.engine.judge import VlmJudge
    from wdsfilter.engine.layout import build_layout, end_tokens, full_tokenizer
    from wdsfilter.engine.loading import load_model
    from wdsfilter.engine.pixels import build_plan
    from wdsfilter.engine.prepare import Prepare
    from wdsfilter.engine.readout import build_readout

    model, processor = _checkpoints(options)
    config = model_config(model)
    layout = build_layout(
        processor,
        config,
        system=options.system,
        prompt=options.prompt,
        max_caption_tokens=options.max_caption_tokens,
    )
    plan = build_plan(
        processor.image_processor(),
        config.get("vision_config", {}),
        min_pixels=options.min_pixels,
        max_pixels=options.max_pixels,
    )
    grades = options.scale.grades()
    readout = build_readout(layout.continuation, options.answer, list(grades))
    answers = full_tokenizer(processor)
    return VlmJudge(
        model=load_model(
            model,
            plan,
            image_pad=layout.image_pad,
            end_tokens=end_tokens(answers),
            device=runtime.device,
            dtype=options.dtype,
            threads=runtime.threads,
        ),
        prepare=Prepare(layout, plan),
        readout=readout,
        answers=answers,
        grades=grades,
        start=options.answer,
        pattern=re.compile(options.pattern),
        mode=options.readout,
        max_new_tokens=options.max_new_tokens,
        keep_justification=options.justification,
        check_first=options.check.first,
        agreement=options.check.agreement,
        window=options.window,
        batch_cost=options.max_tokens_per_batch,
    )


def _checkpoints(options: Options) -> Sequence[Checkpoint]:
    """Model and processor: the published fine-tune ships none and uses its base model's."""
    from wdsfilter.engine.checkpoint import PROCESSOR, WEIGHTS, locate

    if options.processor is None and options.model != PUBLISHED:
        model = locate(options.model, options.revision, (*WEIGHTS, *PROCESSOR))
        return model, model
    name = options.processor or PUBLISHED_PROCESSOR
    return locate(options.model, options.revision, WEIGHTS), locate(
        name, options.processor_revision, PROCESSOR
    )


def _unless(good: bool, detail: str) -> Decision | None:
    return None if good else Decision("dropped", "at_least", detail)


def _shown(answer: str | None) -> str:
    return "" if answer is None else f"answered {answer[:100]!r}"
