"""Columns of an answer and of the ledgers that are made of it, and what each is made of."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from wdsfilter.errors import OutputError
from wdsfilter.select.sources import PLACED, Source

_PLACE = ("key", "offset", "length", "status", "reason", "detail")
_MADE = {
    "key": "CASE WHEN shared THEN left(s0.shard, -4) || '/' || s0.key ELSE s0.key END",
    "source_shard": "s0.shard",
    "source_key": "s0.key",
    "status": "'kept'",
    "reason": "''",
    "detail": "''",
    "source_status": "s0.status",
}


def columns(sources: Sequence[Source]) -> pa.Schema:
    """Columns of an answer: where a sample came from, and all that the runs noted of it.

    Of several runs the first gives what is not a judge's. Raises OutputError where names collide.
    """
    first = sources[0]
    text = pa.string()
    found = [
        pa.field("key", text, nullable=False),
        pa.field("source_shard", text, nullable=False),
        pa.field("source_key", text, nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("status", text, nullable=False),
        pa.field("reason", text, nullable=False),
        pa.field("detail", text, nullable=False),
        pa.field("source_status", text, nullable=False),
        *(
            source.columns.field(judge).with_name(source.own(judge))
            for source in sources
            for judge in source.judges
        ),
        *(f for f in first.columns if f.name not in (*_PLACE, *first.judges)),
    ]
    names = [column.name for column in found]
    if taken := sorted({name for name in names if names.count(name) > 1}):
        raise OutputError(
            f"a selection's ledgers cannot have two columns {taken[0]!r}; name the runs otherwise"
        )
    return pa.schema(found)


def ledger_columns(sources: Sequence[Source]) -> pa.Schema:
    """:func:`columns`, and where each sample was written. Raises OutputError."""
    return pa.schema([*columns(sources), *(pa.field(name, pa.int64(), nullable=False) for name in PLACED)])


def selected_columns(sources: Sequence[Source], only: Sequence[str] = ()) -> dict[str, str]:
    """SQL of all :func:`columns`, or of those in ``only``, by name.

    The sources are called s0, s1, ... in it, and ``shared`` says whether a key comes from several shards.
    """
    judged = {
        source.own(judge): f's{number}."{judge}"'
        for number, source in enumerate(sources)
        for judge in source.judges
    }
    names = [name for name in columns(sources).names if not only or name in only]
    found = {**{name: f's0."{name}"' for name in names}, **_MADE, **judged}
    return {name: f'{found[name]} AS "{name}"' for name in names}
