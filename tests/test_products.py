from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wdsfilter.engine.blocks import DecoderLayer, VisionBlock
from wdsfilter.engine.model import Model
from wdsfilter.engine.products import ROWS, Packed, can_pack
from wdsfilter.engine.segments import TAKES_PLANS
from wdsfilter.judges import Runtime, vlm

pytestmark = pytest.mark.skipif(not can_pack(), reason="this torch comes without oneDNN")


@pytest.mark.parametrize(
    ("inputs", "outputs", "bias"), [(48, 80, True), (588, 160, True), (1536, 256, False)]
)
def test_a_row_is_the_same_bits_among_any_number_of_rows(inputs: int, outputs: int, bias: bool) -> None:
    """What torch's own product gives, to rounding; and no bit of a row depends on how many come with it."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    packed = Packed(layer)
    states = torch.randn(ROWS + 40, inputs)
    whole = packed(states)
    torch.testing.assert_close(whole, layer(states), atol=1e-5, rtol=1e-5)
    for first, last in ((0, 1), (7, 9), (3, 6), (0, 17), (100, 131), (ROWS - 2, ROWS + 1), (5, ROWS + 40)):
        assert torch.equal(packed(states[first:last]), whole[first:last])
    assert torch.equal(packed(states[None, 8:10, None]), whole[None, 8:10, None])


@pytest.mark.skipif(not TAKES_PLANS, reason="transformers 4 goes through layers as they are")
@pytest.mark.parametrize("family", ["tiny_checkpoint", "windowed_checkpoint"])
def test_both_towers_are_taken_apart(family: str, request: pytest.FixtureRequest) -> None:
    """In fp32 on a CPU every block and layer is ours, and so is every product but the head's; in bf16 none is."""
    folder: Path = request.getfixturevalue(family)
    for dtype, ours in (("fp32", True), ("bf16", False)):
        options = vlm.Options.model_validate({"model": str(folder), "dtype": dtype})
        judge = vlm.load(options, Runtime("cpu", threads=1))
        assert isinstance(judge.model, Model)
        parts = judge.model.network.model
        assert all(isinstance(block, VisionBlock) == ours for block in parts.visual.blocks)
        assert all(isinstance(layer, DecoderLayer) == ours for layer in parts.language_model.layers)
        assert any(isinstance(part, torch.nn.Linear) for part in parts.modules()) != ours
