"""Where a pair's true score is known from: a ledger column, or what a person said of a sample of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wdsfilter.ledger import Row
from wdsfilter.report.measures import Floats


@dataclass(frozen=True, slots=True)
class Truth:
    """True scores by the ledger's ``column``, or ``said`` by shard and key.

    ``sampled``: what is known of are drawn pairs, which stand for all others (:mod:`wdsfilter.report.strata`).
    """

    column: str | None = None
    said: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    sampled: bool = False

    @property
    def columns(self) -> set[str]:
        """Ledger columns that :meth:`read` needs."""
        return {"key"} if self.sampled else {self.column} - {None}  # type: ignore[return-value]

    def read(self, shard: str, batch: pa.RecordBatch) -> Floats:
        """The true score of each of a ledger's rows [n]; nan where it is not known."""
        if self.sampled:
            return self._said(self.said.get(shard, {}), batch.column("key"))
        if self.column is None:
            return np.full(len(batch), np.nan)
        return np.array([_number(text) for text in batch.column(self.column).to_pylist()], np.float64)

    def of(self, shard: str, row: Row) -> float | None:
        """The true score of one ledger row; None where it is not known."""
        if self.sampled:
            return self.said.get(shard, {}).get(row["key"])
        found = _number(row[self.column]) if self.column is not None else float("nan")
        return None if np.isnan(found) else found

    @staticmethod
    def _said(said: Mapping[str, int], keys: pa.Array) -> Floats:
        found = np.full(len(keys), np.nan)
        if said:
            places = pc.index_in(keys, pa.array(list(said), keys.type))
            known = pc.is_valid(places).to_numpy(zero_copy_only=False)
            scores = np.array(list(said.values()), np.float64)
            found[known] = scores[places.drop_null().to_numpy()]
        return found


def _number(text: str | None) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")
