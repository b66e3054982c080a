"""What a train recipe may say about how weights are moved, whatever it is that they learn."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wdsfilter.recipe import Share


class Section(BaseModel):
    """A part of a train recipe: strict and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Optimizer(Section):
    """``adamw`` for everything, or ``muon`` for the matrices inside the towers and AdamW for the rest.

    ``learning_rate`` and ``betas`` are AdamW's, ``matrices`` and ``momentum`` Muon's; ``weight_decay``
    is for all weights of two and more dimensions.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-5, gt=0)
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [0.9, 0.99]
    )
    weight_decay: float = Field(default=0.0, ge=0)
    matrices: float = Field(default=3e-3, gt=0)
    momentum: float = Field(default=0.95, ge=0, lt=1)


class Schedule(Section):
    """The learning rates as a factor of the step: up in ``warmup``, constant until ``hold``, down to ``floor``.

    All are shares: the first two of all steps, the last one of the full rate.
    """

    warmup: Share = 0.03
    hold: Share = 0.0
    decay: Literal["linear", "cosine", "none"] = "cosine"
    floor: Share = 0.0

    def factor(self, step: int, steps: int) -> float:
        """The factor of the rates with which step ``step`` (from 0) of ``steps`` moves the weights."""
        rising = self.warmup * steps
        if step + 1 < rising:
            return (step + 1) / rising
        start = max(rising, self.hold * steps)
        if self.decay == "none" or step <= start:
            return 1.0
        part = (step - start) / (steps - start)
        shape = 1 - part if self.decay == "linear" else (1 + math.cos(math.pi * part)) / 2
        return self.floor + (1 - self.floor) * shape


class Training(Section):
    """How the weights are moved: ``steps``, or so many ``epochs`` over the pairs.

    A step is made of ``pairs_per_step`` pairs on all ranks together. ``bf16`` means products: weights
    that are trained stay in fp32.
    """

    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    pairs_per_step: int = Field(default=32, ge=1)
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self

    def all_steps(self, pairs: int) -> int:
        """How many steps there are, with so many pairs to train on."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, math.ceil(self.epochs * pairs / self.pairs_per_step))


class Run(Section):
    """How the work is done; nothing in here changes what is learnt, but for rounding.

    ``checkpoint_every`` so many steps all that is needed to go on is written.
    """

    pairs_at_once: int = Field(default=4, ge=1)
    gradient_checkpointing: bool = True
    checkpoint_every: int = Field(default=200, ge=1)
    trackers: list[str] = Field(default_factory=list)
