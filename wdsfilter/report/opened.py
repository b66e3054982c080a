"""A folder that a page is made of: a run's (a pilot's is one), or a selection's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wdsfilter import fingerprint
from wdsfilter.errors import InputError, OutputError
from wdsfilter.evaluate.labels import FileLabels
from wdsfilter.ledger import Header, Row
from wdsfilter.output import OutputFolder
from wdsfilter.pairs import PairReader
from wdsfilter.report.figures import Rows, read_batches
from wdsfilter.report.finding import Found, from_input, from_output
from wdsfilter.report.measures import Ruler, find_ruler
from wdsfilter.report.picks import Place, read_picked
from wdsfilter.report.truth import Truth
from wdsfilter.shards.source import Shard
from wdsfilter.status import Status, read_status
from wdsfilter.summary import Tally

_SCORE_MEMBER_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Opened:
    """``record`` is what ``run.json`` or ``select.json`` holds; ``order`` the judges, in order; ``added`` the bytes
    that its scores add to a kept sample. ``is_regrouped``: :mod:`wdsfilter.report.regrouped` made its ledgers."""

    folder: OutputFolder
    status: Status
    record: Mapping[str, Any]
    is_selection: bool
    headers: Mapping[str, Header]
    ledgers: Mapping[str, Path]
    order: Sequence[str]
    ruler: Ruler | None
    truth: Truth
    reader: PairReader
    added: int
    is_regrouped: bool = False

    @property
    def scoring(self) -> str:
        """The fingerprint of everything that changes a score. Raises OutputError for a selection."""
        if self.is_selection:
            raise OutputError(f"{self.folder.root} is a selection; label the run that it was made of")
        return str(self.record["fingerprints"]["scoring"])

    def graded(self, labels: FileLabels) -> Opened:
        """The same, with what a person said of drawn pairs as its truth. Raises InputError for another run's."""
        if labels.scoring != self.scoring:
            raise InputError(
                f"these pairs were drawn from another run (scoring {labels.scoring}, {self.scoring} here), whose "
                "grades say how many pairs each stands for; `check-judge --labels` compares any judge with them"
            )
        return replace(self, truth=Truth(said=labels.scores, sampled=True))

    def rows(self) -> Iterator[Rows]:
        """All rows, by shard and place, batch by batch."""
        for name in self.headers:
            yield from self.rows_of(name)

    def rows_of(self, name: str) -> Iterator[Rows]:
        """The rows of one shard, batch by batch."""
        return read_batches(name, self.ledgers[name], self.ruler, self.truth)

    def find(self, inputs: Sequence[Shard], places: set[Place]) -> Iterator[tuple[Place, Found]]:
        """Each of ``places`` with its sample: from the input shards where they are given, else from the output."""
        urls = {shard.name: shard.url for shard in inputs}
        for name, here in groupby(read_picked(places, self.ledgers), key=lambda item: item[0][0]):
            rows = list(here)
            listed = [row for _, row in rows]
            if not inputs or (self.is_selection and not self.is_regrouped):
                found = self._from_output(name, listed)
            elif name in urls:
                found = from_input(urls[name], self.headers[name].input.size, listed)
            else:
                found = iter([Found(row, None, "its input shard is not among those given") for row in listed])
            by_row = {id(row): place for place, row in rows}  # a key alone may be there twice
            for item in found:
                yield by_row[id(item.row)], item

    def _from_output(self, name: str, rows: Sequence[Row]) -> Iterator[Found]:
        if not self.is_regrouped:
            yield from from_output(self.folder.shard(name), rows)
            return
        for shard, here in groupby(sorted(rows, key=_selected_shard), key=_selected_shard):
            yield from from_output(self.folder.shard(shard), list(here), "selected_key")


def _selected_shard(row: Row) -> str:
    return str(row["selected_shard"])


def open_folder(folder: OutputFolder) -> Opened:
    """Raises OutputError where ``folder`` is no run's or selection's."""
    status = read_status(folder)
    is_selection = folder.selection.exists()
    path = folder.selection if is_selection else folder.record
    headers = dict(sorted(Tally(folder).refresh().headers.items()))
    ledgers = folder.local_ledgers(headers)
    schema = pq.read_schema(next(iter(ledgers.values()))) if ledgers else None
    try:
        record = json.loads(path.read_bytes())
        if is_selection:
            structs = [field.name for field in schema or () if pa.types.is_struct(field.type)]
            ruler = find_ruler(structs, {}, schema) if schema is not None else None
            return Opened(folder, status, record, True, headers, ledgers, structs, ruler, Truth(), _USUAL, 0)
        order = record["scoring"]["order"]
        options = {
            judge: {**record["scoring"]["judges"][judge]["options"], **record["decision"]["judges"][judge]}
            for judge in order
        }
        asked, output = record["scoring"]["input"], record["output"]
        return Opened(
            folder,
            status,
            record,
            False,
            headers,
            ledgers,
            order,
            find_ruler(order, options, schema) if schema is not None else None,
            Truth(fingerprint.recorded_truth(record)),
            PairReader(tuple(asked["image"]), asked["caption"]),
            _SCORE_MEMBER_BYTES if output["shards"] and output["scores"] == "member" else 0,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: not a record that this version reads ({error})") from error


_USUAL = PairReader(("jpg", "jpeg", "png", "webp"), "txt")
