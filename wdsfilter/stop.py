"""Ending early and cleanly: after the batch in hand, when a signal asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wdsfilter.errors import Interrupted


@dataclass(slots=True)
class Stop:
    """Set by a signal; asked between batches and pauses."""

    _asked: threading.Event = field(default_factory=threading.Event)

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
        """SIGINT and SIGTERM ask to stop; a second SIGINT ends the process at once."""

        def ask(number: int, frame: object) -> None:
            if self._asked.is_set() and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.ask()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
