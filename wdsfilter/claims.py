"""Who works on which shard. Claims save work; correctness never rests on them.

A claim is a file that was put if absent. Its owner moves a counter in it, as a sign of life. It is
stale when the counter did not move for ``stale_after`` seconds on the observer's own monotonic
clock (no two machines' clocks are compared), or at once when its process on this host is gone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from wdsfilter.background import start_thread
from wdsfilter.errors import OutputError
from wdsfilter.failpoints import hit
from wdsfilter.launch import host_identity, is_running, process_state
from wdsfilter.objects import ObjectPath
from wdsfilter.output import OutputFolder
from wdsfilter.storage import StoredPath

_BEATS_PER_STALE = 6


class Claims:
    """This process's claims in an output folder; a context manager that beats while it is open."""

    def __init__(self, folder: OutputFolder, *, stale_after: float = 30.0) -> None:
        self.stale_after = stale_after
        self._folder = folder
        self._token = secrets.token_hex(8)
        self._held: dict[str, int] = {}
        self._seen: dict[str, _Sighting] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __enter__(self) -> Claims:
        self._thread = start_thread(self._beat, "claims")
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        self._thread.join()
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Claim the shard, if it is free or its claim is stale."""
        path = self._path(name)
        if path.exists() and not self._take_away(name):
            return False
        if not self._folder.put(self._content(0), path) and self._read(name).get("token") != self._token:
            return False
        with self._lock:
            self._held[name] = 0
        hit("claim.taken")
        return True

    def _take_away(self, name: str) -> bool:
        """Move a stale claim out of the way; False where it is not stale, or was taken over meanwhile."""
        token = self._read(name).get("token")
        if not self._is_stale(name):
            return False
        path = self._path(name)
        if isinstance(path, ObjectPath):
            # Nothing can be moved there: who is late by one request takes a fresh claim away, and two do the work.
            if self._read(name).get("token") != token:
                return False
            with suppress(OSError):
                path.unlink()
            return True
        aside = self._folder.temporary()
        with suppress(OSError):
            os.rename(path, aside)
            try:
                if _content_of(aside).get("token") != token:
                    with suppress(OSError):  # somebody else's fresh one: give it back
                        os.link(aside, path)
                    return False
            finally:
                aside.unlink()
        return True

    def release(self, name: str) -> None:
        """Give the claim back, if it is still ours."""
        with self._lock:
            self._held.pop(name, None)
            if self._read(name).get("token") == self._token:
                with suppress(OSError):
                    self._path(name).unlink()
        hit("claim.released")

    def is_free(self, name: str) -> bool:
        """Whether nobody holds the shard, or only somebody who gave no sign of life for too long."""
        return not self._path(name).exists() or self._is_stale(name)

    def beat(self, name: str) -> object:
        """The last sign of life of whoever holds the shard; one that moves is one of a living process."""
        found = self._read(name)
        return found.get("token"), found.get("beat")

    def _is_stale(self, name: str) -> bool:
        found = self._read(name)
        if not found:
            return self._path(name).exists() and self._unmoved(name, ("", -1))
        if found.get("host") == host_identity() and not is_running(found.get("pid"), found.get("started")):
            return True
        return self._unmoved(name, (found.get("token"), found.get("beat")))

    def _unmoved(self, name: str, sign: tuple[Any, Any]) -> bool:
        """Whether this sign of life is all that was seen for ``stale_after`` seconds."""
        now = time.monotonic()
        seen = self._seen.get(name)
        if seen is None or seen.sign != sign:
            self._seen[name] = _Sighting(sign, now)
            return False
        return now - seen.first >= self.stale_after

    def _beat(self) -> None:
        while not self._closed.wait(self.stale_after / _BEATS_PER_STALE):
            self.beat_once()

    def beat_once(self) -> None:
        """Move the counter of each claim that is still ours."""
        with self._lock:  # so that no claim is released between the look and the write
            for name in self._held:
                self._held[name] += 1
                if self._read(name).get("token") == self._token:
                    # A sign of life that is missed is made up for by the next.
                    with suppress(OSError, OutputError):
                        self._folder.replace(self._content(self._held[name]), self._path(name))

    def _content(self, beat: int) -> bytes:
        owner = {
            "token": self._token,
            "beat": beat,
            "host": host_identity(),
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "started": process_state(os.getpid())[1],
        }
        return json.dumps(owner).encode()

    def _read(self, name: str) -> dict[str, Any]:
        return _content_of(self._path(name))

    def _path(self, name: str) -> StoredPath:
        return self._folder.claims / f"{name}.json"


def _content_of(path: StoredPath) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class _Sighting:
    sign: tuple[Any, Any]
    first: float = field(default_factory=time.monotonic)
