"""Ending early and cleanly: after the batch in hand, when a signal asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wdsfilter.errors import Interrupted


class AtOnce(KeyboardInterrupt):
    """A KeyboardInterrupt that may be handled. CPython ends by SIGINT, whatever the exit code, once a plain one
    passed through ``exec`` of a string, as dataclasses and named tuples do it when they are imported."""


@dataclass(slots=True)
class Stop:
    """Set by a signal; asked between batches and pauses.

    ``reading``: the main thread is at nothing but reading, which may hang, and can be interrupted anywhere.
    """

    reading: bool = False
    _asked: threading.Event = field(default_factory=threading.Event)
    _gently: bool = False

    def gently(self) -> None:
        """From now on there is work in hand that is worth finishing a batch for."""
        self._gently = True
        self.check()

    def ask(self) -> None:
        self._asked.set()

    def check(self) -> None:
        """Raise Interrupted if somebody asked."""
        if self._asked.is_set():
            raise Interrupted("interrupted")

    def pause(self, seconds: float) -> None:
        """Sleep, unless somebody asks. Raises Interrupted then."""
        self._asked.wait(seconds)
        self.check()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask to stop; a second SIGINT, or either before :meth:`gently` or while ``reading``,
        stops at once.
        """

        def ask(number: int, frame: object) -> None:
            again = self._asked.is_set() and number == signal.SIGINT
            self.ask()
            if again or self.reading or not self._gently:
                raise AtOnce  # which nothing on the way takes for an error of its own

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
