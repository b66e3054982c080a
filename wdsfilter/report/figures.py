"""Ledgers -> all figures of a page, by streaming: one batch of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wdsfilter.ledger import ROWS_PER_GROUP
from wdsfilter.report.measures import Bools, Floats, Ruler, floats
from wdsfilter.report.truth import Truth

Ints = npt.NDArray[np.int64]

PER_OCTAVE = 4
_OCTAVES = 40  # values from 2 ** -8 to 2 ** 32
_LOWEST = -8

SIZES = {
    "length": "Size of a sample in its shard, bytes",
    "chars": "Length of the caption, characters",
    "words": "Length of the caption, words",
    "width": "Width of the image, pixels",
    "height": "Height of the image, pixels",
    "aspect": "Aspect ratio, width / height",
}


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch of a ledger's rows [n]: ``first`` is the number of its first row.

    ``candidates`` are those that the ruler's threshold decides about: all its judge measured, less those
    that another judge dropped. ``truth`` is nan where it is not known, or where nothing could be judged.
    """

    shard: str
    first: int
    reasons: npt.NDArray[np.object_]
    kept: Bools
    readable: Bools
    candidates: Bools
    measures: Mapping[str, Floats]
    truth: Floats
    sizes: Mapping[str, Floats]


def read_batches(shard: str, path: Path, ruler: Ruler | None, truth: Truth) -> Iterator[Rows]:
    """A ledger's rows, batch by batch, in order."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        sized = _sized(schema)
        columns = {"status", "reason", "length", *sized.values()} | truth.columns
        columns |= {ruler.judge} if ruler else set()
        first = 0
        for batch in file.iter_batches(ROWS_PER_GROUP, columns=sorted(columns)):
            kept = _equal(batch.column("status"), "kept")
            reasons = _objects(batch.column("reason"))
            measures = ruler.read(batch) if ruler else {}
            candidates = np.zeros(len(kept), bool)
            if ruler:
                measured = ~np.isnan(next(iter(measures.values())))
                candidates = measured & (kept | (reasons == f"{ruler.judge}.at_least"))
            readable = ~_equal(batch.column("status"), "unreadable")
            yield Rows(
                shard,
                first,
                reasons,
                kept,
                readable,
                candidates,
                measures,
                np.where(readable, truth.read(shard, batch), np.nan),
                _sizes(batch, sized),
            )
            first += len(kept)


@dataclass(slots=True)
class Cuts:
    """Candidates at each edge of a measure [edges]: how many, their bytes, how many have a known truth, and
    how many of these are worth keeping."""

    pairs: Ints
    bytes: Ints
    known: Ints
    right: Ints

    def kept(self) -> Ints:
        """How many pairs each threshold keeps [edges]."""
        return from_above(self.pairs)

    def kept_bytes(self) -> Ints:
        return from_above(self.bytes)

    def kept_known(self) -> Ints:
        return from_above(self.known)

    def kept_right(self) -> Ints:
        return from_above(self.right)


@dataclass(slots=True)
class Figures:
    """Everything that is counted over all rows; :meth:`add` takes them batch by batch.

    ``sizes`` hold, for each of :data:`SIZES` that the ledgers know, kept and other readable samples by
    logarithmic bins [2, bins]. ``confusion`` counts true score and grade [grades, grades]; ``worth`` how many
    pairs are worth keeping in truth, and how many have a truth.
    """

    ruler: Ruler | None
    added: int
    cuts: dict[str, Cuts] = field(default_factory=dict)
    sizes: dict[str, Ints] = field(default_factory=dict)
    confusion: Ints = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    with_truth: int = 0
    worth: int = 0

    def __post_init__(self) -> None:
        """Empty counts; ``added`` is what a kept sample's scores add to its bytes."""
        if self.ruler:
            for measure in self.ruler.measures:
                self.cuts[measure.name] = Cuts(*(np.zeros(len(measure.edges), np.int64) for _ in range(4)))
            self.confusion = np.zeros((len(self.ruler.grades),) * 2, np.int64)

    @property
    def decided(self) -> int:
        """How many pairs the ruler's threshold decides about."""
        return int(self.cuts[self.ruler.main.name].pairs.sum()) if self.ruler else 0

    def add(self, rows: Rows) -> None:
        for name, values in rows.sizes.items():
            counts = self.sizes.setdefault(name, np.zeros((2, _OCTAVES * PER_OCTAVE), np.int64))
            known = rows.readable & (values > 0)  # false for nan
            places = np.floor(
                (np.log2(values, where=known, out=np.zeros_like(values)) - _LOWEST) * PER_OCTAVE
            )
            places = np.clip(places, 0, counts.shape[1] - 1).astype(np.int64)
            for half, chosen in enumerate((known & rows.kept, known & ~rows.kept)):
                counts[half] += np.bincount(places[chosen], minlength=counts.shape[1])
        if self.ruler is None:
            return
        right = rows.truth >= self.ruler.worth
        known = ~np.isnan(rows.truth)
        self.with_truth += int(known.sum())
        self.worth += int(right.sum())
        chosen = rows.candidates
        for measure in self.ruler.measures:
            values = rows.measures[measure.name]
            here = chosen & ~np.isnan(values)
            places = measure.places(values[here])
            cuts, edges = self.cuts[measure.name], len(measure.edges)
            lengths = rows.sizes["length"][here] + self.added
            cuts.pairs += np.bincount(places, minlength=edges)
            cuts.bytes += np.bincount(places, lengths, edges).astype(np.int64)
            cuts.known += np.bincount(places[known[here]], minlength=edges)
            cuts.right += np.bincount(places[right[here]], minlength=edges)
        if "grade" in rows.measures:
            self._confuse(rows.truth, rows.measures["grade"])

    def _confuse(self, truth: Floats, grade: Floats) -> None:
        assert self.ruler is not None
        known = np.isin(truth, self.ruler.grades) & np.isin(grade, self.ruler.grades)
        places = [np.searchsorted(self.ruler.grades, values[known]) for values in (truth, grade)]
        np.add.at(self.confusion, (places[0], places[1]), 1)


def _equal(column: pa.Array, text: str) -> Bools:
    found: Bools = pc.equal(column, text).to_numpy(zero_copy_only=False)
    return found


def _objects(column: pa.Array) -> npt.NDArray[np.object_]:
    """A column of texts that often repeat."""
    found = column.dictionary_encode()
    texts = np.array(found.dictionary.to_pylist(), dtype=object)
    named: npt.NDArray[np.object_] = texts[found.indices.to_numpy()]
    return named


def bin_edges(bins: int) -> Floats:
    """Lower edges of the logarithmic bins, and the last one's upper edge [bins + 1]."""
    edges: Floats = 2.0 ** (_LOWEST + np.arange(bins + 1) / PER_OCTAVE)
    return edges


def _sized(schema: pa.Schema) -> dict[str, str]:
    """Size -> the first judge that measured it."""
    found: dict[str, str] = {}
    for column in schema:
        if pa.types.is_struct(column.type):
            for inner in column.type:
                if inner.name in ("chars", "words", "width", "height") and pa.types.is_integer(inner.type):
                    found.setdefault(inner.name, column.name)
    return found


def _sizes(batch: pa.RecordBatch, sized: Mapping[str, str]) -> dict[str, Floats]:
    found = {"length": floats(batch.column("length"))}
    found |= {name: floats(pc.struct_field(batch.column(judge), name)) for name, judge in sized.items()}
    if "width" in found and "height" in found:
        with np.errstate(divide="ignore", invalid="ignore"):
            found["aspect"] = found["width"] / found["height"]
    return found


def from_above(counts: Ints) -> Ints:
    """Sums of what lies at each place or above it, along the last axis."""
    sums: Ints = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return sums
