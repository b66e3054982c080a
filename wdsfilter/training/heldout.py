"""What held-out pairs say of a judge in training: their loss, and their grades as a run would read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wdsfilter.engine.readout import Readout
from wdsfilter.evaluate.figures import spearman
from wdsfilter.training.forward import Packer, Tail
from wdsfilter.training.loop import Objective
from wdsfilter.training.ranks import Ranks
from wdsfilter.training.scored import Pairs
from wdsfilter.training.source import Example, ExampleMaker


@dataclass(frozen=True, slots=True)
class Asked:
    """A held-out pair: the mean ``loss`` of its batch, its true grade, and what the forced readout says: the
    greedy ``grade`` (the most probable one where greedy is none) and the ``expected`` one."""

    loss: float
    true: int
    grade: int
    expected: float


@dataclass(frozen=True, slots=True)
class HeldOutPairs:
    """The held-out ``pairs`` and how they are asked: ``size`` at a time, shared among ``ranks``."""

    pairs: Pairs
    make: ExampleMaker
    objective: Objective
    packer: Packer
    readout: Readout
    grades: Mapping[str, int]
    ranks: Ranks
    size: int

    def figures(self, network: Any, step: int) -> dict[str, float]:
        """``loss``; ``mae`` of the grade; ``spearman`` of the expected grade, where it is defined; ``exact`` grades.

        The same on every rank; each asks about a part of the pairs. {} when none can be read.
        """
        mine = range(self.ranks.rank, len(self.pairs), self.ranks.world_size)
        asked: list[Asked] = []
        for i in range(0, len(mine), self.size):
            if batch := list(self.make.examples(self.pairs, mine[i : i + self.size])):
                asked += self.ask(network, batch, step)
        everyone = self.ranks.gathered(asked)
        if not everyone:
            return {}
        loss, true, grade, expected = (
            np.array([getattr(one, name) for one in everyone], dtype=np.float64)
            for name in ("loss", "true", "grade", "expected")
        )
        correlation = spearman(expected, true)
        return {
            "loss": float(loss.mean()),
            "mae": float(np.abs(grade - true).mean()),
            **({} if correlation is None else {"spearman": correlation}),
            "exact": float((grade == true).mean()),
        }

    def ask(self, network: Any, batch: Sequence[Example], step: int) -> list[Asked]:
        """What the network says of each pair, in the same order."""
        readout, values = self.readout, list(self.grades.values())
        tail = Tail(readout.trunk, readout.shared, readout.branches)
        prompts = [example.prompt for example in batch]
        hidden, starts = self.packer.states(network, prompts, [tail] * len(batch))
        places = torch.tensor(
            [start + slot for start in starts for slot in readout.slots], device=hidden.device
        )
        log_p = torch.log_softmax(network.lm_head(hidden[places]).float(), dim=-1)
        tokens = log_p[:, list(readout.tokens)].cpu().numpy()
        best = log_p.argmax(dim=-1).cpu().numpy()
        loss, _ = self.objective.loss(network, batch, step)
        found = []
        for i, example in enumerate(batch):
            nodes = slice(i * len(readout.nodes), (i + 1) * len(readout.nodes))
            reading = readout.read(tokens[nodes], best[nodes])
            p = np.full(len(values), 1 / len(values)) if reading.p is None else np.array(reading.p)
            greedy = int(p.argmax()) if reading.index is None else reading.index
            found.append(
                Asked(float(loss), self.grades[example.grade], values[greedy], float(p @ np.array(values)))
            )
        return found
