"""Arrays on their way to a device and back, which the host does not wait for while it has other things to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def on_device(parts: Sequence[npt.NDArray[Any]], device: torch.device) -> Tensor:
    """``parts``, one after the other along their first axis, on ``device``.

    They are joined in page-locked memory where that is a GPU: a copy from any other memory begins only when all
    is done that was launched before it, and the host stands still until then.
    """
    if device.type != "cuda":
        return torch.from_numpy(np.concatenate(parts)).to(device)
    dtype = torch.from_numpy(parts[0][:0]).dtype
    joined = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=dtype, pin_memory=True)
    np.concatenate(parts, out=joined.numpy())
    return joined.to(device, non_blocking=True)


def arriving(results: Sequence[Tensor]) -> Callable[[], list[npt.NDArray[Any]]]:
    """``results`` sent to the host; what comes back waits for them, and for nothing that is launched later."""
    [device] = {result.device for result in results}
    if device.type != "cuda":
        return lambda: [result.cpu().numpy() for result in results]
    sent = [result.to("cpu", non_blocking=True) for result in results]
    # Whoever waits sleeps: the core is wanted for preparing pictures.
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(device))

    def numbers() -> list[npt.NDArray[Any]]:
        done.synchronize()
        return [result.numpy() for result in sent]

    return numbers
