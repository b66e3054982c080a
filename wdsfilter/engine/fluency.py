"""How well a caption reads for a causal language model: its mean cross-entropy per token, in nats.

On a CPU captions of equal length are a forward pass on one thread, and as many run at once as there are threads: in
fp32 a caption's loss has the same bits alone and in any batch. On a GPU it is a padded batch; what is causal does not
see the padding behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from wdsfilter.engine.alike import in_groups
from wdsfilter.engine.captions import Captions, build_captions
from wdsfilter.engine.checkpoint import Checkpoint, check_safe
from wdsfilter.engine.loading import pretrained, single_threads
from wdsfilter.samples import Numbers, Pair, Prepared, Unreadable

_LARGEST = float(np.finfo(np.float32).max)
_IGNORED = -100
_TOKENS = 256  # of a pass on a CPU; each has a number for every token of the vocabulary


@dataclass(frozen=True, slots=True)
class Ready:
    """One caption for the model: ids [tokens], two or more."""

    ids: npt.NDArray[np.int32]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Prepare:
    """Picklable: tokenises."""

    captions: Captions

    def __call__(self, pair: Pair) -> Prepared | Unreadable:
        """The caption made ready, its cost in tokens; Unreadable when there is no token to predict."""
        try:
            ids, truncated = self.captions.row(pair.caption)
        except UnicodeEncodeError as error:
            return Unreadable(pair.key, "caption_not_utf8", str(error)[:200])
        if len(ids) < 2:
            return Unreadable(pair.key, "caption_too_short", "no token that another one comes before")
        return Prepared(Ready(ids, truncated), cost=len(ids))


@dataclass(frozen=True, slots=True)
class Fluency:
    """The loaded judge."""

    network: Any
    prepare: Prepare
    window: int
    batch_cost: int
    threads: ThreadPoolExecutor | None

    @property
    def inline(self) -> bool:
        """Tokenising costs less than sending an image to another process."""
        return True

    def score(self, batch: Sequence[Ready]) -> Sequence[Numbers]:
        """Loss and perplexity of each caption, how many tokens were predicted, and whether it was cut."""
        if self.threads is None:
            losses = self._losses(batch)
        else:
            losses = in_groups(batch, lambda caption: len(caption.ids), _TOKENS, self._losses, self.threads)
        return [
            {
                "loss": loss,
                "perplexity": min(_float32(math.exp(min(loss, 88.0))), _LARGEST),
                "tokens": len(caption.ids) - 1,
                "truncated": caption.truncated,
            }
            for loss, caption in zip(losses, batch, strict=True)
        ]

    def check(self, first: Sequence[Ready]) -> Mapping[str, Any]:
        """Nothing can be wrong with it that loading does not see."""
        return {}

    @torch.inference_mode()
    def _losses(self, batch: Sequence[Ready]) -> list[float]:
        width = max(len(caption.ids) for caption in batch)
        ids = np.zeros((len(batch), width), np.int64)
        targets = np.full((len(batch), width - 1), _IGNORED, np.int64)
        for row, target, caption in zip(ids, targets, batch, strict=True):
            row[: len(caption.ids)] = caption.ids
            target[: len(caption.ids) - 1] = caption.ids[1:]
        device = self.network.device
        logits = self.network(input_ids=torch.from_numpy(ids).to(device), use_cache=False).logits
        wanted = torch.from_numpy(targets).to(device)
        each = cross_entropy(
            logits[:, :-1].float().flatten(0, 1), wanted.flatten(), reduction="none", ignore_index=_IGNORED
        ).view_as(wanted)
        return [
            math.fsum(row[: len(caption.ids) - 1]) / (len(caption.ids) - 1)
            for row, caption in zip(each.tolist(), batch, strict=True)
        ]


def load_fluency(
    checkpoint: Checkpoint,
    *,
    start: bool,
    max_tokens: int,
    device: str,
    dtype: str,
    window: int,
    batch_tokens: int,
    threads: int | None,
) -> Fluency:
    """The judge of a causal language model on ``device``. Raises JudgeError.

    ``start``: captions come after the model's own start token, where it has one, so that their first token
    counts, too.
    """
    config = checkpoint.read("config.json")
    check_safe(checkpoint, config)
    network = pretrained(AutoModelForCausalLM, checkpoint, device=device, dtype=dtype)
    text = network.config.get_text_config()
    limit = min(max_tokens, getattr(text, "max_position_embeddings", None) or max_tokens)
    captions = build_captions(checkpoint, limit)
    first = captions.before or (() if text.bos_token_id is None else (int(text.bos_token_id),))
    on_cpu = network.device.type == "cpu"
    return Fluency(
        network=network,
        prepare=Prepare(replace(captions, before=first if start else (), after=())),
        window=window,
        batch_cost=batch_tokens,
        threads=single_threads(threads or torch.get_num_threads()) if on_cpu else None,
    )


def _float32(value: float) -> float:
    return float(np.float32(value))
