"""One packed forward pass with gradients: the tokens, places and attention that pairs have when they are judged."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wdsfilter.engine.attention import place_of_bounds
from wdsfilter.engine.layout import Layout
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.engine.positions import Row, positions
from wdsfilter.engine.prepare import Ready
from wdsfilter.engine.segments import for_language, for_vision

_FRAMES = 2  # of a still image, and equal


@dataclass(frozen=True, slots=True)
class Tail:
    """What follows a prompt: the tokens of ``trunk``, and ``branches`` that continue its first ``shared`` ones."""

    trunk: Sequence[int]
    shared: int = 0
    branches: tuple[Sequence[int], ...] = ()

    @property
    def ids(self) -> list[int]:
        """All of its tokens, in the order of a pack."""
        return list(itertools.chain(self.trunk, *self.branches))


@dataclass(frozen=True, slots=True)
class Packer:
    """Knows where a prompt's image lies, and how its patches are normalised."""

    layout: Layout
    plan: PatchPlan

    def states(
        self, network: Any, prompts: Sequence[Ready], tails: Sequence[Tail]
    ) -> tuple[Tensor, list[int]]:
        """Last hidden states [tokens, width] of all rows, and the place in them where each tail begins.

        ``network`` attends as :data:`wdsfilter.engine.attention.PACKED` says.
        """
        rows = [self._row(prompt, tail) for prompt, tail in zip(prompts, tails, strict=True)]
        starts = itertools.accumulate((row.length for row in rows), initial=0)
        ids = np.concatenate(
            [part for prompt, tail in zip(prompts, tails, strict=True) for part in (prompt.ids, tail.ids)],
            dtype=np.int64,
        )
        parts = network.model
        device = parts.language_model.embed_tokens.weight.device
        bounds = place_of_bounds(device, network.dtype)
        visual = parts.visual(
            self._pixels(prompts, device),
            grid_thw=torch.tensor([(1, *prompt.grid) for prompt in prompts], device=device),
            **for_vision([prompt.grid for prompt in prompts], parts.visual, bounds, device),
        )
        # 5.x returns both states in a struct, 4.57 only the merged ones
        visual = getattr(visual, "pooler_output", visual)
        embedded = parts.language_model.embed_tokens(torch.from_numpy(ids).to(device))
        at = torch.from_numpy(np.flatnonzero(ids == self.layout.image_pad)).to(device)
        hidden: Tensor = parts.language_model(
            inputs_embeds=embedded.index_copy(0, at, visual.to(embedded.dtype))[None],
            position_ids=torch.from_numpy(positions(rows)).to(device),
            attention_mask={"full_attention": None},  # segments say it all
            use_cache=False,
            **for_language(rows, bounds, device),
        ).last_hidden_state[0]
        return hidden, [start + len(prompt.ids) for start, prompt in zip(starts, prompts, strict=False)]

    def _row(self, prompt: Ready, tail: Tail) -> Row:
        before = len(self.layout.head)
        return Row(
            before=before,
            grid=(prompt.grid[0] // self.plan.merge, prompt.grid[1] // self.plan.merge),
            after=len(prompt.ids) - before - prompt.visual_tokens + len(tail.trunk),
            shared=len(prompt.ids) + tail.shared,
            branches=tuple(len(branch) for branch in tail.branches),
        )

    def _pixels(self, prompts: Sequence[Ready], device: torch.device) -> Tensor:
        """Patches of all images as the stock image processor gives them, [patches, 1176]."""
        patches = torch.from_numpy(np.concatenate([prompt.patches for prompt in prompts])).to(device)
        mean, std = (torch.tensor(values, device=device) for values in (self.plan.mean, self.plan.std))
        values = (patches.view(len(patches), -1, 3).float() / 255 - mean) / std
        return values.mT[:, :, None].expand(-1, -1, _FRAMES, -1).flatten(1)
