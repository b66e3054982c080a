"""How a training goes: one live line, plain lines where there is no terminal, and a log for machines."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from wdsfilter.counted import counted
from wdsfilter.progress import duration, speed
from wdsfilter.samples import Unreadable
from wdsfilter.trackers import Track

_PLAIN_SECONDS = 30.0
_SPEED_STEPS = 50


class Report:
    """A listener of the loop. A context manager; without a ``log`` (on all ranks but the first) it is silent.

    The log gets a JSON line for each start (``started``: ``made_by``), each step (``loss`` and its parts,
    ``rate``, ``pairs_per_second``) and each evaluation (``held_out``), all with their ``step``. Lines of
    steps that a resumed training takes again are taken out.
    """

    def __init__(
        self,
        console: Console,
        log: Path | None,
        pairs_per_step: int,
        made_by: Mapping[str, Any],
        track: Track | None = None,
    ) -> None:
        self._console = console
        self._log = log
        self._pairs_per_step = pairs_per_step
        self._made_by = made_by
        self._track = track
        self._steps = 0
        self._history: deque[tuple[float, int]] = deque(maxlen=_SPEED_STEPS)
        self._held_out: Mapping[str, float] = {}
        self._told: set[str] = set()
        self._shown = 0.0
        self._live: Status | None = None

    def __enter__(self) -> Report:
        if self._log is not None and self._console.is_terminal:
            self._live = self._console.status("loading")
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self, done: int, steps: int) -> None:
        """The loop begins, or goes on."""
        self._steps = steps
        if self._log is None:
            return
        kept = [line for line in _lines(self._log) if line["step"] <= done]
        self._log.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._held_out = next((line["held_out"] for line in reversed(kept) if "held_out" in line), {})
        self._history.append((time.monotonic(), done * self._pairs_per_step))
        self._write({"step": done, "started": self._made_by})
        self._say(f"going on after step {done} of {steps}" if done else counted(steps, "step"))

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """One more step is done."""
        if self._log is None:
            return
        self._history.append((time.monotonic(), step * self._pairs_per_step))
        rate = speed(self._history)
        told = {**figures, "pairs_per_second": round(rate, 3)}
        self._write({"step": step, **told})
        self._tell("train", told, step)
        line = describe(step, self._steps, figures, self._held_out, rate, self._pairs_per_step)
        if self._live is not None:
            self._live.update(line)
        elif time.monotonic() - self._shown > _PLAIN_SECONDS or step == self._steps:
            self._shown = time.monotonic()
            self._say(line)

    def held_out(self, step: int, figures: Mapping[str, float]) -> None:
        """Held-out pairs were asked about."""
        if self._log is None:
            return
        self._held_out = figures
        self._write({"step": step, "held_out": dict(figures)})
        self._tell("held_out", figures, step)
        self._say(f"step {step}: held out: {_told(figures)}")

    def unreadable(self, pair: Unreadable) -> None:
        """A pair turned out to be unreadable: told once."""
        if pair.key not in self._told:
            self._told.add(pair.key)
            self._say(f"unreadable: {pair.key}: {pair.reason} {pair.detail}".rstrip())

    @property
    def unreadable_pairs(self) -> int:
        """How many different pairs turned out to be unreadable."""
        return len(self._told)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._log is not None
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **line}) + "\n")

    def _tell(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self._track is not None:
            self._track({f"{group}/{name}": value for name, value in values.items()}, step)


def describe(
    step: int,
    steps: int,
    figures: Mapping[str, float],
    held_out: Mapping[str, float],
    pairs_per_second: float,
    pairs_per_step: int,
) -> str:
    """``step 120/450, loss 1.234, held out: loss 1.1, mae 0.9, ..., 12.1 pairs/s, 3 min 10 s left``."""
    parts = [f"step {step}/{steps}", f"loss {figures['loss']:.4g}"]
    if held_out:
        parts.append(f"held out: {_told(held_out)}")
    if pairs_per_second:
        left = (steps - step) * pairs_per_step / pairs_per_second
        parts += [f"{pairs_per_second:.3g} pairs/s", f"{duration(left)} left"]
    return ", ".join(parts)


def _told(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def _lines(log: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that was cut short is passed over."""
    found = []
    if log.exists():
        for text in log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                found.append(line)
    return found
