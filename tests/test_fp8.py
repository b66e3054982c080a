from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_built_in import drawn, prepared
from tests.test_eight_bits import load
from wdsfilter.engine import fp8
from wdsfilter.engine.checkpoint import Checkpoint
from wdsfilter.engine.fp8 import Fp8, in_fp8
from wdsfilter.engine.loading import Weights, load_model
from wdsfilter.engine.model import Model
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.errors import JudgeError

pytestmark = pytest.mark.skipif(not fp8.has_products(), reason="this torch has no products in fp8")


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Rows with the values that are left of them: 448 is the largest number of the type."""
    rows = rows.bfloat16()
    scales = rows.abs().amax(dim=1, keepdim=True) / 448
    return (rows / scales).to(torch.float8_e4m3fn).float() * scales.float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_product_of_rounded_values(dtype: torch.dtype, bias: bool) -> None:
    """A layer gives what plain arithmetic gives of its rounded weights and tokens, rounded to bf16."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(96, 48, bias=bias).to(dtype)
    tokens = torch.randn(2, 21, 96).to(dtype) * torch.logspace(-3, 3, 21)[:, None].to(dtype)
    with torch.inference_mode():
        found = in_fp8(layer)(tokens)
        exact = rounded(tokens.flatten(0, 1)) @ rounded(layer.weight).t()
        expected = (exact if layer.bias is None else exact + layer.bias.float()).view(2, 21, 48)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


def test_a_layer_of_zeros_and_a_token_of_zeros() -> None:
    """Nothing is divided by zero."""
    layer = torch.nn.Linear(32, 16, bias=False)
    torch.nn.init.zeros_(layer.weight)
    assert torch.equal(in_fp8(layer)(torch.zeros(1, 3, 32)), torch.zeros(1, 3, 16))


@pytest.mark.parametrize("sides", [(24, 32), (32, 24)], ids=["inputs", "outputs"])
def test_a_width_that_kernels_do_not_take(sides: tuple[int, int]) -> None:
    """Such a layer computes as it did."""
    layer = torch.nn.Linear(*sides)
    assert in_fp8(layer) is layer


def test_scores_hardly_move() -> None:
    """Of 40 pairs, grades are those of the stored weights but for two at most; scores move by 0.1 on average."""
    judge = load(weights="fp8")
    assert isinstance(judge.model, Model)
    assert Fp8 in {type(module) for module in judge.model.network.model.modules()}
    rows = [one.value for one in prepared(judge, drawn(40, "fp8"))]
    stored, other = load().score(rows), judge.score(rows)
    assert sum(a["grade"] == b["grade"] for a, b in zip(stored, other, strict=True)) >= 38
    moved = np.abs([a["score"] - b["score"] for a, b in zip(stored, other, strict=True)])
    assert 0 < moved.mean() < 0.1
    assert [judge.score([row])[0] for row in rows[:4]] == other[:4]


@pytest.mark.parametrize(
    ("weights", "device", "told"),
    [
        pytest.param(
            "int8", "cuda:1", "is for a CPU, this is cuda:1; accepted there: stored, fp8", id="int8"
        ),
        pytest.param("fp8", "mps", "is for CUDA, this is mps; accepted there: stored", id="mps"),
        pytest.param(
            "fp8", "cuda:1", r"capability 8\.9, cuda:1 has 8\.0; accepted there: stored", id="ampere"
        ),
    ],
)
def test_where_it_is_not_for_is_told(
    weights: Weights, device: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device without such products is refused before anything is read, with what it takes."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    nothing: Any = {"image_pad": 0, "end_tokens": (0, 0), "dtype": "auto", "threads": None}
    with pytest.raises(JudgeError, match=told):
        load_model(Checkpoint(Path("x")), PatchPlan(1, 1), device=device, weights=weights, **nothing)


def test_a_torch_without_such_products_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which function it looked for."""
    monkeypatch.delattr(torch.nn.functional, "scaled_mm")
    with pytest.raises(JudgeError, match=r"needs a torch that has torch\.nn\.functional\.scaled_mm"):
        load(weights="fp8")


def test_other_checkpoints_are_refused(answering_llava: Path) -> None:
    """Those that are run in padded batches keep their weights."""
    with pytest.raises(JudgeError, match=r"weights: fp8 is for Qwen2-VL and Qwen2\.5-VL; accepted: stored"):
        load(model=str(answering_llava), weights="fp8")
