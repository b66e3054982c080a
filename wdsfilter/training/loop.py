"""Step after step, whatever it is that is learnt: the loop knows neither pairs nor prompts.

What is trained on is a :class:`Source`, what is asked of the network an :class:`Objective`; both are
functions of numbers alone. So is everything else in a step: its batches, its learning rate and the
state of torch's generators. A training that goes on from a stored state is thus the unbroken one,
bit for bit on a CPU, and going on is a jump.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from wdsfilter.errors import Interrupted, UserError
from wdsfilter.overlap import prefetched
from wdsfilter.stop import Stop
from wdsfilter.training.optimizers import NETWORK, build_optimizers, set_rates
from wdsfilter.training.options import Training
from wdsfilter.training.ranks import Figures, Ranks
from wdsfilter.training.state import StateFile

_AHEAD = 4  # batches that are made ready while the network works


class Source(Protocol):
    """What is trained on."""

    def batch(self, number: int) -> Any:
        """Batch ``number`` (from 0): a function of the number alone, on the CPU.

        Called in a thread, in ascending order with gaps: of ``n`` ranks, each takes every ``n``-th.
        """
        ...


class Objective(Protocol):
    """What is asked of the network."""

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Modules by name that are trained along and thrown away; {} where there are none."""
        ...

    def loss(self, network: Any, batch: Any, step: int) -> tuple[Tensor, Figures]:
        """The mean loss of a batch, and its parts by name (the same names for all batches of a step).

        ``step`` is the loop's: batches of one step have it in common. Parts are numbers, or tensors
        without a gradient where asking for a number would make the device wait.
        """
        ...


class Listener(Protocol):
    """Who is told how it goes."""

    def start(self, done: int, steps: int) -> None:
        """The loop begins, or goes on, after so many of all ``steps``."""
        ...

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """``step`` steps are done; the last one's loss, its parts, and the factor of its learning rates."""
        ...

    def held_out(self, step: int, figures: Mapping[str, float]) -> None:
        """What held-out pairs say after ``step`` steps."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained, on what, and how it is measured.

    ``network``'s weights that require a gradient are trained. ``evaluate`` gives the same figures on
    every rank; it is called without gradients, the network in its evaluation mode.
    """

    network: Any
    source: Source
    objective: Objective
    evaluate: Callable[[], Mapping[str, float]] | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how often: ``batches`` make a step, ``seed`` is mixed into torch's own generators."""

    steps: int
    batches: int
    seed: int = 0
    checkpoint_every: int = 200
    evaluate_every: int = 200


def train(
    task: Task,
    training: Training,
    course: Course,
    *,
    ranks: Ranks,
    state: StateFile,
    listener: Listener,
    stop: Stop,
) -> None:
    """Train ``task.network``, which lies on ``ranks.device``, from where ``state`` stands to the last step.

    Raises Interrupted, with the state stored, when somebody asked any of the ranks to stop, and
    UserError for a loss that is no number.
    """
    if course.batches % ranks.world_size:
        raise UserError(
            f"{course.batches} batches make a step, which {ranks.world_size} ranks cannot share evenly"
        )
    modules = task.objective.modules()
    weights = trained_weights(task)
    parameters = list(weights.values())
    optimizers = build_optimizers(weights, training.optimizer)
    first = state.load(weights, optimizers)
    ranks.share_weights(parameters)

    def store(step: int) -> None:
        if ranks.rank == 0:
            state.save(step, weights, optimizers)
        ranks.wait()

    def switch(training_now: bool) -> None:
        for module in (task.network, *modules.values()):
            module.train(training_now)

    switch(True)
    listener.start(first, course.steps)
    stop.gently()
    ready = _read_ahead(task.source, course, ranks, first)
    for step in range(first, course.steps):
        factor = training.schedule.factor(step, course.steps)
        set_rates(optimizers, factor)
        figures = []
        for _ in range(course.batches // ranks.world_size):
            number, batch = next(ready)
            torch.manual_seed(_mixed(course.seed, number))
            with _precision(training, ranks):
                loss, parts = task.objective.loss(task.network, batch, step)
            (loss * (ranks.world_size / course.batches)).backward()  # type: ignore[no-untyped-call]
            figures.append({"loss": loss.detach(), **parts})
        ranks.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, training.clip)
        together = ranks.mean({**_means(figures), "stop": float(_asked(stop))})
        if not math.isfinite(together["loss"]):
            raise UserError(
                f"the loss of step {step + 1} is {together['loss']}; "
                "a smaller learning rate or a longer warmup may help"
            )
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        done = step + 1
        asked = together.pop("stop") > 0
        listener.step(done, {**together, "rate": factor})
        if task.evaluate and (done % course.evaluate_every == 0 or done == course.steps):
            switch(False)
            with torch.no_grad(), _precision(training, ranks):
                found = task.evaluate()
            switch(True)
            listener.held_out(done, found)
        if done < course.steps and (asked or done % course.checkpoint_every == 0):
            store(done)
            if asked:
                raise Interrupted(f"interrupted after step {done}")
    switch(False)


def trained_weights(task: Task) -> dict[str, torch.nn.Parameter]:
    """What a training of ``task`` moves, by name: the network's weights, then the objective's."""
    weights = {f"{NETWORK}{n}": p for n, p in task.network.named_parameters() if p.requires_grad}
    for name, module in task.objective.modules().items():
        weights |= {f"{name}.{n}": p for n, p in module.named_parameters() if p.requires_grad}
    return weights


def _read_ahead(source: Source, course: Course, ranks: Ranks, first: int) -> Iterator[tuple[int, Any]]:
    """Numbers and batches of this rank, from step ``first`` on."""
    mine = range(first * course.batches + ranks.rank, course.steps * course.batches, ranks.world_size)
    batches = ((number, source.batch(number)) for number in mine)
    return prefetched(batches, size_of=lambda _: 1, max_bytes=_AHEAD, max_items=_AHEAD)


def _precision(training: Training, ranks: Ranks) -> torch.autocast:
    return torch.autocast(ranks.device.type, torch.bfloat16, enabled=training.precision == "bf16")


def _means(figures: list[dict[str, float | Tensor]]) -> Figures:
    return {name: sum(batch[name] for batch in figures) / len(figures) for name in figures[0]}


def _asked(stop: Stop) -> bool:
    try:
        stop.check()
    except Interrupted:
        return True
    return False


def _mixed(seed: int, number: int) -> int:
    """A seed for torch that no other batch has."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:8], "little")
