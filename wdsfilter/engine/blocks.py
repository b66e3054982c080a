"""Layers of both towers as a CPU likes them in fp32: few passes over memory, and those within its cache.

A block or layer of transformers is taken apart: queries, keys and values come of one product, and between attention
and the next layer a few hundred rows at a time go all the way. Rotary embeddings turn pairs of values; with weights
reordered so that a pair lies side by side, that is one multiplication of complex numbers. Sums of products of queries
and keys do not depend on that order but in their last bits.

Generation, which keeps keys and values, goes through the layer as it was, with the same products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from wdsfilter.engine.attention import by_length
from wdsfilter.engine.products import ROWS

Pack: TypeAlias = Callable[[torch.nn.Linear], torch.nn.Module]
"""A linear layer -> what computes the same, or nearly."""


class VisionBlock(torch.nn.Module):
    """In place of a block of a vision tower; ``hidden_states`` are [patches, width]."""

    def __init__(self, block: Any, pack: Pack) -> None:
        super().__init__()
        self.block = block
        self.heads = block.attn.num_heads
        head = block.attn.qkv.out_features // (3 * self.heads)
        self.qkv = pack(_paired(block.attn.qkv, head, 2 * self.heads))
        block.attn.qkv = torch.nn.Identity()
        replace_linear(block, pack)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> Tensor:
        block, attention = self.block, self.block.attn
        turns = _turns(position_embeddings)
        qkv = _turned(hidden_states, turns, block.norm1, self.qkv, 2 * self.heads)
        query, key, value = qkv.view(len(qkv), 3, self.heads, -1).unbind(1)
        seen = by_length(query, key, value, cu_seqlens, cu_seqlens, attention.scaling, False).flatten(1)
        return _rest(hidden_states, seen, attention.proj, block.norm2, block.mlp)


class DecoderLayer(torch.nn.Module):
    """In place of a language model's layer; ``hidden_states`` are [1, tokens, width].

    The ``last`` one goes on with the tokens that are ``wanted`` alone, once they have attended to all others.
    """

    def __init__(self, layer: Any, pack: Pack, *, last: bool) -> None:
        super().__init__()
        self.layer = layer
        self.last = last
        attention = layer.self_attn
        self.heads, self.shared = (
            part.out_features // attention.head_dim for part in (attention.q_proj, attention.k_proj)
        )
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        whole = torch.nn.Linear(attention.q_proj.in_features, sum(part.out_features for part in parts))
        whole.weight = _fixed(torch.cat([part.weight for part in parts]))
        whole.bias = _fixed(torch.cat([part.bias for part in parts]))
        self.qkv = pack(_paired(whole, attention.head_dim, self.heads + self.shared))
        replace_linear(layer, pack)

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], wanted: Tensor | None = None,
        cu_seq_lens_q: Tensor | None = None, cu_seq_lens_k: Tensor | None = None, key_index: Tensor | None = None,
        **more: Any,
    ) -> Tensor:  # fmt: skip
        layer, attention = self.layer, self.layer.self_attn
        if cu_seq_lens_q is None or cu_seq_lens_k is None:
            out: Tensor = layer(hidden_states, position_embeddings=position_embeddings, **more)
            return out
        states = hidden_states[0]
        turns = _turns((position_embeddings[0][0], position_embeddings[1][0]))
        qkv = _turned(states, turns, layer.input_layernorm, self.qkv, self.heads + self.shared)
        query, both = qkv.view(len(qkv), -1, attention.head_dim).tensor_split([self.heads], dim=1)
        if key_index is not None:
            both = both[key_index]
        key, value = both.tensor_split(2, dim=1)
        seen = by_length(query, key, value, cu_seq_lens_q, cu_seq_lens_k, attention.scaling, True).flatten(1)
        if self.last and wanted is not None:
            states, seen = states[wanted], seen[wanted]
        return _rest(states, seen, attention.o_proj, layer.post_attention_layernorm, layer.mlp)[None]


def replace_linear(module: torch.nn.Module, pack: Pack) -> None:
    """Put ``pack`` of it in the place of every linear layer below ``module``."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Linear):
            setattr(module, name, pack(child))
        else:
            replace_linear(child, pack)


def _turned(states: Tensor, turns: Tensor, norm: Any, product: Any, heads: int) -> Tensor:
    """Queries, keys and values [tokens, all of them], with the first ``heads`` heads turned."""
    parts = []
    for rows, turn in zip(torch.split(states, ROWS), torch.split(turns, ROWS), strict=True):
        part = product(norm(rows))
        pairs = part.view(len(part), -1, turn.shape[-1], 2)[:, :heads]
        torch.view_as_complex(pairs).mul_(turn)
        parts.append(part)
    return torch.cat(parts)


def _rest(states: Tensor, seen: Tensor, project: Any, norm: Any, mlp: Any) -> Tensor:
    """What follows attention in a block, [tokens, width]."""
    parts = []
    for rows, part in zip(torch.split(states, ROWS), torch.split(seen, ROWS), strict=True):
        now = project(part).add_(rows)
        parts.append(now.add_(mlp(norm(now))))
    return torch.cat(parts)


def _turns(position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
    """[tokens, 1, half a head] complex, of cosines and sines [tokens, head] whose halves are equal."""
    cos, sin = (part[:, None, : part.shape[-1] // 2] for part in position_embeddings)
    return torch.complex(cos.contiguous(), sin.contiguous())


def _paired(layer: torch.nn.Linear, head: int, heads: int) -> torch.nn.Linear:
    """The layer with the outputs of its first ``heads`` heads in another order: 0, half, 1, half + 1, ..."""
    order = torch.arange(layer.out_features)
    order[: heads * head] = order[: heads * head].view(heads, 2, head // 2).transpose(1, 2).flatten()
    other = torch.nn.Linear(layer.in_features, layer.out_features)
    other.weight, other.bias = _fixed(layer.weight[order]), _fixed(layer.bias[order])
    return other


def _fixed(values: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values.detach(), requires_grad=False)
