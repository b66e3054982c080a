"""An answer's rows -> their samples, by byte ranges of the input shards; every sample is read strictly again."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow.parquet as pq

from wdsfilter import scores, storage
from wdsfilter.errors import InputError, OutputError
from wdsfilter.ledger import Row
from wdsfilter.ranges import Range, read_ranges
from wdsfilter.recipe import Output
from wdsfilter.samples import Member, Sample
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.tar import ZERO_BLOCK

_BYTES_AT_ONCE = 8 << 20
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Copying:
    """What copying needs to know; small enough to be sent to every worker.

    ``locations`` says where each source shard lies, ``judges`` which columns are scores.
    """

    answer: Path
    locations: Mapping[str, str]
    judges: tuple[str, ...]
    output: Output
    max_sample: int

    def rows(self, first: int, count: int) -> Iterator[Row]:
        """``count`` rows of the answer from number ``first`` on; one row group in memory at a time."""
        with pq.ParquetFile(self.answer) as file:
            begin = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                low, high = max(first - begin, 0), min(first + count - begin, size)
                if low < high:
                    yield from file.read_row_group(group).slice(low, high - low).to_pylist()
                begin += size

    def members(self, rows: Iterable[Row]) -> Iterator[tuple[Row, list[Member]]]:
        """Each row with the members that are to be written of it. Raises InputError, OutputError, ReadError."""
        for row, sample in self._samples(rows):
            if self.output.scores != "none" and scores.taken(sample, {}, self.output):
                raise OutputError(
                    f"sample {sample.key!r} has a member .{self.output.score_extension} already (was it filtered "
                    "before?); select without scores: --scores none"
                )
            yield row, scores.with_scores(sample.under(row["key"]), row, self.judges, self.output)

    def _samples(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Sample]]:
        for batch in _batches(rows):
            wanted = [Range(self.locations[r["source_shard"]], r["offset"], r["length"]) for r in batch]
            data = read_ranges(wanted)
            for number, row in enumerate(batch):
                yield row, self._sample(row, data[number])
                data[number] = b""  # written by now, or soon: no need to hold all of the batch

    def _sample(self, row: Row, data: bytes) -> Sample:
        stream = cast(BinaryIO, io.BytesIO(data + 2 * ZERO_BLOCK))
        found = list(read_samples(stream, max_sample_bytes=self.max_sample))
        if len(found) == 1 and isinstance(found[0], Sample) and found[0].key == row["source_key"]:
            return found[0]
        raise InputError(
            f"{storage.shown(self.locations[row['source_shard']])} is not the file that its ledger was made of: "
            f"{row['source_key']!r} is not at byte {row['offset']}"
        )


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == _ROWS_AT_ONCE or size + row["length"] > _BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row["length"]
    if batch:
        yield batch
