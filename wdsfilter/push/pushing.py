"""An output folder -> commits: shards with their ledgers first, what speaks of all of them last.

A run's fill goes along, so that the data set says as much as the folder. What is there already with the same hash is
not sent again, so what was stopped goes on with the same command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wdsfilter.counted import counted
from wdsfilter.errors import OutputError
from wdsfilter.filled import fill_of
from wdsfilter.output import OutputFolder
from wdsfilter.push.card import card, merged
from wdsfilter.push.hub import Content, Hub, is_same
from wdsfilter.push.parts import Part
from wdsfilter.push.target import Target
from wdsfilter.report.opened import Opened
from wdsfilter.status import Status
from wdsfilter.summary import EXIT_DAMAGED, EXIT_DONE, Tally

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
    """Bring the target's branch to what the folder holds, and say how many shards, and fills of one, were sent.

    ``public`` counts where the data set is made. Raises OutputError for a run or a fill that is not finished (unless
    ``partial``), where the data set holds another one, and where the hub does not do what it is asked.
    """
    parts = list(_parts(opened, target, partial))
    try:
        hub = Hub(target)
        hub.create(public=public)
        sent = sum(_send(hub, part, tell) for part in parts)
        _finish(hub, opened, target, parts)
        return sent
    finally:
        for part in parts:
            part.folder.remove_own_temporaries()


def _parts(opened: Opened, target: Target, partial: bool) -> Iterator[Part]:
    """The run or selection, and its fill."""
    _check_finished(opened.folder, opened.status, partial)
    done = {name: header for name, header in opened.headers.items() if name not in opened.status.left}
    yield Part(opened.folder, opened.folder, target, done, opened.ledgers)
    if opened.status.fill is not None and (fill := fill_of(opened.folder)) is not None:
        _check_finished(fill, opened.status.fill, partial)
        headers = {n: h for n, h in sorted(Tally(fill).refresh().headers.items()) if n in done}
        yield Part(opened.folder, fill, target, headers, fill.local_ledgers(headers))


def _check_finished(folder: OutputFolder, status: Status, partial: bool) -> None:
    if status.code not in (EXIT_DONE, EXIT_DAMAGED) and not partial:
        raise OutputError(
            f"{folder.root} is {status.state}: {status.done} of {counted(status.total, 'shard')}; "
            "finish it, or push what is there with --partial"
        )


def _send(hub: Hub, part: Part, tell: Tell) -> int:
    """Commit what is not there yet of shards and ledgers, and say how many that were."""
    there = hub.files(hub.head())
    left = [name for name in part.headers if part.is_missing(there, name)]
    what = "shard" if part.folder is part.root else "filled shard"
    tell(f"there: {len(part.headers) - len(left):,} of {counted(len(part.headers), what)}")
    for first in range(0, len(left), SHARDS_PER_COMMIT):
        names = left[first : first + SHARDS_PER_COMMIT]
        with part.files(names) as files:
            hub.commit(files, f"Add {counted(len(names), what)}")
        count = len(part.headers) - len(left) + first + len(names)
        tell(f"there: {count:,} of {counted(len(part.headers), what)}")
    return len(left)


def _finish(hub: Hub, opened: Opened, target: Target, parts: list[Part]) -> None:
    """Commit the records, the lists that loaders want and the card, where they are others than those there."""
    head = hub.head()
    there = hub.files(head)
    files: dict[str, Content] = {}
    tallies = []
    for part in parts:
        tally, lists = part.lists()
        tallies.append(tally)
        files |= lists
    card_path = target.path(_README)
    old = hub.read(card_path, head) if card_path in there else b""
    filled = len(tallies[1].headers) if len(tallies) > 1 else 0
    made = card(opened, target, tallies[0].counts, filled)
    files[card_path] = merged(old.decode("utf-8", "replace"), made).encode()
    changed = {path: content for path, content in files.items() if not is_same(there.get(path), content)}
    if changed:
        hub.commit(changed, "Add the lists of shards and the card", parent=head)
