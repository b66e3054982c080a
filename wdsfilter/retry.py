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

from wdsfilter.errors import WdsfilterError

T = TypeVar("T")

ATTEMPTS = 5
"""So many failures in a row, with nothing gained in between, are enough."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

_TURNED_AWAY = frozenset({408, 409, 425, 429})
_LASTING = (
    WdsfilterError,
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ValueError,
    TypeError,
    AttributeError,
)
_LASTING_NAMES = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "AuthenticationException",  # paramiko's: who asks again with the same password may be locked out
        "BadAuthenticationType",
        "BadHostKeyException",
        "PasswordRequiredException",
    }
)


def persist(ask: Callable[[], T], between: Callable[[], object] = lambda: None) -> T:
    """The answer of ``ask``, which is asked again while its failures may pass. Raises the last of them.

    ``between`` is called after each failure but the last.
    """
    for failures in count(1):
        try:
            return ask()
        except Exception as error:
            if failures >= ATTEMPTS or not may_pass(error):
                raise
            between()
            pause(failures, error)
    raise AssertionError("not reached")


def may_pass(error: BaseException) -> bool:
    """Whether asking again may help: not where an object is not there, or not ours to read."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in _TURNED_AWAY
    error = cause(error)
    return not isinstance(error, _LASTING) and type(error).__name__ not in _LASTING_NAMES


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status that an error stands for, as each store's library keeps it; None where there was none."""
    while error is not None:
        response = getattr(error, "response", None)
        said = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        for status in (
            getattr(error, "status", None),
            getattr(error, "status_code", None),
            getattr(error, "code", None) if type(error).__name__ == "HttpError" else None,  # gcsfs's
            getattr(response, "status_code", None),
            said.get("HTTPStatusCode"),
        ):
            if isinstance(status, int) and 100 <= status < 600:
                return status
        error = error.__cause__
    return None


def cause(error: BaseException) -> BaseException:
    """What really happened: fsspec says of whatever went wrong over HTTP that the file is not found."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return error.__cause__
    return error


def _retry_after(error: BaseException | None) -> str:
    """What a store asked for by the header of that name, as each library keeps it; nothing where it did not."""
    while error is not None:
        response = getattr(error, "response", None)
        said = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        for headers in (
            getattr(error, "headers", None),
            getattr(response, "headers", None),
            said.get("HTTPHeaders"),
        ):
            for name, value in (headers or {}).items():
                if name.lower() == "retry-after":
                    return str(value)
        error = error.__cause__
    return ""


def pause(failures: int, error: BaseException) -> None:
    """Wait, longer after each of ``failures`` in a row, and as long as the store asked for within reason."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1))
    asked = _retry_after(error)
    least = min(LONGEST_PAUSE, float(asked)) if asked.isascii() and asked.isdigit() else 0.0
    time.sleep(least + random.uniform(0, longest))
