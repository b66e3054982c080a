"""Learning the small world from nothing: to see, then to judge, with heads that are thrown away.

What a scene holds is known, so a lesson can say more than a grade: what each visual token shows, what is
true of each thing that a caption names, and whether each claim is right. Heads on inner states are
asked about all of that; it is what makes positions and single wrong words learnable from few pairs.
First the vision tower learns alone, ``look_first`` steps long, then everything together; towards the
end the heads fall silent.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from wdsfilter.recipe import Share
from wdsfilter.training.lessons import (
    IGNORE,
    OF_A_CLAIM,
    OF_A_PICTURE,
    OF_A_THING,
    OF_A_TOKEN,
    OF_A_WORD,
    Teacher,
    begin_teaching,
    teach,
)
from wdsfilter.training.options import Section
from wdsfilter.training.ranks import Figures
from wdsfilter.training.tree import Batch, Look, collate, look_at, prepare_for_trees, read, see


class World(Section):
    """How the small world is learnt: pictures and captions of each in a batch, and the throw-away heads.

    For ``look_first`` steps only the vision tower learns, from ``looks`` pictures a batch. ``justified`` is
    the share of captions whose answer goes on after the grade. The heads are asked until the share
    ``heads_until`` of all steps.
    """

    pictures: int = Field(default=32, ge=1)
    captions: int = Field(default=8, ge=1)
    justified: Share = 0.3
    look_first: int = Field(default=900, ge=0)
    looks: int = Field(default=64, ge=1)
    heads_until: Share = 0.9


class WorldSource:
    """Batches of lessons, made in a process beside, which ends with :meth:`close` or with this one.

    Batch ``number`` is one of pictures alone below ``world.look_first``, a pack of captions afterwards.
    """

    def __init__(self, teacher: Teacher, world: World, seed: int) -> None:
        self._teacher, self._world, self._seed = teacher, world, seed
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=begin_teaching, initargs=(teacher,)
        )

    def batch(self, number: int) -> Look | Batch:
        """The batch of that number."""
        looks = number < self._world.look_first
        count, captions = (self._world.looks, 0) if looks else (self._world.pictures, self._world.captions)
        lessons = self._pool.submit(teach, f"lesson/{self._seed}/{number}", count, captions).result()
        return look_at(lessons) if looks else collate(lessons, self._teacher.layout)

    def close(self) -> None:
        """End the process that makes lessons."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class WorldObjective:
    """Grades first, then the rest of answers; and while the heads are asked, what they are asked.

    ``steps`` is the length of the whole course. The network's inner states are taken from its layers by
    hooks, as deep as ``_DEPTHS`` says.
    """

    def __init__(self, network: Any, teacher: Teacher, world: World, steps: int) -> None:
        self._world, self._silent_from = world, round(world.heads_until * steps)
        self._mean, self._std = (torch.tensor(numbers) for numbers in (teacher.plan.mean, teacher.plan.std))
        prepare_for_trees(network)
        layers = network.model.language_model.layers
        width = network.config.text_config.hidden_size
        depths = {name: max(0, round(share * len(layers)) - 1) for name, share in _DEPTHS.items()}
        self._states: dict[str, Tensor] = {}
        for name, depth in depths.items():
            layers[depth].register_forward_hook(self._keeper(name))
        self._heads = torch.nn.ModuleDict(
            {
                "picture": _heads(OF_A_PICTURE, width),
                "token": _heads(OF_A_TOKEN, width),
                "visual": _heads(OF_A_TOKEN, width),
                "thing": _heads(OF_A_THING, width),
                "claim": _heads(OF_A_CLAIM, width),
            }
        )

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The heads."""
        return {"heads": self._heads}

    def _keeper(self, name: str) -> Any:
        def keep(module: torch.nn.Module, arguments: Any, output: Any) -> None:
            self._states[name] = (output[0] if isinstance(output, tuple) else output)[0]

        return keep

    def loss(self, network: Any, batch: Look | Batch, step: int) -> tuple[Tensor, Figures]:
        """The loss, and its parts by name."""
        look = batch if isinstance(batch, Look) else batch.look
        visual = see(network, look, self._mean, self._std)
        seen = self._seen(visual, look)
        if isinstance(batch, Look):
            return _sum(seen), _told(seen)
        at = (batch.labels != IGNORE).nonzero()[:, 0]
        hidden = read(network, batch, visual)
        every = cross_entropy(network.lm_head(hidden.index_select(0, at)), batch.labels[at], reduction="none")
        of_grade = batch.grade[at]
        parts = {"grade": every[of_grade].mean(), "rest": every[~of_grade].mean()}
        loss = parts["grade"] + 0.3 * parts["rest"]
        if step < self._silent_from:
            deep = self._asked("visual", self._states["visual"].index_select(0, batch.visual), look.tokens)
            words = self._words(batch)
            loss = loss + 0.15 * _sum(seen) + 0.1 * _sum(deep)
            for name, part in words.items():
                loss = loss + (1.0 if OF_A_WORD[name] == 2 else 0.3) * part
            parts |= words
        return loss, _told(parts)

    def _seen(self, visual: Tensor, look: Look) -> dict[str, Tensor]:
        whole = visual.view(len(look.grid), -1, visual.shape[-1]).mean(1)
        return self._asked("token", visual, look.tokens) | self._asked("picture", whole, look.picture)

    def _words(self, batch: Batch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        labels = dict(zip(OF_A_WORD, batch.words, strict=True))
        for kind, classes in (("thing", OF_A_THING), ("claim", OF_A_CLAIM)):
            chosen = torch.stack([labels[name] for name in classes])
            at = (chosen != IGNORE).any(0).nonzero()[:, 0]
            states = self._states[kind].index_select(0, at)
            found |= self._asked(kind, states, chosen.index_select(1, at))
        return found

    def _asked(self, kind: str, states: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss of each head of a kind on ``states`` [n, width]; ``labels`` [heads, n]."""
        heads: Any = self._heads[kind]
        return {name: _loss(head(states), labels[i]) for i, (name, head) in enumerate(heads.items())}


_DEPTHS = {"visual": 0.4, "thing": 0.6, "claim": 0.8}
"""After which share of the language model's layers its states are asked about what."""


def _heads(classes: Mapping[str, int], width: int) -> torch.nn.ModuleDict:
    return torch.nn.ModuleDict({name: torch.nn.Linear(width, count) for name, count in classes.items()})


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy where there are labels; 0 where there is none."""
    known = (labels != IGNORE).sum().clamp(min=1)
    return cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / known


def _sum(parts: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([*parts.values()]).sum()


def _told(parts: Mapping[str, Tensor]) -> Figures:
    return {name: part.detach() for name, part in parts.items()}
