"""What a judge is asked and how it answers: the contract between those who train one and those who run it.

A checkpoint folder may hold its own as ``judge.json``; the published judge has none, and its contract
is the default here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wdsfilter import recipe_errors
from wdsfilter.errors import JudgeError

FILE = "judge.json"

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


class Contract(BaseModel):
    """Prompt, form of the answer, and pixels of an image. The defaults are those of the published judge."""

    model_config = _STRICT

    system: str = "You are helpful AI assistant"
    prompt: str = "Analyze and assess the quality of following image-caption pair:\n{caption}"
    answer: str = Field(default="score: {", min_length=1)
    pattern: str = r"score:\s*\{(\d+)\}"
    scale: Scale = Scale(lowest=1, highest=10)
    # fewer visual tokens would not be bit-identical on a CPU (engine/model.py)
    min_pixels: int = Field(default=256 * _UNIT, ge=4 * _UNIT)
    max_pixels: int = Field(default=1280 * _UNIT, ge=16 * _UNIT)
    max_caption_tokens: int = Field(default=1024, ge=1)

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
    def _pixels_ascend(self) -> Contract:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels ({self.min_pixels}) is more than max_pixels ({self.max_pixels})")
        return self


class OwnContract(Contract):
    """The content of ``judge.json``.

    ``score_first``: answers begin with the score. ``answers_for`` says in a phrase which pairs the judge
    is meant for, None where nobody said so; ``mark`` is a field of the json that such pairs have.
    """

    format: Literal[1] = 1
    score_first: bool
    answers_for: str | None = None
    mark: str | None = None

    def contract(self) -> Contract:
        """Without what is told about it."""
        return Contract.model_validate({name: getattr(self, name) for name in Contract.model_fields})


def read_contract(folder: Path) -> OwnContract | None:
    """What the checkpoint in ``folder`` says of itself; None where it says nothing.

    Raises JudgeError for a ``judge.json`` that cannot be meant.
    """
    path = folder / FILE
    try:
        return OwnContract.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise JudgeError(f"{path}: {'; '.join(recipe_errors.explain(error, OwnContract))}") from error


def write_contract(folder: Path, contract: OwnContract) -> None:
    """Say it in ``folder``."""
    content = contract.model_dump(mode="json")
    content["scale"] = contract.scale.model_dump(mode="json", exclude_none=True)
    (folder / FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
