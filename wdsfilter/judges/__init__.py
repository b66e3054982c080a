"""The judge seam: one file in this folder is one judge, its name in a recipe is the file's name.

A judge's module says five things (:class:`JudgeModule`): which ``Options`` a recipe may give it,
how they ``resolve`` with what a checkpoint says of itself, which ``fields`` it measures, how those
numbers ``decide`` about a sample (a pure function, so that a ledger can be decided about again without
a model), and how to ``load`` it. What it loads has two halves (:class:`Judge`): ``prepare`` runs in
worker processes, ``score`` on the device.

To add a judge, add a file. There is no list to edit and no base class to inherit from.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from wdsfilter import launch
from wdsfilter.samples import Decision, Numbers, Pair, Prepared, Unreadable

Prepare: TypeAlias = Callable[[Pair], "Prepared | Unreadable"]


class JudgeOptions(BaseModel):
    """What every judge's options have in common: strict, frozen, and an ``id``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")


def decides(default: Any = None, **constraints: Any) -> Any:
    """An option that only decides about numbers already measured: it never changes a score.

    Such options are left out of the scoring fingerprint and are part of the decision fingerprint.
    """
    return Field(default, json_schema_extra={"decides": True}, **constraints)


def is_deciding(field: FieldInfo) -> bool:
    """Whether an option was declared with :func:`decides`."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("decides"))


def rejects(default: Any = None, **constraints: Any) -> Any:
    """An option that says what is measured, and drops what is found: a list of words, a pattern.

    It changes numbers, so it is part of the scoring fingerprint.
    """
    return Field(default, json_schema_extra={"rejects": True}, **constraints)


def is_rejecting(field: FieldInfo) -> bool:
    """Whether an option was declared with :func:`rejects`."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("rejects"))


def locates(default: Any = None, **constraints: Any) -> Any:
    """An option that says where something lies (a model, a processor): its content counts, not its place.

    Such options are left out of the fingerprints; the judge's ``identify`` tells the content.
    """
    return Field(default, json_schema_extra={"locates": True}, **constraints)


def is_location(field: FieldInfo) -> bool:
    """Whether an option was declared with :func:`locates`."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("locates"))


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where a judge's device half runs: ``wanted`` (as torch names it), or what this rank has."""

    wanted: str | None = None
    local_rank: int = 0
    threads: int | None = None

    @property
    def device(self) -> str:
        """The device as torch names it. Imports torch; a judge that needs no device does not ask."""
        return launch.pick_device(self.wanted, self.local_rank)


class Judge(Protocol):
    """A loaded judge.

    ``prepare`` is a picklable callable that needs neither the model nor the device; ``window`` is
    how many pairs are sorted by cost together, ``batch_cost`` the most that the costs of one batch
    may sum to (a single dearer pair is a batch of its own). ``inline`` says that ``prepare`` costs
    less than sending the pair to another process, so that it runs where the shard is read.
    """

    @property
    def prepare(self) -> Prepare: ...

    @property
    def inline(self) -> bool: ...

    @property
    def window(self) -> int: ...

    @property
    def batch_cost(self) -> int: ...

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        """Numbers for each of ``batch`` (``Prepared.value`` each), in the same order.

        Floats are float32 values, so that a ledger holds them exactly. A row does not depend on
        its neighbours. May raise: the caller halves the batch until one pair fails alone.
        """
        ...

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        """What the judge found out about itself on a run's ``first`` prepared pairs, as JSON.

        Raises JudgeError when it must not be trusted with these options. {} where there is
        nothing to check.
        """
        ...


@runtime_checkable
class Launching(Protocol):
    """A judge whose device can be given the next batch while it is at an earlier one, so that it never waits.

    ``ahead`` is how many batches it is given before it is asked for an earlier one's numbers; 0: none.
    """

    @property
    def ahead(self) -> int: ...

    def launch(self, batch: Sequence[Any]) -> Callable[[], Sequence[Numbers]]:
        """``score``, begun: what comes back waits for the numbers. Either of the two may raise what ``score`` would."""
        ...


@runtime_checkable
class Adjustable(Protocol):
    """A judge whose ``check`` finds out how a run is to be done: all its processes do it that way."""

    def adjusted(self, findings: Mapping[str, Any]) -> Judge:
        """The judge as the run's committed ``findings`` (of whichever process) want it."""
        ...


class JudgeModule(Protocol):
    """What a file in this folder provides. Importing it must not import torch."""

    Options: type[JudgeOptions]

    def resolve(self, options: Any) -> tuple[JudgeOptions, Sequence[str]]:
        """The options that hold, and remarks for whoever starts the run; may read what lies beside a model.

        Where there is nothing to look up, they are those that the recipe gave. Raises JudgeError.
        """
        ...

    def fields(self, options: Any) -> Mapping[str, str]:
        """Ledger struct of this judge: field name -> Arrow type (``int8``, ``float32``, ``list<float32>``, ...)."""
        ...

    def decide(self, options: Any, numbers: Numbers) -> Decision | None:
        """The decision that these numbers lead to; None where this judge lets the sample pass. Pure."""
        ...

    def identify(self, options: Any, runtime: Runtime) -> Mapping[str, Any]:
        """What else determines its scores, as JSON: hashes of weights, version of the judge's own code."""
        ...

    def load(self, options: Any, runtime: Runtime) -> Judge: ...


@cache
def names() -> tuple[str, ...]:
    """Names of all judges: the files of this folder."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


@cache
def module(name: str) -> JudgeModule:
    """The judge's module. ``name`` must be one of :func:`names`."""
    if name not in names():
        raise KeyError(name)
    loaded: Any = importlib.import_module(f"{__name__}.{name}")
    return loaded  # type: ignore[no-any-return]  # a module as a protocol's implementer
