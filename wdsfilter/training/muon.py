"""Muon: momentum whose every step is made orthogonal, for weight matrices (Jordan and others, 2024).

torch's own computes in bf16, which a CPU without units for it does a hundred times slower; this one keeps
the parameters' dtype, and takes matrices of one shape together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration
_ITERATIONS = 5
_RMS = 0.2  # of an update at learning rate 1, so that AdamW's rates serve (Liu and others, 2025)


class Muon(torch.optim.Optimizer):
    """An optimizer of matrices [rows, columns] only."""

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # it takes no closure
        """One update of all matrices that have a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for matrices in alike.values():
                self._step(group, matrices)

    def _step(self, group: dict[str, Any], matrices: list[Tensor]) -> None:
        momentum = group["momentum"]
        steps = []
        for matrix in matrices:
            state = self.state[matrix]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(matrix)
            assert matrix.grad is not None
            state["momentum"].lerp_(matrix.grad, 1 - momentum)
            steps.append(matrix.grad.lerp(state["momentum"], momentum))
        scale = _RMS * max(matrices[0].shape) ** 0.5 * group["lr"]
        for matrix, step in zip(matrices, orthogonal(torch.stack(steps)), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values of about 1, [matrices, rows, columns]."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        squared = x @ x.mT
        x = a * x + (b * squared + c * squared @ squared) @ x
    result: Tensor = x.mT if tall else x
    return result
