"""A selection's rows, put together again by the shards that they came from: so they can be laid beside a run's.

DuckDB sorts them, in as much memory as it is told and on the disk beyond that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wdsfilter import storage
from wdsfilter.errors import OutputError
from wdsfilter.ledger import ROWS_PER_GROUP, Counts, Header
from wdsfilter.report.opened import Opened
from wdsfilter.streams import Stat

_MEMORY = "1GiB"


def regrouped(selection: Opened) -> Opened:
    """The selection with a ledger for each source shard, its rows by their offset there, under their source keys.

    ``selected_shard`` and ``selected_key`` say where a row lies in the selection. The ledgers are temporaries
    of the selection's folder. Raises OutputError.
    """
    ledgers, headers = {}, {}
    for name, table in _by_source(_sorted(selection)):
        ledgers[name] = selection.folder.temporary()
        pq.write_table(_with_shards(table, selection), ledgers[name], row_group_size=ROWS_PER_GROUP)
        headers[name] = Header(name, Stat(None), Counts(len(table), len(table)), None, None, "", "")
    return replace(selection, headers=headers, ledgers=ledgers, is_regrouped=True)


def _sorted(selection: Opened) -> Path:
    """All rows in one Parquet file, by source shard and offset."""
    found, spill = selection.folder.temporary(), selection.folder.temporary()
    files = ", ".join(_quoted(storage.escaped(str(path))) for path in selection.ledgers.values())
    settings: dict[str, str | bool | int | float | list[str]]
    settings = {"threads": 1, "memory_limit": _MEMORY, "temp_directory": str(spill)}
    with duckdb.connect(config=settings) as connection:
        try:
            connection.execute(
                "COPY (SELECT * EXCLUDE (key, source_key), source_key AS key, key AS selected_key "
                f"FROM read_parquet([{files}], filename = 'selected_file', hive_partitioning = false) "
                f"""ORDER BY source_shard, "offset", selected_key) TO {_quoted(str(found))} (FORMAT parquet)"""
            )
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise OutputError(f"{selection.folder.root}: its ledgers cannot be sorted: {reason}") from error
    return found


def _by_source(path: Path) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each source shard, one after the other."""
    held: list[pa.RecordBatch] = []
    name = ""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_PER_GROUP):
            names = batch.column("source_shard").dictionary_encode()
            borders = np.flatnonzero(np.diff(names.indices.to_numpy())) + 1
            for start, end in zip([0, *borders], [*borders, len(batch)], strict=True):
                if held and name != names[int(start)].as_py():
                    yield name, pa.Table.from_batches(held)
                    held = []
                name = names[int(start)].as_py()
                held.append(batch.slice(start, end - start))
    if held:
        yield name, pa.Table.from_batches(held)


def _with_shards(table: pa.Table, selection: Opened) -> pa.Table:
    """``selected_shard`` in place of the file that DuckDB read a row from."""
    files = pa.array([str(path) for path in selection.ledgers.values()])
    places = pc.index_in(table.column("selected_file"), files)
    shards = pa.array(list(selection.ledgers)).take(places.combine_chunks())
    return table.drop_columns("selected_file").append_column("selected_shard", shards)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
