"""One live line over all processes of a run; plain lines where there is no terminal."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from rich.console import Console

from wdsfilter.background import start_thread
from wdsfilter.counted import counted
from wdsfilter.errors import OutputError
from wdsfilter.filled import gaps
from wdsfilter.ledger import Counts
from wdsfilter.summary import Tally
from wdsfilter.trackers import Track

_LIVE_SECONDS = 1.0
_PLAIN_SECONDS = 30.0
_REFRESH_SECONDS = 5.0
_SPEED_SECONDS = 120.0
_TRACK_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class Sofar:
    """Where a run stands: committed ``counts`` and shards, and this process's samples beyond them.

    ``gaps`` are, in a fill, the samples among them that a judge had never seen; the others are not judged again.
    """

    counts: Counts
    shards: int
    judging: int
    damaged: int
    gaps: int | None = None

    @property
    def judged(self) -> int:
        return self.counts.samples if self.gaps is None else self.gaps


class ProgressLine:
    """Shows in a thread, while it is open, how far of ``total`` shards the work is, and tells ``track`` of it."""

    def __init__(
        self,
        console: Console,
        total: int,
        sofar: Callable[[], Sofar],
        track: Track = lambda values, step: None,
    ) -> None:
        self._console = console
        self._total = total
        self._sofar = sofar
        self._track = track
        self._tracked = time.monotonic()
        self._speeds: deque[tuple[float, int]] = deque()
        self._closed = threading.Event()

    def __enter__(self) -> ProgressLine:
        self._thread = start_thread(self._show, "progress")
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        self._thread.join()

    def _show(self) -> None:
        if self._console.is_terminal:
            with self._console.status("reading the output folder") as status:
                while not self._closed.wait(_LIVE_SECONDS):
                    status.update(self._line())
        else:
            while not self._closed.wait(_PLAIN_SECONDS):
                self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _line(self) -> str:
        sofar = self._sofar()
        self._speeds.append((time.monotonic(), sofar.judged + sofar.judging))
        while self._speeds[-1][0] - self._speeds[0][0] > _SPEED_SECONDS:
            self._speeds.popleft()
        if time.monotonic() - self._tracked > _TRACK_SECONDS:
            self._tracked = time.monotonic()
            self._track({**figures(sofar), "run/pairs_per_second": speed(self._speeds)}, sofar.judged)
        return describe(sofar, max(self._total, sofar.shards), speed(self._speeds))


@dataclass(slots=True)
class FolderProgress:
    """How far a run is, by what all its processes committed; ``judging`` tells this one's samples beyond that.

    ``filling`` are the judges, where it is a fill.
    """

    tally: Tally
    judging: Callable[[], int]
    filling: Sequence[str] = ()
    _looked: float = -math.inf

    def __call__(self) -> Sofar:
        if time.monotonic() - self._looked > _REFRESH_SECONDS:
            return self.fresh()
        return self._sofar()

    def fresh(self) -> Sofar:
        """The same, not some seconds old."""
        with suppress(OutputError):  # a ledger that cannot be read stops the run where it is met
            self.tally.refresh()
        self._looked = time.monotonic()
        return self._sofar()

    def _sofar(self) -> Sofar:
        return where_it_stands(self.tally, self.judging(), self.filling)


def where_it_stands(tally: Tally, judging: int, filling: Sequence[str] = ()) -> Sofar:
    """Where the folder of ``tally`` stands, with so many samples beyond what is committed; see FolderProgress."""
    found = gaps(tally.counts, filling) if filling else None
    return Sofar(tally.counts, len(tally.headers), judging, len(tally.damaged), found)


def figures(sofar: Sofar) -> dict[str, float]:
    """What trackers are told of a run."""
    counts, samples = sofar.counts, max(sofar.counts.samples, 1)
    seen: dict[str, float] = {
        "run/samples": sofar.judged,
        "run/shards": sofar.shards,
        "run/damaged_shards": sofar.damaged,
    }
    if sofar.gaps is not None:
        return seen
    return {
        **seen,
        "run/kept_share": counts.kept / samples,
        "run/unreadable_share": counts.unreadable / samples,
    }


def speed(history: deque[tuple[float, int]]) -> float:
    """Pairs per second between the first and the last of (seconds, pairs)."""
    seconds = history[-1][0] - history[0][0]
    return max(0.0, (history[-1][1] - history[0][1]) / seconds) if seconds > 0 else 0.0


def describe(sofar: Sofar, total: int, pairs_per_second: float) -> str:
    """``12/2,176 shards, 61,030 pairs, 148 pairs/s, 17.9 % kept, 3 h 12 min left``."""
    counts = sofar.counts
    parts = [f"{sofar.shards}/{counted(total, 'shard')}", counted(sofar.judged + sofar.judging, "pair")]
    if pairs_per_second:
        parts.append(f"{pairs_per_second:,.0f} pairs/s")
    if counts.samples and sofar.gaps is None:
        parts.append(f"{counts.kept / counts.samples:.1%} kept")
    if sofar.damaged:
        parts.append(f"{sofar.damaged} damaged")
    if sofar.shards and pairs_per_second:
        left = (total - sofar.shards) * sofar.judged / sofar.shards - sofar.judging
        parts.append(f"{duration(max(left, 0) / pairs_per_second)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``3 h 12 min``, ``4 min 10 s``, ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
