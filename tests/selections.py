"""Runs to select from: a real one with the scripted judge, and ledgers with numbers made by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.runs import make_shards, write_recipe
from wdsfilter import fingerprint, ledger, recipe
from wdsfilter.cli import main
from wdsfilter.judges import Runtime
from wdsfilter.ledger import Header, LedgerWriter, Row
from wdsfilter.output import OutputFolder
from wdsfilter.streams import Stat


def run_here(folder: Path, shards: int = 4, samples: int = 12) -> str:
    """Input shards and a run over them, in ``folder``; returns the pattern of the input."""
    pattern = make_shards(folder / "in", shards, samples)
    assert main(["run", str(write_recipe(folder)), "--shards", pattern, "-o", str(folder / "run")]) == 0
    return pattern


def select(*arguments: object) -> int:
    return main(["select", *map(str, arguments), "--workers", "1"])


def rows_of(output: Path) -> list[Row]:
    """All rows of a folder's ledgers, by shard and place; a selection's or a run's."""
    folder = OutputFolder(output)
    return [
        {"shard": name, **row}
        for name in folder.shard_names()
        for row in ledger.read_rows(folder.ledger(name))
    ]


def chosen(output: Path) -> list[tuple[str, str]]:
    """(source shard, source key) of every sample of a selection, in order."""
    return [(row["source_shard"], row["source_key"]) for row in rows_of(output)]


def exported(runs: Sequence[str | Path], to: Path, *arguments: str | Path) -> list[str]:
    """Keys of the selection, in order, by way of ``--export``."""
    assert select(*runs, "--export", to, *arguments) == 0
    return [line.split("\t")[1] for line in to.read_text().splitlines()]


def ledger_run(folder: Path, judges: Any, rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> Path:
    """A run's folder with ledgers alone, of rows that say what is special about them."""
    parsed = recipe.parse({"judges": judges, "guard": False})
    output = OutputFolder(folder)
    record = fingerprint.record(parsed, Runtime("cpu"))
    output.put(fingerprint.canonical(record), output.record)
    columns = ledger.schema(parsed)
    for name, listed in rows.items():
        Path(str(output.ledgers)).mkdir(parents=True, exist_ok=True)
        writer = LedgerWriter(Path(str(output.ledger(name))), columns)
        for number, row in enumerate(listed):
            place = {"key": f"k{number}", "offset": number * 1024, "length": 1024}
            writer.add({**place, "status": "kept", "reason": "", "detail": "", **row})
        found = record["fingerprints"]
        writer.close(
            Header(name, Stat(1 << 20), writer.counts, None, None, found["scoring"], found["decision"])
        )
    return folder


def json_of(path: Path) -> Any:
    return json.loads(path.read_bytes())


def column_names(path: Path) -> list[str]:
    return list(pq.read_schema(path).names)
