"""Weights on a device: one packed forward pass over many rows, or greedy generation.

On a CPU every forward pass runs on one torch thread, and as many passes run at once as there are
threads. Sums then never depend on how a matrix was split over threads: in fp32 a row's numbers are
bit-identical alone, in any batch, and for any number of threads. Two things make that hold. Matrix
products take another kernel below four rows (seen with MKL), so the few rows that need logits are
padded. And vector widths divide everything that is computed elementwise, so no value falls into a
scalar remainder that rounds differently (:mod:`wdsfilter.engine.loading` sees to both the threads
and the widths).
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import linear

from wdsfilter.engine.attention import NAME, Span
from wdsfilter.engine.positions import Row, positions
from wdsfilter.engine.prepare import Ready
from wdsfilter.engine.readout import Readout

_CPU_PIECE = 2048  # tokens of one pass on a CPU: keeps activations in the cache and all threads busy
_LEAST_ROWS = 16  # rows of the smallest matrix product

# On the towers only: for the whole network, a name with "flash" in it would be looked up on the hub.
PACKED = {"": "sdpa", "text_config": NAME, "vision_config": NAME}

LogP = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded checkpoint. ``patch_weight`` [embed, 588]: patch embedding, its two equal frames summed."""

    network: Any
    device: torch.device
    image_pad: int
    end_tokens: tuple[int, int]
    patch_weight: Tensor
    mean: Tensor
    std: Tensor
    merge: int
    cores: int
    threads: ThreadPoolExecutor | None

    def log_p(self, batch: Sequence[Ready], readout: Readout) -> list[LogP]:
        """For each pair, log-probabilities [nodes, tokens] of the readout's tokens and the argmax [nodes]."""
        if self.threads is None:
            return self._forward(batch, readout)
        pieces = list(_pieces(batch, self.cores))
        done = self.threads.map(lambda piece: self._forward(piece, readout), pieces)
        return [row for piece in done for row in piece]

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Ready], readout: Readout) -> list[LogP]:
        rows = [self._row(pair, readout) for pair in batch]
        starts = list(itertools.accumulate((row.length for row in rows), initial=0))
        ids = np.concatenate([part for pair in batch for part in (pair.ids, readout.forced)], dtype=np.int64)
        keep = [
            at + len(pair.ids) + slot
            for at, pair in zip(starts, batch, strict=False)
            for slot in readout.slots
        ]

        parts = self.network.model
        embedded = parts.language_model.embed_tokens(self._to(ids))
        visual = parts.visual(
            self._patches(batch),
            grid_thw=self._to(np.array([(1, *pair.grid) for pair in batch])),
            spans=[Span(len(pair.patches)) for pair in batch],
        )
        # 5.x returns both states in a struct, 4.57 only the merged ones
        embedded[self._to(np.flatnonzero(ids == self.image_pad))] = getattr(visual, "pooler_output", visual)
        hidden = parts.language_model(
            inputs_embeds=embedded[None],
            position_ids=self._to(positions(rows)),
            attention_mask={"full_attention": None},  # spans say it all: no mask of L x L is to be built
            use_cache=False,
            spans=[Span(row.trunk, row.shared, row.branches) for row in rows],
        ).last_hidden_state[0]

        wanted = hidden[self._to(np.array(keep + keep[:1] * (_LEAST_ROWS - len(keep))))]
        log_p = torch.log_softmax(self.network.lm_head(wanted).float(), dim=-1)[: len(keep)]
        tokens = log_p[:, self._to(np.array(readout.tokens))].cpu().numpy()
        best = log_p.argmax(dim=-1).cpu().numpy()
        nodes = len(readout.nodes)
        return [(tokens[i : i + nodes], best[i : i + nodes]) for i in range(0, len(keep), nodes)]

    def _row(self, pair: Ready, readout: Readout) -> Row:
        before = int(np.argmax(pair.ids == self.image_pad))
        return Row(
            before=before,
            grid=(pair.grid[0] // self.merge, pair.grid[1] // self.merge),
            after=len(pair.ids) - before - pair.visual_tokens + len(readout.trunk),
            shared=len(pair.ids) + readout.shared,
            branches=tuple(len(branch) for branch in readout.branches),
        )

    def _patches(self, batch: Sequence[Ready]) -> Tensor:
        """Patch embeddings of all images, [patches, embed]. In fp32 on any device: 0.1 % of the work."""
        patches = self._to(np.concatenate([pair.patches for pair in batch]))
        values = patches.view(len(patches), 3, -1).float() / 255
        values = (values - self.mean) / self.std
        return linear(values.flatten(1), self.patch_weight).to(self.network.dtype)

    def _to(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    @torch.inference_mode()
    def generate(self, batch: Sequence[Ready], max_new_tokens: int) -> list[list[int]]:
        """Greedy answers in a padded batch by transformers' own generation: ids without end and padding.

        Padding changes rounding: an answer may depend on its neighbours where two tokens tie to about 1e-6.
        """
        end, pad = self.end_tokens
        width = max(len(pair.ids) for pair in batch)
        ids = np.full((len(batch), width), pad, dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, pair in enumerate(batch):
            ids[row, width - len(pair.ids) :] = pair.ids
            mask[row, width - len(pair.ids) :] = 1
        inputs: dict[str, Tensor] = {
            "input_ids": self._to(ids),
            "attention_mask": self._to(mask),
            "pixel_values": self._patches(batch),
            "image_grid_thw": self._to(np.array([(1, *pair.grid) for pair in batch])),
        }
        if "mm_token_type_ids" in inspect.signature(self.network.forward).parameters:  # 5.x asks for it
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.image_pad).int()
        self.network.set_attn_implementation("sdpa")
        try:
            output = self.network.generate(**inputs, max_new_tokens=max_new_tokens)
        finally:
            self.network.set_attn_implementation(PACKED)
        answers = output[:, width:].tolist()
        return [
            list(itertools.takewhile(lambda token: token not in (end, pad), answer)) for answer in answers
        ]


def _pieces(batch: Sequence[Ready], cores: int) -> Iterator[Sequence[Ready]]:
    """``batch`` in order, in pieces of about as many tokens each: a multiple of ``cores``, none large."""
    total = sum(len(pair.ids) for pair in batch)
    rounds = math.ceil(total / (_CPU_PIECE * cores))
    most = math.ceil(total / (rounds * cores))
    start = size = 0
    for i, pair in enumerate(batch):
        if i > start and size + len(pair.ids) / 2 > most:
            yield batch[start:i]
            start, size = i, 0
        size += len(pair.ids)
    if start < len(batch):
        yield batch[start:]
