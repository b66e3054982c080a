"""Recounts and re-hashes a finished output: every promise about what lies on disk."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wdsfilter import fingerprint, ledger, scores, storage
from wdsfilter.decide import decide
from wdsfilter.errors import OutputError, ReadError, StoreError
from wdsfilter.filled import broken_fills, fill_of
from wdsfilter.ledger import Counts, Header, Row
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import JudgeSpec, Output
from wdsfilter.samples import Damage, Member, Sample, Unreadable
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import Shard
from wdsfilter.storage import StoredPath
from wdsfilter.summary import Tally, derived_files, file_sha256

_ANY_SIZE = 1 << 40  # bytes of a sample, where no record bounds them


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What ``run.json`` says, as far as verifying needs it; or ``select.json``, then without ``specs`` and ``image``.

    ``judge_ids`` are the ledgers' columns of scores.
    """

    specs: tuple[JudgeSpec, ...]
    judge_ids: tuple[str, ...]
    output: Output
    image: tuple[str, ...]
    max_sample: int
    fingerprints: Mapping[str, str]
    judges: Mapping[str, Any]

    @property
    def max_written(self) -> int:
        """An output sample is larger than its input by its scores."""
        return self.max_sample + (1 << 20)


def read_record(folder: OutputFolder) -> RunRecord:
    """Raises OutputError where there is no readable ``run.json``."""
    try:
        record = json.loads(folder.record.read_bytes())
        for part, known in record["fingerprints"].items():
            if fingerprint.digest(record[part]) != known:
                raise ValueError(f"its part {part!r} is not what its fingerprint was made of")
        specs = tuple(fingerprint.recorded_specs(record))
        written = {k: v for k, v in record["output"].items() if k != "ledger"}
        source = record["scoring"]["input"]
        return RunRecord(
            specs,
            tuple(spec.id for spec in specs),
            Output(**written),
            tuple(source["image"]),
            source["max_sample"],
            record["fingerprints"],
            fingerprint.judges_of(record),
        )
    except (FileNotFoundError, NotADirectoryError):
        raise OutputError(
            f"{folder.root} is not the output folder of a run (no wdsfilter/run.json)"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{folder.record}: not readable as a run's record ({error})") from error


def read_selection(folder: OutputFolder) -> RunRecord:
    """Raises OutputError where ``select.json`` is not readable, or no ledger is."""
    try:
        record = json.loads(folder.selection.read_bytes())
        fingerprints = {
            "scoring": fingerprint.digest(record["sources"]),
            "decision": fingerprint.digest(record["question"]),
        }
        output = Output(scores=record["output"]["scores"])
        decided = fingerprint.selection_judges(record)
        with folder.ledger(folder.shard_names()[0]).open("rb") as file:
            columns = pq.read_schema(file)
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise OutputError(f"{folder.root}: not readable as a selection ({error})") from error
    judges = tuple(column.name for column in columns if pa.types.is_struct(column.type))
    return RunRecord((), judges, output, (), _ANY_SIZE, fingerprints, decided)


_COLUMNS = frozenset({"key", "offset", "length", "status", "reason", "image_sha256"})


def verify(folder: OutputFolder, inputs: Sequence[Shard] = ()) -> Iterator[str]:
    """Every broken promise of a run, with its fill, or a selection, as a sentence; nothing when all hold.

    ``inputs`` (the input shards, where they are at hand) are read again: every sample must have its
    row, and every kept member its bytes; a selection has none of its own. Raises OutputError where ``folder`` is
    neither's, or ``inputs`` are given with a selection; StoreError where its store does not answer.
    """
    selected = folder.selection.exists()
    if selected and inputs:
        raise OutputError(f"{folder.root} is a selection: only a run's output is compared with input shards")
    record = read_selection(folder) if selected else read_record(folder)
    sources = {shard.name: shard for shard in inputs}
    tally = Tally(folder)
    unreadable: set[str] = set()
    for name in folder.shard_names():
        path = folder.ledger(name)
        try:
            header = ledger.read_header(path)
            rows = list(ledger.read_rows(path))
            if rows and (missing := _COLUMNS - rows[0].keys()):
                raise ValueError(f"no column {', '.join(sorted(missing))}")
        except StoreError:  # a store that does not answer is no broken promise
            raise
        except (OutputError, ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
            yield f"{path}: not readable ({error}); remove it and {folder.shard(name)}, and run again"
            unreadable.add(name)
            continue
        tally.add(name, header)
        yield from _verify_ledger(path, name, header, rows, record)
        if not selected:
            yield from _verify_rows(path, rows, record)
        try:
            yield from _verify_shard(folder, name, header, rows, record)
        except StoreError:
            raise
        except (OSError, ReadError) as error:
            yield f"{folder.shard(name)}: not readable ({error})"
        if name in sources:
            yield from _verify_input(folder, sources.pop(name), header, rows, record)
    for name in sources:
        yield f"{name}: no ledger for this input shard"
    if unreadable:
        return  # what is derived from all ledgers cannot be told
    yield from _verify_folder(folder, tally, record)
    if not selected:
        yield from _verify_fill(folder, record)


def _verify_ledger(
    path: StoredPath, name: str, header: Header, rows: Sequence[Row], record: RunRecord
) -> Iterator[str]:
    if header.shard != name:
        yield f"{path}: speaks of shard {header.shard}"
    for part in ("scoring", "decision"):
        if getattr(header, part) != record.fingerprints[part]:
            yield f"{path}: written with another {part} fingerprint than run.json's"
    statuses = Counter(row["status"] for row in rows)
    reasons = Counter(row["reason"] for row in rows if row["reason"])
    recount = Counts(
        len(rows), **{s: statuses[s] for s in ledger.STATUSES}, reasons=dict(sorted(reasons.items()))
    )
    if recount != header.counts:
        yield f"{path}: its rows are not what its metadata counts"


def _verify_rows(path: StoredPath, rows: Sequence[Row], record: RunRecord) -> Iterator[str]:
    end = -1
    for row in rows:
        if row["offset"] < end:
            yield f"{path}: row {row['key']!r} does not follow the row before it"
        end = row["offset"] + row["length"]
        if row["status"] in ("kept", "dropped"):
            try:
                decision = decide(record.specs, {spec.id: row[spec.id] for spec in record.specs})
            except (KeyError, TypeError) as error:  # a column or a field of another name or type
                yield f"{path}: row {row['key']!r} lacks what decides about it ({error})"
                return
            if (decision.status, decision.reason) != (row["status"], row["reason"]):
                yield f"{path}: row {row['key']!r} says {row['status']}, its scores say {decision.status}"


def _verify_shard(
    folder: OutputFolder, name: str, header: Header, rows: Sequence[Row], record: RunRecord
) -> Iterator[str]:
    path = folder.shard(name)
    if header.output is None:
        if path.exists():
            yield f"{path}: its ledger says that no shard was written"
        return
    if not path.exists():
        yield f"{path}: missing; `run` makes it again from its ledger"
        return
    if path.stat().st_size != header.output.size or file_sha256(path) != header.output.sha256:
        yield f"{path}: its bytes are not those that its ledger's SHA-256 speaks of"
    kept = [row for row in rows if row["status"] == "kept"]
    if header.output.samples != len(kept):
        yield f"{path}: {header.output.samples} samples written, {len(kept)} rows kept"
    for sample, row in zip_longest(_samples(str(path), record.max_written), kept):
        if not isinstance(sample, Sample) or row is None or sample.key != row["key"]:
            found = sample.detail if isinstance(sample, Damage) else repr(getattr(sample, "key", None))
            yield f"{path}: holds {found} where the ledger has {row['key'] if row else None!r}"
            return
        image = sample.first(record.image)
        images = [image] if image is not None else sample.members if not record.image else []
        if row["image_sha256"] not in (hashlib.sha256(member.data).hexdigest() for member in images):
            yield f"{path}: the image of {sample.key!r} is not the one that was judged"
        yield from _verify_scores(path, sample, row, record.judge_ids, record.output)


def _verify_scores(
    path: StoredPath, sample: Sample, row: Row, ids: Sequence[str], output: Output
) -> Iterator[str]:
    if output.scores == "none":
        return
    try:
        if output.scores == "member":
            found = sample.first((output.score_extension,))
            there = json.loads(bytes(found.data)) if found else None
        else:
            found = sample.first(("json",))
            there = json.loads(bytes(found.data)).get(scores.FIELD) if found else None
    except ValueError:
        there = None
    if there != json.loads(scores.score_json(row, ids)):
        yield f"{path}: the scores of {sample.key!r} are not its ledger row's"


def _verify_input(
    folder: OutputFolder, shard: Shard, header: Header, rows: Sequence[Row], record: RunRecord
) -> Iterator[str]:
    """The output shard is made of the input's bytes and the ledger: make it again and compare."""
    written = iter(_samples(str(folder.shard(shard.name)), record.max_written)) if header.output else iter(())
    try:
        for item, row in zip_longest(_samples(shard.url, record.max_sample), rows):
            if isinstance(item, Damage):
                if header.damage != item:
                    yield f"{shard.url}: damaged ({item.reason}), which its ledger does not say"
                return
            if item is None or row is None or item.key != row["key"] or item.offset != row["offset"]:
                found = getattr(item, "key", None)
                yield f"{shard.url}: holds {found!r} where its ledger has {row['key'] if row else None!r}"
                return
            if row["status"] != "kept" or header.output is None:
                continue
            there = next(written, None)
            due = (
                scores.with_scores(item, row, record.judge_ids, record.output)
                if isinstance(item, Sample)
                else []
            )
            if not isinstance(there, Sample) or _contents(there.members) != _contents(due):
                yield f"{folder.shard(shard.name)}: {item.key!r} is not what its input and its ledger row make of it"
        if header.damage is not None:
            yield f"{shard.url}: sound, while its ledger says {header.damage.reason}"
    except ReadError as error:
        yield f"could not be read: {error}"


def _contents(members: Sequence[Member]) -> list[tuple[str, bytes]]:
    return [(member.name, bytes(member.data)) for member in members]


def _verify_folder(folder: OutputFolder, tally: Tally, record: RunRecord) -> Iterator[str]:
    if record.specs:
        yield from _verify_readout(folder, record)
    for name, content in derived_files(tally).items():
        path = folder.root / name
        if not path.exists() or path.read_bytes() != content:
            yield f"{path}: not what the ledgers make of it; `run` writes it again"
    for name in sorted(folder.name_of(path) for path in folder.root.rglob("*.tar")):
        if not name.startswith("wdsfilter/") and name not in tally.headers:
            yield f"{folder.shard(name)}: no ledger speaks of this shard"


def _verify_fill(folder: OutputFolder, record: RunRecord) -> Iterator[str]:
    """A fill is a run's folder, and holds the rows of the run that it fills."""
    try:
        if (fill := fill_of(folder)) is not None:
            yield from verify(fill)
            yield from broken_fills(folder, fill, record.judge_ids)
    except OutputError as error:
        yield str(error)


def _verify_readout(folder: OutputFolder, record: RunRecord) -> Iterator[str]:
    try:
        found = json.loads(folder.readout.read_bytes()).keys()
    except (OSError, ValueError, AttributeError) as error:
        yield f"{folder.readout}: not readable ({error})"
    else:
        if not found <= set(record.judge_ids):
            yield f"{folder.readout}: speaks of other judges than run.json"


def _samples(location: str, max_sample: int) -> Iterator[Sample | Unreadable | Damage]:
    with storage.open_read(location) as raw:
        yield from read_samples(decompressed(raw), max_sample_bytes=max_sample)
