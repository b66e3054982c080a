"""A pair -> what the model reads, in a worker process: no weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wdsfilter import images
from wdsfilter.canvas import Canvas
from wdsfilter.engine.layout import Layout
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.errors import BadImage
from wdsfilter.samples import Pair, Prepared, Unreadable


@dataclass(frozen=True, slots=True)
class Ready:
    """One pair for the model: prompt ids [tokens], patches [rows * columns, 588] uint8 and their grid.

    ``known`` is False where the checkpoint says of itself that it is not meant for such pairs.
    """

    ids: npt.NDArray[np.int32]
    patches: npt.NDArray[np.uint8]
    grid: tuple[int, int]
    visual_tokens: int
    truncated: bool
    known: bool = True


@dataclass(frozen=True, slots=True)
class Prepare:
    """Picklable: decodes, resizes, cuts into patches, tokenises.

    Pairs that the checkpoint is meant for have the field ``mark`` in their json; None where it is meant for all.
    ``scaled_decoding``: large JPEGs are decoded at a fraction of their size, which is quicker and other pixels.
    """

    layout: Layout
    plan: PatchPlan
    mark: str | None = None
    scaled_decoding: bool = False

    def __call__(self, pair: Pair) -> Prepared | Unreadable:
        """The pair made ready, its cost in tokens; Unreadable when its image or caption cannot be read."""
        canvas = Canvas()
        at_least = self.plan.size if self.scaled_decoding else None
        try:
            image = images.decode(pair.image, at_least=at_least, canvas=canvas)
            patches, grid = self.plan.patches(image, canvas)
        except BadImage as bad:
            return Unreadable(pair.key, bad.reason, bad.detail)
        visual_tokens = len(patches) // self.plan.merge**2
        try:
            ids, truncated = self.layout.row(pair.caption, visual_tokens)
        except UnicodeEncodeError as error:
            return Unreadable(pair.key, "caption_not_utf8", str(error)[:200])
        known = self.mark is None or self.mark in pair.fields
        ready = Ready(ids, patches, grid, visual_tokens, truncated, known)
        return Prepared(ready, cost=len(ids), phash=images.dhash(image))
