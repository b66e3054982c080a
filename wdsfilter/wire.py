"""Values between two processes of our own, over a socket: arrays go as they lie in memory, without a copy.

A message is a number of parts, the length of each (8 bytes each, little-endian), and the parts: a pickle, then the
memory of the arrays in it (PEP 574). Only for sockets that nobody else has: what is received gets unpickled.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

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
    connection.sendall(struct.pack(f"<{1 + len(message)}Q", len(message), *map(len, message)))
    for part in message:
        connection.sendall(part)


def receive(connection: socket.socket) -> Message:
    """The next message. Raises OSError, where the other side hangs up too."""
    (count,) = struct.unpack("<Q", _exactly(connection, 8))
    sizes = struct.unpack(f"<{count}Q", _exactly(connection, 8 * count))
    return [_exactly(connection, size) for size in sizes]


def _exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        received = connection.recv_into(rest)
        if not received:
            raise ConnectionError("closed by the other side")
        rest = rest[received:]
    return data
