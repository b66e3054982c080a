"""What goes to a GPU and comes from it, with stand-ins for both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wdsfilter.engine import transfer

CUDA = torch.device("cuda", 1)


def test_what_is_sent_lies_in_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are joined where a copy to a GPU need not wait, and the copy is not waited for."""
    asked: list[Any] = []
    empty, to = torch.empty, Tensor.to

    def made(shape: Any, *, dtype: torch.dtype, pin_memory: bool) -> Tensor:
        asked.append(pin_memory)
        return empty(shape, dtype=dtype)

    def sent(tensor: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        asked.append((device, non_blocking))
        return tensor

    parts = [np.array([[1, 2]], np.uint8), np.array([[3, 4], [5, 6]], np.uint8)]
    monkeypatch.setattr(torch, "empty", made)
    monkeypatch.setattr(Tensor, "to", sent)
    there = transfer.on_device(parts, CUDA)
    monkeypatch.setattr(Tensor, "to", to)
    assert asked == [True, (CUDA, True)]
    assert (there.dtype, there.tolist()) == (torch.uint8, [[1, 2], [3, 4], [5, 6]])


class Result:
    """Something that a GPU is still computing."""

    device = CUDA

    def __init__(self, done: list[str]) -> None:
        self.done = done

    def to(self, place: str, *, non_blocking: bool) -> Result:
        assert (place, non_blocking) == ("cpu", True)
        self.done.append("sent")
        return self

    def numpy(self) -> int:
        self.done.append("read")
        return len(self.done)


def test_results_are_sent_at_once_and_waited_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their way back is launched right behind them, so that asking for them waits for nothing launched later."""
    done: list[str] = []

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            assert blocking

        def record(self, stream: Any) -> None:
            done.append(f"recorded on {stream}")

        def synchronize(self) -> None:
            done.append("waited")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    results: Any = [Result(done), Result(done)]
    numbers = transfer.arriving(results)
    assert done == ["sent", "sent", "recorded on the stream of cuda:1"]
    assert numbers() == [5, 6]
    assert done[3:] == ["waited", "read", "read"]


def test_elsewhere_nothing_is_locked() -> None:
    """Without a GPU it is a plain copy, of whatever dtype, there and back."""
    parts = [np.array([1.5, 2.5], np.float32), np.array([3.5], np.float32)]
    there = transfer.on_device(parts, torch.device("cpu"))
    [back] = transfer.arriving([there])()
    assert (back.dtype.name, back.tolist()) == ("float32", [1.5, 2.5, 3.5])
