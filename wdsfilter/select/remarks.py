"""What a person should know of a question beside its answer: lists that name what is not there, runs that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb

from wdsfilter.counted import counted
from wdsfilter.select.question import Question
from wdsfilter.select.sources import Source


def remarks(
    connection: duckdb.DuckDBPyConnection, question: Question, sources: Sequence[Source], readable: int
) -> Iterator[str]:
    """A sentence each; ``readable`` samples could be chosen. The lists and views of the question are there."""

    def number(query: str) -> int:
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    if len(sources) > 1:
        for position, source in enumerate(sources):
            own = number(f"SELECT count(*) FROM v{position} WHERE status <> 'unreadable'")
            if own > readable:
                yield (
                    f"left out: {own - readable:,} of {counted(own, 'readable sample')} of {source.name}; not "
                    "every run has a readable sample of that shard, place and key"
                )
    if question.keys is not None:
        found = number(
            "SELECT count(*) FROM (SELECT DISTINCT NULL AS shard, key FROM v0 WHERE key IN "
            "(SELECT key FROM listed WHERE shard IS NULL) UNION ALL SELECT DISTINCT shard, key FROM v0 "
            "WHERE (shard, key) IN (SELECT (shard, key) FROM listed WHERE shard IS NOT NULL))"
        )
        listed = number("SELECT count(*) FROM (SELECT DISTINCT shard, key FROM listed)")
        yield f"--keys {question.keys}: {found:,} of {listed:,} are there"
    if question.drop_keys is not None:
        column = f'"{question.drop_on}"'
        found = number(
            f"SELECT count(DISTINCT {column}) FROM v0 WHERE {column} IN (SELECT value FROM taken_down)"
        )
        listed = number("SELECT count(DISTINCT value) FROM taken_down")
        yield f"--drop-keys {question.drop_keys}: {found:,} of {listed:,} are there, as {question.drop_on}"
