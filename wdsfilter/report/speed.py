"""How fast a run went, over time and by process, from its events: what is there of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

_BINS = 60


@dataclass(frozen=True, slots=True)
class Process:
    """One process's part: ``rank`` is its latest launch's, ``seconds`` from its start to its last shard."""

    name: str
    rank: int | None
    shards: int
    samples: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Samples a second."""
        return self.samples / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Speed:
    """``begun`` and ``ended`` in UTC; ``rates`` are samples a second of all processes, in equal spans of time.

    ``spent`` are seconds of all processes by stage, the longest first.
    """

    begun: str = ""
    ended: str = ""
    seconds: float = 0.0
    rates: Sequence[float] = ()
    processes: Sequence[Process] = ()
    spent: Sequence[tuple[str, float]] = ()


def measure(events: Sequence[dict[str, Any]]) -> Speed:
    """Everything that can be told of ``events``, which are in order of time."""
    times = [float(event.get("time", 0)) for event in events]
    if not times:
        return Speed()
    by_process: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_process.setdefault(str(event["process"]), []).append(event)
    processes = [_process(name, own) for name, own in by_process.items()]
    processes.sort(key=lambda process: (process.rank is None, process.rank, process.name))
    first = times[0]
    walks = [_walk(own) for own in by_process.values()]
    last = max((time for walk in walks for time, _ in walk), default=first)
    rates = [0.0] * min(_BINS, sum(max(len(walk) - 1, 0) for walk in walks))
    width = max(last - first, 1e-3) / max(len(rates), 1)
    for walk in walks:
        for (begin, before), (end, after) in pairwise(walk):
            _spread(rates, (begin - first) / width, (end - first) / width, max(after - before, 0) / width)
    return Speed(_shown(first), _shown(times[-1]), times[-1] - first, rates, processes, _spent(by_process))


def _process(name: str, events: Sequence[dict[str, Any]]) -> Process:
    places = [event.get("place", {}) for event in events if event["event"] == "started"]
    commits = [event for event in events if event["event"] == "committed"]
    samples = sum(int(event.get("samples", 0)) for event in commits)
    seconds = float(commits[-1].get("time", 0)) - float(events[0].get("time", 0)) if commits else 0.0
    return Process(name, places[-1].get("rank") if places else None, len(commits), samples, seconds)


def _walk(events: Sequence[dict[str, Any]]) -> list[tuple[float, int]]:
    """(time, samples so far) of one process, from its start on."""
    walk: list[tuple[float, int]] = []
    samples = 0
    for event in events:
        samples += int(event.get("samples", 0)) if event["event"] == "committed" else 0
        judging = int(event.get("judging", 0)) if event["event"] == "progress" else 0
        if not walk or event["event"] in ("committed", "progress"):
            walk.append((float(event.get("time", 0)), samples + judging))
    return walk


def _spread(rates: list[float], begin: float, end: float, amount: float) -> None:
    """Add ``amount`` to the spans between two places, which may lie inside of one."""
    if not rates:
        return
    begin, end = min(max(begin, 0.0), len(rates) - 1e-9), min(max(end, 0.0), len(rates) - 1e-9)
    if end - begin < 1e-9:
        rates[int(begin)] += amount
        return
    for place in range(int(begin), int(end) + 1):
        part = min(end, place + 1) - max(begin, place)
        rates[place] += amount * part / (end - begin)


def _spent(by_process: Mapping[str, Sequence[dict[str, Any]]]) -> list[tuple[str, float]]:
    """Seconds by stage. A process tells what it spent since it started, so its last word counts."""
    found: dict[str, float] = {}
    for events in by_process.values():
        told = [event.get("spent", {}) for event in events if event["event"] == "progress"]
        for stage, seconds in (told[-1] if told else {}).items():
            found[stage] = found.get(stage, 0.0) + float(seconds)
    return sorted(found.items(), key=lambda item: -item[1])


def _shown(time: float) -> str:
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
