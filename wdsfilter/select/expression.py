"""An expression over ledger columns, and nothing else: what DuckDB runs is written from the tree checked here.

DuckDB's own parser makes the tree. Only constants, columns, operators and functions that give the same
answer every time may stand in it; a second statement, a subquery or a table function is refused. Columns
are looked up here, so that a mistake is one line, and written out in full, so that no name means another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from wdsfilter.errors import QuestionError
from wdsfilter.recipe_errors import nearest
from wdsfilter.select.sources import Source, grades

AT_LEAST = "p_at_least"
_OFFERED = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "OPERATOR",
        "TYPE",
    }
)
_MACROS = ("list_", "array_")  # of DuckDB's own macros, those over lists: they are functions in disguise


@dataclass(frozen=True, slots=True)
class Expression:
    """``sql`` over the tables s0, s1, ... of the sources; ``judges`` are those it asks, as people say them."""

    sql: str
    judges: frozenset[str]


def compile_expression(
    connection: duckdb.DuckDBPyConnection, text: str, option: str, sources: Sequence[Source]
) -> Expression:
    """Check ``text`` and resolve its columns. Raises QuestionError, which names the ``option``."""
    document = _parsed(connection, text, option)
    statement = document["statements"][0]["node"]
    tree = statement["select_list"][0]
    compiler = _Compiler(connection, option, sources)
    statement["select_list"] = [compiler.resolve(tree)]
    row = connection.execute("SELECT json_deserialize_sql($1)", [json.dumps(document)]).fetchone()
    assert row is not None
    sql = str(row[0]).removeprefix("SELECT ")
    return Expression(sql, frozenset(compiler.judges))


def _parsed(connection: duckdb.DuckDBPyConnection, text: str, option: str) -> dict[str, Any]:
    """The tree of ``SELECT (text)``, which has to be one expression."""
    if not text.strip():
        raise QuestionError(f"{option}: expected one expression, found nothing")
    found = _serialized(connection, f"SELECT ({text}\n)")
    if found["error"]:
        raise QuestionError(f"{option}: {_reason(found)} in {text!r}")
    bare = _serialized(connection, "SELECT (1)")
    if len(found["statements"]) == 1 and len(found["statements"][0]["node"].get("select_list", ())) == 1:
        shape = json.loads(json.dumps(found))
        shape["statements"][0]["node"]["select_list"] = bare["statements"][0]["node"]["select_list"]
        if _without_places(shape) == _without_places(bare) and not _alias(found):
            return found
    raise QuestionError(f"{option}: expected one expression, found {text!r}")


def _serialized(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    row = connection.execute("SELECT json_serialize_sql($1)", [sql]).fetchone()
    assert row is not None
    found: dict[str, Any] = json.loads(row[0])
    return found


def _alias(document: Mapping[str, Any]) -> str:
    return str(document["statements"][0]["node"]["select_list"][0].get("alias", ""))


def _reason(found: Mapping[str, Any]) -> str:
    return str(found.get("error_message", "not an expression")).splitlines()[0]


def _without_places(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_places(v) for k, v in node.items() if not k.startswith("query_location")}
    return [_without_places(item) for item in node] if isinstance(node, list) else node


@dataclass(slots=True)
class _Compiler:
    connection: duckdb.DuckDBPyConnection
    option: str
    sources: Sequence[Source]
    judges: set[str] = field(default_factory=set)

    def resolve(self, node: Any) -> Any:
        """The tree with columns in full and p_at_least written out."""
        if isinstance(node, list):
            return [self.resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        kind = node.get("class")
        if isinstance(kind, str) and kind not in _OFFERED:
            raise self._error(
                f"{kind.lower().replace('_', ' ')} is not offered here, only columns, numbers, "
                "text, operators and functions"
            )
        if kind == "COLUMN_REF":
            table, path, _ = self._column(node["column_names"])
            return {**node, "column_names": [table, *path]}
        if kind == "FUNCTION":
            if str(node["function_name"]).lower() == AT_LEAST:
                return self._at_least(_arguments(node))
            self._check_function(node)
        return {name: self.resolve(value) for name, value in node.items()}

    def _column(self, names: Sequence[str]) -> tuple[str, list[str], Source]:
        """(table, path in it, source) of a column or a field of one."""
        said = ".".join(names)
        found = [
            (number, source, path)
            for number, source in enumerate(self.sources)
            for path in _paths(source, names)
            if path[0] == "shard" or path[0] in source.columns.names
        ]
        if len(found) > 1:
            raise self._error(f"{said} is a column of several runs; say {found[0][1].said(said)}")
        if not found or not _has(found[0][1].columns, found[0][2]):
            known = {source.said(name) for source in self.sources for name in _names(source.columns)}
            raise self._error(f"no column {said}{nearest(said, known)}")
        number, source, path = found[0]
        if path[0] in source.judges:
            self.judges.add(source.said(path[0]))
        return f"s{number}", list(path), source

    def _at_least(self, arguments: Sequence[Mapping[str, Any]]) -> Any:
        """The tree of: the sum of a judge's probabilities over all grades from the given one on."""
        kinds = [argument.get("class") for argument in arguments]
        if kinds != ["COLUMN_REF", "CONSTANT"]:
            raise self._error(f"{AT_LEAST} takes a judge and a grade: {AT_LEAST}(vlm, 9)")
        table, path, source = self._column(arguments[0]["column_names"])
        spec = next((spec for spec in source.record.specs if [spec.id] == path), None)
        scale = grades(spec) if spec else ()
        if not scale:
            raise self._error(f"{AT_LEAST}: {'.'.join(path)} measures no probabilities")
        wanted = self._number(arguments[1])
        first = sum(grade < wanted for grade in scale)
        if first == len(scale):
            raise self._error(f"{AT_LEAST}: {wanted:g} is not on the scale, {scale[0]} to {scale[-1]}")
        sql = f'SELECT list_sum("{table}"."{path[0]}"."p"[{first + 1}:{len(scale)}])'
        return _serialized(self.connection, sql)["statements"][0]["node"]["select_list"][0]

    def _number(self, constant: Mapping[str, Any]) -> float:
        value = constant.get("literal", {}).get("text") or constant.get("value", {}).get("value")
        try:
            return float(value)
        except (TypeError, ValueError):
            raise self._error(f"{AT_LEAST}: expected a grade, found {value!r}") from None

    def _check_function(self, node: Mapping[str, Any]) -> None:
        name = str(node["function_name"]).lower()
        rows = self.connection.execute(
            "SELECT function_type, stability FROM duckdb_functions() WHERE function_name = $1", [name]
        ).fetchall()
        if any(kind == "scalar" and stability == "CONSISTENT" for kind, stability in rows):
            return
        if name.startswith(_MACROS) and any(kind == "macro" for kind, _ in rows):
            return
        what = "does not give every sample an answer that stays the same" if rows else "is not known"
        raise self._error(f"the function {name} {what}")

    def _error(self, what: str) -> QuestionError:
        return QuestionError(f"{self.option}: {what}")


def _arguments(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A function's arguments, whose place in the tree differs between versions of DuckDB."""
    if "arguments" in node:
        return [argument["expression"] for argument in node["arguments"]]
    return list(node.get("children", ()))


def _paths(source: Source, names: Sequence[str]) -> Iterator[Sequence[str]]:
    """What the names may mean in a source: a column of it by its own name, or behind the source's name."""
    if source.name and len(names) > 1 and names[0] == source.name:
        yield names[1:]
    else:
        yield names


def _has(columns: pa.Schema, path: Sequence[str]) -> bool:
    if path[0] == "shard":
        return len(path) == 1
    kind = columns.field(path[0]).type
    for name in path[1:]:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return False
        kind = kind.field(name).type
    return True


def _names(columns: pa.Schema) -> Iterator[str]:
    """Every column, and every field of a judge's."""
    yield "shard"
    for column in columns:
        yield column.name
        if pa.types.is_struct(column.type):
            yield from (f"{column.name}.{part.name}" for part in column.type)
