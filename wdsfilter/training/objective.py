"""To answer as the scored pairs say: the loss of a fine-tuned judge, on answers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wdsfilter.training.forward import Packer, Tail
from wdsfilter.training.ranks import Figures
from wdsfilter.training.source import Example


@dataclass(frozen=True, slots=True)
class AnswerObjective:
    """Cross-entropy of answers, given their prompts.

    A pair's loss is the mean over its answer's tokens, weighted as the answer says; a batch's is the
    mean over its pairs, so it does not matter how pairs are batched.
    """

    packer: Packer

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """None: the model's own answer is the measure."""
        return {}

    def loss(self, network: Any, batch: Sequence[Example], step: int) -> tuple[Tensor, Figures]:
        """The loss, and beside it ``grade_loss`` (of the grade's tokens alone), ``grade_right``: the share of
        pairs whose grade is the most probable one token by token, and ``cut``: the share whose caption
        or answer was too long."""
        answers = [example.answer for example in batch]
        hidden, starts = self.packer.states(
            network,
            [example.prompt for example in batch],
            [Tail(answer.ids[:-1].tolist()) for answer in answers],
        )
        lengths = [len(answer.ids) for answer in answers]
        # The state before a token says what it will be: the prompt's last one speaks of the answer's first.
        places = np.concatenate(
            [start - 1 + np.arange(length) for start, length in zip(starts, lengths, strict=True)]
        )
        rows = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        at = np.concatenate([row + answer.at for row, answer in zip(rows, answers, strict=True)])
        token = np.concatenate([answer.token for answer in answers])
        weight = np.concatenate([answer.weight for answer in answers])
        grades = [row + np.arange(*answer.grade) for row, answer in zip(rows, answers, strict=True)]

        def on_device(array: Any) -> Tensor:
            return torch.from_numpy(array).to(hidden.device)

        log_p = torch.log_softmax(network.lm_head(hidden[on_device(places)]).float(), dim=-1)
        of_target = -on_device(weight) * log_p[on_device(at), on_device(token)]
        loss = of_target.sum() / len(batch)

        with torch.no_grad():
            of_grade = np.isin(at, np.concatenate(grades))
            share = [float(answer.weight[_within(answer.at, answer.grade)].sum()) for answer in answers]
            per_pair = np.repeat(share, [len(answer.at) for answer in answers]).astype(np.float32)
            grade_loss = (of_target / on_device(per_pair))[on_device(of_grade)].sum() / len(batch)
            best = log_p.argmax(dim=-1)
            ids = on_device(np.concatenate([answer.ids for answer in answers]))
            right = torch.stack([(best == ids)[on_device(grade)].all() for grade in grades]).float().mean()
        cut = sum(example.prompt.truncated or example.answer.cut for example in batch) / len(batch)
        return loss, {"grade_loss": grade_loss, "grade_right": right, "cut": cut}


def _within(places: Any, span: tuple[int, int]) -> Any:
    return (places >= span[0]) & (places < span[1])
