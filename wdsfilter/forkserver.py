"""Where workers come from: a process that has imported what they need, and forks one whenever one is wanted.

    lane ──┬── socket ── worker
           └── leash ─── forkserver, its parent

To start an interpreter and import takes tenths of a second of CPU, to fork a few milliseconds: so a pair that takes
its worker down costs little more than itself. What makes forking unsafe is not there: this process has no device and
no second thread, and never sees a pair. Where an import started a thread, or the system is not Linux, workers are
started from nothing instead.

Who lets go of a leash ends its worker, and is answered by how that went. The forkserver ends, and with it its workers,
when its parent is gone or hangs up.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import IO, TypeAlias

from wdsfilter import worker
from wdsfilter.background import start_thread
from wdsfilter.judges import Prepare
from wdsfilter.worker import ENVIRONMENT, Worker

_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from wdsfilter import {0}; {0}._serve(*sys.argv[1:3])"
_LOOK_SECONDS = 1.0  # between two looks for the parent
_REAP_SECONDS = 0.002  # between two looks for a worker that was killed


class ForkServer:
    """Our end of one. ``equipment``: what workers have, a pickled (bytes of memory or None, prepares).

    Only :meth:`end` waits. Workers can be had at once; what they say first comes when the forkserver is ready.
    """

    def __init__(self, equipment: bytes) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                _command("forkserver", theirs),
                env=os.environ | ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        pipe = self._process.stdin
        assert pipe
        self._feeder = start_thread(lambda: _feed(pipe, equipment), "equipment")

    @property
    def is_running(self) -> bool:
        """Whether workers can be had of it."""
        return self._process.poll() is None

    def worker(self) -> Worker:
        """A new worker. Where it never comes to life, its :meth:`Worker.receive` raises Down."""
        ours, theirs = socket.socketpair()
        leash, other_end = socket.socketpair()
        with theirs, other_end, suppress(OSError):  # closed unsent, they tell that there is nobody
            socket.send_fds(self._control, [b"+"], [theirs.fileno(), other_end.fileno()])
        return Worker(ours, leash, self._process)

    def end(self) -> None:
        """Kill it and leave nothing of it; its workers have been ended before."""
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._feeder.join()


def _command(module: str, connection: socket.socket) -> list[str]:
    """What starts a process that serves the socket, and must not be there without this one."""
    return [sys.executable, "-c", _BOOT.format(module), str(connection.fileno()), str(os.getpid()), *sys.path]


def _feed(pipe: IO[bytes], data: bytes) -> None:
    with suppress(OSError), pipe:  # who reads it may die meanwhile
        pipe.write(data)


_Start: TypeAlias = Callable[[socket.socket, Iterable[socket.socket]], int]
"""Starts a worker that serves a socket and leaves the others alone; its process number."""


def _serve(descriptor: str, parent: str) -> None:
    """The life of a forkserver. ``parent``: the process that must be alive, or this one must not be."""
    control = socket.socket(fileno=int(descriptor))
    start = _starter(sys.stdin.buffer.read())
    living: dict[socket.socket, int] = {}  # workers, by their leashes
    killed: dict[socket.socket, int] = {}
    while os.getppid() == int(parent):
        seconds = _REAP_SECONDS if killed else _LOOK_SECONDS
        ready = set(select.select([control, *living], [], [], seconds)[0])
        for leash in living.keys() & ready:
            os.kill(living[leash], signal.SIGKILL)  # no stranger's number: nobody else waits for it
            killed[leash] = living.pop(leash)
        killed = {leash: process for leash, process in killed.items() if not _tell_end(leash, process)}
        if control in ready:
            _, received, _, _ = socket.recv_fds(control, 1, 2)
            if not received:
                break
            connection, leash = map(_own, received)
            with connection:
                try:
                    living[leash] = start(connection, [control, leash, *living, *killed])
                except Exception as error:
                    leash.close()
                    worker.refuse(connection, error)
    for process in (*living.values(), *killed.values()):
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    os._exit(0)


def _own(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _tell_end(leash: socket.socket, process: int) -> bool:
    """Say on the leash how the process ended; False where it has not yet."""
    gone, status = os.waitpid(process, os.WNOHANG)
    if gone:
        with leash, suppress(OSError):  # nobody waits for it any more
            leash.sendall(worker.CODE.pack(os.waitstatus_to_exitcode(status)))
    return bool(gone)


def _starter(equipment: bytes) -> _Start:
    if sys.platform != "linux":  # elsewhere the system's own libraries have threads
        return partial(_spawn, equipment)
    try:
        memory, prepares = pickle.loads(equipment)
    except Exception as error:
        return partial(_fail, error)
    if _thread_count() != 1:
        return partial(_spawn, equipment)
    gc.freeze()  # a collection would touch, and so copy, every page that workers share
    return partial(_fork, memory, prepares)


def _thread_count() -> int | None:
    """Threads of this process, Python's and others'; None where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


def _fail(error: Exception, connection: socket.socket, others: Iterable[socket.socket]) -> int:
    raise error


def _fork(
    memory: int | None,
    prepares: tuple[Prepare, ...],
    connection: socket.socket,
    others: Iterable[socket.socket],
) -> int:
    parent = os.getpid()
    if process := os.fork():
        return process
    try:
        worker.die_with(parent)
        for other in others:
            other.close()
        worker.work(connection, memory, prepares)
    finally:
        os._exit(1)  # whatever happens, this is no second forkserver


def _spawn(equipment: bytes, connection: socket.socket, others: Iterable[socket.socket]) -> int:
    source, sink = os.pipe()
    os.set_inheritable(connection.fileno(), True)
    command = _command("worker", connection)
    stdin = (os.POSIX_SPAWN_DUP2, source, 0)
    process = os.posix_spawn(command[0], command, os.environ, file_actions=[stdin])
    os.close(source)
    pipe = os.fdopen(sink, "wb")
    threading.Thread(target=_feed, args=(pipe, equipment), daemon=True).start()
    return process
