"""The runs that a selection is made of: their records, ledgers and columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wdsfilter import fingerprint, ledger, storage
from wdsfilter.errors import OutputError, QuestionError
from wdsfilter.filled import best_ledgers, fill_of
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import JudgeSpec
from wdsfilter.streams import Stat
from wdsfilter.summary import file_sha256
from wdsfilter.verify import RunRecord, read_record, read_selection

ORIGIN = ("source_shard", "source_key", "source_status")
"""Columns of a selection's ledger that say what a sample was where it was selected from."""

PLACED = ("written_offset", "written_length")
"""Columns of a selection's ledger that say where a sample lies in its own shard, in bytes."""

_NAMED = re.compile(r"([a-z][a-z0-9_]*)=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """A run, or another selection, as a selection sees it. ``name`` is empty where it is the only one.

    ``ledgers`` are its shards' ledgers on this disk, in one of ``ledger_folders``: copies of those of a run in a
    store. Shards that are ``filled`` have those of the run's fill. ``columns`` are those that can be asked for. The
    samples of a run lie in its input shards, a selection's in its own.
    """

    name: str
    folder: OutputFolder
    record: RunRecord
    ledgers: Mapping[str, Path]
    ledger_folders: tuple[Path, ...]
    columns: pa.Schema
    selected: bool = False
    filled: frozenset[str] = frozenset()

    @property
    def judges(self) -> tuple[str, ...]:
        return self.record.judge_ids

    @property
    def has_scores(self) -> bool:
        """Whether its samples bring their scores along."""
        return self.selected and self.record.output.scores != "none"

    def stat(self, name: str) -> Stat:
        """What is known of a shard that its samples lie in. Raises OutputError."""
        header = ledger.read_header(self.ledgers[name])
        return Stat(header.output.size) if self.selected and header.output is not None else header.input

    def own(self, column: str) -> str:
        """What a column is called in the selection's ledgers: ``vlm``, or ``a_vlm`` of a run named a."""
        return f"{self.name}_{column}" if self.name else column

    def said(self, column: str) -> str:
        """What a column is called in expressions: ``vlm``, or ``a.vlm`` of a run named a."""
        return f"{self.name}.{column}" if self.name else column

    def digest(self) -> str:
        """Of all its ledgers: two runs with one digest have the same rows."""
        known = {n: known for n, known in _known_hashes(self.folder).items() if n not in self.filled}
        return fingerprint.digest(
            {name: known.get(name) or file_sha256(path) for name, path in self.ledgers.items()}
        )


@contextmanager
def open_sources(runs: Sequence[str]) -> Iterator[list[Source]]:
    """The runs or selections that the command line names: ``RUN``, or ``a=RUN1 b=RUN2``.

    Ledgers in a store are copied meanwhile. Raises OutputError where a folder is neither's, QuestionError where
    names are missing or repeated.
    """
    named = [_split(run) for run in runs]
    if len(named) > 1:
        if nameless := [path for name, path in named if not name]:
            raise QuestionError(f"give each of several runs a name: a={nameless[0]}")
        names = [name for name, _ in named]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise QuestionError(f"two runs are named {repeated[0]!r}")
    else:
        named = [("", path) for _, path in named]
    opened = [(name, folder, fill_of(folder)) for name, folder in ((n, _folder(path)) for n, path in named)]
    try:
        yield [_open(name, folder, fill) for name, folder, fill in opened]
    finally:
        for folder in (folder for _, *folders in opened for folder in folders if folder is not None):
            folder.remove_own_temporaries()


def _folder(path: str) -> OutputFolder:
    return OutputFolder(Path(path).resolve() if storage.protocol(path) is None else path)


def _split(run: str) -> tuple[str, str]:
    match = _NAMED.fullmatch(run)
    return (match[1], match[2]) if match and not Path(run).exists() else ("", run)


def _open(name: str, folder: OutputFolder, fill: OutputFolder | None) -> Source:
    selected = folder.selection.exists()
    record = read_selection(folder) if selected else read_record(folder)
    best = best_ledgers(folder, fill)
    if not best:
        raise OutputError(f"{folder.root} has no ledgers yet")
    ledgers: dict[str, Path] = {}
    places: list[Path] = []
    for owner in dict.fromkeys(best.values()):
        part = owner.local_ledgers(shard for shard, whose in best.items() if whose is owner)
        shard, path = next(iter(part.items()))
        places.append(path.parents[shard.count("/")])
        ledgers |= part
    columns = pq.read_schema(next(iter(ledgers.values())))
    if "shard" in columns.names:
        raise OutputError(
            f"{folder.root}: its ledgers have a column 'shard', which a selection calls its own"
        )
    if selected and (missing := [n for n in PLACED if n not in columns.names]):
        raise OutputError(
            f"{folder.root}: its ledgers do not say where samples lie ({missing[0]}); select it again"
        )
    asked = pa.schema([column for column in columns if not selected or column.name not in (*ORIGIN, *PLACED)])
    filled = frozenset(shard for shard, whose in best.items() if whose is not folder)
    return Source(name, folder, record, ledgers, tuple(places), asked, selected, filled)


def _known_hashes(folder: OutputFolder) -> Mapping[str, str]:
    """SHA-256 of ledgers that the run's summary speaks of: a committed ledger never changes."""
    try:
        found: Mapping[str, str] = json.loads(folder.summary.read_bytes())["ledgers"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def grades(spec: JudgeSpec) -> tuple[int, ...]:
    """The scale that a judge's probabilities go along, ascending; empty for a judge without one."""
    scale = getattr(spec.options, "scale", None)
    if scale is None or getattr(spec.options, "readout", None) == "generate":
        return ()
    return tuple(scale.grades().values())


def default_worth(sources: Sequence[Source]) -> str:
    """What ``--top`` goes by where nobody says: P(grade >= what the run asks for), else score, else grade.

    Of several judges the last one counts, which is the dearest. Raises QuestionError.
    """
    judged = [(source, spec) for source in sources for spec in reversed(source.record.specs)]
    for source, spec in judged:
        scale = grades(spec)
        wanted = getattr(getattr(spec.options, "at_least", None), "grade", None) or 9
        if scale and scale[-1] >= wanted:
            return f"p_at_least({source.said(spec.id)}, {wanted})"
    for field in ("score", "grade"):
        for source in sources:
            for judge in reversed(source.judges):
                if source.columns.field(judge).type.get_field_index(field) >= 0:
                    return f"{source.said(judge)}.{field}"
    raise QuestionError(
        "no judge of this run measures a score or a grade; say what to rank by: --by EXPRESSION"
    )
