"""Ledgers of a run's first shards -> arrays, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wdsfilter.plan import Job
from wdsfilter.report.figures import Rows
from wdsfilter.report.measures import Bools, Floats, Ruler
from wdsfilter.report.opened import Opened, open_folder


@dataclass(frozen=True, slots=True)
class JudgedShard:
    """A shard's samples [n] in order. ``measures`` are nan where the judge gave no number; ``candidates`` are
    those that its threshold decides about; ``sizes`` are bytes of the sample in an output shard."""

    name: str
    kept: Bools
    readable: Bools
    candidates: Bools
    measures: Mapping[str, Floats]
    sizes: Floats


@dataclass(frozen=True, slots=True)
class Judged:
    """What is judged of a job's ``shards``, and the judge whose threshold matters; None where none grades."""

    shards: Sequence[JudgedShard]
    ruler: Ruler | None

    @property
    def samples(self) -> int:
        return sum(len(shard.kept) for shard in self.shards)

    def joined(self, name: str) -> Floats:
        """A measure of all candidates, one after the other."""
        return np.concatenate([shard.measures[name][shard.candidates] for shard in self.shards])


def read_judged(job: Job) -> Judged:
    """All of the job's shards that have a ledger. Raises OutputError where there is no run yet."""
    opened = open_folder(job.folder)
    there = [shard.name for shard in job.shards if shard.name in opened.headers]
    return Judged([_read(name, opened) for name in there], opened.ruler)


def _read(name: str, opened: Opened) -> JudgedShard:
    rows = list(opened.rows_of(name))

    def joined(pick: Callable[[Rows], npt.NDArray[Any]], kind: type) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(0, kind), *map(pick, rows)]).astype(kind)

    def measured(measure: str) -> Floats:
        return joined(lambda batch: batch.measures[measure], float)

    return JudgedShard(
        name,
        joined(lambda batch: batch.kept, bool),
        joined(lambda batch: batch.readable, bool),
        joined(lambda batch: batch.candidates, bool),
        {measure.name: measured(measure.name) for measure in (opened.ruler.measures if opened.ruler else ())},
        joined(lambda batch: batch.sizes["length"], float) + opened.added,
    )
