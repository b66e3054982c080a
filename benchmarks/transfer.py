"""What the way from a worker to its judge costs: the socket as it is, against shared memory.

    python -m benchmarks.transfer [--messages 60] [--rounds 7]

A process answers as a worker does, with arrays of uint8 patches of the sizes that pixel budgets give. ``socket``
is :mod:`wdsfilter.wire`. ``shared memory`` copies them into a block that both processes
have mapped, sends a few bytes, and copies them out again, for the block is needed for the next pair. Counted is CPU
time of both processes, for neither waits for the other in a run. Prints the median ratios and their spread; writes
``benchmarks/results/transfer.json``. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import numpy.typing as npt

from benchmarks import measure
from wdsfilter import wire

PATCH = 588
VISUAL_TOKENS = (25, 64, 256, 1280)


def answer(connection: socket.socket, memory: str) -> None:
    """The other process: patches of as many visual tokens as it is asked for, by the way that it is asked for."""
    block = SharedMemory(memory)
    try:
        while (asked := wire.unpacked(wire.receive(connection))) is not None:
            way, tokens = asked
            patches = np.full((4 * tokens, PATCH), 7, np.uint8)
            if way == "shared memory":
                np.ndarray(patches.shape, np.uint8, block.buf)[:] = patches
            wire.send(connection, wire.packed(patches.shape if way == "shared memory" else patches))
    finally:
        block.close()


def by_socket(connection: socket.socket, tokens: int) -> npt.NDArray[np.uint8]:
    wire.send(connection, wire.packed(("socket", tokens)))
    patches: npt.NDArray[np.uint8] = wire.unpacked(wire.receive(connection))
    return patches


def by_memory(connection: socket.socket, block: SharedMemory, tokens: int) -> npt.NDArray[np.uint8]:
    wire.send(connection, wire.packed(("shared memory", tokens)))
    shape: tuple[int, int] = wire.unpacked(wire.receive(connection))
    patches: npt.NDArray[np.uint8] = np.ndarray(shape, np.uint8, block.buf).copy()
    return patches


def spent(other: int) -> float:
    """Seconds of CPU that this process and the one with that id have used."""
    return time.process_time() + time.clock_gettime((~other << 3) | 2)  # as pthread_getcpuclockid names it


def in_turn(
    arms: dict[str, Callable[[int], object]], tokens: int, messages: int, rounds: int, other: int
) -> dict[str, list[float]]:
    """CPU milliseconds a message of every arm in every round, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(1 + rounds):
        for name, work in arms.items():
            before = spent(other)
            for _ in range(messages):
                work(tokens)
            if number:
                taken[name].append((spent(other) - before) / messages * 1e3)
    return taken


def main(argv: Sequence[str] | None = None) -> int:
    """The command above. Returns its exit code."""
    parser = argparse.ArgumentParser(description="Socket against shared memory.")
    parser.add_argument("--messages", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args(argv)
    here, there = socket.socketpair()
    block = SharedMemory(create=True, size=4 * max(VISUAL_TOKENS) * PATCH)
    process = multiprocessing.get_context("fork").Process(target=answer, args=(there, block.name))
    process.start()
    other = process.pid
    assert other is not None
    ratios: dict[str, dict[str, float]] = {}
    times: dict[str, dict[str, float]] = {}
    try:
        for tokens in VISUAL_TOKENS:
            arms: dict[str, Callable[[int], object]] = {
                "socket": partial(by_socket, here),
                "shared memory": partial(by_memory, here, block),
            }
            taken = in_turn(arms, tokens, arguments.messages, arguments.rounds, other)
            name = f"{tokens} visual tokens"
            ratios[f"CPU time: worker to judge by socket / by shared memory, {name}"] = measure.ratios(
                taken["socket"], taken["shared memory"]
            )
            times |= {f"{arm}, {name}": measure.spread(own) for arm, own in taken.items()}
        wire.send(here, wire.packed(None))
    finally:
        process.join(10)
        process.kill()
        block.close()
        block.unlink()
    facts = {"messages": arguments.messages, "rounds": arguments.rounds}
    measure.save("transfer", {"input": facts, "ratios": ratios, "cpu_ms_per_message": times}, ("numpy",))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
