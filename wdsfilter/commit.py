"""One shard's commit: how its ledger and its kept samples get into the output folder.

The order: temporary shard written and flushed, temporary ledger written and flushed, ledger linked to
its final name, shard linked to its own. The ledger is the commit point. Whoever finds another's ledger
in its place has lost, and makes the shard of the winner's ledger; whoever finds a ledger without its
shard does the same, since a shard is a pure function of input bytes and ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from wdsfilter import ledger, scores, storage
from wdsfilter.errors import OutputError
from wdsfilter.failpoints import hit
from wdsfilter.ledger import Header, LedgerWriter, Row
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import Recipe
from wdsfilter.samples import Damage, Sample
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import Shard
from wdsfilter.shards.writer import ShardWriter, Written
from wdsfilter.streams import Stat


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What a ledger notes of the run it belongs to."""

    scoring: str
    decision: str


class ShardOutput:
    """One shard on its way into the output folder: rows and kept samples in, one commit at the end.

    ``thread`` writes the samples, and may be the one that calls :meth:`commit`.
    """

    def __init__(
        self,
        folder: OutputFolder,
        shard: Shard,
        recipe: Recipe,
        fingerprints: Fingerprints,
        thread: Executor | None = None,
    ) -> None:
        self._folder = folder
        self._shard = shard
        self._recipe = recipe
        self._fingerprints = fingerprints
        folder.check_free(shard.name)
        self._ledger_path = folder.temporary()
        self._tar_path = folder.temporary()
        self._tar = ShardWriter(self._tar_path, thread) if recipe.output.shards else None
        try:
            self._ledger = LedgerWriter(self._ledger_path, ledger.schema(recipe))
        except BaseException:
            if self._tar is not None:
                self._tar.abandon()
            raise
        hit("shard.begun")

    @property
    def counts(self) -> ledger.Counts:
        """What was added so far."""
        return self._ledger.counts

    def add(self, row: Row, sample: Sample | None) -> None:
        """Append a row, and its sample to the shard when the row says kept."""
        self._ledger.add(row)
        if row["status"] == "kept" and self._tar is not None and sample is not None:
            self._tar.add(scores.with_scores(sample, row, self._recipe.judge_ids, self._recipe.output))

    def commit(self, source: Stat, damage: Damage | None) -> Header:
        """Make it visible. Returns what the committed ledger says, which may be another process's."""
        counts = self._ledger.counts
        written = self._tar.close() if self._tar is not None else None
        if written is not None and written.samples != counts.kept:
            raise AssertionError(f"{self._shard.name}: {written.samples} written, {counts.kept} kept")
        output = written if counts.kept else None
        hit("shard.written")
        header = Header(
            self._shard.name,
            source,
            counts,
            damage,
            output,
            self._fingerprints.scoring,
            self._fingerprints.decision,
        )
        self._ledger.close(header)
        hit("ledger.written")
        final = self._folder.ledger(self._shard.name)
        if storage.put_if_absent(self._ledger_path, final):
            self._folder.committed(self._shard.name, header)
        else:
            header = self._folder.header(self._shard.name)
        hit("ledger.linked")
        if header.output is not None:
            if header.output == output:
                _link_shard(self._folder, self._tar_path, self._shard, header.output)
            else:
                rebuild(self._folder, self._shard, self._recipe)
        self._remove()
        hit("temporaries.removed")
        return header

    def abandon(self) -> None:
        """Nothing of it becomes visible."""
        self._ledger.abandon()
        if self._tar is not None:
            self._tar.abandon()
        self._remove()

    def _remove(self) -> None:
        self._ledger_path.unlink(missing_ok=True)
        self._tar_path.unlink(missing_ok=True)


def is_complete(folder: OutputFolder, name: str) -> bool:
    """Whether a shard that has a ledger has an output shard of the size that its ledger speaks of."""
    output = folder.header(name).output
    try:
        return output is None or folder.shard(name).stat().st_size == output.size
    except FileNotFoundError:
        return False


def rebuild(folder: OutputFolder, shard: Shard, recipe: Recipe) -> None:
    """Make the output shard of a committed ledger from its input. Raises OutputError, ReadError."""
    path = folder.ledger(shard.name)
    header = folder.header(shard.name)
    assert header.output is not None, "nothing to rebuild"
    temporary = folder.temporary()
    tar = ShardWriter(temporary)
    try:
        with storage.open_read(shard.url) as raw:
            samples = read_samples(decompressed(raw), max_sample_bytes=recipe.input.max_sample)
            for sample, row in _kept(samples, ledger.read_rows(path), shard):
                tar.add(scores.with_scores(sample, row, recipe.judge_ids, recipe.output))
        written = tar.close()
        hit("shard.rebuilt")
        if written != header.output:
            raise OutputError(f"{shard.url} is not the file that {path} was made of: its kept samples differ")
        _link_shard(folder, temporary, shard, written)
    finally:
        tar.abandon()
        temporary.unlink(missing_ok=True)


def _kept(samples: Iterator[object], rows: Iterator[Row], shard: Shard) -> Iterator[tuple[Sample, Row]]:
    for row in rows:
        sample = next(samples, None)
        if getattr(sample, "key", None) != row["key"]:
            raise OutputError(
                f"{shard.url} is not the file that its ledger was made of: {row['key']!r} is not there"
            )
        if row["status"] == "kept" and isinstance(sample, Sample):
            yield sample, row


def _link_shard(folder: OutputFolder, temporary: Path, shard: Shard, written: Written) -> None:
    final = folder.shard(shard.name)
    if not storage.put_if_absent(temporary, final):
        there = final.stat().st_size if final.exists() else None
        if there != written.size:
            raise OutputError(f"{final} is not the shard that its ledger speaks of; remove it, and run again")
    hit("shard.linked")
