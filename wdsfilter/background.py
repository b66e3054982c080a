"""Threads that leave signals to the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """Run ``target`` in a daemon thread in which SIGINT and SIGTERM are blocked.

    A signal that the kernel hands to another thread would not wake the main thread, and the run
    would sleep on when it is asked to stop. What the thread starts inherits this.
    """

    def run() -> None:
        _leave_signals()
        target()

    thread = threading.Thread(target=run, name=f"wdsfilter-{name}", daemon=True)
    thread.start()
    return thread


def helper(name: str, threads: int = 1) -> ThreadPoolExecutor:
    """Such threads, for short pieces of work beside the caller's own."""
    return ThreadPoolExecutor(threads, f"wdsfilter-{name}", initializer=_leave_signals)


def _leave_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


class Later(Generic[T]):
    """A call that goes on in a thread of its own, and can be given up: nothing waits for it at the end."""

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._done = threading.Event()
        self._found: list[T] = []
        self._error: BaseException | None = None

        def run() -> None:
            try:
                self._found.append(call())
            except BaseException as error:  # handed over, raised there
                self._error = error
            finally:
                self._done.set()

        start_thread(run, name)

    def result(self, timeout: float | None = None) -> T:
        """What the call gave or raised. Raises TimeoutError where it goes on for longer than so many seconds."""
        if not self._done.wait(timeout):
            raise TimeoutError(f"no answer for {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._found[0]
