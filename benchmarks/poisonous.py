"""Pairs that take their worker down. A module of its own, because workers import it, and with few imports."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wdsfilter.judges import Prepare
from wdsfilter.samples import Pair, Prepared, Unreadable


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def eat() -> None:
    eaten = []
    while True:
        eaten.append(b"x" * (1 << 24))


POISON: Mapping[str, tuple[Callable[[], None], str]] = {
    "crashes": (crash, "worker_crashed"),
    "eats all memory": (eat, "out_of_memory"),
}
"""What such a pair does, and the reason that its row gets."""


@dataclass(frozen=True, slots=True)
class Poisonous:
    """A judge's CPU half for which pairs without a caption are poison."""

    prepare: Prepare
    kind: str

    def __call__(self, pair: Pair) -> Prepared | Unreadable:
        if not pair.caption:
            POISON[self.kind][0]()
        return self.prepare(pair)
