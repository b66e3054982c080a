"""Who works on which shard. Claims save work; correctness never rests on them.

A claim is a file that was put if absent, and never written again. Its owner moves a counter in another file, which
is named by the claim's token and which nobody else writes, as a sign of life. A claim is stale when that counter did
not move for ``stale_after`` seconds on the observer's own monotonic clock (no two machines' clocks are compared), or at
once when its process on this host is gone.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from wdsfilter.background import start_thread
from wdsfilter.errors import OutputError, StoreError
from wdsfilter.failpoints import hit
from wdsfilter.launch import host_identity, is_running, process_state
from wdsfilter.objects import ObjectPath
from wdsfilter.output import OutputFolder
from wdsfilter.storage import StoredPath

_BEATS_PER_STALE = 6
_TOKEN = re.compile(r"[0-9a-f]{16}")


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
        if not self._put(path) and self._read(name).get("token") != self._token:
            return False
        with self._lock:
            self._held[name] = 0
        hit("claim.taken")
        return True

    def _put(self, path: StoredPath) -> bool:
        try:
            return self._folder.put(self._content(), path)
        except StoreError:
            raise
        except OutputError:  # somebody moved the folder away at this very moment: there will be another one
            return self._folder.put(self._content(), path)

    def _take_away(self, name: str) -> bool:
        """Move a stale claim out of the way; False where it is not stale, or was taken over meanwhile."""
        token = self._token_of(name)
        if not self._is_stale(name) or not self._remove_stale(name, token):
            return False
        if token is not None:
            self._forget_beats(name, token)
        return True

    def _remove_stale(self, name: str, token: str | None) -> bool:
        path = self._path(name)
        if isinstance(path, ObjectPath):
            # Nothing can be moved there: who is late by one request takes a fresh claim away, and two do the work.
            if self._token_of(name) != token:
                return False
            with suppress(OSError):
                path.unlink()
            return True
        aside = self._folder.temporary()
        with suppress(OSError):
            os.rename(path, aside)
            try:
                if _valid(_content_of(aside).get("token")) != token:
                    with suppress(OSError):  # somebody else's fresh one: give it back
                        os.link(aside, path)
                    return False
            finally:
                aside.unlink()
        return True

    def release(self, name: str) -> None:
        """Give the claim back, if it is still ours."""
        with self._lock:
            beat = self._held.pop(name, 0)
            if self._read(name).get("token") == self._token:
                with suppress(OSError):
                    self._path(name).unlink()
            if beat:
                self._forget_beats(name, self._token)
        hit("claim.released")

    def is_free(self, name: str) -> bool:
        """Whether nobody holds the shard, or only somebody who gave no sign of life for too long."""
        return not self._path(name).exists() or self._is_stale(name)

    def beat(self, name: str) -> tuple[str | None, int]:
        """The last sign of life of whoever holds the shard; one that moves is one of a living process."""
        return self._sign(name, self._token_of(name))

    def _sign(self, name: str, token: str | None) -> tuple[str | None, int]:
        if token is None:
            return None, 0
        try:
            return token, int(self._beats(name, token).read_bytes())
        except (OSError, ValueError):  # none yet, or none that can be read now
            return token, 0

    def _is_stale(self, name: str) -> bool:
        found = self._read(name)
        if not found:
            return self._path(name).exists() and self._unmoved(name, ("", -1))
        if found.get("host") == host_identity() and not is_running(found.get("pid"), found.get("started")):
            return True
        return self._unmoved(name, self._sign(name, _valid(found.get("token"))))

    def _unmoved(self, name: str, sign: object) -> bool:
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
        """Move the counter of each claim that we took."""
        with self._lock:  # so that no claim is released meanwhile
            for name in self._held:
                self._held[name] += 1
                # A sign of life that is missed is made up for by the next.
                with suppress(OSError, OutputError):
                    self._folder.replace(b"%d" % self._held[name], self._beats(name, self._token))

    def _beats(self, name: str, token: str) -> StoredPath:
        """Where the owner with that token counts."""
        return self._folder.claims / f"{name}.{token}.beat"

    def _forget_beats(self, name: str, token: str) -> None:
        with suppress(OSError):
            self._beats(name, token).unlink(missing_ok=True)

    def _token_of(self, name: str) -> str | None:
        return _valid(self._read(name).get("token"))

    def _content(self) -> bytes:
        owner = {
            "token": self._token,
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


def _valid(token: object) -> str | None:
    """A token as this code makes them, which may be part of a path; None for anything else."""
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None


@dataclass(frozen=True, slots=True)
class _Sighting:
    sign: object
    first: float = field(default_factory=time.monotonic)
