"""What happened, for people and for `status`: one JSON line each. Outside the promises, never read for results."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wdsfilter.launch import process_name
from wdsfilter.objects import ObjectPath
from wdsfilter.output import OutputFolder
from wdsfilter.storage import StoredPath

_UPLOAD_EVERY = 10.0  # seconds


class EventLog:
    """Appends to a file of this process's own, ``events/HOST-DIGEST.PID.jsonl``. Safe to call from threads.

    Times are UTC, in seconds, by the clock at the start, which runs evenly from then on and begins no earlier than
    ``after``: what happens later has a later time, also where a clock is set back or hosts' clocks differ.

    Nothing can be appended to in an object store: there the file is local, and uploaded now and then.
    """

    def __init__(self, folder: OutputFolder, *, after: float = 0.0) -> None:
        self._zero = max(time.time(), after) - time.monotonic()
        self._stored = folder.events / f"{process_name()}.jsonl"
        if isinstance(self._stored, ObjectPath):
            handle, name = tempfile.mkstemp(suffix=".jsonl")
            os.close(handle)
            self._path = Path(name)
        else:
            self._path = self._stored
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self._uploaded = float("-inf")

    def __call__(self, name: str, **facts: Any) -> None:
        """Note that ``name`` happened, now, with JSON-able ``facts``."""
        now = self._zero + time.monotonic()
        line = json.dumps({"time": round(now, 3), "event": name, **facts}, default=str)
        with self._lock, suppress(OSError):  # a full disk stops the run where it matters, not here
            self._file.write(line + "\n")
            self._file.flush()
            if time.monotonic() - self._uploaded >= _UPLOAD_EVERY:
                self._upload()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self._file.close()
            self._upload()
        if self._path != self._stored:
            self._path.unlink(missing_ok=True)

    def _upload(self) -> None:
        if isinstance(self._stored, ObjectPath):
            self._stored.replace(self._path)
            self._uploaded = time.monotonic()


def read_events(folder: StoredPath) -> Iterator[dict[str, Any]]:
    """All events of all processes, by time; a line that was cut short is passed over."""
    return iter(EventTail(folder).news())


def last_time(events: Sequence[Mapping[str, Any]]) -> float:
    """When the last of events in order happened; 0 without any."""
    return float(events[-1].get("time", 0)) if events else 0.0


class EventTail:
    """Events as they come: each call of :meth:`news` reads what was appended since the last one."""

    def __init__(self, folder: StoredPath) -> None:
        self._folder = folder
        self._read: dict[StoredPath, int] = {}

    def news(self) -> list[dict[str, Any]]:
        """New events of all processes, by time."""
        events: list[dict[str, Any]] = []
        for path in self._folder.rglob("*.jsonl"):
            begun = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(begun)
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._read[path] = begun + whole
            for line in data[:whole].splitlines():
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and "event" in event:
                    events.append({"process": path.stem, **event})
        return sorted(events, key=lambda event: float(event.get("time", 0)))
