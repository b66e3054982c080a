"""Where a run found its input shards: noted when it starts, for whoever looks for its samples afterwards.

Outside the promises, as all events are: shards may have moved since, and have to be named then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from wdsfilter import storage
from wdsfilter.errors import InputError, ReadError
from wdsfilter.events import read_events
from wdsfilter.output import OutputFolder
from wdsfilter.shards.source import Pattern, Shard, find_shards


def as_noted(patterns: Iterable[Pattern]) -> list[dict[str, str]]:
    """``patterns`` as the event ``started`` tells them: local ones absolute, none that may hold a secret."""
    return [
        {"path": storage.absolute(pattern.path), "as": pattern.prefix}
        for pattern in patterns
        if pattern.path != storage.STDIN and storage.shown(pattern.path) == pattern.path
    ]


def input_shards(folder: OutputFolder, named: Sequence[str] | None) -> list[Shard]:
    """The shards that the patterns ``named`` match; where there are none, those of the run that are on this machine.

    Raises InputError, ReadError for what was named.
    """
    return find_shards([Pattern(path) for path in named]) if named else noted_shards(folder)


def noted_shards(folder: OutputFolder, *, also_remote: bool = False) -> list[Shard]:
    """The shards that a run in ``folder`` noted last, as far as they are still there. None of a selection.

    ``also_remote``: those too that have to be asked for over a network.
    """
    found: list[Shard] = []
    for pattern in noted_patterns(folder):
        if also_remote or storage.protocol(pattern.path) is None:
            with suppress(InputError, ReadError):
                found += find_shards([pattern])
    return found


def noted_patterns(folder: OutputFolder) -> list[Pattern]:
    """What a run in ``folder`` was last told to read, but for what may hold a secret."""
    starts = [event["input"] for event in read_events(folder.events) if "input" in event]
    return [Pattern(str(given["path"]), str(given["as"])) for given in (starts[-1] if starts else ())]
