"""The language model's last layer, past which few tokens are of interest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class LastLayer(torch.nn.Module):
    """A decoder layer that goes on with the ``wanted`` tokens only, once they have attended to all others.

    Without ``wanted`` it is the layer as it was.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.attention_type = getattr(layer, "attention_type", None)  # transformers 4 picks a mask by it

    def forward(self, hidden_states: Tensor, *, wanted: Tensor | None = None, **more: Any) -> Any:
        if wanted is None:
            return self.layer(hidden_states, **more)
        layer = self.layer
        attended = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **more)[0]
        states = hidden_states[:, wanted] + attended[:, wanted]
        states = states + layer.mlp(layer.post_attention_layernorm(states))
        return (states,) if "output_attentions" in more else states  # transformers 4 asks for a tuple by that
