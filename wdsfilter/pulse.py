"""How far a process is, noted every so often for those who look on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from wdsfilter.background import start_thread
from wdsfilter.scorer import Note
from wdsfilter.stopwatch import Stopwatch

_SECONDS = 15.0


class Pulse:
    """Notes ``progress`` in a thread while it is open, and once more at its end.

    ``judging`` tells the samples that are not committed yet; ``stopwatch`` where the time went so far.
    """

    def __init__(self, note: Note, judging: Callable[[], int], stopwatch: Stopwatch) -> None:
        self._note = note
        self._judging = judging
        self._stopwatch = stopwatch
        self._closed = threading.Event()

    def __enter__(self) -> Pulse:
        self._thread = start_thread(self._beat, "pulse")
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        self._thread.join()
        self._tell()

    def _beat(self) -> None:
        while not self._closed.wait(_SECONDS):
            self._tell()

    def _tell(self) -> None:
        self._note("progress", judging=self._judging(), spent=self._stopwatch.spent())
