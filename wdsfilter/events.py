"""What happened, for people and for `status`: one JSON line each. Outside the promises, never read for results."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from wdsfilter.launch import process_name


class EventLog:
    """Appends to a file of this process's own, ``events/HOST-DIGEST.PID.jsonl``. Safe to call from threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"{process_name()}.jsonl").open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def __call__(self, name: str, **facts: Any) -> None:
        """Note that ``name`` happened, now, with JSON-able ``facts``."""
        line = json.dumps({"time": round(time.time(), 3), "event": name, **facts}, default=str)
        with self._lock, suppress(OSError):  # a full disk stops the run where it matters, not here
            self._file.write(line + "\n")
            self._file.flush()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self._file.close()


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """All events of all processes, by time; a line that was cut short is passed over."""
    return iter(EventTail(folder).news())


class EventTail:
    """Events as they come: each call of :meth:`news` reads what was appended since the last one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def news(self) -> list[dict[str, Any]]:
        """New events of all processes, by time."""
        events: list[dict[str, Any]] = []
        for path in self._folder.glob("*.jsonl"):
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
