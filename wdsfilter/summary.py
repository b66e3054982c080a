"""Ledgers -> counts, derived files, and the run's exit code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wdsfilter.counted import counted
from wdsfilter.failpoints import hit
from wdsfilter.fingerprint import canonical
from wdsfilter.ledger import Counts, Header
from wdsfilter.objects import ObjectPath
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import Tolerate
from wdsfilter.shards.index import index_files
from wdsfilter.storage import StoredPath

EXIT_DONE = 0
EXIT_USER_ERROR = 1
EXIT_USAGE = 2
EXIT_DAMAGED = 3
EXIT_GUARD = 4
EXIT_INTERRUPTED = 75


@dataclass(slots=True)
class Tally:
    """Counts over all committed ledgers of a folder; :meth:`refresh` reads only those that are new."""

    folder: OutputFolder
    headers: dict[str, Header] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)

    def refresh(self) -> Tally:
        new = [name for name in self.folder.shard_names() if name not in self.headers]
        for name, header in self.folder.of_each(self.folder.header, new).items():
            self.add(name, header)
        return self

    def add(self, name: str, header: Header) -> None:
        if name not in self.headers:
            self.headers[name] = header
            self.counts += header.counts

    @property
    def damaged(self) -> dict[str, Header]:
        return {name: header for name, header in sorted(self.headers.items()) if header.damage is not None}


def troubles(counts: Counts, damaged: int, unread: int, tolerate: Tolerate) -> list[str]:
    """What is beyond tolerance, a phrase each; where there is any, the exit code is 3.

    ``damaged`` shards ended before their archives did, ``unread`` ones could not be read.
    """
    found = []
    if unread:
        found.append(f"{counted(unread, 'shard')} could not be read")
    if damaged > tolerate.damaged_shards:
        found.append(f"{counted(damaged, 'damaged shard')}, {tolerate.damaged_shards:,} tolerated")
    if counts.unreadable > tolerate.unreadable * counts.samples:
        share = counts.unreadable / counts.samples
        found.append(f"{share:.2%} of the samples are unreadable, {tolerate.unreadable:.2%} are tolerated")
    return found


def finish(folder: OutputFolder) -> Tally:
    """Write indexes and summary from the ledgers, again if another process committed meanwhile."""
    while True:
        tally = Tally(folder).refresh()
        for name, content in derived_files(tally).items():
            path = folder.root / name
            if path.exists() and path.read_bytes() == content:
                continue
            folder.replace(content, path)
            hit("summary.replaced" if path == folder.summary else "index.replaced")
        if folder.shard_names() == sorted(tally.headers):
            return tally


def derived_files(tally: Tally) -> dict[str, bytes]:
    """Path below the output folder -> content, of everything that is a pure function of what is committed."""
    sizes = {n: h.output.samples for n, h in tally.headers.items() if h.output is not None}
    summary = canonical(_summary(tally))
    return {**index_files(sizes), tally.folder.name_of(tally.folder.summary): summary}


def _summary(tally: Tally) -> Mapping[str, Any]:
    counts = asdict(tally.counts)
    folder = tally.folder
    records = [path for path in (folder.record, folder.selection, folder.readout) if path.exists()]
    return {
        "counts": counts,
        "shards": len(tally.headers),
        "damaged": {name: asdict(h.damage) for name, h in tally.damaged.items() if h.damage is not None},
        "records": {path.name: file_sha256(path) for path in records},
        "ledgers": folder.of_each(lambda name: file_sha256(folder.ledger(name)), sorted(tally.headers)),
    }


def file_sha256(path: StoredPath) -> str:
    """Hexadecimal SHA-256 of a file."""
    if isinstance(path, ObjectPath):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
