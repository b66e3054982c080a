"""The lists that a question brings along, as tables that its answer looks into: keys to take, values to leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from wdsfilter.errors import QuestionError
from wdsfilter.select.question import Question, lines
from wdsfilter.select.sources import Source

_LINES_AT_ONCE = 100_000


def fill_lists(connection: duckdb.DuckDBPyConnection, question: Question, source: Source) -> None:
    """Make the tables ``listed`` (shard, key) and ``taken_down`` (value). Raises QuestionError."""
    connection.execute("CREATE TABLE listed (shard VARCHAR, key VARCHAR)")
    connection.execute("CREATE TABLE taken_down (value VARCHAR)")
    if question.keys is not None:
        rows = [line.rpartition("\t") for line in lines(question.keys)]
        _insert(
            connection, "listed", {"shard": [s or None for s, _, _ in rows], "key": [k for *_, k in rows]}
        )
    if question.drop_keys is not None:
        known = ("shard", *(c.name for c in source.columns if pa.types.is_string(c.type)))
        if question.drop_on not in known:
            raise QuestionError(
                f"--on {question.drop_on}: no such column of text; there are: {', '.join(known)}"
            )
        _insert(connection, "taken_down", {"value": lines(question.drop_keys)})


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, values: Mapping[str, Sequence[str | None]]
) -> None:
    for batch in pa.table({n: pa.array(v, pa.string()) for n, v in values.items()}).to_batches(
        _LINES_AT_ONCE
    ):
        connection.register("batch", batch)
        connection.execute(f"INSERT INTO {table} SELECT * FROM batch")
        connection.unregister("batch")
