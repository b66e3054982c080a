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

from wdsfilter import fingerprint, storage
from wdsfilter.errors import OutputError, QuestionError
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import JudgeSpec
from wdsfilter.summary import file_sha256
from wdsfilter.verify import RunRecord, read_record

_NAMED = re.compile(r"([a-z][a-z0-9_]*)=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """A run as a selection sees it. ``name`` is empty where it is the only one.

    ``ledgers`` are its shards' ledgers on this disk, in ``ledger_folder``: copies of those of a run in a store.
    """

    name: str
    folder: OutputFolder
    record: RunRecord
    ledgers: Mapping[str, Path]
    ledger_folder: Path
    columns: pa.Schema

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(spec.id for spec in self.record.specs)

    def own(self, column: str) -> str:
        """What a column is called in the selection's ledgers: ``vlm``, or ``a_vlm`` of a run named a."""
        return f"{self.name}_{column}" if self.name else column

    def said(self, column: str) -> str:
        """What a column is called in expressions: ``vlm``, or ``a.vlm`` of a run named a."""
        return f"{self.name}.{column}" if self.name else column

    def digest(self) -> str:
        """Of all its ledgers: two runs with one digest have the same rows."""
        known = _known_hashes(self.folder)
        return fingerprint.digest(
            {name: known.get(name) or file_sha256(path) for name, path in self.ledgers.items()}
        )


@contextmanager
def open_sources(runs: Sequence[str]) -> Iterator[list[Source]]:
    """The runs that the command line names: ``RUN``, or ``a=RUN1 b=RUN2``. Ledgers in a store are copied meanwhile.

    Raises OutputError where a folder is no run's, QuestionError where names are missing or repeated.
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
    folders = [(name, _folder(path)) for name, path in named]
    try:
        yield [_open(name, folder) for name, folder in folders]
    finally:
        for _, folder in folders:
            folder.remove_own_temporaries()


def _folder(path: str) -> OutputFolder:
    return OutputFolder(Path(path).resolve() if storage.protocol(path) is None else path)


def _split(run: str) -> tuple[str, str]:
    match = _NAMED.fullmatch(run)
    return (match[1], match[2]) if match and not Path(run).exists() else ("", run)


def _open(name: str, folder: OutputFolder) -> Source:
    if folder.selection.exists():
        raise OutputError(f"{folder.root} is a selection; select from the run that it was made of")
    record = read_record(folder)
    ledgers = folder.local_ledgers(folder.shard_names())
    if not ledgers:
        raise OutputError(f"{folder.root} has no ledgers yet")
    shard, path = next(iter(ledgers.items()))
    columns = pq.read_schema(path)
    if "shard" in columns.names:
        raise OutputError(
            f"{folder.root}: its ledgers have a column 'shard', which a selection calls its own"
        )
    ledger_folder = path.parents[shard.count("/")]
    return Source(name, folder, record, ledgers, ledger_folder, columns)


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
        for source, spec in judged:
            if field in spec.module.fields(spec.options):
                return f"{source.said(spec.id)}.{field}"
    raise QuestionError(
        "no judge of this run measures a score or a grade; say what to rank by: --by EXPRESSION"
    )
