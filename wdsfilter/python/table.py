"""A run's ledgers as a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wdsfilter.errors import OutputError
from wdsfilter.filled import best_ledgers, fill_of
from wdsfilter.ledger import read_header
from wdsfilter.output import OutputFolder


def read_ledger(run: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a run's (or a selection's) ledgers, and ``shard``, the shard that each belongs to, in front.

    ``run`` is its folder's path or URL. Rows come by shard and place, with what a fill of the run added; ``columns``
    may name fields of a judge, which are columns of that name then (``vlm.score``), and are worth naming where there
    are millions of rows. Raises OutputError where there is no ledger, one of the files is none, or a column is not
    there.
    """
    folder = OutputFolder(run if isinstance(run, str) else Path(run))  # a URL, too
    best = best_ledgers(folder, fill_of(folder))
    if not best:
        raise OutputError(f"{folder.root} has no ledgers: it is no run's folder, or nothing is done yet")
    wanted = None if columns is None else [column for column in columns if column != "shard"]
    return pa.concat_tables(_rows(owner, name, wanted) for name, owner in best.items()).unify_dictionaries()


def _rows(folder: OutputFolder, name: str, columns: Sequence[str] | None) -> pa.Table:
    path = folder.ledger(name)
    count = read_header(path).counts.samples
    with path.open("rb") as stored, pq.ParquetFile(stored) as file:
        table = file.read(columns=columns)
    shard = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), [name])
    try:
        chosen = {
            column: _column(table, column) for column in (table.column_names if columns is None else columns)
        }
    except KeyError as error:
        raise OutputError(f"{path} has no column {error}") from None
    return pa.table({"shard": shard, **chosen})


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column, or a field of a judge's. Raises KeyError."""
    judge, _, field = name.partition(".")
    if name in table.column_names or not field:
        return table[name]
    if field not in [known.name for known in table.schema.field(judge).type]:
        raise KeyError(name)
    return pc.struct_field(table[judge], [field])
