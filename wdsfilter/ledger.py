"""The ledger: one Parquet file per shard, a row per input sample. Result, proof and resume mark.

Written in one go, in row groups of a fixed size: the same rows give the same bytes. The file's
metadata (key ``wdsfilter``) says how many samples there were, what became of them, whether the
shard was damaged, and the SHA-256 and size of the output shard.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wdsfilter.errors import OutputError, StoreError
from wdsfilter.recipe import JudgeSpec, Recipe
from wdsfilter.samples import Damage, Status
from wdsfilter.shards.writer import Written
from wdsfilter.storage import StoredPath
from wdsfilter.streams import Stat

ROWS_PER_GROUP = 4096
_ROWS_PER_BATCH = 512
_KEY = b"wdsfilter"

Row = dict[str, Any]
STATUSES: tuple[Status, ...] = ("kept", "dropped", "unreadable", "unparsable")


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a shard's (or a run's) samples; ``reasons`` counts everything that was not kept."""

    samples: int = 0
    kept: int = 0
    dropped: int = 0
    unreadable: int = 0
    unparsable: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.samples + other.samples,
            self.kept + other.kept,
            self.dropped + other.dropped,
            self.unreadable + other.unreadable,
            self.unparsable + other.unparsable,
            dict(sorted((Counter(self.reasons) + Counter(other.reasons)).items())),
        )


class Counting:
    """Counts what becomes of ``samples``, one by one."""

    def __init__(self) -> None:
        self.samples = 0
        self._reasons: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()

    def add(self, status: str, reason: str, count: int = 1) -> None:
        """So many samples became this."""
        self.samples += count
        self._statuses[status] += count
        if reason:
            self._reasons[reason] += count

    @property
    def counts(self) -> Counts:
        """What was added so far."""
        statuses = {status: self._statuses[status] for status in STATUSES}
        return Counts(self.samples, **statuses, reasons=dict(sorted(self._reasons.items())))


@dataclass(frozen=True, slots=True)
class Header:
    """What a ledger's metadata says of its shard. ``output`` is None where no shard was written."""

    shard: str
    input: Stat
    counts: Counts
    damage: Damage | None
    output: Written | None
    scoring: str
    decision: str


def schema(recipe: Recipe) -> pa.Schema:
    """Columns: where the sample lay, what became of it, a struct per judge, the recipe's own columns."""
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("length", pa.int64(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
            pa.field("detail", pa.string(), nullable=False),
            *(pa.field(spec.id, _struct(spec)) for spec in recipe.judges),
            *(pa.field(name, pa.string()) for name in recipe.ledger.columns),
            pa.field("image_sha256", pa.string()),
            pa.field("phash", pa.string()),
            pa.field("caption_hash", pa.string()),
        ]
    )


def _struct(spec: JudgeSpec) -> pa.DataType:
    return pa.struct([(name, _arrow_type(kind)) for name, kind in spec.module.fields(spec.options).items()])


def _arrow_type(name: str) -> pa.DataType:
    """``list<float32>`` and the names that ``pyarrow.type_for_alias`` knows."""
    if name.startswith("list<") and name.endswith(">"):
        return pa.list_(_arrow_type(name[5:-1]))
    return pa.type_for_alias(name)


class LedgerWriter:
    """Writes rows to ``path``; holds at most one row group."""

    def __init__(self, path: Path, columns: pa.Schema) -> None:
        self._path = path
        self._schema = columns
        self._sink = pa.OSFile(str(path), "wb")  # ours to close: a writer that cannot begin does not
        try:
            self._file = pq.ParquetWriter(self._sink, columns, compression="zstd", store_schema=True)
        except BaseException:
            self._close_sink()
            raise
        self._rows: list[Row] = []
        self._batches: list[pa.RecordBatch] = []
        self._counting = Counting()

    def add(self, row: Row) -> None:
        """Append a row: a value for every column that is not null."""
        self._counting.add(row["status"], row["reason"])
        self._rows.append(row)
        if len(self._rows) >= _ROWS_PER_BATCH:
            self._collect()
            self._write_groups()

    def add_table(self, rows: pa.Table) -> None:
        """Append rows that are an Arrow table already."""
        for status, reason, count in _counted(rows):
            self._counting.add(status, reason, count)
        self._collect()
        self._batches += rows.cast(self._schema).to_batches()
        self._write_groups()

    @property
    def counts(self) -> Counts:
        return self._counting.counts

    def close(self, header: Header) -> None:
        """Write what is left and the metadata, and flush it all to the disk."""
        self._collect()
        self._write_groups(1)
        text = json.dumps(asdict(header), sort_keys=True, ensure_ascii=False)
        self._file.add_key_value_metadata({_KEY: text.encode()})
        self._file.close()
        self._sink.close()
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def abandon(self) -> None:
        """Close without metadata: the file is of no use and its owner removes it."""
        with suppress(OSError):  # a full disk must not hide why the file is abandoned
            self._file.close()
        self._close_sink()

    def _close_sink(self) -> None:
        with suppress(OSError):
            self._sink.close()

    def _collect(self) -> None:
        if self._rows:
            self._batches.append(pa.RecordBatch.from_pylist(self._rows, self._schema))
            self._rows = []

    def _write_groups(self, least: int = ROWS_PER_GROUP) -> None:
        """Write what came so far in groups of the fixed size, the last of which has at least so many rows."""
        rows = sum(batch.num_rows for batch in self._batches)
        if rows < least:
            return
        table = pa.Table.from_batches(self._batches)
        rest = rows % ROWS_PER_GROUP if least > 1 else 0
        self._file.write_table(table.slice(0, rows - rest), row_group_size=ROWS_PER_GROUP)
        pa.default_memory_pool().release_unused()  # Arrow would keep a few MB for the next group
        self._batches = table.slice(rows - rest).to_batches() if rest else []


def _counted(rows: pa.Table) -> Iterator[tuple[str, str, int]]:
    """(status, reason, how many rows have them)."""
    counts = rows.group_by(["status", "reason"]).aggregate([([], "count_all")])
    for row in counts.to_pylist():
        yield row["status"], row["reason"], row["count_all"]


def read_header(path: StoredPath) -> Header:
    """The metadata of a committed ledger. Raises OutputError where it is none, StoreError where nobody can tell."""
    try:
        with path.open("rb") as file:
            metadata = pq.read_metadata(file).metadata or {}
    except StoreError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise OutputError(
            f"{path} is no ledger ({error}); remove it and its output shard, and run again"
        ) from error
    if _KEY not in metadata:
        raise OutputError(
            f"{path} is no ledger of wdsfilter's; remove it and its output shard, and run again"
        )
    raw = json.loads(metadata[_KEY])
    return Header(
        shard=raw["shard"],
        input=Stat(**raw["input"]),
        counts=Counts(**raw["counts"]),
        damage=Damage(**raw["damage"]) if raw["damage"] else None,
        output=Written(**raw["output"]) if raw["output"] else None,
        scoring=raw["scoring"],
        decision=raw["decision"],
    )


def read_rows(path: StoredPath, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """A committed ledger's rows in order; one row group in memory at a time."""
    with path.open("rb") as source, pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups):
            for batch in file.read_row_group(group, columns=columns).to_batches(_ROWS_PER_BATCH):
                yield from batch.to_pylist()
