"""How a run stands, read from its output folder alone: works from any machine that sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wdsfilter.errors import OutputError
from wdsfilter.events import read_events
from wdsfilter.filled import fill_judges, fill_of, gaps
from wdsfilter.ledger import Counts
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import Tolerate
from wdsfilter.shards.source import Shard
from wdsfilter.summary import EXIT_DAMAGED, EXIT_DONE, EXIT_GUARD, EXIT_INTERRUPTED, Tally, troubles


@dataclass(frozen=True, slots=True)
class Status:
    """``state`` is ``done``, ``done, with trouble``, ``unfinished`` or ``stopped by the guard``.

    ``left`` names shards that are neither done nor given up. ``code`` is the run's exit code;
    ``troubles`` says in phrases what is beyond tolerance. ``fill`` is how its fill stands, which is a run itself,
    and has ``gaps``: samples that a judge had never seen, and that are judged by now.
    """

    state: str
    code: int
    done: int
    total: int
    left: Sequence[str]
    counts: Counts
    damaged: Mapping[str, str]
    unread: Mapping[str, str]
    troubles: Sequence[str]
    guard: str | None
    fill: Status | None = None
    gaps: int | None = None


def note_shards(folder: OutputFolder, shards: Sequence[Shard]) -> dict[str, Any]:
    """Facts for the event ``started``: how many shards there are, and under which digest their names lie."""
    names = "".join(f"{shard.name}\n" for shard in sorted(shards, key=lambda s: s.name)).encode()
    digest = hashlib.sha256(names).hexdigest()[:16]
    path = folder.events / f"shards-{digest}.txt"
    if not path.exists():
        folder.put(names, path)
    return {"shards": len(shards), "list": digest}


def read_status(folder: OutputFolder) -> Status:
    """Of a run or a selection. Raises OutputError where ``folder`` is neither's."""
    if folder.selection.exists():
        return _selection_status(Tally(folder).refresh())
    if not folder.record.exists():
        raise OutputError(f"{folder.root} is not the output folder of a run (no wdsfilter/run.json)")
    try:
        json.loads(folder.record.read_bytes())
    except ValueError as error:
        raise OutputError(f"{folder.record}: not readable as a run's record ({error})") from error
    tally = Tally(folder).refresh()
    events = list(read_events(folder.events))
    starts = [position for position, event in enumerate(events) if event["event"] == "started"]
    latest = events[starts[-1]] if starts else {}
    names = {*tally.headers, *_expected(folder, latest)}
    sizes = folder.shard_sizes()
    wanted = {name: header.output.size for name, header in tally.headers.items() if header.output is not None}
    done = {name for name in tally.headers if sizes.get(name) == wanted.get(name, sizes.get(name))}
    # What an earlier launch could not read, this one may be reading.
    unread = {
        str(event.get("shard")): str(event.get("error"))
        for event in (events[starts[-1] :] if starts else [])
        if event["event"] == "gave_up" and event.get("shard") in names - done
    }
    left = sorted(names - done - unread.keys())
    ends = [event for event in events if event["event"] in ("started", "guard")]
    guard = str(ends[-1].get("why")) if ends and ends[-1]["event"] == "guard" else None
    tolerate = Tolerate.model_validate(latest.get("tolerate", {}))
    found = troubles(tally.counts, len(tally.damaged), len(unread), tolerate)
    if guard is not None:
        state, code = "stopped by the guard", EXIT_GUARD
    elif left:
        state, code = "unfinished", EXIT_INTERRUPTED
    else:
        state, code = ("done, with trouble", EXIT_DAMAGED) if found else ("done", EXIT_DONE)
    damaged = {n: f"{h.damage.reason}: {h.damage.detail}" for n, h in tally.damaged.items() if h.damage}
    fill = fill_of(folder)
    filling = read_status(fill) if fill is not None else None
    return Status(
        state,
        code,
        len(done),
        len(names),
        left,
        tally.counts,
        damaged,
        unread,
        found,
        guard,
        filling,
        gaps(tally.counts, judges) if (judges := fill_judges(folder)) else None,
    )


def _selection_status(tally: Tally) -> Status:
    """A selection is done when its summary, which is written last, speaks of every ledger."""
    try:
        shards = json.loads(tally.folder.summary.read_bytes())["shards"]
    except (FileNotFoundError, ValueError, KeyError):
        shards = None
    count = len(tally.headers)
    state, code = ("done", EXIT_DONE) if shards == count else ("unfinished", EXIT_INTERRUPTED)
    return Status(state, code, count, count, [], tally.counts, {}, {}, [], None)


def _expected(folder: OutputFolder, started: Mapping[str, Any]) -> list[str]:
    """Names of all shards of the latest launch; none where its list is gone."""
    try:
        return (folder.events / f"shards-{started.get('list')}.txt").read_text("utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
