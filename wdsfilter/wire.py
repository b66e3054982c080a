"""Values between two processes of our own, over a socket: arrays go as they lie in memory, without a copy.

A message is a number of parts, the length of each (8 bytes each, little-endian; of two at least), and the parts: a
pickle, then the memory of the arrays in it (PEP 574). Only for sockets that nobody else has: what is received gets
unpickled. Few calls and long ones: each lets go of the interpreter, and has to wait until it gets it back.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

_HEAD = struct.Struct("<3Q")
_AT_ONCE = 256  # parts; systems take a thousand

Message: TypeAlias = Sequence["bytes | bytearray | memoryview"]


def packed(value: object) -> Message:
    """A message that says ``value``, and uses the memory of its arrays. Raises what pickling does."""
    arrays: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    return [data, *(array.raw() for array in arrays)]


def unpacked(message: Message) -> Any:
    """The value that a message says; its arrays use the message's memory."""
    return pickle.loads(message[0], buffers=message[1:])


def send(connection: socket.socket, message: Message) -> None:
    """Raises OSError."""
    sizes = [*map(len, message), 0][: max(2, len(message))]
    rest = [struct.pack(f"<{1 + len(sizes)}Q", len(message), *sizes), *message]
    while rest:
        sent = connection.sendmsg(rest[:_AT_ONCE])
        while rest and sent >= len(rest[0]):
            sent -= len(rest.pop(0))
        if sent:
            rest[0] = memoryview(rest[0])[sent:]


def receive(connection: socket.socket) -> Message:
    """The next message. Raises OSError, where the other side hangs up too."""
    count, *sizes = _HEAD.unpack(_exactly(connection, _HEAD.size))
    if more := max(0, count - len(sizes)):
        sizes += struct.unpack(f"<{more}Q", _exactly(connection, 8 * more))
    return [_exactly(connection, size) for size in sizes[:count]]


def _exactly(connection: socket.socket, size: int) -> memoryview:
    data = np.empty(size, np.uint8).data  # bytearray() would clear it first
    rest = data
    while rest:
        received = connection.recv_into(rest, 0, socket.MSG_WAITALL)
        if not received:
            raise ConnectionError("closed by the other side")
        rest = rest[received:]
    return data
