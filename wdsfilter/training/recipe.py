"""What a train recipe may say: a checkpoint to start from, scored pairs, and the judge that comes of it.

A recipe with a section ``training`` is a train recipe. Those that come with wdsfilter lie in
``recipes/train/``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from wdsfilter import recipe_errors
from wdsfilter.counted import counted
from wdsfilter.engine.contract import Contract
from wdsfilter.errors import RecipeError
from wdsfilter.recipe import Bytes, ShardPattern, Share, listed
from wdsfilter.recipe_files import is_train, read_recipe
from wdsfilter.shards.source import Pattern
from wdsfilter.training.options import Run, Section, Training

if TYPE_CHECKING:
    from wdsfilter.training.scratch import ScratchRecipe

_Off = BeforeValidator(lambda value: None if value is False or value == "off" else value)
_Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class Judge(Contract):
    """The contract that the trained judge will have; what is unsaid is the base's own, where it has one.

    ``answers_for``: a phrase that says which pairs it is meant for; ``mark``: a field of the json that
    such pairs have.
    """

    answers_for: str | None = None
    mark: str | None = None


class Answers(Section):
    """What is to be learnt of an answer: ``answer`` + grade + ``closing``, a line break, the justification.

    ``grade_weight`` is the weight of the grade's tokens among those of their answer. ``soft`` is the
    share of a grade's mass that goes to the grades right above and below it, in equal parts.
    ``max_tokens``: a longer answer is cut, and then has no end.
    """

    closing: str = "}"
    soft: float = Field(default=0.0, ge=0, lt=1)
    grade_weight: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=512, ge=8)


class Data(Section):
    """Scored pairs: ``shards``, or a Hugging Face ``dataset`` (name, or a folder that holds one).

    Of shards, ``image`` and ``caption`` are extensions (``caption`` may be ``json.FIELD``), ``score``
    and ``justification`` fields of the ``.json``, with dots for nested ones. Of a data set, all four
    are columns, and ``split`` and ``revision`` say which part of it. ``tolerate`` is the share of pairs
    that may be unusable.
    """

    shards: Annotated[list[ShardPattern], BeforeValidator(listed)] = Field(default_factory=list)
    dataset: str | None = None
    split: str = "train"
    revision: str | None = None
    image: _Names = Field(default_factory=list)
    caption: str = ""
    score: str = "score"
    justification: str | None = "justification"
    max_sample: Bytes = 256 << 20
    tolerate: Share = 0.05

    @model_validator(mode="after")
    def _one_place(self) -> Data:
        if (not self.shards) == (self.dataset is None):
            raise ValueError("give either shards or dataset")
        if self.dataset is not None and len(self.image) > 1:
            raise ValueError(f"image of a dataset is one column, not {len(self.image)}")
        return self

    def patterns(self) -> list[Pattern]:
        """Where the shards are."""
        return [Pattern(entry.path, entry.prefix) for entry in self.shards]


class HeldOut(Section):
    """Pairs that are not trained on: a ``share``, drawn by their keys, or ``data`` of their own.

    They are asked about ``every`` so many steps and at the end; at most ``pairs`` of them.
    """

    share: Share = 0.05
    data: Data | None = None
    every: int = Field(default=200, ge=1)
    pairs: int = Field(default=512, ge=1)


class Lora(Section):
    """Adapters of this ``rank`` on the modules whose names end in ``targets``; merged at the end."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: _Names = Field(
        default_factory=lambda: [
            *("q_proj", "k_proj", "v_proj", "o_proj"),
            *("gate_proj", "up_proj", "down_proj"),
        ],
        min_length=1,
    )


class TrainRecipe(Section):
    """A valid train recipe.

    Without ``lora`` all weights learn, but for those of the modules that ``freeze`` names.
    """

    model: str
    revision: str | None = None
    processor: str | None = None
    processor_revision: str | None = None
    judge: Judge = Judge()
    answers: Answers = Answers()
    data: Data
    held_out: Annotated[HeldOut | None, _Off] = HeldOut()
    lora: Annotated[Lora | None, _Off] = None
    freeze: _Names = Field(default_factory=list)
    training: Training
    run: Run = Run()
    seed: int = 0

    @model_validator(mode="after")
    def _whole_batches(self) -> TrainRecipe:
        at_once, together = self.run.pairs_at_once, self.training.pairs_per_step
        if together % at_once:
            raise ValueError(
                f"training.pairs_per_step ({together}) is no multiple of run.pairs_at_once ({at_once})"
            )
        if self.lora is not None and self.freeze:
            raise ValueError("freeze goes without lora: beside adapters no weight learns")
        return self


def parse(raw: object, *, origin: str = "recipe") -> TrainRecipe | ScratchRecipe:
    """Validate a train recipe's content: one with a section ``world`` is of a judge from nothing.

    Raises RecipeError that lists every mistake.
    """
    if not isinstance(raw, dict) or not is_train(raw):
        raise RecipeError(f"{origin}: no train recipe, as it has no section training; `run` takes the others")
    kind: type[TrainRecipe | ScratchRecipe] = TrainRecipe
    if "world" in raw:
        from wdsfilter.training.scratch import ScratchRecipe

        kind = ScratchRecipe
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        mistakes = recipe_errors.explain(error, kind)
    count = f"{origin}: {counted(len(mistakes), 'mistake')}"
    raise RecipeError("\n  ".join([count, *mistakes]))


def load_train_recipe(name: str, overrides: Iterable[str] = ()) -> TrainRecipe | ScratchRecipe:
    """The train recipe ``name`` (path or name) with ``PATH=VALUE`` overrides applied in order."""
    return parse(read_recipe(name, overrides), origin=name)
