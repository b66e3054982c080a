"""Attention inside each segment of a pack, so that nothing of a neighbour enters a sum.

Registered with transformers under a name that contains ``flash``: only then is a pack handed over whole,
with the bounds of its segments, instead of being split with three device synchronisations per layer.

Where CUDA has a kernel for segments of any length, that is one call per layer: flash-attn's where it is
installed, torch's own (``torch.nn.attention.varlen``) otherwise. Elsewhere it is a call for all segments in a row
that are as long: on a CPU a segment's numbers are then the same bits in any pack.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable
from functools import cache, lru_cache
from itertools import groupby
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "wdsfilter_flash_packed"

# On the towers only: for the whole network, a name with "flash" in it would be looked up on the hub.
PACKED = {"": "sdpa", "text_config": NAME, "vision_config": NAME}

Kernel: TypeAlias = Callable[..., Tensor]
"""(query, key, value [tokens, heads, head], bounds of queries and keys [segments + 1] int32, longest of each,
scale, causal) -> [tokens, heads, head]. A causal segment's last query sees its last key."""

_AMPERE = (8, 0)  # what flash attention asks for


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    key_index: Tensor | None = None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one pack, [1, heads, L, head] each; returns [1, L, heads, head] and no weights.

    The bounds are those of :class:`wdsfilter.engine.segments.Segments`, kept where :func:`place_of_bounds`
    says; without them the pack is one segment. ``key_index`` says which token each key is, where segments
    share keys. Causal as the module is unless ``is_causal`` says otherwise (the vision tower).
    """
    causal = bool(module.is_causal) if is_causal is None else is_causal
    if key_index is not None:
        key, value = key[:, :, key_index], value[:, :, key_index]
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    if cu_seq_lens_q is None or cu_seq_lens_k is None:  # 4.57 splits a pack of images itself
        cu_seq_lens_q, cu_seq_lens_k = (torch.tensor([0, len(part)]) for part in (q, k))
    if cu_seq_lens_q.device.type == "cpu":
        return by_length(q, k, v, cu_seq_lens_q, cu_seq_lens_k, scaling, causal)[None], None
    kernel = varlen_kernel()
    assert kernel is not None, "bounds are on a device only where a kernel reads them there"
    longest = int(max_length_q or len(q)), int(max_length_k or len(k))
    return kernel(q, k, v, cu_seq_lens_q, cu_seq_lens_k, *longest, scaling, causal)[None], None


def place_of_bounds(device: torch.device, dtype: torch.dtype) -> torch.device:
    """Where bounds of segments belong: beside the data where a kernel reads them, else on the CPU."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16) or varlen_kernel() is None:
        return torch.device("cpu")
    return device if torch.cuda.get_device_capability(device) >= _AMPERE else torch.device("cpu")


@cache
def varlen_kernel() -> Kernel | None:
    """The fastest kernel that is installed; None where there is none."""
    if importlib.util.find_spec("flash_attn") is not None:
        return _of_flash_attn()
    if importlib.util.find_spec("torch.nn.attention.varlen") is not None:
        from torch.nn.attention.varlen import varlen_attn

        if {"scale", "window_size", "enable_gqa"} <= inspect.signature(varlen_attn).parameters.keys():
            return _of_torch(varlen_attn)
    return None


def _of_flash_attn() -> Kernel:
    from flash_attn import flash_attn_varlen_func

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, most_q: int, most_k: int,
        scale: float | None, causal: bool,
    ) -> Tensor:  # fmt: skip
        out: Tensor = flash_attn_varlen_func(
            q, k, v, ends_q, ends_k, most_q, most_k, softmax_scale=scale, causal=causal
        )
        return out

    return kernel


def _of_torch(varlen_attn: Callable[..., Any]) -> Kernel:
    def kernel(
        q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, most_q: int, most_k: int,
        scale: float | None, causal: bool,
    ) -> Tensor:  # fmt: skip
        out: Tensor = varlen_attn(
            *(q, k, v, ends_q, ends_k, most_q, most_k),
            scale=scale,
            window_size=(-1, 0 if causal else -1),
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out

    return kernel


def by_length(
    q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, scale: float | None, causal: bool
) -> Tensor:
    """What a :data:`Kernel` does, for devices that have none: a call for all segments in a row that are as long.

    Wants its bounds on the CPU. A segment's numbers are the same bits in any company.
    """
    outputs = []
    first = first_key = 0
    lengths = zip(ends_q.diff().tolist(), ends_k.diff().tolist(), strict=True)
    for (queries, keys), alike in groupby(lengths):
        count = len(list(alike))
        last, last_key = first + count * queries, first_key + count * keys
        mask = _later(queries, keys, q.dtype, q.device) if causal and queries < keys else None
        outputs.append(
            scaled_dot_product_attention(
                q[first:last].view(count, queries, *q.shape[1:]).transpose(1, 2),
                k[first_key:last_key].view(count, keys, *k.shape[1:]).transpose(1, 2),
                v[first_key:last_key].view(count, keys, *v.shape[1:]).transpose(1, 2),
                attn_mask=mask,
                is_causal=causal and mask is None,
                scale=scale,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            .transpose(1, 2)
            .flatten(0, 1)
        )
        first, first_key = last, last_key
    return torch.cat(outputs)


@lru_cache(maxsize=4096)
def _later(queries: int, keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[queries, keys]: -inf where a query would see a later key, else 0. The last query stands at the last key."""
    seen = torch.ones((queries, keys), dtype=torch.bool, device=device).tril(keys - queries)
    return torch.zeros((queries, keys), dtype=dtype, device=device).masked_fill(~seen, -math.inf)


AttentionInterface.register(NAME, packed_attention)
