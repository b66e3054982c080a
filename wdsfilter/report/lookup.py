"""Everything that a run's folder knows of one key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from wdsfilter import ledger
from wdsfilter.errors import OutputError
from wdsfilter.ledger import Row
from wdsfilter.output import OutputFolder
from wdsfilter.pairs import PairReader
from wdsfilter.report.cards import read_pair
from wdsfilter.report.finding import from_input, from_output
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
    if not folder.record.exists():
        raise OutputError(f"{folder.root} is not the output folder of a run (no wdsfilter/run.json)")
    asked = json.loads(folder.record.read_bytes())["scoring"]["input"]
    reader = PairReader(tuple(asked["image"]), asked["caption"])
    urls = {shard.name: shard.url for shard in inputs}
    known = []
    for name in folder.shard_names():
        path = folder.ledger(name)
        rows = pq.read_table(path, filters=[("key", "=", key)]).to_pylist()
        if not rows:
            continue
        if name in urls:
            found = from_input(urls[name], ledger.read_header(path).input.size, rows)
        else:
            found = from_output(folder.shard(name), rows)
        known += [Known(name, one.row, read_pair(reader, one.sample), one.why) for one in found]
    return known
