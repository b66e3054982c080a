"""Prepares for tests of workers: importable by a worker, told by the caption what to do."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdsfilter.errors import BadCaption
from wdsfilter.samples import Pair, Prepared, Unreadable

_LEFT: list[bytes] = []
_LOCK = threading.Lock()


def obey(pair: Pair) -> Prepared | Unreadable:
    """Does what the caption's first word says with the rest of it. Answers with the key."""
    verb, _, rest = pair.caption.partition(" ")
    if verb == "sleep":
        time.sleep(float(rest))
    elif verb == "exit":
        os._exit(int(rest))
    elif verb == "signal":
        os.kill(os.getpid(), getattr(signal, rest))
    elif verb == "regex":  # hangs in C, holding the GIL
        re.match("(a|a)*$", "a" * 60 + "b")
    elif verb == "eat":
        eaten = []
        while True:
            eaten.append(b"x" * (1 << 24))
    elif verb == "litter":  # so many MiB, of which only the last is kept
        _LEFT.append([b"x" * (1 << 20) for _ in range(int(rest))].pop())
    elif verb == "resident":
        return Prepared(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    elif verb == "raise":
        raise ValueError(rest)
    elif verb == "bad":
        raise BadCaption("caption_control", rest)
    elif verb == "unreadable":
        return Unreadable(pair.key, rest)
    elif verb == "unpicklable":
        return Prepared(lambda: None)
    elif verb == "command":  # of the process that this one was forked from, too
        return Prepared(Path("/proc/self/cmdline").read_text())
    elif verb == "print":
        os.write(1, b"stdout")
        os.write(2, b"stderr")
    elif verb == "touch":
        Path(rest).touch()
        time.sleep(0.1)
    elif verb == "exit-once" and not Path(rest).exists():
        Path(rest).touch()
        os._exit(1)
    return Prepared(pair.key)


@dataclass(frozen=True)
class Journal:
    """Notes in a file when it prepared which key."""

    path: Path

    def __call__(self, pair: Pair) -> Prepared:
        """The key."""
        with self.path.open("a") as file:
            file.write(f"{time.monotonic()} {pair.key}\n")
        return Prepared(pair.key)


def double(pair: Pair) -> Prepared:
    """Twice the image."""
    return Prepared(bytes(pair.image) * 2)


def surroundings(pair: Pair) -> Prepared:
    """What a worker sees around itself."""
    return Prepared(
        {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "sockets": sum(map(_is_socket, range(256))),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "torch": "torch" in sys.modules,
            "image": type(pair.image).__name__,
        }
    )


@dataclass(frozen=True)
class FailsInWorker:
    """Pickles well, but raises or dies where it is unpickled."""

    how: str

    def __call__(self, pair: Pair) -> Prepared:
        """Never reached."""
        return Prepared(None)

    def __reduce__(self) -> tuple[Any, ...]:
        """What a worker does in place of this."""
        return _fail, (self.how,)


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


@dataclass(frozen=True)
class Counted:
    """Does as :func:`obey`; notes in a file whenever it is unpickled, and may start a thread then.

    The thread holds for a while what every pair needs: in a fork made meanwhile, nothing ever lets go of it.
    """

    path: Path
    threaded: bool = False

    def __call__(self, pair: Pair) -> Prepared | Unreadable:
        """The key, mostly."""
        with _LOCK:
            return obey(pair)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with self.path.open("ab") as file:
            file.write(b"+")
        if self.threaded:
            _LOCK.acquire()
            threading.Timer(0.3, _LOCK.release).start()


def _fail(how: str) -> None:
    if how == "dies":
        os._exit(7)
    raise ImportError("no module named tokenizers")
