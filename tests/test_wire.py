from __future__ import annotations

import pickle
import socket
import threading
from typing import Any

import numpy as np
import pytest

from wdsfilter import wire
from wdsfilter.samples import Prepared


def through(value: object) -> Any:
    """What comes out of a socket that ``value`` is sent through."""
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=wire.send, args=(here, wire.packed(value)))
        sender.start()
        received = wire.unpacked(wire.receive(there))
        sender.join()
    return received


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(1_000_000, dtype=np.uint8).reshape(1000, 1000), id="larger-than-a-socket"),
        pytest.param(np.empty((0, 588), np.uint8), id="empty"),
        pytest.param(np.arange(12.0).reshape(3, 4)[:, ::2], id="not-contiguous"),
        pytest.param(np.asfortranarray(np.arange(12.0).reshape(3, 4)), id="columns-first"),
    ],
)
def test_values_arrive_as_they_left(array: Any) -> None:
    """Arrays and what stands around them, and arrays that arrive can be written to."""
    received = through(Prepared((array, "caption", b"bytes"), cost=3))
    found, caption, data = received.value
    assert (caption, data, received.cost) == ("caption", b"bytes", 3)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)
    assert found.flags.writeable


def test_arrays_are_not_copied() -> None:
    """A message uses an array's own memory, and the value made of it the message's."""
    array = np.zeros(100_000, np.uint8)
    head, memory = wire.packed(("pair", array))
    assert len(head) < 1000
    array[0] = 7
    assert memory[0] == 7
    _, found = wire.unpacked([head, memory])
    assert np.shares_memory(found, array)


@pytest.mark.parametrize("arrays", [0, 1, 2, 300])
def test_few_calls_and_long_ones(arrays: int) -> None:
    """One call for a part however large it is: after each one the caller has to get hold of the interpreter again."""
    calls = 0

    class Counted(socket.socket):
        def recv_into(self, *arguments: Any) -> int:
            nonlocal calls
            calls += 1
            return super().recv_into(*arguments)

    here, there = socket.socketpair()
    value = [np.full(1_000_000 // arrays, number, np.uint16) for number in range(arrays)]
    with here, Counted(fileno=there.detach()) as counted:
        sender = threading.Thread(target=wire.send, args=(here, wire.packed(value)))
        sender.start()
        received = wire.unpacked(wire.receive(counted))
        sender.join()
    assert [int(array.sum()) for array in received] == [int(array.sum()) for array in value]
    assert calls <= 3 + arrays


def test_a_hung_up_socket_is_no_message() -> None:
    """Whoever waits for the rest of a message is told when it will not come."""
    here, there = socket.socketpair()
    with there:
        with here:
            here.sendall(b"\1\0\0")
        with pytest.raises(ConnectionError):
            wire.receive(there)


def test_what_cannot_be_pickled_is_no_message() -> None:
    """Nothing of it is sent."""
    with pytest.raises((pickle.PicklingError, AttributeError)):
        wire.packed(lambda: None)
