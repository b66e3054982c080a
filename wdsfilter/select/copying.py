"""An answer's rows -> their samples as they are stored in an archive, by byte ranges of the input shards.

A sample whose bytes can stay as they lie is only looked through; every other one is read strictly again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from wdsfilter import scores, storage
from wdsfilter.errors import InputError, OutputError
from wdsfilter.ledger import Row
from wdsfilter.ranges import Range, read_local_ranges, read_ranges
from wdsfilter.recipe import Output
from wdsfilter.samples import Sample
from wdsfilter.shards.plain import normalise
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.tar import ZERO_BLOCK
from wdsfilter.shards.writer import stored

_BYTES_AT_ONCE = 8 << 20
_ROWS_AT_ONCE = 256
_PLACE = ("key", "source_shard", "source_key", "offset", "length")

Buffers = list["bytes | memoryview"]


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

    def tables(self, first: int, count: int) -> Iterator[pa.Table]:
        """``count`` rows of the answer from number ``first`` on; one row group in memory at a time."""
        with pq.ParquetFile(self.answer) as file:
            begin = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                low, high = max(first - begin, 0), min(first + count - begin, size)
                if low < high:
                    yield file.read_row_group(group).slice(low, high - low)
                begin += size

    def stored(self, rows: pa.Table) -> Iterator[Buffers]:
        """What is to be written of each row's sample. Raises InputError, OutputError, ReadError."""
        with_scores = self.output.scores != "none"
        for batch in _batches(rows.select([*_PLACE, *(self.judges if with_scores else ())])):
            wanted = [Range(self.locations[r["source_shard"]], r["offset"], r["length"]) for r in batch]
            data = _read(wanted)
            for number, row in enumerate(batch):
                extensions, buffers = self._sample(row, data[number])
                data[number] = memoryview(b"")  # written by now, or soon: no need to hold all of the batch
                if with_scores:
                    buffers += self._scores(row, extensions)
                yield buffers

    def _scores(self, row: Row, extensions: Set[str]) -> Iterator[bytes | memoryview]:
        if self.output.score_extension in extensions:
            raise OutputError(
                f"sample {row['source_key']!r} has a member .{self.output.score_extension} already (was it "
                "filtered before?); select without scores: --scores none"
            )
        return stored([scores.score_member(row["key"], row, self.judges, self.output)])

    def _sample(self, row: Row, data: memoryview) -> tuple[Set[str], Buffers]:
        """Extensions of its members, and what is to be written of them."""
        if row["key"] == row["source_key"] and (extensions := normalise(data, row["key"])) is not None:
            return extensions, [data]
        stream = cast(BinaryIO, io.BytesIO(bytes(data) + 2 * ZERO_BLOCK))
        found = list(read_samples(stream, max_sample_bytes=self.max_sample))
        if len(found) == 1 and isinstance(found[0], Sample) and found[0].key == row["source_key"]:
            members = found[0].under(row["key"]).members
            return {member.extension for member in members}, list(stored(members))
        raise InputError(
            f"{storage.shown(self.locations[row['source_shard']])} is not the file that its ledger was made of: "
            f"{row['source_key']!r} is not at byte {row['offset']}"
        )


def _read(wanted: Sequence[Range]) -> list[memoryview]:
    if all(storage.protocol(location) is None for location in {piece.location for piece in wanted}):
        return read_local_ranges(wanted)
    return [memoryview(bytearray(data)) for data in read_ranges(wanted)]


def _batches(rows: pa.Table) -> Iterator[list[Row]]:
    """Rows whose samples are in memory together."""
    batch: list[Row] = []
    size = 0
    for row in rows.to_pylist():
        if batch and (len(batch) == _ROWS_AT_ONCE or size + row["length"] > _BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row["length"]
    if batch:
        yield batch
