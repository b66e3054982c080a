"""Asking a store again: what may pass, and how long to wait.

Pauses double and are drawn anew each time (full jitter), so that many processes that one store
turned away do not come back together.
Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 5
"""So many failures in a row, with nothing gained in between, are enough."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

_TURNED_AWAY = frozenset({408, 425, 429})


def persist(ask: Callable[[], T]) -> T:
    """The answer of ``ask``, which is asked again while its failures may pass. Raises the last of them."""
    for failures in count(1):
        try:
            return ask()
        except Exception as error:
            if failures >= ATTEMPTS or not may_pass(error):
                raise
            pause(failures, error)
    raise AssertionError("not reached")


def may_pass(error: BaseException) -> bool:
    """Whether asking again may help: not where an object is not there, or not ours to read."""
    error = cause(error)
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status in _TURNED_AWAY
    return not isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | ValueError)


def cause(error: BaseException) -> BaseException:
    """What really happened: fsspec says of whatever went wrong over HTTP that the file is not found."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return error.__cause__
    return error


def pause(failures: int, error: BaseException) -> None:
    """Wait, longer after each of ``failures`` in a row, and as long as the store asked for within reason."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1))
    asked = (getattr(cause(error), "headers", None) or {}).get("Retry-After", "")
    least = min(LONGEST_PAUSE, float(asked)) if asked.isascii() and asked.isdigit() else 0.0
    time.sleep(least + random.uniform(0, longest))
