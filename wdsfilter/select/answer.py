"""The question, asked of the ledgers by DuckDB: the rows of an answer, in the order in which they are written.

The answer is a Parquet file in the temporary folder, so that whoever copies needs neither DuckDB nor memory.
DuckDB may use as much memory as it is told and spills the rest; it may read the ledgers and that folder, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from wdsfilter import storage
from wdsfilter.errors import OutputError, QuestionError
from wdsfilter.select.columns import selected_columns
from wdsfilter.select.duplicates import BEST_FIRST, first_of, take_half, without_near
from wdsfilter.select.expression import Expression, compile_expression
from wdsfilter.select.listed import fill_lists
from wdsfilter.select.question import Question, draw_below, seeded
from wdsfilter.select.remarks import remarks
from wdsfilter.select.sources import ORIGIN, PLACED, Source, default_worth

_ROWS_PER_GROUP = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """``rows`` rows at ``path``, of ``readable`` samples that could have been chosen.

    ``unseen`` counts the samples that a judge of the question never saw, since an earlier one rejected
    them; ``by`` is the expression that said which is better, if one was needed; ``remarks`` are for a person.
    """

    path: Path
    rows: int
    readable: int
    unseen: Mapping[str, int]
    by: str | None
    remarks: Sequence[str] = ()


def worth(question: Question, sources: Sequence[Source]) -> str | None:
    """The expression that says which sample is better; None where the question needs none."""
    if question.by is not None:
        return question.by
    return default_worth(sources) if question.top is not None else None


def ask(
    question: Question,
    sources: Sequence[Source],
    temporary: Path,
    *,
    memory: str,
    threads: int,
    only: Sequence[str] = (),
) -> Answer:
    """The answer, in ``temporary``, a folder that is there. Raises QuestionError, OutputError.

    It has all :func:`~wdsfilter.select.columns.columns`, or those in ``only``: whoever needs few of them
    does not wait for the rest.
    """
    connection = duckdb.connect(config={"threads": threads, "temp_directory": str(temporary / "spill")})
    try:
        try:
            connection.execute(f"SET memory_limit = {_quoted(memory)}")
        except duckdb.Error as error:
            raise QuestionError(f"--memory {memory}: expected an amount such as 2GiB") from error
        try:
            return _ask(connection, question, sources, temporary, only)
        except duckdb.OutOfMemoryException as error:
            raise QuestionError(f"{_first_line(error)}; give more with --memory") from error
        except duckdb.IOException as error:
            raise OutputError(_first_line(error)) from error
        except duckdb.Error as error:
            raise QuestionError(f"the ledgers cannot be asked that: {_first_line(error)}") from error
    finally:
        connection.close()


def _ask(
    connection: duckdb.DuckDBPyConnection,
    question: Question,
    sources: Sequence[Source],
    temporary: Path,
    only: Sequence[str],
) -> Answer:
    room = take_half(connection) if question.near else 0
    for number, source in enumerate(sources):
        connection.execute(_view(number, source))
    where = (
        compile_expression(connection, question.where, "--where", sources)
        if question.where is not None
        else None
    )
    by = worth(question, sources)
    better = compile_expression(connection, by, "--by", sources) if by is not None else None
    fill_lists(connection, question, sources[0])
    _close(connection, [*(folder for source in sources for folder in source.ledger_folders), temporary])
    for expression, option, kind in ((where, "--where", "BOOLEAN"), (better, "--by", "DOUBLE")):
        if expression is not None:
            _check_type(connection, expression, option, kind, sources)
    readable, unseen = _counts(connection, sources, [e for e in (where, better) if e is not None])
    said = list(remarks(connection, question, sources, readable))
    connection.execute(_candidates(question, sources, where, better))
    for number, step in enumerate(_steps(connection, question, readable, room, said.append)):
        # Each step makes the table of the next one and frees its own.
        connection.execute(f"CREATE TABLE next{number} AS {step}")
        connection.execute("DROP TABLE picked")
        connection.execute(f"ALTER TABLE next{number} RENAME TO picked")
    path = temporary / "answer.parquet"
    connection.execute(_rows(question, sources, path, only))
    _check_keys(connection)
    return Answer(path, pq.read_metadata(path).num_rows, readable, unseen, by, tuple(said))


def _view(number: int, source: Source) -> str:
    begins = " ".join(
        f"WHEN starts_with(filename, {_quoted(f'{folder}/')}) THEN {len(str(folder)) + 2}"
        for folder in source.ledger_folders
    )
    files = ", ".join(_quoted(storage.escaped(str(path))) for path in source.ledgers.values())
    columns = "* EXCLUDE (filename)"
    if source.selected:  # its samples lie in its own shards
        offset, length = PLACED
        hidden = ", ".join(("filename", '"offset"', "length", *ORIGIN, *PLACED))
        columns = f'{offset} AS "offset", {length} AS length, * EXCLUDE ({hidden})'
    return (
        f"CREATE VIEW v{number} AS SELECT left(substr(filename, CASE {begins} END), -8) || '.tar' AS shard, "
        f"{columns} FROM read_parquet([{files}], filename = true, hive_partitioning = false)"
    )


def _close(connection: duckdb.DuckDBPyConnection, folders: Sequence[Path]) -> None:
    """From here on the connection reaches these folders and nothing else, and no setting can change that."""
    # What is asked for is a pattern that matches one path, and both have to be let through.
    both = {str(folder) for folder in folders} | {storage.escaped(str(folder)) for folder in folders}
    listed = ", ".join(_quoted(f"{folder}/") for folder in sorted(both))
    connection.execute(f"SET allowed_directories = [{listed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _from(sources: Sequence[Source]) -> str:
    """The samples that all sources know, and could read."""
    joined = "".join(
        f' JOIN v{n} AS s{n} ON s{n}.shard = s0.shard AND s{n}."offset" = s0."offset" AND s{n}.key = s0.key'
        for n in range(1, len(sources))
    )
    readable = " AND ".join(f"s{n}.status <> 'unreadable'" for n in range(len(sources)))
    return f"FROM v0 AS s0{joined} WHERE {readable}"


def _check_type(
    connection: duckdb.DuckDBPyConnection,
    expression: Expression,
    option: str,
    kind: str,
    sources: Sequence[Source],
) -> None:
    try:
        found = connection.sql(f"SELECT {expression.sql} AS it {_from(sources)}").types[0]
    except duckdb.Error as error:
        raise QuestionError(f"{option}: {_first_line(error)}") from error
    if kind == "BOOLEAN" and str(found) != kind:
        raise QuestionError(f"{option}: expected something true or false, found a value of type {found}")
    if kind == "DOUBLE" and not (str(found).startswith("DECIMAL") or str(found) in _NUMBERS):
        raise QuestionError(f"{option}: expected a number, found a value of type {found}")


_NUMBERS = frozenset(
    f"{prefix}{name}"
    for name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "BOOLEAN")
    for prefix in ("", "U")
)


def _counts(
    connection: duckdb.DuckDBPyConnection, sources: Sequence[Source], expressions: Sequence[Expression]
) -> tuple[int, dict[str, int]]:
    """How many samples could be chosen, and how many of them each judge that is asked about never saw."""
    known = [
        (source.said(judge), f's{number}."{judge}"')
        for number, source in enumerate(sources)
        for judge in source.judges
        if any(source.said(judge) in expression.judges for expression in expressions)
    ]
    seen = "".join(f", count({column})" for _, column in known)
    row = connection.execute(f"SELECT count(*){seen} {_from(sources)}").fetchone()
    assert row is not None
    total = int(row[0])
    return total, {name: total - int(n) for (name, _), n in zip(known, row[1:], strict=True) if n < total}


def _candidates(
    question: Question, sources: Sequence[Source], where: Expression | None, better: Expression | None
) -> str:
    """One narrow row for each sample that conditions on itself alone let pass."""
    conditions = []
    if where is not None:
        conditions.append(f"({where.sql})")
    elif question.top is None:
        conditions += [f"s{number}.status = 'kept'" for number in range(len(sources))]
    if question.keys is not None:
        conditions.append(
            "(s0.key IN (SELECT key FROM listed WHERE shard IS NULL) OR (s0.shard, s0.key) IN "
            "(SELECT (shard, key) FROM listed WHERE shard IS NOT NULL))"
        )
    if question.drop_keys is not None:
        column = f's0."{question.drop_on}"'
        conditions.append(f"({column} IS NULL OR {column} NOT IN (SELECT value FROM taken_down))")
    measured = f"CAST(({better.sql}) AS DOUBLE)" if better is not None else "CAST(NULL AS DOUBLE)"
    more = "".join(f" AND {condition}" for condition in conditions)
    return (
        'CREATE TABLE picked AS SELECT s0.shard, s0."offset", s0.key'
        + (", s0.image_sha256" if question.drop_duplicates else "")
        + (", CAST('0x' || s0.phash AS UBIGINT) AS phash" if question.near is not None else "")
        # DuckDB takes not-a-number for the largest of all
        + f", CASE WHEN isnan({measured}) THEN NULL ELSE {measured} END AS worth {_from(sources)}{more}"
    )


def _steps(
    connection: duckdb.DuckDBPyConnection,
    question: Question,
    readable: int,
    room: int,
    remark: Callable[[str], object],
) -> Iterator[str]:
    """What looks at several samples together; each step selects from ``picked``, as the one before left it."""
    if question.drop_duplicates:
        yield first_of("image_sha256")
    if question.near is not None:
        yield first_of("phash")
        if question.near:
            yield without_near(connection, question.near, room, remark)
    if question.top is not None:
        count = question.top.of(readable)
        yield f"SELECT * FROM picked WHERE worth IS NOT NULL ORDER BY {BEST_FIRST} LIMIT {count}"
    if question.sample is not None and question.sample.share is not None:
        drawn = _drawn(question.seed, "sample")
        yield f"SELECT * FROM picked WHERE {drawn} < '{draw_below(question.sample.share)}'"


def _drawn(seed: int, purpose: str, table: str = "") -> str:
    return f"md5('{seeded(seed, purpose)}' || {table}shard || chr(10) || {table}key)"


def _rows(question: Question, sources: Sequence[Source], path: Path, only: Sequence[str]) -> str:
    """Writes the answer: rows of what was picked, under names and in the order of the output."""
    selected = selected_columns(sources, only)
    order = 's0.shard, s0."offset"'
    if question.shuffle:
        order = f"{_drawn(question.seed, 'shuffle', 's0.')}, {order}"
    shared = "count(*) OVER (PARTITION BY key) > 1" if "key" in selected else "NULL"
    chosen = f'SELECT shard AS picked_shard, "offset" AS picked_offset, {shared} AS shared FROM picked'
    return (
        f"COPY (SELECT {', '.join(selected.values())} "
        + _from(sources).replace(
            " WHERE ",
            f' JOIN ({chosen}) ON picked_shard = s0.shard AND picked_offset = s0."offset" WHERE ',
            1,
        )
        + f" ORDER BY {order}) TO {_quoted(str(path))} (FORMAT parquet, ROW_GROUP_SIZE {_ROWS_PER_GROUP})"
    )


def _check_keys(connection: duckdb.DuckDBPyConnection) -> None:
    """Keys that several shards share get their shard's name in front; raise OutputError if that is taken too."""
    row = connection.execute(
        "SELECT min(key) FROM (SELECT left(shard, -4) || '/' || key AS key FROM picked "
        "QUALIFY count(*) OVER (PARTITION BY picked.key) > 1) WHERE key IN (SELECT key FROM picked)"
    ).fetchone()
    if row is not None and row[0] is not None:
        raise OutputError(f"two samples would have the key {row[0]!r}; select them in two parts")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
