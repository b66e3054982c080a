"""Threads that leave signals to the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


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


def helper(name: str) -> ThreadPoolExecutor:
    """One such thread, for short pieces of work beside the caller's own."""
    return ThreadPoolExecutor(1, f"wdsfilter-{name}", initializer=_leave_signals)


def _leave_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
