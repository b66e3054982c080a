"""A run over the small world beside the truth: what was kept, and what should have been."""

from __future__ import annotations

from dataclasses import dataclass

from wdsfilter import ledger
from wdsfilter.output import OutputFolder

COLUMN = "score"
"""The ledger column that holds the true score (the demo recipe takes it from the json)."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Judged pairs by what they are worth and what became of them."""

    kept_right: int = 0
    kept_wrong: int = 0
    dropped_right: int = 0
    dropped_wrong: int = 0

    @property
    def precision(self) -> float:
        """Share of the kept pairs that are worth it; 1 where nothing was kept."""
        kept = self.kept_right + self.kept_wrong
        return self.kept_right / kept if kept else 1.0

    @property
    def recall(self) -> float:
        """Share of the pairs worth keeping that were kept; 1 where there are none."""
        worth = self.kept_right + self.dropped_wrong
        return self.kept_right / worth if worth else 1.0


def compare(folder: OutputFolder, threshold: int) -> Confusion:
    """Counts over all ledgers of a finished run; a pair is worth keeping from ``threshold`` on."""
    counts = {(kept, worth): 0 for kept in (True, False) for worth in (True, False)}
    for name in folder.shard_names():
        for row in ledger.read_rows(folder.ledger(name), ["status", COLUMN]):
            if row["status"] in ("kept", "dropped"):
                counts[row["status"] == "kept", int(row[COLUMN]) >= threshold] += 1
    return Confusion(counts[True, True], counts[True, False], counts[False, False], counts[False, True])
