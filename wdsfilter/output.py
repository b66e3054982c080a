"""The output folder: where everything lies, this process's temporaries, and how small files get there."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from wdsfilter import ledger, storage
from wdsfilter.errors import OutputError
from wdsfilter.failpoints import hit
from wdsfilter.launch import is_running, process_name
from wdsfilter.ledger import Header
from wdsfilter.objects import ObjectPath
from wdsfilter.storage import StoredPath

T = TypeVar("T")

_ASKED_AT_ONCE = 16  # objects of a store


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
        self.fill = root / "wdsfilter" / "fill"
        local = _beside(root) if isinstance(root, ObjectPath) else root / "wdsfilter"
        self.trackers = local / "trackers"
        self._temporaries = local / "tmp"
        self._token = f"{process_name()}.{secrets.token_hex(4)}"
        self._count = itertools.count()
        self._begun = False
        self._headers: dict[str, Header] = {}

    def shard(self, name: str) -> StoredPath:
        return self.root / name

    def ledger(self, name: str) -> StoredPath:
        return self.ledgers / f"{name.removesuffix('.tar')}.parquet"

    def header(self, name: str) -> Header:
        """What a shard's ledger says, which is read once: a committed ledger never changes. Raises OutputError."""
        if name not in self._headers:
            self._headers[name] = ledger.read_header(self.ledger(name))
        return self._headers[name]

    def committed(self, name: str, header: Header) -> None:
        """This process committed a shard's ledger, which therefore need not be read."""
        self._headers[name] = header

    def of_each(self, ask: Callable[[str], T], names: Iterable[str]) -> dict[str, T]:
        """``ask(name)`` of each shard, by name; many are asked at once where this folder lies in a store."""
        names = list(names)
        if isinstance(self.root, Path):
            return {name: ask(name) for name in names}
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            return dict(zip(names, pool.map(ask, names), strict=True))

    def findings(self) -> dict[str, Any]:
        """What the judges' checks found, by judge. Raises OutputError where that cannot be read."""
        try:
            found = json.loads(self.readout.read_bytes())
        except ValueError as error:
            raise OutputError(f"{self.readout}: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(of_one, dict) for of_one in found.values()):
            raise OutputError(f"{self.readout} does not hold what judges found, by judge")
        return found

    def check_free(self, name: str) -> None:
        """Raise OutputError where a file that is no run's has the name of an output shard.

        A shard of ours has had its ledger for as long as it is there: so look at the shard first.
        """
        if self.shard(name).exists() and not self.ledger(name).exists():
            raise OutputError(
                f"{self.shard(name)} is in the way: no ledger speaks of it; remove it, or use another output folder"
            )

    def check_writable(self, names: Iterable[str]) -> None:
        """Raise OutputError where a folder that is there cannot take what is committed for these shards.

        It would stop the run at its first commit, after models were loaded and a shard was judged.
        """
        if isinstance(self.root, ObjectPath):
            return
        used = {Path(str(folder)) for folder in (self.claims, self.events)}
        for name in names:
            used |= {Path(str(final)).parent for final in (self.shard(name), self.ledger(name))}
        used |= {path for folder in used for path in folder.parents}
        for folder in sorted(path for path in used if path == self.root or self.root in path.parents):
            storage.check_writable(folder)

    def check_all_free(self, names: Iterable[str]) -> None:
        """The same of many, of which a store is asked by listings."""
        if isinstance(self.root, ObjectPath):
            names = self.shard_sizes().keys() & set(names)
            names -= set(self.shard_names())
        for name in names:
            self.check_free(name)

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

    def shard_sizes(self) -> dict[str, int]:
        """Sizes of all output shards that are there, by name."""
        if isinstance(self.root, Path):
            found = {str(path): path.stat().st_size for path in self.root.rglob("*.tar")}
        else:
            found = {url: size for url, size in self.root.sizes().items() if url.endswith(".tar")}
        names = {str(path).removeprefix(str(self.root)).lstrip("/"): size for path, size in found.items()}
        return {name: size for name, size in names.items() if not name.startswith("wdsfilter/")}

    def local_ledgers(self, names: Iterable[str]) -> dict[str, Path]:
        """The ledgers of these shards as local files, named alike below one folder.

        Where they lie in a store they are copied among the temporaries, for their owner to remove.
        """
        names = list(names)
        if isinstance(self.root, Path):
            return {name: self.root / self.name_of(self.ledger(name)) for name in names}
        copies = self.temporary()

        def copied(name: str) -> Path:
            path = self.ledger(name)
            copy = copies / self.name_of(path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            return copy

        return self.of_each(copied, names)

    def temporary(self) -> Path:
        """A fresh name for a file that nobody else will touch.

        Raises OutputError where the output folder was removed since the first one: it is not made again, without
        what says whose it is.
        """
        with self._if_it_is_there():
            self._temporaries.mkdir(mode=0o700, parents=not self._begun, exist_ok=True)
        self._begun = True
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

    @contextmanager
    def _if_it_is_there(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise OutputError(f"{self.root}: {error.filename} was removed meanwhile; run again") from error

    def put(self, data: bytes, final: StoredPath) -> bool:
        """Commit a small file, unless its name is taken: then False. Raises OutputError, OSError."""
        temporary = self.temporary()
        try:
            with self._if_it_is_there():
                storage.write_synced(temporary, data)
                hit("file.written")
                return storage.put_if_absent(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)

    def replace(self, data: bytes, final: StoredPath) -> None:
        """Replace a derived file atomically. Raises OutputError, OSError."""
        temporary = self.temporary()
        try:
            with self._if_it_is_there():
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
