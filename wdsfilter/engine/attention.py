"""Attention inside each row of a pack, so that nothing of a neighbour enters a sum.

Registered with transformers under a name that contains ``flash``: only then does the vision tower
hand a whole pack over instead of splitting it itself, which costs three device synchronisations per
layer. Where rows end is known in Python (``spans``), so nothing is asked of the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "wdsfilter_flash_per_row"


@dataclass(frozen=True, slots=True)
class Span:
    """One row of a pack: ``length`` tokens that attend to each other, then ``branches`` of that many
    tokens each, which attend to the first ``shared`` tokens and to themselves."""

    length: int
    shared: int = 0
    branches: tuple[int, ...] = ()


def per_row_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    spans: Sequence[Span],
    scaling: float | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one pack, [1, heads, L, head] each; returns [1, L, heads, head] and no weights.

    Causal as the module is (the language model) unless ``is_causal`` says otherwise (the vision tower).
    """
    causal = bool(module.is_causal) if is_causal is None else is_causal
    if not causal and query.shape[2] != sum(span.length for span in spans):
        spans = (Span(query.shape[2]),)  # transformers 4.57 splits a pack of images itself, by its own names
    grouped = key.shape[1] != query.shape[1]

    def attend(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, ahead: bool
    ) -> None:
        outputs.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=ahead, scale=scaling, enable_gqa=grouped
            )
        )

    outputs: list[torch.Tensor] = []
    at = 0
    for span in spans:
        trunk = slice(at, at + span.length)
        attend(query[:, :, trunk], key[:, :, trunk], value[:, :, trunk], None, causal)
        start, at = slice(at, at + span.shared), at + span.length
        for length in span.branches:
            own = slice(at, at + length)
            k = torch.cat([key[:, :, start], key[:, :, own]], dim=2)
            v = torch.cat([value[:, :, start], value[:, :, own]], dim=2)
            mask = torch.ones(length, span.shared + length, dtype=torch.bool, device=query.device).tril(
                span.shared
            )
            attend(query[:, :, own], k, v, mask, False)
            at += length
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, per_row_attention)
