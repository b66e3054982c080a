"""Parts of both towers in fewer passes over memory: no further from the truth than transformers' own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import stock
from wdsfilter.engine import attention
from wdsfilter.engine.half_precision import with_fewer_passes
from wdsfilter.engine.segments import TAKES_PLANS

GRID = torch.tensor([[1, 8, 12], [1, 4, 6]])


def off(network: Any, run: Callable[[Any], Tensor], truth: Tensor) -> float:
    """Mean distance from the ``truth``."""
    return float((run(network).float() - truth).abs().mean())


@pytest.mark.skipif(not TAKES_PLANS, reason="transformers 4 goes through layers as they are")
@pytest.mark.parametrize("family", ["tiny_checkpoint", "windowed_checkpoint"])
def test_rounding_is_no_worse(family: str, request: pytest.FixtureRequest) -> None:
    """In bf16 both towers are as near to their numbers in fp32 as they were, and not the same by accident."""
    compare(request.getfixturevalue(family))


@torch.inference_mode()
def compare(folder: Path) -> None:
    exact = stock.model(folder).model
    exact.visual.patch_embed = torch.nn.Identity()
    torch.manual_seed(0)
    # numbers that bf16 has: what is compared is the way, not the weights
    exact = exact.to(torch.bfloat16).float()
    width = exact.visual.blocks[0].attn.qkv.in_features
    patches = torch.randn(int(GRID.prod(1).sum()), width).bfloat16()
    tokens = torch.randn(1, 40, exact.config.text_config.hidden_size).bfloat16()
    rounded = copy.deepcopy(exact).to(torch.bfloat16)
    for network in (exact, rounded):
        network.set_attn_implementation(attention.PACKED)
    ours = copy.deepcopy(rounded)
    with_fewer_passes(ours)

    def seeing(network: Any) -> Tensor:
        found = network.visual(patches.to(network.dtype), grid_thw=GRID).pooler_output
        return found if isinstance(found, Tensor) else torch.cat(tuple(found))

    def reading(network: Any) -> Tensor:
        states: Tensor = network.language_model(
            inputs_embeds=tokens.to(network.dtype), attention_mask={"full_attention": None}, use_cache=False
        ).last_hidden_state
        return states

    for run in (seeing, reading):
        truth = run(exact)
        assert 0 < off(ours, run, truth) < 1.1 * off(rounded, run, truth)
        assert not torch.equal(run(ours), run(rounded))
    for network in (rounded, ours):  # as generation does
        network.set_attn_implementation("sdpa")
    truth = seeing(exact)
    assert off(ours, seeing, truth) < 1.1 * off(rounded, seeing, truth)
