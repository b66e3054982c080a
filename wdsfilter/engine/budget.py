"""How many tokens one batch may hold on a device, found by trying."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from wdsfilter.engine.readout import LogP, Readout

DEFAULT = 16384
"""Where nothing is tried: on a CPU a batch is computed in small pieces anyway."""

_LEAST, _MOST = 4096, 131072  # past this a GPU is busy and gains nothing more
_MARGIN = 1.25  # other pairs have other shares of text and image, and memory is never as tidy again


class Ready(Protocol):
    """What is asked of a pair that is ready for its model, whichever that is: its prompt's ids [tokens]."""

    @property
    def ids(self) -> npt.NDArray[np.int32]: ...


class Computes(Protocol):
    """What can run a batch of pairs that are ready for it."""

    @property
    def device(self) -> torch.device: ...

    def log_p(self, batch: Sequence[Any], readout: Readout) -> list[LogP]: ...


def find_budget(model: Computes, pairs: Sequence[Ready], readout: Readout) -> int:
    """The budget for batches of such ``pairs`` on the model's device, in tokens."""
    if model.device.type != "cuda":
        return DEFAULT

    def fits(tokens: int) -> bool:
        try:
            model.log_p(_of_size(pairs, tokens), readout)
        except torch.OutOfMemoryError:
            return False
        finally:
            torch.cuda.empty_cache()
        return True

    return largest(fits)


def largest(fits: Callable[[int], bool]) -> int:
    """The largest budget, doubled from the least, that ``fits`` with a margin; the least where none does."""
    budget = _LEAST
    while budget < _MOST and fits(int(2 * budget * _MARGIN)):
        budget *= 2
    return budget


def _of_size(pairs: Sequence[Ready], tokens: int) -> list[Ready]:
    """``pairs`` over and over, until they have that many tokens."""
    batch: list[Ready] = []
    held = 0
    for pair in itertools.cycle(pairs):
        if held >= tokens:
            return batch
        batch.append(pair)
        held += len(pair.ids)
    raise ValueError("no pairs to try with")
