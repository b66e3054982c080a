"""One worker: a process that runs prepares, and the socket between it and us. See :mod:`wdsfilter.workers`.

It comes from a :mod:`wdsfilter.forkserver`, not from multiprocessing: ``__main__`` is not imported again, and threads
and devices are limited in its environment without touching ours. What it prints is lost. It does not
outlive its parent.

On the wire (:mod:`wdsfilter.wire`) it says first why it cannot start ("" when it can); then (number of the prepare,
pair) is answered by Prepared or Unreadable, in order.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from wdsfilter import wire
from wdsfilter.errors import BadCaption, BadImage
from wdsfilter.judges import Prepare
from wdsfilter.samples import Pair, Prepared, Unreadable

ENVIRONMENT = {
    # A process per core is parallel enough, and the device belongs to the parent.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    # One image's pages are kept for the next one, instead of being given back and asked for again.
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "PILLOW_BLOCKS_MAX": "8",
}
"""What is different in the environment of a worker."""

CODE = struct.Struct("<i")
"""What is said on a worker's leash at its end: its exit code, or the negative number of the signal that ended it."""

_PR_SET_PDEATHSIG = 1  # as in <sys/prctl.h>
_RESIDENT, _DATA = 1, 5  # fields of /proc/self/statm
_KEPT = 256 << 20  # bytes that a worker may keep for its next image
_FOREVER = 1e9  # seconds
_START_SECONDS = 300.0  # imports from a cold network file system
_END_SECONDS = 60.0  # a process that was killed while it waited for a disk


def attempt(prepare: Callable[[Pair], Prepared | Unreadable], pair: Pair) -> Prepared | Unreadable:
    """What ``prepare`` makes of a pair; what it raises costs this pair only."""
    try:
        return prepare(pair)
    except Exception as error:  # a stranger's image, a judge's code: anything
        return _unreadable(pair, error)


class Down(Exception):
    """A worker is gone, or has to go. ``reason`` and ``detail`` as in Unreadable."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Worker:
    """Our end of one worker. For one thread, except :meth:`hang_up`. ``leash`` leads to its parent, ``server``."""

    def __init__(
        self, connection: socket.socket, leash: socket.socket, server: subprocess.Popen[bytes]
    ) -> None:
        self._socket = connection
        self._leash = leash
        self._server = server
        self._code: int | None = None
        self.patience(_START_SECONDS)

    def patience(self, seconds: float) -> None:
        """How long :meth:`send` and :meth:`receive` wait from now on."""
        self._seconds = seconds
        # The system's own limit: with Python's, every call would be two, and none would wait for all that it is to get.
        limit = struct.pack("ll", *divmod(max(1, round(min(seconds, _FOREVER) * 1e6)), 1_000_000))
        for which in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, which, limit)

    def send(self, message: object) -> None:
        """Raises Down."""
        packed = wire.packed(message)
        try:
            wire.send(self._socket, packed)
        except OSError as error:
            raise self._down(error) from error

    def receive(self) -> Any:
        """The next answer. Raises Down."""
        try:
            message = wire.receive(self._socket)
        except OSError as error:
            raise self._down(error) from error
        return wire.unpacked(message)

    def hang_up(self) -> None:
        """Wake whoever sends or receives, with Down. For any thread."""
        with suppress(OSError):  # it hung up itself
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> int | None:
        """Kill the process and leave nothing of it; its exit code, None where nobody knows. May be called again."""
        self._socket.close()
        with self._leash as leash, suppress(OSError):  # closed before, or its parent is gone
            leash.settimeout(_END_SECONDS)
            leash.shutdown(socket.SHUT_WR)
            if said := leash.recv(CODE.size, socket.MSG_WAITALL):
                (self._code,) = CODE.unpack(said)
        return self._code

    def _down(self, error: OSError) -> Down:
        if isinstance(error, BlockingIOError):
            return Down("worker_timed_out", f"no answer in {self._seconds:g} s")
        code = self.end()
        if code is None:
            with suppress(subprocess.TimeoutExpired):
                code = self._server.wait(timeout=1)
        names = {-number.value: number.name for number in signal.Signals}
        return Down("worker_crashed", str(error) if code is None else names.get(code, f"exit code {code}"))


def _serve(descriptor: str, parent: str) -> None:
    """The life of a worker that was started from nothing. ``parent``: the process that must be alive."""
    die_with(int(parent))
    connection = socket.socket(fileno=int(descriptor))
    try:
        memory, prepares = pickle.loads(sys.stdin.buffer.read())
    except Exception as error:  # our caller is at the other end
        refuse(connection, error)
    else:
        work(connection, memory, prepares)


def refuse(connection: socket.socket, error: Exception) -> None:
    """Say why there is no worker at the other end."""
    with suppress(OSError):  # nobody wants one any more
        wire.send(connection, wire.packed(_in_words(error)))


def work(connection: socket.socket, memory: int | None, prepares: Sequence[Prepare]) -> NoReturn:
    """A worker's life: answer until the other side hangs up. ``memory``: bytes more than now that it may take."""
    inbox: queue.SimpleQueue[wire.Message] = queue.SimpleQueue()
    _limit(memory)
    most = _held(_RESIDENT) + _KEPT
    # A thread of its own, so that the parent never waits for us to take a pair, nor we for its death.
    threading.Thread(target=_listen, args=(connection, inbox)).start()
    wire.send(connection, wire.packed(""))
    while True:
        which, pair = wire.unpacked(inbox.get())
        outcome = attempt(prepares[which], pair)
        try:
            answer = wire.packed(outcome)
        except Exception as error:  # a judge's own type, anything
            answer = wire.packed(_unreadable(pair, error))
        wire.send(connection, answer)
        del pair, outcome, answer  # not beside the next one
        if _held(_RESIDENT) > most:
            _give_back()


def _listen(connection: socket.socket, inbox: queue.SimpleQueue[wire.Message]) -> None:
    with suppress(OSError):
        while True:
            inbox.put(wire.receive(connection))
    os._exit(0)


def die_with(parent: int) -> None:
    """Be killed with the parent: a closed socket goes unnoticed while C code holds the GIL."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)


def _limit(memory: int | None) -> None:
    """No core dumps; at most ``memory`` more bytes of data than now.

    RLIMIT_DATA counts what a process may write to. RLIMIT_AS would count every library and reservation
    too (tens of GB with CUDA's libraries around), so no number is right for it.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if memory is not None and sys.platform == "linux":
        most = _held(_DATA) + memory
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _held(kind: int) -> int:
    """Bytes that this process holds; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[kind]) * os.sysconf("SC_PAGE_SIZE")


def _give_back() -> None:
    """Free memory, to the system: what one huge image left in pieces must not lie beside the next one."""
    import ctypes

    with suppress(AttributeError):  # glibc's own
        ctypes.CDLL(None).malloc_trim(0)


def _unreadable(pair: Pair, error: Exception) -> Unreadable:
    if isinstance(error, (BadImage, BadCaption)):
        return Unreadable(pair.key, error.reason, error.detail[:200])
    if isinstance(error, MemoryError):
        return Unreadable(pair.key, "out_of_memory", str(error)[:200])
    return Unreadable(pair.key, "prepare_failed", _in_words(error))


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
