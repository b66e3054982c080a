"""Weights on a device: one packed forward pass over many rows, or greedy generation in padded batches.

On a CPU every forward pass runs on one torch thread, and as many passes run at once as there are
threads. Sums then never depend on how a matrix was split over threads: in fp32 a row's numbers are
bit-identical alone, in any batch, and for any number of threads. Two things make that hold. Matrix
products take another kernel for few rows (below four with MKL, for one with oneDNN), so few are filled
up. And vector widths divide everything that is computed elementwise, so no value falls into a
scalar remainder that rounds differently (:mod:`wdsfilter.engine.loading` sees to both the threads
and the widths).
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import linear

from wdsfilter.engine.attention import PACKED
from wdsfilter.engine.generation import greedy
from wdsfilter.engine.positions import Row, positions
from wdsfilter.engine.prepare import Ready
from wdsfilter.engine.readout import LogP, Readout, by_row
from wdsfilter.engine.segments import for_language, for_vision
from wdsfilter.engine.transfer import arriving, on_device

_CPU_PIECE = 4096  # tokens of one pass on a CPU: enough for few calls, and for all threads to be busy
_LEAST_ROWS = 16  # rows of the smallest matrix product


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded checkpoint of the family, run in packs.

    ``patch_weight`` [embed, 588] and ``patch_bias`` [embed] make patch embeddings of raw bytes: the two equal
    frames summed, scaling and normalisation folded in. ``bounds`` is where bounds of segments are kept.
    """

    network: Any
    device: torch.device
    bounds: torch.device
    image_pad: int
    end_tokens: tuple[int, int]
    patch_weight: Tensor
    patch_bias: Tensor
    merge: int
    cores: int
    threads: ThreadPoolExecutor | None

    def log_p(self, batch: Sequence[Ready], readout: Readout) -> list[LogP]:
        """For each pair, log-probabilities [nodes, tokens] of the readout's tokens and the argmax [nodes]."""
        if self.threads is None:
            return self.launch(batch, readout)()
        pieces = list(_pieces(batch, self.cores))
        done = self.threads.map(lambda piece: self.launch(piece, readout)(), pieces)
        return [row for piece in done for row in piece]

    def launch(self, batch: Sequence[Ready], readout: Readout) -> Callable[[], list[LogP]]:
        """:meth:`log_p` in one pass, begun: what comes back waits for the numbers, and for no later pass."""
        numbers = arriving(self.forward(batch, readout))

        def rows() -> list[LogP]:
            log_p, best = numbers()
            return by_row(log_p, best, len(readout.nodes))

        return rows

    @torch.inference_mode()
    def forward(self, batch: Sequence[Ready], readout: Readout) -> tuple[Tensor, Tensor]:
        """One pass over the whole batch: log-probabilities [pairs * nodes, tokens] and argmax [pairs * nodes].

        Nothing in it waits for the device.
        """
        # What all prompts begin with, up to the image, is computed once.
        head = int(np.argmax(batch[0].ids == self.image_pad))
        rows = [self._row(pair, readout, head) for pair in batch]
        starts = itertools.accumulate((row.length - head for row in rows), initial=head)
        forced = np.array(readout.forced, dtype=np.int64)
        ids = np.concatenate(
            [batch[0].ids[:head], *(part for pair in batch for part in (pair.ids[head:], forced))]
        )
        keep = [
            at + len(pair.ids) - head + slot
            for at, pair in zip(starts, batch, strict=False)
            for slot in readout.slots
        ]
        # Images of one size side by side: they are attended to in one call where there is no kernel for segments.
        order = sorted(range(len(batch)), key=lambda i: batch[i].grid)
        images = [batch[i] for i in order]
        ends = np.cumsum([pair.visual_tokens for pair in batch])
        places = np.split(np.flatnonzero(ids == self.image_pad), ends[:-1])

        # All is sent before anything is computed: from here on the host is ahead of the device.
        parts = self.network.model
        patches = self._to(*(pair.patches for pair in images))
        grids = self._to(_grid_thw(images))
        for_visual = for_vision([pair.grid for pair in images], parts.visual, self.bounds, self.device)
        tokens = self._to(ids)
        visual_places = self._to(*(places[i] for i in order))
        position_ids = self._to(positions(rows, head))
        for_text = for_language(rows, self.bounds, self.device, head)
        wanted = self._to(np.array(keep + keep[:1] * (_LEAST_ROWS - len(keep))))
        answers = self._to(np.array(readout.tokens))

        visual = parts.visual(self._embedded(patches), grid_thw=grids, **for_visual)
        embedded = parts.language_model.embed_tokens(tokens)
        # 5.x returns both states in a struct, 4.57 only the merged ones
        embedded[visual_places] = getattr(visual, "pooler_output", visual)
        hidden = parts.language_model(
            inputs_embeds=embedded[None],
            position_ids=position_ids,
            attention_mask={"full_attention": None},  # segments say it all: no mask of L x L is to be built
            use_cache=False,
            wanted=wanted,
            **for_text,
        ).last_hidden_state[0]
        log_p = torch.log_softmax(self.network.lm_head(hidden).float(), dim=-1)[: len(keep)]
        return log_p[:, answers], log_p.argmax(dim=-1)

    def _row(self, pair: Ready, readout: Readout, head: int) -> Row:
        return Row(
            before=head,
            grid=(pair.grid[0] // self.merge, pair.grid[1] // self.merge),
            after=len(pair.ids) - head - pair.visual_tokens + len(readout.trunk),
            shared=len(pair.ids) + readout.shared,
            branches=tuple(len(branch) for branch in readout.branches),
        )

    def _embedded(self, patches: Tensor) -> Tensor:
        """Embeddings [patches, embed] of raw patches. In fp32 on any device: 0.1 % of the work."""
        return linear(patches.float(), self.patch_weight, self.patch_bias).to(self.network.dtype)

    def _to(self, *parts: npt.NDArray[Any]) -> Tensor:
        return on_device(parts, self.device)

    def generate(
        self, batch: Sequence[Ready], most: int, until: Callable[[list[int]], bool] | None = None
    ) -> list[list[int]]:
        """Greedy answers of at most ``most`` tokens, by transformers' own generation in one padded batch.

        An answer ends where ``until`` says so of its ids. Padding changes rounding: an answer may depend on its
        neighbours where two tokens tie to about 1e-6.
        """
        inputs = self.padded(batch)
        self.network.set_attn_implementation("sdpa")
        try:
            return greedy(self.network, inputs, most, self.end_tokens, until)
        finally:
            self.network.set_attn_implementation(PACKED)

    @torch.inference_mode()
    def padded(self, batch: Sequence[Ready]) -> dict[str, Tensor]:
        """The batch as transformers' own loops want it: padded on the left, patch embeddings in place of pixels."""
        width = max(len(pair.ids) for pair in batch)
        ids = np.full((len(batch), width), self.end_tokens[1], dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, pair in enumerate(batch):
            ids[row, width - len(pair.ids) :] = pair.ids
            mask[row, width - len(pair.ids) :] = 1
        inputs: dict[str, Tensor] = {
            "input_ids": self._to(ids),
            "attention_mask": self._to(mask),
            "pixel_values": self._embedded(self._to(*(pair.patches for pair in batch))),
            "image_grid_thw": self._to(_grid_thw(batch)),
        }
        if "mm_token_type_ids" in inspect.signature(self.network.forward).parameters:  # 5.x asks for it
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.image_pad).int()
        return inputs


def _grid_thw(batch: Sequence[Ready]) -> npt.NDArray[np.int64]:
    return np.array([(1, *pair.grid) for pair in batch])


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
