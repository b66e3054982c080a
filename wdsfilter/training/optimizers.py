"""Weights -> the optimizers that move them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from wdsfilter.training.muon import Muon
from wdsfilter.training.options import Optimizer

NETWORK = "network."
"""What the names of the network's own weights begin with; others are an objective's."""

_TABLES = ("embed_tokens", "lm_head", "patch_embed")  # matrices by shape, not by what they do


def build_optimizers(weights: Mapping[str, torch.nn.Parameter], options: Optimizer) -> list[Any]:
    """AdamW, and Muon before it where the recipe asks for it."""
    matrices = {n: w for n, w in weights.items() if options.name == "muon" and _is_matrix(n, w)}
    rest = [weight for name, weight in weights.items() if name not in matrices]
    optimizers: list[Any] = []
    if matrices:
        optimizers.append(
            Muon(
                matrices.values(),
                lr=options.matrices,
                momentum=options.momentum,
                weight_decay=options.weight_decay,
            )
        )
    if rest:
        groups = [
            {"params": [w for w in rest if w.ndim >= 2], "weight_decay": options.weight_decay},
            {"params": [w for w in rest if w.ndim < 2], "weight_decay": 0.0},
        ]
        first, second = options.betas
        optimizers.append(
            torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=options.learning_rate,
                betas=(first, second),
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return optimizers


def set_rates(optimizers: list[Any], factor: float) -> None:
    """Learning rates as the recipe's, times ``factor``."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * factor


def _is_matrix(name: str, weight: torch.nn.Parameter) -> bool:
    return name.startswith(NETWORK) and weight.ndim == 2 and not any(table in name for table in _TABLES)
