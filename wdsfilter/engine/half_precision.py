"""Parts of both towers for a GPU in half precision, in fewer passes over its memory.

What transformers computes value by value, an operation after the other, takes a GPU nearly as long as all products
together (``python -m benchmarks.host``). Here it is rounded as often or less: sums and rotations in fp32, results in
half precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu
from transformers.activations import QuickGELUActivation

from wdsfilter.engine.attention import NAME, packed_attention

QUICK = 1.702  # of QuickGELU


def with_fewer_passes(network: Any) -> None:
    """Put them into a network of the family. Changes it."""
    for block in network.visual.blocks:
        block.attn = VisionAttention(block.attn)
        if isinstance(getattr(block.mlp, "act", None), QuickGELUActivation):
            block.mlp = QuickMlp(block.mlp)
    _replace_norms(network)


class VisionAttention(torch.nn.Module):
    """In place of a vision block's attention; ``hidden_states`` are [patches, width].

    Queries and keys are turned together, in fp32. Generation goes through the attention as it was.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self, hidden_states: Tensor, *, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor],
        max_seqlen: int | None = None, **more: Any,
    ) -> Tensor:  # fmt: skip
        attention = self.attention
        if attention.config._attn_implementation != NAME:
            out: Tensor = attention(
                hidden_states,
                cu_seqlens=cu_seqlens,
                position_embeddings=position_embeddings,
                max_seqlen=max_seqlen,
                **more,
            )
            return out
        qkv = attention.qkv(hidden_states).view(len(hidden_states), 3, attention.num_heads, -1)
        turn(qkv[:, :2], *(part.float()[:, None, None] for part in position_embeddings))
        query, key, value = (part.transpose(0, 1)[None] for part in qkv.unbind(1))
        seen, _ = packed_attention(
            *(attention, query, key, value, None),
            cu_seq_lens_q=cu_seqlens,
            cu_seq_lens_k=cu_seqlens,
            max_length_q=max_seqlen,
            max_length_k=max_seqlen,
            scaling=attention.scaling,
            is_causal=False,
        )
        projected: Tensor = attention.proj(seen.reshape(len(hidden_states), -1))
        return projected


def turn(states: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotary embeddings, in place: value i of a head and value i + half of it are a pair. ``cos``, ``sin`` in fp32."""
    half = states.shape[-1] // 2
    low, high = states[..., :half], states[..., half:]
    turned = states * cos
    turned[..., :half].addcmul_(high, sin[..., :half], value=-1)
    turned[..., half:].addcmul_(low, sin[..., half:])
    states.copy_(turned)


class QuickMlp(torch.nn.Module):
    """In place of an MLP with QuickGELU: x * sigmoid(1.702 x) is SiLU of 1.702 x, divided by it in the last product."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.fc1, self.fc2 = mlp.fc1, mlp.fc2

    def forward(self, states: Tensor) -> Tensor:
        inner = silu(self.fc1(states).mul_(QUICK), inplace=True)
        if isinstance(self.fc2, torch.nn.Linear):
            return torch.addmm(self.fc2.bias, inner, self.fc2.weight.t(), alpha=1 / QUICK)
        out: Tensor = self.fc2(inner.mul_(1 / QUICK))  # in fewer bits
        return out


class Norm(torch.nn.Module):
    """In place of an RMSNorm."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.least = norm.weight, norm.variance_epsilon

    def forward(self, states: Tensor) -> Tensor:
        return rms_norm(states, self.weight.shape, self.weight, self.least)


def _replace_norms(module: torch.nn.Module) -> None:
    for name, child in module.named_children():
        if hasattr(child, "variance_epsilon"):
            setattr(module, name, Norm(child))
        else:
            _replace_norms(child)
