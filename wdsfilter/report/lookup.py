"""Everything that a run's or a selection's folder knows of one key, a run's fill included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wdsfilter.filled import best_ledgers, fill_of
from wdsfilter.ledger import Row
from wdsfilter.output import OutputFolder
from wdsfilter.report.cards import read_pair
from wdsfilter.report.opened import open_folder
from wdsfilter.report.picks import Place
from wdsfilter.samples import Pair
from wdsfilter.shards.source import Shard


@dataclass(frozen=True, slots=True)
class Known:
    """A sample: its ledger row, and its pair, or ``why`` that could not be had."""

    shard: str
    row: Row
    pair: Pair | None
    why: str


def look_up(folder: OutputFolder, key: str, inputs: Sequence[Shard]) -> list[Known]:
    """All samples of that key: keys repeat across shards. Raises OutputError where ``folder`` is no run's."""
    fill = fill_of(folder)
    try:
        opened = open_folder(folder)
        if fill is not None:
            filled = [name for name, owner in best_ledgers(folder, fill).items() if owner is fill]
            opened = replace(opened, ledgers={**opened.ledgers, **fill.local_ledgers(filled)})
        places: set[Place] = set()
        for name, path in opened.ledgers.items():
            keys = pq.read_table(path, columns=["key"]).column("key")
            rows = pc.indices_nonzero(pc.equal(keys, pa.scalar(key))).to_pylist()
            places |= {(name, int(row)) for row in rows}
        found = opened.find(inputs, places)
        return [
            Known(shard, one.row, read_pair(opened.reader, one.sample), one.why) for (shard, _), one in found
        ]
    finally:
        for each in (folder, fill):
            if each is not None:
                each.remove_own_temporaries()
