"""What a pass on a GPU asks of its host, and what it launches there: on any machine, for no GPU is needed.

    python -m benchmarks.host [--rounds 15]

Batches of 32 thousand tokens, of pairs with 64 and with 256 visual tokens.

- CPU time of the host for packing a pair: places, segments, positions, and patches joined in memory that is used
  again and again, as page-locked memory is. The network is a stand-in that computes nothing.
- What one pass of the real Qwen2-VL-2B architecture in bf16 launches, on a device that has shapes and no values: how
  many operations, how much arithmetic, how many bytes all but products and attention read and write; with
  transformers' own norms, rotations and activations, and with ours (``engine/half_precision.py``). The time that
  follows of that is computed, not measured: products at 790 TFLOP/s, the rest at 4 TB/s (one H200).

Writes ``benchmarks/results/host.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.gpu import REAL
from tests.launches import SENT, Launch, Launches, meta_network
from wdsfilter.engine import loading, model
from wdsfilter.engine.half_precision import with_fewer_passes
from wdsfilter.engine.model import Model
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.engine.prepare import Ready
from wdsfilter.engine.readout import build_readout

GRIDS = {64: [(8, 8), (7, 9), (9, 7)], 256: [(16, 16), (14, 18), (18, 14)]}
"""Visual tokens -> rows and columns of pictures."""
TOKENS = 32768
PAD = 9
READOUT = build_readout(lambda text: [ord(letter) for letter in text], "s:", [str(n) for n in range(1, 11)])
FLOPS, BYTES = 790e12, 4e12


def batch(visual_tokens: int) -> list[Ready]:
    """Pairs with 60 to 100 tokens of text, 20 of which are the same in front of every picture."""
    rng = np.random.default_rng(0)
    found: list[Ready] = []
    held = 0
    while held < TOKENS:
        high, wide = GRIDS[visual_tokens][len(found) % 3]
        text = rng.integers(60, 120, rng.integers(40, 80))
        ids = np.concatenate([np.arange(20, 40), np.full(high * wide, PAD), text]).astype(np.int32)
        patches = np.zeros((4 * high * wide, 588), np.uint8)
        found.append(Ready(ids, patches, (2 * high, 2 * wide), high * wide, truncated=False))
        held += len(ids)
    return found


class Nothing:
    """A network that gives tensors of the right shapes and computes nothing."""

    dtype = torch.float32
    spatial_merge_size = 2

    def __init__(self) -> None:
        self.model = SimpleNamespace(visual=self, language_model=self)

    def __call__(self, patches: Tensor | None = None, *, wanted: Any = (), **_: Any) -> Any:
        if patches is not None:
            return torch.zeros(len(patches) // 4, 1)
        return SimpleNamespace(last_hidden_state=torch.zeros(1, len(wanted), 1))

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return torch.zeros(len(ids), 1)

    def lm_head(self, hidden: Tensor) -> Tensor:
        return torch.zeros(len(hidden), 128)


@contextmanager
def packing_model() -> Iterator[Model]:
    """The engine's model for a device, as far as the host's part of a pass goes: its network computes nothing, and
    its page-locked memory is memory that is used again and again."""
    cpu = torch.device("cpu")
    kept: dict[Any, Tensor] = {}

    def used_again(parts: Sequence[npt.NDArray[Any]], device: torch.device) -> Tensor:
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        here = shape, parts[0].dtype
        if here not in kept:
            kept[here] = torch.from_numpy(np.zeros(shape, parts[0].dtype))
        np.concatenate(parts, out=kept[here].numpy())
        # small ones may be of one shape: each has its own
        return kept[here].clone() if len(shape) == 1 else kept[here]

    with (
        patch.object(model, "on_device", used_again),
        patch.object(Model, "_embedded", lambda self, patches: patches[:, :1]),
    ):
        yield Model(Nothing(), cpu, cpu, PAD, (1, 2), torch.zeros(1, 588), torch.zeros(1), 2, 1, None)


def packing(pairs: Sequence[Ready], rounds: int) -> float:
    """Microseconds of the host for a pair, the least of ``rounds``."""
    found = []
    with packing_model() as judge:
        for _ in range(rounds):
            began = time.thread_time()
            judge.forward(pairs, READOUT)
            found.append(time.thread_time() - began)
    return min(found) / len(pairs) * 1e6


def launched(pairs: Sequence[Ready], *, stock_parts: bool) -> list[Launch]:
    """What a pass of the real architecture launches, with transformers' norms, rotations and activations or ours."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    meta = torch.device("meta")
    network = meta_network(Qwen2VLForConditionalGeneration, Qwen2VLConfig(**REAL))
    plan = PatchPlan(1, 1)
    ours: Any = (lambda network: None) if stock_parts else with_fewer_passes
    with (
        patch.object(loading, "place_of_bounds", lambda device, dtype: meta),
        patch.object(loading, "with_fewer_passes", ours),
    ):
        judge = loading.build_model(network, plan, image_pad=PAD, end_tokens=(1, 2), threads=1)
    launches = Launches()
    with launches:
        judge.forward(pairs, READOUT)
    return launches.found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    host, passes = {}, {}
    for tokens in GRIDS:
        pairs = batch(tokens)
        host[f"{tokens} visual tokens"] = round(packing(pairs, options.rounds), 1)
        for name, stock_parts in (("stock parts", True), ("ours", False)):
            found = launched(pairs, stock_parts=stock_parts)
            flop = sum(launch.flop for launch in found)
            rest = sum(launch.moved for launch in found if not launch.flop and launch.name != SENT)
            passes[f"{tokens} visual tokens, {name}"] = {
                "pairs": len(pairs),
                "operations": len(found),
                "TFLOP a pair": round(flop / len(pairs) / 1e12, 3),
                "GB a pair beside products": round(rest / len(pairs) / 1e9, 3),
                "computed pairs a second, products alone": round(len(pairs) * FLOPS / flop),
                "computed pairs a second": round(len(pairs) / (flop / FLOPS + rest / BYTES)),
            }
    print(host, *passes.items(), sep="\n")
    facts = {"tokens": TOKENS, "rounds": options.rounds}
    result = {"host_us_per_pair": host, "passes": passes}
    measure.save("host", {"input": facts, "ratios": {}, **result}, ("torch", "transformers", "numpy"))


if __name__ == "__main__":
    main()
