"""An answer's rows -> their samples as they are stored in an archive, by byte ranges of the input shards.

A sample whose bytes can stay as they lie is only looked through; every other one is read strictly again.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wdsfilter import scores, storage
from wdsfilter.errors import InputError, OutputError
from wdsfilter.ledger import Row
from wdsfilter.ranges import Range, read_into
from wdsfilter.recipe import Output
from wdsfilter.samples import Member, Sample
from wdsfilter.select.lying import lying_samples
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.tar import ZERO_BLOCK
from wdsfilter.shards.writer import stored

_BYTES_AT_ONCE = 1 << 20  # what a processor's cache holds: they are looked through, hashed and written
_BYTES_ASKED_FOR = 8 << 20  # of a store, by several requests at once
_ROWS_AT_ONCE = 256
_PLACE = ("key", "source_shard", "source_key", "offset", "length")

Data: TypeAlias = "bytes | memoryview"


@dataclass(slots=True)
class Stored:
    """Samples as they are to be written: ``buffers`` one after the other, and each sample's size (bytes).

    Of ``data``, pieces that follow one another are one buffer.
    """

    data: memoryview
    buffers: list[Data] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    _run: tuple[int, int] = (0, 0)

    def begin(self) -> None:
        """A sample begins."""
        self.sizes.append(0)

    def add_pieces(self, pieces: Iterable[tuple[int, int]]) -> None:
        """Pieces of ``data``, of the sample."""
        for begin, end in pieces:
            self.sizes[-1] += end - begin
            if begin != self._run[1]:
                self.end()
                self._run = begin, begin
            self._run = self._run[0], end

    def add_made(self, buffers: Iterable[Data]) -> None:
        """Other bytes of the sample."""
        self.end()
        for data in buffers:
            self.sizes[-1] += len(data)
            self.buffers.append(data)

    def end(self) -> None:
        """No piece follows that lies behind the last one."""
        begin, end = self._run
        if begin < end:
            self.buffers.append(self.data[begin:end])
        self._run = end, end


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

    def stored(self, rows: pa.Table) -> Iterator[Stored]:
        """What is to be written of the rows' samples, many at once. Raises InputError, OutputError, ReadError."""
        with_scores = self.output.scores != "none"
        columns = rows.select([*_PLACE, *(self.judges if with_scores else ())])
        sources = pc.unique(rows["source_shard"]).to_pylist()
        local = all(storage.protocol(self.locations[shard]) is None for shard in sources)
        for batch in _batches(columns, _BYTES_AT_ONCE if local else _BYTES_ASKED_FOR):
            wanted = [Range(self.locations[r["source_shard"]], r["offset"], r["length"]) for r in batch]
            data = np.empty(sum(piece.length for piece in wanted), np.uint8).data
            read_into(data, wanted)
            samples = Stored(data)
            lying = lying_samples(data, [(row["source_key"], row["length"]) for row in batch])
            end = 0
            for row, found in zip(batch, lying, strict=True):
                end += row["length"]
                samples.begin()
                extensions: Set[str]
                if found is not None and row["key"] == row["source_key"]:
                    extensions = found.extensions
                    samples.add_pieces(found.pieces)
                else:
                    members = self._read_strictly(row, bytes(data[end - row["length"] : end]))
                    extensions = {member.extension for member in members}
                    samples.add_made(stored(members))
                if with_scores:
                    samples.add_made(self._scores(row, extensions))
            samples.end()
            yield samples

    def _scores(self, row: Row, extensions: Set[str]) -> Iterator[Data]:
        if self.output.score_extension in extensions:
            raise OutputError(
                f"sample {row['source_key']!r} has a member .{self.output.score_extension} already (was it "
                "filtered before?); select without scores: --scores none"
            )
        return stored([scores.score_member(row["key"], row, self.judges, self.output)])

    def _read_strictly(self, row: Row, data: bytes) -> Sequence[Member]:
        """The sample's members, under its new key."""
        stream = cast(BinaryIO, io.BytesIO(data + 2 * ZERO_BLOCK))
        found = list(read_samples(stream, max_sample_bytes=self.max_sample))
        if len(found) == 1 and isinstance(found[0], Sample) and found[0].key == row["source_key"]:
            return found[0].under(row["key"]).members
        raise InputError(
            f"{storage.shown(self.locations[row['source_shard']])} is not the file that its ledger was made of: "
            f"{row['source_key']!r} is not at byte {row['offset']}"
        )


def _batches(rows: pa.Table, most: int) -> Iterator[list[Row]]:
    """Rows whose samples are in memory together: ``most`` bytes, or one that is larger."""
    batch: list[Row] = []
    size = 0
    for row in rows.to_pylist():
        if batch and (len(batch) == _ROWS_AT_ONCE or size + row["length"] > most):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row["length"]
    if batch:
        yield batch
