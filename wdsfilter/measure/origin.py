"""Who filtered a set: the records of runs and selections that lie beside shards."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wdsfilter import storage
from wdsfilter.errors import WdsfilterError
from wdsfilter.fingerprint import Record, judges_of, selection_judges
from wdsfilter.shards.source import Shard

_LEVELS = 3  # folders above a shard that may be the output folder


@dataclass(frozen=True, slots=True)
class Filter:
    """A judge that decided about what is in a set, and SHA-256 of its model's files; {} where it has none."""

    judge: str
    model: Mapping[str, str]


def filters(shards: Iterable[Shard]) -> list[Filter]:
    """The judges that decided about ``shards``, as far as records beside them tell."""
    found: list[Filter] = []
    for folder in sorted({f for shard in shards for f in _above(shard.url)}):
        for name, read in (("run.json", _of_run), ("select.json", _of_selection)):
            with suppress(WdsfilterError, OSError, ValueError, KeyError, TypeError, AttributeError):
                # what is not there, cannot be had, or is no record tells nothing
                listed = read(_record(f"{folder}/wdsfilter/{name}"))
                found += [judge for judge in listed if judge not in found]
    return found


def _above(url: str) -> Iterable[str]:
    if url == storage.STDIN:
        return
    for _ in range(_LEVELS):
        url = posixpath.dirname(url)
        if url.endswith("/"):
            return
        yield url or "."


def _record(location: str) -> Record:
    with storage.open_read(location) as file:
        record: Record = json.loads(file.read())
    return record


def _of_run(record: Record) -> list[Filter]:
    return _deciding(judges_of(record))


def _of_selection(record: Record) -> list[Filter]:
    return _deciding(selection_judges(record))


def _deciding(judges: Mapping[str, Any]) -> list[Filter]:
    return [Filter(name, said["model"]) for name, said in judges.items() if said["decides"]]
