"""A whole pass on a device that knows shapes and dtypes and no values: what is launched on it, and when."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import stock
from tests.launches import SENT, Launches, meta_network
from wdsfilter.engine import attention, loading
from wdsfilter.engine.fp8 import has_products
from wdsfilter.engine.model import Model
from wdsfilter.engine.prepare import Ready
from wdsfilter.engine.readout import Readout
from wdsfilter.engine.segments import TAKES_PLANS
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Prepared
from wdsfilter.scorer import Scorer

META = torch.device("meta")


class Device:
    """The checkpoint's network in bf16 on a device without values, bounds of segments beside the data."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, weights: Any = "stored", **options: Any
    ) -> None:
        given = {"model": str(folder), "min_pixels": 56 * 56, "max_pixels": 16 * 784, **options}
        judge = vlm.load(vlm.Options.model_validate(given), Runtime("cpu", threads=1))
        assert isinstance(judge.model, Model)
        monkeypatch.setattr(loading, "place_of_bounds", lambda device, dtype: META)
        self.prepare = judge.prepare
        self.readout: Readout = judge.readout
        self.config = judge.model.network.config
        self.model = loading.build_model(
            meta_network(type(judge.model.network), self.config),
            judge.prepare.plan,
            image_pad=judge.model.image_pad,
            end_tokens=judge.model.end_tokens,
            threads=1,
            weights=options.get("weights", "stored"),
        )

    def rows(self, count: int) -> list[Ready]:
        """So many pairs, of several shapes."""
        prepared = [self.prepare(pair) for pair in stock.pairs(count)]
        return [one.value for one in prepared if isinstance(one, Prepared)]

    def launched(self, count: int) -> list[str]:
        """What a pass over so many pairs launches."""
        rows = self.rows(count)
        launches = Launches()
        with launches:
            self.model.forward(rows, self.readout)
        return [launch.name for launch in launches.found]


@pytest.fixture(params=["tiny_checkpoint", "windowed_checkpoint"])
def folder(request: pytest.FixtureRequest) -> Path:
    """A checkpoint of each family."""
    if not TAKES_PLANS:
        pytest.skip("transformers 4 waits for the device by itself")
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"scale": {"lowest": 1, "highest": 10}}, id="10"),
        pytest.param({"scale": {"lowest": 0, "highest": 100}}, id="100"),
        pytest.param({"weights": "fp8"}, id="fp8"),
    ],
)
def test_a_device_is_never_waited_for(
    folder: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole pass is launched without one question to the device, through the kernel for segments."""
    if "weights" in options and not has_products():
        pytest.skip("this torch has no products in fp8")
    device = Device(folder, monkeypatch, **options)
    rows, readout = device.rows(3), device.readout
    calls = []
    kernel = attention.varlen_kernel()
    assert kernel is not None

    def counted(*args: Any) -> Tensor:
        calls.append(args[0].shape)
        return kernel(*args)

    monkeypatch.setattr(attention, "varlen_kernel", lambda: counted)
    nodes = len(rows) * len(readout.nodes)
    log_p, best = device.model.forward(rows, readout)
    assert (log_p.shape, best.shape) == ((nodes, len(readout.tokens)), (nodes,))
    assert len(calls) == device.config.text_config.num_hidden_layers + device.config.vision_config.depth


@pytest.mark.parametrize(
    ("weights", "scale"),
    [
        pytest.param("stored", {"lowest": 1, "highest": 10}, id="10"),
        pytest.param("stored", {"lowest": 0, "highest": 100}, id="100"),
        pytest.param("fp8", {"lowest": 1, "highest": 10}, id="fp8"),
    ],
)
def test_nothing_is_launched_for_a_pair(
    folder: Path, weights: str, scale: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass over 64 pairs launches exactly what one over 8 does: nothing for a row, an image or a branch."""
    device = Device(folder, monkeypatch, weights, scale=scale)
    assert len({row.grid for row in device.rows(64)}) > 3
    assert Counter(device.launched(64)) == Counter(device.launched(8))


def test_all_is_sent_before_anything_is_computed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pass needs is on its way before its first product: nothing has to be sent while the device is at work."""
    names = Device(folder, monkeypatch).launched(8)
    assert SENT not in names[names.count(SENT) :]
    assert names.count(SENT) >= 8


def test_norms_are_one_operation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision on a GPU neither tower takes its norms apart."""
    device = Device(folder, monkeypatch)
    names = Counter(device.launched(8))
    assert not names["aten.rsqrt.default"]
    assert names["aten.rms_norm.default"] + names["aten.native_layer_norm.default"] == (
        2 * (device.config.text_config.num_hidden_layers + device.config.vision_config.depth + 1)
    )


@pytest.mark.parametrize(
    ("options", "device", "ahead"),
    [
        pytest.param({}, "cuda", 1, id="gpu"),
        pytest.param({}, "cpu", 0, id="cpu"),
        pytest.param({"readout": "generate"}, "cuda", 0, id="generate"),
        pytest.param({"justify": "kept"}, "cuda", 0, id="justify"),
    ],
)
def test_a_gpu_is_given_a_batch_ahead(
    tiny_checkpoint: Path, options: dict[str, Any], device: str, ahead: int
) -> None:
    """Where numbers are read in one pass on a GPU the next one is launched first; its numbers are those of score."""
    judge = vlm.load(
        vlm.Options.model_validate({"model": str(tiny_checkpoint), **options}), Runtime("cpu", threads=1)
    )
    assert isinstance(judge.model, Model)
    there = replace(judge, model=replace(judge.model, device=torch.device(device)))
    assert Scorer("vlm", there, lambda name, **facts: None).ahead == ahead
    if not options:
        rows = [one.value for one in map(judge.prepare, stock.pairs(3)) if isinstance(one, Prepared)]
        for launched, scored in zip(judge.launch(rows)(), judge.score(rows), strict=True):
            assert launched["score"] == pytest.approx(scored["score"], abs=1e-4)
