"""Where the shards lie that an answer's samples come from, and whether they are still what was judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from wdsfilter import storage
from wdsfilter.counted import counted
from wdsfilter.errors import InputError, ReadError
from wdsfilter.output import OutputFolder
from wdsfilter.ranges import Range, read_ranges
from wdsfilter.select.sources import Source
from wdsfilter.shards.compression import is_compressed
from wdsfilter.shards.source import Pattern, Shard, find_shards
from wdsfilter.streams import Stat, changed
from wdsfilter.whereabouts import noted_patterns

_ASKED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Located:
    """Where an input shard lies, and what it was when that was found out."""

    url: str
    stat: Stat


def source_shards(answer: Path) -> list[str]:
    """Names of the shards that the answer's samples come from, sorted."""
    names: set[str] = set()
    with pq.ParquetFile(answer) as file:
        for group in range(file.num_row_groups):
            column = file.read_row_group(group, columns=["source_shard"])["source_shard"]
            names.update(pc.unique(column).to_pylist())
    return sorted(names)


def locate(
    names: Sequence[str], patterns: Sequence[str], remaps: Sequence[str], sources: Sequence[Source]
) -> dict[str, Located]:
    """Location of every named shard, each checked against its ledger.

    ``patterns`` are those that the run was given; without any, those that it noted. A selection's own shards are
    found without. A remap ``OLD=NEW`` says where the shards lie whose names, or the places where they lay, begin with
    OLD; one that is a whole name vouches for the file, whose size is not compared then. Raises InputError where a shard
    is not found, changed or compressed, or a remap fits nothing; ReadError.
    """
    if storage.STDIN in patterns:
        raise InputError(
            "standard input cannot be selected from: keep it in a file, and say --remap stdin.tar=FILE"
        )
    listed = {
        name: str(source.folder.shard(name))
        for source in sources
        if source.selected
        for name in source.ledgers
    }
    pairs = [_pair(remap) for remap in remaps]
    told = [Pattern(path) for path in patterns] or [p for s in sources for p in noted_patterns(s.folder)]
    _check_fitting(pairs, sources, [*listed.values(), *(pattern.path for pattern in told)])
    moved = [pair for pair in pairs if pair[0]]
    listed = {name: _remapped(location, moved) or location for name, location in listed.items()}
    found = {name: _remapped(name, pairs) or listed.get(name) for name in names}
    if patterns or None in found.values():
        there = {shard.name: shard.url for shard in _shards(told, moved, lenient=not patterns)}
        found = {name: _remapped(name, pairs) or there.get(name) or listed.get(name) for name in names}
    if missing := [name for name, location in found.items() if location is None]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{missing[0]}{more}: not among the input shards; name them as the run was told them (--shards PATTERN), "
            "or say where they lie now (--remap OLD=NEW)"
        )
    located = {name: location for name, location in found.items() if location is not None}
    vouched = {old for old, _ in pairs}  # a file in a shard's place, such as what was compressed
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        checked = pool.map(partial(_checked, sources, vouched), located.items())
        return dict(zip(located, checked, strict=True))


def _shards(patterns: Sequence[Pattern], moved: Sequence[tuple[str, str]], *, lenient: bool) -> list[Shard]:
    """The shards of ``patterns``, where they lie now; ``lenient``: of those that are there.

    Raises InputError, ReadError.
    """
    now = [replace(pattern, path=_remapped(pattern.path, moved) or pattern.path) for pattern in patterns]
    if not lenient:
        return find_shards(now)
    found: list[Shard] = []
    for pattern in now:
        with suppress(InputError, ReadError):
            found += find_shards([pattern])
    return found


def _check_fitting(
    pairs: Sequence[tuple[str, str]], sources: Sequence[Source], locations: Sequence[str]
) -> None:
    """Raise InputError where a remap fits no shard's name and none of ``locations``."""
    names = sorted({name for source in sources for name in source.ledgers})
    for old, new in pairs:
        if not any(place.startswith(old) for place in (*names, *locations)):
            lay = f", and lay at {storage.shown(locations[0])}" if locations else ""
            raise InputError(
                f"--remap {old}={new}: nothing begins with {old}; the shards are called {names[0]} and so on{lay}"
            )


def check_outside(located: Iterable[Located], folder: OutputFolder) -> None:
    """Raise InputError where an input shard lies in the folder that is written to."""
    for shard in located:
        if folder.holds(shard.url):
            raise InputError(f"{shard.url} lies in the output folder {folder.root}; choose another one")


def check_unchanged(located: Iterable[Located]) -> None:
    """Raise InputError where a shard is another one than it was when it was located; ReadError."""
    shards = list(located)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        for shard, now in zip(shards, pool.map(lambda shard: storage.stat(shard.url), shards), strict=True):
            if how := changed(shard.stat, now):
                raise InputError(f"{storage.shown(shard.url)} {how} when its samples were asked for")


def _pair(remap: str) -> tuple[str, str]:
    old, equals, new = remap.partition("=")
    if not equals or not new:
        raise InputError(
            f"--remap {remap}: expected OLD=NEW, the beginnings of names and of where they lie now"
        )
    return old, new


def _remapped(name: str, pairs: Sequence[tuple[str, str]]) -> str | None:
    """Where the longest remap that fits says the shard lies."""
    fitting = [(old, new) for old, new in pairs if name.startswith(old)]
    if not fitting:
        return None
    old, new = max(fitting, key=lambda pair: len(pair[0]))
    return new + name[len(old) :]


def _checked(sources: Sequence[Source], vouched: Set[str], item: tuple[str, str]) -> Located:
    name, location = item
    try:
        now = storage.stat(location)
        for source in sources if name not in vouched else ():
            if change := changed(source.stat(name), now):
                raise InputError(f"{storage.shown(location)} {change} when it was judged")
        [start] = read_ranges([Range(location, 0, min(8, now.size or 8))])
    except ReadError as error:
        raise InputError(f"could not be read: {error}") from error
    if is_compressed(start):
        raise InputError(
            f"{storage.shown(location)} is compressed, and samples cannot be copied out of its middle; "
            f"decompress it, and say --remap {name}=FILE"
        )
    return Located(location, now)


def unfinished(sources: Sequence[Source]) -> Iterator[str]:
    """A remark for every run that is not finished, as far as its own list of shards tells."""
    from wdsfilter.status import read_status

    for source in sources:
        status = read_status(source.folder)
        if status.left or status.unread:
            yield (
                f"{source.folder.root} is {status.state}: {status.done} of {counted(status.total, 'shard')} judged, "
                "and only these are selected from"
            )
