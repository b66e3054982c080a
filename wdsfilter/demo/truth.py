"""A run beside the truth that its recipe names: what was kept, and what should have been."""

from __future__ import annotations

import json
from dataclasses import dataclass

from wdsfilter import fingerprint, ledger
from wdsfilter.errors import OutputError
from wdsfilter.output import OutputFolder


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
    """Counts over all ledgers of a finished run; a pair is worth keeping from ``threshold`` on.

    Raises OutputError where the run's recipe names no column of true scores.
    """
    column = fingerprint.recorded_truth(json.loads(folder.record.read_bytes()))
    if column is None:
        raise OutputError(f"{folder.root}: its recipe names no ledger.truth to compare with")
    counts = {(kept, worth): 0 for kept in (True, False) for worth in (True, False)}
    for name in folder.shard_names():
        for row in ledger.read_rows(folder.ledger(name), ["status", column]):
            if row["status"] in ("kept", "dropped"):
                counts[row["status"] == "kept", int(row[column]) >= threshold] += 1
    return Confusion(counts[True, True], counts[True, False], counts[False, False], counts[False, True])
