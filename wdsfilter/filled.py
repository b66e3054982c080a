"""What is known of a run's samples in the end: its own ledgers, and those of its fill in their place.

A fill (:mod:`wdsfilter.fill`) lies in the run's folder and is a run's folder itself. Its ledgers hold every row of
the run's, with the numbers of those judges that the run never asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa

from wdsfilter import ledger
from wdsfilter.errors import OutputError
from wdsfilter.ledger import Counts, Row
from wdsfilter.output import OutputFolder

_PLACE = "/wdsfilter/fill"
REJECTED = ("dropped", "unparsable")
"""What becomes of samples that a judge rejects: no later one is asked about them."""


def fill_of(folder: OutputFolder) -> OutputFolder | None:
    """The folder of a run's fill, where there is one. Raises OutputError where it is another run's."""
    fill = OutputFolder(folder.fill)
    if not fill.record.exists():
        return None
    parts = [_fingerprints(of) for of in (folder, fill)]
    if parts[0] != parts[1]:
        raise OutputError(f"{fill.root} is the fill of another run than {folder.root}; remove it")
    return fill


def _fingerprints(folder: OutputFolder) -> tuple[Any, Any]:
    try:
        found = json.loads(folder.record.read_bytes())["fingerprints"]
        return found["scoring"], found["decision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{folder.record}: not readable as a run's record ({error})") from error


def best_ledgers(folder: OutputFolder, fill: OutputFolder | None) -> dict[str, OutputFolder]:
    """Shard -> the folder whose ledger knows most of it, for all shards of a run or a selection, sorted."""
    filled = frozenset(fill.shard_names()) if fill is not None else frozenset()
    return {name: fill if fill and name in filled else folder for name in folder.shard_names()}


def unseen_by(row: Row, judges: Sequence[str]) -> list[str]:
    """The judges that were never asked about a sample, since an earlier one rejected it."""
    return [judge for judge in judges if row[judge] is None] if row["status"] in REJECTED else []


def gaps(counts: Counts, judges: Sequence[str]) -> int:
    """How many samples a judge of ``judges`` never saw in a run, since an earlier one rejected them."""
    return sum(n for reason, n in counts.reasons.items() if reason.partition(".")[0] in judges[:-1])


def fill_judges(folder: OutputFolder) -> tuple[str, ...]:
    """The judges of a fill's run, in order; none where ``folder`` is no fill, or has no record yet."""
    root = folder.root.resolve() if isinstance(folder.root, Path) else folder.root
    if not str(root).endswith(_PLACE) or not folder.record.exists():
        return ()
    try:
        return tuple(json.loads(folder.record.read_bytes())["scoring"]["order"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{folder.record}: not readable as a run's record ({error})") from error


def broken_fills(folder: OutputFolder, fill: OutputFolder, judges: Sequence[str]) -> Iterator[str]:
    """Every place where a fill is not its run's ledgers with what was missing in them, as a sentence."""
    if fill.readout.exists() and fill.readout.read_bytes() != folder.readout.read_bytes():
        yield f"{fill.readout}: not what the run's judges' checks found"
    for name in fill.shard_names():
        path = fill.ledger(name)
        if not folder.ledger(name).exists():
            yield f"{path}: the run has no ledger of this shard"
            continue
        try:
            rows = zip_longest(ledger.read_rows(folder.ledger(name)), ledger.read_rows(path))
            wrong = next((why for run, filled in rows if (why := _wrong(run, filled, judges))), None)
        except (KeyError, OSError, pa.ArrowException) as error:
            wrong = f"not comparable with the run's ledger ({error})"
        if wrong is not None:
            yield f"{path}: {wrong}; remove it, and fill again"


def _wrong(run: Row | None, filled: Row | None, judges: Sequence[str]) -> str | None:
    """What is wrong with a row of a fill."""
    if run is None or filled is None:
        return f"has {'more' if run is None else 'fewer'} rows than the run's ledger"
    unseen = unseen_by(run, judges)
    free = {*unseen, *(["phash"] if run["phash"] is None else [])} if unseen else set()
    if unseen and filled["status"] == "unreadable":
        free |= {"status", "reason", "detail"}
    elif unseen and (missing := unseen_by(filled, judges)):
        return f"{missing[0]} was not asked about row {run['key']!r}"
    if changed := [name for name in run if name not in free and run[name] != filled[name]]:
        return f"row {run['key']!r} has another {changed[0]} than the run's ledger"
    return None
