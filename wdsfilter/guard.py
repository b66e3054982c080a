"""The recipe's guard: stops a run early when what it keeps, or cannot read, is off."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wdsfilter.errors import GuardTripped
from wdsfilter.ledger import Counts
from wdsfilter.recipe import Guard
from wdsfilter.summary import Tally

_TALLY_SECONDS = 5.0


@dataclass(slots=True)
class GuardWatch:
    """Asks the recipe's guard about everything committed so far, by all processes."""

    guard: Guard | None
    tally: Tally
    _refreshed: float = 0.0

    def check(self, *, now: bool = False) -> None:
        if self.guard is None:
            return
        if now or time.monotonic() - self._refreshed > _TALLY_SECONDS:
            self.tally.refresh()
            self._refreshed = time.monotonic()
        if trouble := guard_trouble(self.guard, self.tally.counts):
            raise GuardTripped(trouble)


def guard_trouble(guard: Guard, counts: Counts) -> str | None:
    """What is off, as a sentence; None when all is well or it is too early to tell."""
    if counts.samples < guard.after:
        return None
    lowest, highest = guard.kept
    shares: list[tuple[str, int, float, float]] = [
        ("kept", counts.kept, lowest, highest),
        ("unparsable", counts.unparsable, 0.0, guard.unparsable),
        ("unreadable", counts.unreadable, 0.0, guard.unreadable),
    ]
    for name, count, least, most in shares:
        share = count / counts.samples
        if not least <= share <= most:
            common = sorted(counts.reasons.items(), key=lambda item: -item[1])[:3]
            return (
                f"{share:.2%} of {counts.samples} samples are {name}, the recipe's guard expects {least:.2%} to "
                f"{most:.2%}; most frequent reasons: {', '.join(f'{r} ({n})' for r, n in common) or 'none'}. "
                "Nothing is lost: change guard in the recipe, or add --set guard=off, and run again"
            )
    return None
