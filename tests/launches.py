"""What a pass launches on a device that knows shapes and dtypes and no values ("meta"), and how much work that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SENT = "sent"
_ATTENTION = "torch_attn._varlen_attn.default"
_FUSED = ("aten.rms_norm.default",)  # one kernel on CUDA, whatever it is elsewhere
_SAME_MEMORY = "aten._unsafe_view.default"
_PICKS = ("aten.index.Tensor", "aten.embedding.default")  # what they read is as much as what they write


@dataclass(frozen=True, slots=True)
class Launch:
    """``name`` as torch has it, or ``SENT`` for a copy from the host; ``flop`` of a product or of attention (where all
    segments are as long as the longest), 0 otherwise; ``moved`` bytes that are read and written."""

    name: str
    flop: int
    moved: int


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch takes nothing else
    """Keeps what is launched while it is entered, in ``found``; what only looks at memory in another way is not.

    Raises AssertionError where an operation takes a tensor of the host: it would be sent behind all before it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Launch] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if name not in _FUSED:
            with self:  # an operation that is made of others: those are what is launched
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if func.is_view or name == _SAME_MEMORY or not any(tensor.is_meta for tensor in made):
            return out
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        strangers = [tensor for tensor in given if not tensor.is_meta and tensor.ndim]
        if name == "aten._to_copy.default" and strangers:
            name = SENT
        assert name == SENT or not strangers, f"{func} takes a tensor of the host"
        moved = made if name in _PICKS else given
        self.found.append(Launch(name, _flop(name, args), sum(tensor.nbytes for tensor in (*made, *moved))))
        return out


def _flop(name: str, args: Any) -> int:
    if name in ("aten.mm.default", "aten.addmm.default"):
        left, right = args[-2:]
        return 2 * int(math.prod(left.shape)) * int(right.shape[1])
    if name == _ATTENTION:
        queries, longest_key, causal = args[0], args[6], args[7]
        return 4 * int(math.prod(queries.shape)) * int(longest_key) // (2 if causal else 1)
    return 0


def meta_network(kind: Any, config: Any) -> Any:
    """A network of class ``kind`` in bf16 that takes no memory."""
    with torch.device("meta"):
        return kind._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
