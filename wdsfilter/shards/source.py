"""Patterns -> shards with their names.

A shard's name is its path below its pattern's fixed root, the folders in front of the first
``{``, ``*``, ``?`` or ``[``; the output shard and the ledger are called after it.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wdsfilter import storage
from wdsfilter.errors import InputError

_SPECIAL = re.compile(r"[{*?\[]")
_GLOB = re.compile(r"[*?\[]")
_BRACES = re.compile(r"{")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, slots=True)
class Shard:
    """An input shard: its ``name`` (relative, ends in ``.tar``) and where it lies."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which shards: a path, URL, folder, brace pattern or glob; ``prefix`` goes before their names."""

    path: str
    prefix: str = ""


def find_shards(patterns: Sequence[Pattern]) -> list[Shard]:
    """All shards of ``patterns``, sorted by name.

    Raises InputError when a pattern matches nothing or two shards would have one name, ReadError
    when a store cannot be listed.
    """
    shards = [shard for pattern in patterns for shard in _matches(pattern)]
    for shard in shards:
        _check_printable(shard.url)
    counts = Counter(shard.name for shard in shards)
    if clash := [name for name, count in counts.items() if count > 1]:
        urls = [shard.url for shard in shards if shard.name == clash[0]]
        if len(set(urls)) == 1:
            raise InputError(f"{urls[0]} is listed {len(urls)} times")
        raise InputError(
            f"{len(clash)} shard names stand for several files, {clash[0]} for {urls[0]} and {urls[1]}; "
            "give one a folder of its own: --set 'input.shards=[{path: ONE}, {path: OTHER, as: FOLDER}]'"
        )
    return sorted(shards, key=lambda shard: shard.name)


def seeded_order(shards: Iterable[Shard], seed: int) -> list[Shard]:
    """``shards`` in an order drawn by ``seed``, which does not move when others join them."""
    return sorted(shards, key=lambda s: hashlib.sha256(f"{seed}:{s.name}".encode()).digest())


def _check_printable(url: str) -> None:
    """Raise InputError where a name would break a list of names, or speak to the terminal that it is printed on."""
    printable = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], url)
    if printable != url:
        raise InputError(f"{printable}: a shard's name has to be UTF-8 without control characters")


def _matches(pattern: Pattern) -> list[Shard]:
    path = pattern.path
    if path == storage.STDIN:
        return [Shard(posixpath.join(pattern.prefix, "stdin.tar"), path)]
    if path.startswith("pipe:"):
        raise InputError(
            f"{path}: commands are not run from a recipe; "
            "pipe the tar in: COMMAND | wdsfilter run ... --shards -"
        )
    literal = storage.protocol(path) is None and storage.exists(path)  # a name may hold brackets and braces
    special = None if literal else (_BRACES if _is_http(path) else _SPECIAL).search(path)
    if special is None and storage.is_folder(path):
        root = path.rstrip("/")
        found = [f for f in storage.below(root) if f.endswith(_SUFFIXES)]
        if not found:
            raise InputError(f"{path}: no shard in this folder ({', '.join(_SUFFIXES)})")
    else:
        root = posixpath.dirname(path[: special.start()] if special else path)
        found = [path] if literal else [f for expanded in _braces(path) for f in _expand(expanded)]
        if not found or not any(storage.exists(f) for f in found):
            raise InputError(f"no shard matches {path}")
    return [Shard(_name(location, root, pattern.prefix), location) for location in found]


def _braces(path: str) -> Iterable[str]:
    if "{" not in path:
        return [path]
    from braceexpand import braceexpand

    try:
        return list(braceexpand(path))
    except ValueError as error:  # unbalanced braces
        raise InputError(f"{path}: {error}") from error


def _expand(path: str) -> list[str]:
    return storage.glob(path) if _GLOB.search(path) and not _is_http(path) else [path]


def _is_http(location: str) -> bool:
    """Nothing can be listed there, and ``?`` begins a query."""
    return storage.protocol(location) in ("http", "https")


def _name(location: str, root: str, prefix: str) -> str:
    path, root = _path(storage.shown(location)), _path(root)
    name = path[len(root) :].lstrip("/") if root and path.startswith(root) else path
    name = posixpath.join(prefix, posixpath.normpath(name))
    for suffix in reversed(_SUFFIXES):
        if name.endswith(suffix):
            name = name[: -len(suffix)]
            break
    name += ".tar"
    first = name.split("/", 1)[0]
    if name.startswith("/") or first in ("..", "wdsfilter"):
        raise InputError(f"{location}: cannot name an output shard {name!r}; give the pattern a prefix (as:)")
    return name


def _path(location: str) -> str:
    """What follows the protocol, of which stores have several spellings (az, abfs); a local path itself."""
    _, separator, path = location.partition("://")
    return path.lstrip("/") if separator else location
