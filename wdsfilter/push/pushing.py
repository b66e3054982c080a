"""An output folder -> commits: shards with their ledgers first, what speaks of all of them last.

What is there already with the same hash is not sent again, so what was stopped goes on with the same command.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.hf_api import RepoFile

from wdsfilter.counted import counted
from wdsfilter.errors import OutputError
from wdsfilter.ledger import Header
from wdsfilter.push.card import card, merged
from wdsfilter.push.hub import Content, Hub, is_same
from wdsfilter.push.target import Target
from wdsfilter.report.opened import Opened
from wdsfilter.storage import StoredPath
from wdsfilter.summary import EXIT_DAMAGED, EXIT_DONE, Tally, derived_files, file_sha256

SHARDS_PER_COMMIT = 50
_README = "README.md"

Tell = Callable[[str], object]


def push(
    opened: Opened,
    target: Target,
    *,
    partial: bool = False,
    public: bool = False,
    tell: Tell = lambda remark: None,
) -> int:
    """Bring the target's branch to what the folder holds, and say how many shards were sent.

    ``public`` counts where the data set is made. Raises OutputError for a run that is not finished (unless
    ``partial``), where the data set holds another one, and where the hub does not do what it is asked.
    """
    status = opened.status
    if status.code not in (EXIT_DONE, EXIT_DAMAGED) and not partial:
        raise OutputError(
            f"{opened.folder.root} is {status.state}: {status.done} of {counted(status.total, 'shard')}; "
            "finish it, or push what is there with --partial"
        )
    done = [name for name in opened.headers if name not in status.left]
    headers = {name: opened.headers[name] for name in done}
    hub = Hub(target)
    hub.create(public=public)
    there = hub.files(hub.head())
    left = [name for name in headers if _is_missing(opened, target, there, name)]
    tell(f"there: {len(headers) - len(left):,} of {counted(len(headers), 'shard')}")
    for first in range(0, len(left), SHARDS_PER_COMMIT):
        names = left[first : first + SHARDS_PER_COMMIT]
        with _files(opened, target, names) as files:
            hub.commit(files, f"Add {counted(len(names), 'shard')}")
        tell(f"there: {len(headers) - len(left) + first + len(names):,} of {counted(len(headers), 'shard')}")
    _finish(hub, opened, target, headers)
    return len(left)


def _is_missing(opened: Opened, target: Target, there: Mapping[str, RepoFile], name: str) -> bool:
    """Whether a shard or its ledger is not there. Raises OutputError where another one has its name."""
    ledger = opened.ledgers[name]
    output = opened.headers[name].output
    known: list[tuple[str, Content, str | None]] = [(target.path(_ledger_name(opened, name)), ledger, None)]
    if output is not None:
        known.append((target.path(name), b"", output.sha256))
    missing = False
    for path, content, sha256 in known:
        if path not in there:
            missing = True
        elif not is_same(there[path], content, sha256):
            raise OutputError(
                f"{target}: holds another {path}; push to another data set, branch (@NAME) or folder"
            )
    return missing


@contextmanager
def _files(opened: Opened, target: Target, names: Sequence[str]) -> Iterator[dict[str, Content]]:
    """Shards and ledgers by their path in the data set; a store's are copied here meanwhile."""
    copies = opened.folder.temporary()
    try:
        found: dict[str, Content] = {}
        for name in names:
            if (output := opened.headers[name].output) is not None:
                path = _local(opened.folder.shard(name), copies / name)
                if file_sha256(path) != output.sha256:
                    raise OutputError(
                        f"{opened.folder.shard(name)} is not the shard that its ledger speaks of; see `verify`"
                    )
                found[target.path(name)] = path
            found[target.path(_ledger_name(opened, name))] = opened.ledgers[name]
        yield found
    finally:
        shutil.rmtree(copies, ignore_errors=True)


def _local(path: StoredPath, copy: Path) -> Path:
    if isinstance(path, Path):
        return path
    copy.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as file, copy.open("wb") as target:
        shutil.copyfileobj(file, target, 1 << 20)
    return copy


def _finish(hub: Hub, opened: Opened, target: Target, headers: Mapping[str, Header]) -> None:
    """Commit the records, the lists that loaders want and the card, where they are others than those there."""
    head = hub.head()
    there = hub.files(head)
    folder = opened.folder
    tally = Tally(folder)
    for name, header in headers.items():
        tally.add(name, header)
    records = [path for path in (folder.record, folder.selection, folder.readout) if path.exists()]
    files: dict[str, Content] = {
        **{target.path(name): content for name, content in derived_files(tally).items()},
        **{target.path(folder.name_of(path)): path.read_bytes() for path in records},
    }
    card_path = target.path(_README)
    old = hub.read(card_path, head) if card_path in there else b""
    files[card_path] = merged(old.decode("utf-8", "replace"), card(opened, target, tally.counts)).encode()
    changed = {path: content for path, content in files.items() if not is_same(there.get(path), content)}
    if changed:
        hub.commit(changed, "Add the lists of shards and the card", parent=head)


def _ledger_name(opened: Opened, name: str) -> str:
    return opened.folder.name_of(opened.folder.ledger(name))
