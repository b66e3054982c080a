"""Any vision-language model of transformers, as it comes: forward passes over padded batches.

The second way to run a judge, for what the packed engine (:mod:`wdsfilter.engine.model`) does not know. Nothing
is assumed about the network but what transformers promises of each: names of inputs, logits, ``generate``.

On a CPU a pair is a forward pass of its own on one torch thread, and as many run at once as there are threads:
in fp32 its numbers are the same bits alone, in any batch and for any number of threads. Elsewhere pairs whose
pictures are of one shape are padded to one length, on the right: what is causal does not see the padding behind
it, and positions are counted as for one pair alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor

from wdsfilter.engine.checkpoint import Checkpoint
from wdsfilter.engine.generation import greedy
from wdsfilter.engine.loading import pretrained, single_threads
from wdsfilter.engine.processed import Ready, extended
from wdsfilter.engine.readout import LogP, Path, Readout, by_row
from wdsfilter.engine.transfer import arriving, on_device
from wdsfilter.errors import JudgeError


@dataclass(frozen=True, slots=True)
class PaddedModel:
    """A loaded checkpoint of any architecture. ``ends`` are the ids that end an answer, ``pad`` is what pads,
    ``takes`` are names of what its forward takes."""

    network: Any
    device: torch.device
    ends: tuple[int, ...]
    pad: int
    takes: frozenset[str]
    threads: ThreadPoolExecutor | None

    def log_p(self, batch: Sequence[Ready], readout: Readout) -> list[LogP]:
        """For each pair, log-probabilities [nodes, tokens] of the readout's tokens and the argmax [nodes]."""
        if self.threads is not None:
            return list(self.threads.map(lambda pair: self.together([pair], readout)[0], batch))
        return _in_order(batch, lambda alike: self.together(alike, readout))

    @torch.inference_mode()
    def together(self, batch: Sequence[Ready], readout: Readout) -> list[LogP]:
        """As :meth:`log_p`, for pairs whose pictures are of one shape, in one padded batch."""
        tips, places = _walks(readout)
        rows = [(pair, tip) for pair in batch for tip in tips]
        width = max(len(pair.ids) + len(tip) for pair, tip in rows)
        inputs = self._inputs(
            [pair for pair, _ in rows],
            [_padded(np.concatenate([pair.ids, tip]), width, self.pad) for pair, tip in rows],
            [_padded(np.ones(len(pair.ids) + len(tip)), width, 0) for pair, tip in rows],
            {name: [extended(pair.along[name], width) for pair, _ in rows] for name in batch[0].along},
        )
        wanted = np.array(
            [
                (i * len(tips) + tip, len(pair.ids) + slot)
                for i, pair in enumerate(batch)
                for tip, slot in places
            ]
        )
        columns, at = np.unique(wanted[:, 1], return_inverse=True)
        picked = {"logits_to_keep": self._to(columns)} if "logits_to_keep" in self.takes else {}
        logits = self.network(**inputs, **picked, use_cache=False).logits
        if logits.shape[1] == width:  # it gives all that there are, asked or not
            at = wanted[:, 1]
        log_p = torch.log_softmax(logits[self._to(wanted[:, 0]), self._to(at)].float(), dim=-1)
        answers = self._to(np.array(readout.tokens))
        tokens, best = arriving([log_p[:, answers], log_p.argmax(dim=-1)])()
        return by_row(tokens, best, len(places))

    def generate(
        self, batch: Sequence[Ready], most: int, until: Callable[[list[int]], bool] | None = None
    ) -> list[list[int]]:
        """Greedy answers of at most ``most`` tokens, by transformers' own generation in padded batches.

        An answer ends where ``until`` says so of its ids. Padding changes rounding: an answer may depend on its
        neighbours where two tokens tie to about 1e-6.
        """
        return _in_order(
            batch,
            lambda alike: greedy(
                self.network, self.padded(alike), most, (*self.ends, self.pad), until, fixed_cache=False
            ),
        )

    @torch.inference_mode()
    def padded(self, batch: Sequence[Ready]) -> dict[str, Tensor]:
        """Pairs whose pictures are of one shape as transformers' own loops want them: padded on the left."""
        width = max(len(pair.ids) for pair in batch)
        return self._inputs(
            batch,
            [_padded(pair.ids, -width, self.pad) for pair in batch],
            [_padded(np.ones(len(pair.ids)), -width, 0) for pair in batch],
            {name: [_padded(pair.along[name], -width, 0) for pair in batch] for name in batch[0].along},
        )

    def _inputs(
        self,
        pairs: Sequence[Ready],
        ids: Sequence[npt.NDArray[Any]],
        mask: Sequence[npt.NDArray[Any]],
        along: Mapping[str, Sequence[npt.NDArray[Any]]],
    ) -> dict[str, Tensor]:
        pictures = {name: self._to(*(pair.pictures[name] for pair in pairs)) for name in pairs[0].pictures}
        return {
            "input_ids": self._to(np.stack(ids).astype(np.int64)),
            "attention_mask": self._to(np.stack(mask).astype(np.int64)),
            # some tokenizers tell types of tokens that their model does not know
            **{name: self._to(np.stack(rows)) for name, rows in along.items() if name in self.takes},
            **{
                name: value.to(self.network.dtype) if value.is_floating_point() else value
                for name, value in pictures.items()
            },
        }

    def _to(self, *parts: npt.NDArray[Any]) -> Tensor:
        return on_device(parts, self.device)


def load_padded(
    checkpoint: Checkpoint, tokenizer: Any, *, device: str, dtype: str, threads: int | None
) -> PaddedModel:
    """The checkpoint's weights on ``device`` in ``dtype``; ``tokenizer`` is its processor's. Raises JudgeError."""
    network = pretrained(
        transformers.AutoModelForImageTextToText,
        checkpoint,
        device=device,
        dtype=dtype,
        trust_remote_code=False,
    )
    config = network.generation_config.eos_token_id
    ends = {token for token in (tokenizer.eos_token_id, *_all(config)) if token is not None}
    if not ends:
        raise JudgeError(
            f"{checkpoint.folder}: neither tokenizer nor generation_config.json says what ends an answer"
        )
    pad = tokenizer.pad_token_id
    pad = min(ends) if pad is None else int(pad)
    # Greedy, whatever sampling the checkpoint suggests.
    network.generation_config = transformers.GenerationConfig(
        do_sample=False, eos_token_id=sorted(ends), pad_token_id=pad
    )
    on_cpu = network.device.type == "cpu"
    return PaddedModel(
        network=network,
        device=network.device,
        ends=tuple(sorted(ends)),
        pad=pad,
        takes=frozenset(inspect.signature(network.forward).parameters),
        threads=single_threads(threads or torch.get_num_threads()) if on_cpu else None,
    )


def _walks(readout: Readout) -> tuple[list[Path], list[tuple[int, int]]]:
    """What is put after a prompt, a row for each branch of the tree; (row, place after the prompt) of each node."""
    start, longest = readout.trunk[: readout.shared], readout.trunk[readout.shared :]
    tips = [longest, *readout.branches]
    places = []
    for node in readout.nodes:
        row = next(i for i, tip in enumerate(tips) if tip[: len(node)] == node)
        places.append((row, readout.shared - 1 + len(node)))
    return [(*start, *tip) for tip in tips], places


def _in_order(batch: Sequence[Ready], answer: Callable[[Sequence[Ready]], Sequence[Any]]) -> list[Any]:
    """What ``answer`` says of groups of pairs whose pictures are of one shape, in the order of ``batch``."""
    groups: dict[Any, list[int]] = {}
    for i, pair in enumerate(batch):
        shapes = tuple((name, value.shape) for name, value in sorted(pair.pictures.items()))
        groups.setdefault(shapes, []).append(i)
    found: dict[int, Any] = {}
    for group in groups.values():
        found |= zip(group, answer([batch[i] for i in group]), strict=True)
    return [found[i] for i in range(len(batch))]


def _padded(values: npt.NDArray[Any], width: int, filler: int) -> npt.NDArray[Any]:
    """``values`` [tokens, ...] in ``width`` tokens, on the left where it is negative of that."""
    shape = (abs(width) - len(values), *values.shape[1:])
    filling = np.full(shape, filler, dtype=values.dtype)
    return np.concatenate([values, filling] if width > 0 else [filling, values])


def _all(tokens: int | Iterable[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)
