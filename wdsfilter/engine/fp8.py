"""Linear layers in eight-bit floating point: half the memory, and products at twice the rate where a GPU has them.

A layer's weights are rounded once, each output's by a scale of its own; what comes in is rounded as it comes, each
token by its own. Both scales go into the product (``torch.nn.functional.scaled_mm``), which gives bf16. Nothing asks
the device for a value. A CPU computes the same, slowly: that shows what it does to scores.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional

CAPABLE = (8, 9)
"""The compute capability from which on GPUs have such products."""

_TYPE = torch.float8_e4m3fn
_LARGEST = torch.finfo(_TYPE).max
_LEAST = 1e-12  # scale of a token that is nothing but zeros
_STEP = 16  # the kernels want both sides of the weights to be multiples of it


class Fp8(torch.nn.Module):
    """In place of a linear layer: weights [out, in], a scale [1, out] for each output."""

    rounded: Tensor
    scales: Tensor

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        rounded, scales = _rounded(layer.weight.detach())
        self.register_buffer("rounded", rounded)
        self.register_buffer("scales", scales.t().contiguous())
        self.bias = layer.bias

    def forward(self, states: Tensor) -> Tensor:
        rounded, scales = _rounded(states.reshape(-1, states.shape[-1]))
        kind: Any = functional.ScalingType.RowWise
        product: Any = functional.scaled_mm
        out: Tensor = product(
            rounded, self.rounded.t(), scales, kind, self.scales, kind, output_dtype=torch.bfloat16
        ).to(states.dtype)
        if self.bias is not None:
            out += self.bias
        return out.view(*states.shape[:-1], -1)


def in_fp8(layer: torch.nn.Linear) -> torch.nn.Module:
    """What computes nearly the same; the layer itself where kernels do not take its widths."""
    return layer if layer.in_features % _STEP or layer.out_features % _STEP else Fp8(layer)


def has_products() -> bool:
    """Whether this torch can."""
    return hasattr(functional, "scaled_mm")


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in fp8, and the scale [rows, 1] of each, in fp32. In three passes over memory, in bf16."""
    rows = rows.to(torch.bfloat16)
    scales = vector_norm(rows, math.inf, dim=1, keepdim=True).div_(_LARGEST).clamp_(min=_LEAST)
    return (rows / scales).to(_TYPE), scales.float()
