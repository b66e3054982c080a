"""Linear layers in eight bits: a quarter of the memory, and integer products where the processor has them.

A layer's weights are rounded once, each output's to 255 steps of its own scale; what comes in is rounded as it comes,
each token's values to 255 steps of theirs. Sums of integers are exact, and a token's scale is its own, so that a
row's numbers do not depend on its neighbours: in fp32 on a CPU they are the same bits alone and in any batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 127
_LEAST = 1e-12  # scale of a token that is nothing but zeros


class EightBits(torch.nn.Module):
    """In place of a linear layer: weights [in, out] int8, a scale for each output."""

    rounded: Tensor
    scales: Tensor

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        weights = layer.weight.detach().float()
        scales = (weights.abs().amax(dim=1) / _STEPS).clamp(min=_LEAST)
        self.register_buffer("rounded", (weights / scales[:, None]).round().to(torch.int8).t().contiguous())
        self.register_buffer("scales", scales)
        self.bias = layer.bias

    def forward(self, states: Tensor) -> Tensor:
        tokens = states.reshape(-1, states.shape[-1]).float()
        scales = (tokens.abs().amax(dim=1, keepdim=True) / _STEPS).clamp(min=_LEAST)
        rounded = (tokens / scales).round_().to(torch.int8)
        out = torch._int_mm(rounded, self.rounded).float().mul_(scales).mul_(self.scales)
        if self.bias is not None:
            out += self.bias
        return out.to(states.dtype).view(*states.shape[:-1], -1)
