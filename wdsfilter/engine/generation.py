"""Greedy answers by transformers' own generation, ended as soon as what is wanted stands there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList


class _Until(StoppingCriteria):  # type: ignore[misc]  # transformers takes nothing else
    """A row is done when ``enough`` says so of the ids that it has answered so far."""

    def __init__(self, enough: Callable[[list[int]], bool], width: int, rows: int) -> None:
        self._enough, self._width, self._done = enough, width, [False] * rows

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        answers = input_ids[:, self._width :].tolist()
        self._done = [done or self._enough(answer) for done, answer in zip(self._done, answers, strict=True)]
        return torch.tensor(self._done, device=input_ids.device)


@torch.inference_mode()
def greedy(
    network: Any,
    inputs: Mapping[str, Tensor],
    most: int,
    ends: Collection[int],
    until: Callable[[list[int]], bool] | None,
    *,
    fixed_cache: bool = True,
) -> list[list[int]]:
    """Ids of each row's answer, at most ``most``, without what ends (``ends``) and pads it.

    ``inputs`` are a batch padded on the left. On a CUDA device keys and values lie in a cache of fixed size
    (``fixed_cache``: where the network can do that), so that no step copies those of all steps before.
    """
    rows, width = inputs["input_ids"].shape
    criteria = [] if until is None else [_Until(until, width, rows)]
    fixed = {"cache_implementation": "static", "disable_compile": True}
    output = network.generate(
        **inputs,
        max_new_tokens=most,
        stopping_criteria=StoppingCriteriaList(criteria),
        **(fixed if fixed_cache and inputs["input_ids"].device.type == "cuda" else {}),
    )
    answers = output[:, width:].tolist()
    return [list(itertools.takewhile(lambda token: token not in ends, answer)) for answer in answers]
