"""A run as it goes, seen from its files alone: from another machine, too."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wdsfilter.errors import OutputError
from wdsfilter.events import EventTail
from wdsfilter.filled import fill_judges
from wdsfilter.output import OutputFolder
from wdsfilter.progress import describe, speed, where_it_stands
from wdsfilter.summary import Tally

_SPEED_SECONDS = 120.0
_SILENT_SECONDS = 60.0  # four times what lies between two signs of life
_GONE_SECONDS = 600.0  # longer than a model may take to load
_MOST_TROUBLES = 8
_ROUTINE = frozenset({"started", "loaded", "opened", "progress", "committed", "finished"})
_MOST_PROCESSES = 64


@dataclass(slots=True)
class Process:
    """One process of a run: ``points`` are (its own clock, samples so far) of the last two minutes."""

    name: str
    rank: int | None = None
    state: str = "loading"
    shards: int = 0
    samples: int = 0
    judging: int = 0
    heard: float = 0.0
    points: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, event: Mapping[str, Any], now: float) -> None:
        """Take in one of its events, heard of ``now`` by the onlooker's clock."""
        kind, then = event["event"], float(event.get("time", 0))
        self.heard = now
        if kind == "started":
            self.rank, self.state = event.get("place", {}).get("rank"), "loading"
            self.points.clear()
        elif kind == "loaded":
            self.state = "at work"
        elif kind == "committed":
            self.shards += 1
            self.samples += int(event.get("samples", 0))
            self.judging = 0
        elif kind == "progress":
            self.judging = int(event.get("judging", 0))
        elif kind in ("finished", "interrupted", "guard"):
            self.state, self.judging = kind, 0
        if self.state == "at work" and kind in _ROUTINE:
            self.points.append((then, self.samples + self.judging))
            while then - self.points[0][0] > _SPEED_SECONDS and len(self.points) > 2:
                self.points.popleft()

    @property
    def working(self) -> bool:
        """Whether it said neither that it ended nor that it was stopped."""
        return self.state in ("loading", "at work")

    def rate(self) -> float:
        """Samples a second of late; 0 where it is not at work."""
        return speed(self.points) if self.state == "at work" and self.points else 0.0


@dataclass(slots=True)
class Watch:
    """What is known of a run; :meth:`look` reads what is new. Raises OutputError where the folder is no run's."""

    folder: OutputFolder
    processes: dict[str, Process] = field(default_factory=dict)
    troubles: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_TROUBLES))
    total: int = 0
    tally: Tally = field(init=False)
    _tail: EventTail = field(init=False)
    _unread: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if not self.folder.record.exists() and not self.folder.events.exists():
            raise OutputError(f"{self.folder.root} is not the output folder of a run (no wdsfilter/run.json)")
        self.tally, self._tail = Tally(self.folder), EventTail(self.folder.events)

    def look(self, now: float | None = None) -> None:
        """Read new events and ledgers; ``now`` is the onlooker's clock."""
        now = time.monotonic() if now is None else now
        with suppress(OutputError):  # a ledger that cannot be read is told by `status` and `verify`
            self.tally.refresh()
        for event in self._tail.news():
            name = str(event["process"])
            self.processes.setdefault(name, Process(name)).add(event, now)
            if event["event"] == "started":
                self.total = int(event.get("shards", 0))
                self._unread.clear()
            if event["event"] == "gave_up":
                self._unread.add(str(event.get("shard")))
            if event["event"] not in _ROUTINE:
                self.troubles.append(_told(event))

    def done(self, now: float | None = None) -> bool:
        """Whether nothing is left to do, or nobody to do it: a process that was killed just falls silent."""
        now = time.monotonic() if now is None else now
        left = self.total - len(self.tally.headers.keys() | self._unread)
        quiet = _SILENT_SECONDS if left <= 0 else _GONE_SECONDS
        return all(now - process.heard > quiet for process in self.processes.values() if process.working)

    def view(self, now: float | None = None) -> RenderableType:
        """Everything at a glance."""
        now = time.monotonic() if now is None else now
        tally, processes = self.tally, list(self.processes.values())
        total = max(self.total, len(tally.headers))
        stands = where_it_stands(tally, sum(p.judging for p in processes), fill_judges(self.folder))
        parts: list[RenderableType] = [
            _line(describe(stands, total, sum(p.rate() for p in processes))),
            _bar(len(tally.headers), max(total, 1)),
            _table(processes, now),
        ]
        parts += [
            _line(f"damaged: {name}: {header.damage.detail}", "yellow")
            for name, header in list(tally.damaged.items())[-_MOST_TROUBLES:]
            if header.damage is not None
        ]
        parts += [_line(line, "yellow") for line in self.troubles]
        return Group(*parts)


def _line(text: str, style: str = "") -> Text:
    """Text that wraps even on a console that leaves wrapping to the terminal: a live view has to know its height."""
    return Text(text, style, no_wrap=False, overflow="fold")


def _bar(done: int, total: int) -> Table:
    grid = Table.grid()  # a bar alone does not end its line
    grid.add_row(ProgressBar(total=total, completed=done, width=60))
    return grid


def _table(processes: Sequence[Process], now: float) -> Table:
    """One row for each; a host or a rank that is the same for all is left out, so that it fits a narrow window."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    ranked = len({process.rank for process in processes}) > 1
    for name in ("process", *(["rank"] if ranked else []), "shards", "samples", "samples/s", ""):
        table.add_column(name, justify="left" if name in ("process", "") else "right")
    hosts = {process.name.rpartition(".")[0] for process in processes}
    shared = f"{hosts.pop()}." if len(hosts) == 1 else ""
    order = sorted(processes, key=lambda p: (p.state != "at work", p.rank is None, p.rank, p.name))
    for process in order[:_MOST_PROCESSES]:
        state, silent = process.state, now - process.heard
        if process.working and silent > _SILENT_SECONDS:
            state = f"silent for {silent:.0f} s"
        rank = ["" if process.rank is None else str(process.rank)] if ranked else []
        rate = f"{process.rate():,.1f}" if process.working else ""
        numbers = f"{process.shards:,}", f"{process.samples + process.judging:,}", rate
        table.add_row(Text(process.name.removeprefix(shared)), *rank, *numbers, state)
    if len(order) > _MOST_PROCESSES:
        table.add_row(f"and {len(order) - _MOST_PROCESSES} more")
    return table


def _told(event: Mapping[str, Any]) -> str:
    when = time.strftime("%H:%M:%S", time.gmtime(float(event.get("time", 0))))
    facts = [f"{k}: {v}" for k, v in event.items() if k not in ("process", "time", "event")]
    return f"{when} UTC, {event['process']}: {event['event'].replace('_', ' ')} {', '.join(facts)}".rstrip()
