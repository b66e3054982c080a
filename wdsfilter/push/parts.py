"""What is pushed of an output folder: its shards with their ledgers, and those of its fill."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.hf_api import RepoFile

from wdsfilter.errors import OutputError
from wdsfilter.ledger import Header
from wdsfilter.output import OutputFolder
from wdsfilter.push.hub import Content, is_same
from wdsfilter.push.target import Target
from wdsfilter.storage import StoredPath
from wdsfilter.summary import Tally, derived_files, file_sha256


@dataclass(frozen=True, slots=True)
class Part:
    """The ``headers`` and ``ledgers`` (on this disk) of what ``folder`` has done, which lies in ``root`` or is it."""

    root: OutputFolder
    folder: OutputFolder
    target: Target
    headers: Mapping[str, Header]
    ledgers: Mapping[str, Path]

    def is_missing(self, there: Mapping[str, RepoFile], name: str) -> bool:
        """Whether a shard or its ledger is not there. Raises OutputError where another one has its name."""
        output = self.headers[name].output
        known: list[tuple[str, Content, str | None]] = [(self._ledger(name), self.ledgers[name], None)]
        if output is not None:
            known.append((self.target.path(name), b"", output.sha256))
        missing = False
        for path, content, sha256 in known:
            if path not in there:
                missing = True
            elif not is_same(there[path], content, sha256):
                raise OutputError(
                    f"{self.target}: holds another {path}; push to another data set, branch (@NAME) or folder"
                )
        return missing

    @contextmanager
    def files(self, names: Sequence[str]) -> Iterator[dict[str, Content]]:
        """Shards and ledgers by their path in the data set; a store's are copied here meanwhile."""
        copies = self.root.temporary()
        try:
            found: dict[str, Content] = {}
            for name in names:
                if (output := self.headers[name].output) is not None:
                    path = _local(self.folder.shard(name), copies / name)
                    if file_sha256(path) != output.sha256:
                        raise OutputError(
                            f"{self.folder.shard(name)} is not the shard that its ledger speaks of; see `verify`"
                        )
                    found[self.target.path(name)] = path
                found[self._ledger(name)] = self.ledgers[name]
            yield found
        finally:
            shutil.rmtree(copies, ignore_errors=True)

    def lists(self) -> tuple[Tally, dict[str, Content]]:
        """What is counted, and the records and lists that speak of all shards, by their path in the data set."""
        folder = self.folder
        tally = Tally(folder)
        for name, header in self.headers.items():
            tally.add(name, header)
        records = [path for path in (folder.record, folder.selection, folder.readout) if path.exists()]
        return tally, {
            **{self._path(folder.root / name): content for name, content in derived_files(tally).items()},
            **{self._path(path): path.read_bytes() for path in records},
        }

    def _ledger(self, name: str) -> str:
        return self._path(self.folder.ledger(name))

    def _path(self, path: StoredPath) -> str:
        return self.target.path(self.root.name_of(path))


def _local(path: StoredPath, copy: Path) -> Path:
    if isinstance(path, Path):
        return path
    copy.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as file, copy.open("wb") as target:
        shutil.copyfileobj(file, target, 1 << 20)
    return copy
