"""The output folder: where everything lies, and how a shard gets there.

The order of a shard's commit: temporary shard written and flushed, temporary ledger written and
flushed, ledger linked to its final name, shard linked to its own. The ledger is the commit point.
Whoever finds another's ledger in its place has lost, and makes the shard of the winner's ledger;
whoever finds a ledger without its shard does the same, since a shard is a pure function of input
bytes and ledger.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wdsfilter import ledger, scores, storage
from wdsfilter.errors import OutputError
from wdsfilter.failpoints import hit
from wdsfilter.launch import is_running, process_name
from wdsfilter.ledger import Header, LedgerWriter, Row
from wdsfilter.objects import ObjectPath
from wdsfilter.recipe import Recipe
from wdsfilter.samples import Damage, Sample
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import Shard
from wdsfilter.shards.writer import ShardWriter, Written
from wdsfilter.storage import StoredPath
from wdsfilter.streams import Stat

_COPIED_AT_ONCE = 16


class OutputFolder:
    """Paths below ``root``, and this process's temporaries, which are always local.

    ``root`` may be a URL. Raises OutputError where that is no store that can be committed to.
    """

    def __init__(self, root: str | StoredPath) -> None:
        self.root = root = storage.stored_path(root)
        self.record = root / "wdsfilter" / "run.json"
        self.selection = root / "wdsfilter" / "select.json"
        self.readout = root / "wdsfilter" / "readout.json"
        self.summary = root / "wdsfilter" / "summary.json"
        self.ledgers = root / "wdsfilter" / "ledger"
        self.claims = root / "wdsfilter" / "claims"
        self.events = root / "wdsfilter" / "events"
        self.pilot = root / "wdsfilter" / "pilot"
        local = _beside(root) if isinstance(root, ObjectPath) else root / "wdsfilter"
        self.trackers = local / "trackers"
        self._temporaries = local / "tmp"
        self._token = f"{process_name()}.{secrets.token_hex(4)}"
        self._count = itertools.count()

    def shard(self, name: str) -> StoredPath:
        return self.root / name

    def ledger(self, name: str) -> StoredPath:
        return self.ledgers / f"{name.removesuffix('.tar')}.parquet"

    def check_free(self, name: str) -> None:
        """Raise OutputError where a file that is no run's has the name of an output shard.

        A shard of ours has had its ledger for as long as it is there: so look at the shard first.
        """
        if self.shard(name).exists() and not self.ledger(name).exists():
            raise OutputError(f"{self.shard(name)} is in the way: no ledger speaks of it")

    def name_of(self, path: StoredPath) -> str:
        """What a file of this folder is called below it."""
        return str(path).removeprefix(str(self.root)).lstrip("/")

    def holds(self, location: str) -> bool:
        """Whether a file, or an object of a store, lies in this folder."""
        if isinstance(self.root, ObjectPath):
            return location.startswith(f"{self.root}/")
        return storage.protocol(location) is None and self.root.resolve() in Path(location).resolve().parents

    def shard_names(self) -> list[str]:
        """Names of all shards that have a ledger, sorted."""
        start = f"{self.name_of(self.ledgers)}/"
        found = (self.name_of(path).removeprefix(start) for path in self.ledgers.rglob("*.parquet"))
        return sorted(f"{name.removesuffix('.parquet')}.tar" for name in found)

    def local_ledgers(self, names: Iterable[str]) -> dict[str, Path]:
        """The ledgers of these shards as local files: copies among the temporaries, where they lie in a store."""
        with ThreadPoolExecutor(_COPIED_AT_ONCE) as pool:
            names = list(names)
            return dict(zip(names, pool.map(self._local_ledger, names), strict=True))

    def _local_ledger(self, name: str) -> Path:
        path = self.ledger(name)
        if isinstance(path, Path):
            return path
        copy = self.temporary()
        copy.write_bytes(path.read_bytes())
        return copy

    def temporary(self) -> Path:
        """A fresh name for a file that nobody else will touch."""
        self._temporaries.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._temporaries / f"{self._token}.{next(self._count)}"

    def probe(self) -> None:
        """Raise OutputError unless commits are possible here."""
        if isinstance(self.root, ObjectPath):
            self._probe_objects(self.root / "wdsfilter" / "tmp" / f"{self._token}.probe")
        else:
            storage.probe(self._temporaries, self._token)

    def _probe_objects(self, name: ObjectPath) -> None:
        first, second = self.temporary(), self.temporary()
        try:
            storage.write_synced(first, b"first")
            storage.write_synced(second, b"second")
            name.probe(first, second)
        finally:
            first.unlink(missing_ok=True)
            second.unlink(missing_ok=True)

    def put(self, data: bytes, final: StoredPath) -> bool:
        """Commit a small file, unless its name is taken: then False."""
        temporary = self.temporary()
        try:
            storage.write_synced(temporary, data)
            hit("file.written")
            return storage.put_if_absent(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)

    def replace(self, data: bytes, final: StoredPath) -> None:
        """Replace a derived file atomically."""
        temporary = self.temporary()
        try:
            storage.write_synced(temporary, data)
            hit("replacement.written")
            storage.replace(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)

    def remove_own_temporaries(self) -> None:
        """Remove what this process left in ``tmp/``."""
        self._remove(self._token)

    def remove_dead_temporaries(self) -> None:
        """Remove what processes left in ``tmp/`` that this one would see if they were still there."""
        ours = process_name().rpartition(".")[0]
        for path in self._temporaries.glob(f"{ours}.*"):
            pid = path.name.removeprefix(f"{ours}.").partition(".")[0]
            if pid.isdigit() and not is_running(int(pid)):
                self._remove(path.name)

    def _remove(self, prefix: str) -> None:
        for path in self._temporaries.glob(f"{prefix}*"):
            with suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _beside(root: ObjectPath) -> Path:
    """Where temporaries of a folder in a store lie on this machine: with this user, by what it is called."""
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"wdsfilter-{os.getuid()}" / digest


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What a ledger notes of the run it belongs to."""

    scoring: str
    decision: str


class ShardOutput:
    """One shard on its way into the output folder: rows and kept samples in, one commit at the end."""

    def __init__(
        self, folder: OutputFolder, shard: Shard, recipe: Recipe, fingerprints: Fingerprints
    ) -> None:
        self._folder = folder
        self._shard = shard
        self._recipe = recipe
        self._fingerprints = fingerprints
        folder.check_free(shard.name)
        self._ledger_path = folder.temporary()
        self._tar_path = folder.temporary()
        self._tar = ShardWriter(self._tar_path) if recipe.output.shards else None
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
        if not storage.put_if_absent(self._ledger_path, final):
            header = ledger.read_header(final)
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
    output = ledger.read_header(folder.ledger(name)).output
    try:
        return output is None or folder.shard(name).stat().st_size == output.size
    except FileNotFoundError:
        return False


def rebuild(folder: OutputFolder, shard: Shard, recipe: Recipe) -> None:
    """Make the output shard of a committed ledger from its input. Raises OutputError, ReadError."""
    path = folder.ledger(shard.name)
    header = ledger.read_header(path)
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
    if not storage.put_if_absent(temporary, final) and final.stat().st_size != written.size:
        raise OutputError(f"{final} is not the shard that its ledger speaks of; remove it, and run again")
    hit("shard.linked")
