"""Which tokens of a pack see each other: what both towers are told besides the tokens themselves.

All of it is computed here, on the host and once per pack, so that no layer has to ask the device how long
a row is.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wdsfilter.engine.positions import Row
from wdsfilter.engine.transfer import on_device

# Since 5.x the vision tower takes what it would otherwise compute on the device.
TAKES_PLANS = importlib.util.find_spec("transformers.vision_utils") is not None


@dataclass(frozen=True, slots=True)
class Segments:
    """Lengths of segments that attend to themselves only: ``queries``, and ``keys`` where they see more.

    ``gather`` is then the token of the pack that each key is; None where keys are the queries' own tokens.
    """

    queries: Sequence[int]
    keys: Sequence[int]
    gather: npt.NDArray[np.int64] | None = None


def of_rows(rows: Sequence[Row], head: int = 0) -> Segments:
    """A row's trunk is a segment; each of its branches is one, which also sees the row's shared start.

    Where the first ``head`` tokens of all rows stand once, in front of the pack, they are a segment, too, and
    every row sees them.
    """
    queries = [length for row in rows for length in (row.trunk - head, *row.branches)]
    if not head and not any(row.branches for row in rows):
        return Segments(queries, queries)
    first = np.arange(head)
    keys, gather, at = [], [], head
    if head:
        queries, keys, gather = [head, *queries], [head], [first]
    for row in rows:
        trunk = np.concatenate([first, np.arange(at, at + row.trunk - head)])
        keys.append(row.trunk)
        gather.append(trunk)
        at += row.trunk - head
        for length in row.branches:
            keys.append(row.shared + length)
            gather += [trunk[: row.shared], np.arange(at, at + length)]
            at += length
    return Segments(queries, keys, np.concatenate(gather))


def for_language(
    rows: Sequence[Row], bounds: torch.device, device: torch.device, head: int = 0
) -> dict[str, Any]:
    """What the language model's layers hand to :func:`wdsfilter.engine.attention.packed_attention`."""
    segments = of_rows(rows, head)
    return {
        "cu_seq_lens_q": _bounds(segments.queries, bounds),
        "cu_seq_lens_k": _bounds(segments.keys, bounds),
        "max_length_q": max(segments.queries),
        "max_length_k": max(segments.keys),
        "key_index": None if segments.gather is None else on_device([segments.gather], device),
    }


def for_vision(
    grids: Sequence[tuple[int, int]], tower: Any, bounds: torch.device, device: torch.device
) -> dict[str, Any]:
    """What a vision ``tower`` would ask the device for: places of patches, images, windows (Qwen2.5-VL)."""
    if not TAKES_PLANS:
        return {}
    windowed = hasattr(tower, "window_size")
    window = (tower.window_size, tower.patch_size) if windowed else None
    images = [_image(grid, tower.spatial_merge_size, window) for grid in grids]
    lengths = [len(image.places) for image in images]
    plan: dict[str, Any] = {
        "position_ids": on_device([image.places for image in images], device),
        "cu_seqlens": _bounds(lengths, bounds),
        "max_seqlen": max(lengths),
    }
    if windowed:
        merged = tower.spatial_merge_size**2
        firsts = accumulate((length // merged for length in lengths), initial=0)
        order = [image.order + first for image, first in zip(images, firsts, strict=False)]
        windows = [length for image in images for length in image.windows]
        plan |= {
            "window_index": on_device(order, device),
            "cu_window_seqlens": _bounds(windows, bounds),
            "max_window_seqlen": max(windows),
        }
    return plan


@dataclass(frozen=True, slots=True)
class _Image:
    """``places`` [patches, 2]: row and column; ``order`` of its visual tokens by windows of ``windows`` patches."""

    places: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    windows: tuple[int, ...]


@lru_cache(maxsize=4096)
def _image(grid: tuple[int, int], merge: int, window: tuple[int, int] | None) -> _Image:
    from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

    thw = torch.tensor([[1, *grid]])
    places = get_vision_position_ids(thw, merge).numpy()
    if window is None:
        return _Image(places, np.arange(0), ())
    size, patch = window
    order, ends = get_vision_window_index(thw, merge, size, patch)
    return _Image(places, order.numpy(), tuple(ends.diff().tolist()))


def _bounds(lengths: Sequence[int], place: torch.device) -> Tensor:
    return on_device([np.cumsum([0, *lengths], dtype=np.int32)], place)
