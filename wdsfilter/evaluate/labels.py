"""Labelled pairs: what a sample's ``.json`` says about the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wdsfilter import storage
from wdsfilter.errors import InputError
from wdsfilter.shards.source import Pattern, Shard, find_shards


@dataclass(frozen=True, slots=True)
class Label:
    """A pair's true ``score``, the ``defects`` it has, and the score it would have ``otherwise``, without them."""

    score: int
    otherwise: int | None = None
    defects: tuple[str, ...] = ()


def read_label(fields: Mapping[str, Any], name: str, place: str) -> Label:
    """The label in the ``fields`` of a ``.json``: field ``name``, and ``otherwise`` and ``defects`` where given.

    Raises InputError, which names the field and ``place`` (shard and key).
    """
    if name not in fields:
        known = ", ".join(sorted(map(str, fields))[:8])
        found = f"its .json has only {known}" if fields else "it has no .json with fields"
        raise InputError(
            f"{place}: no label {name!r}, {found}; name the field that holds the true score with --label FIELD"
        )
    score = _integer(fields[name], name, place)
    otherwise = fields.get("otherwise")
    defects = fields.get("defects") or []
    if not isinstance(defects, list) or not all(isinstance(defect, str) for defect in defects):
        raise InputError(f"{place}: field 'defects' holds {defects!r}, accepted is a list of names")
    return Label(
        score,
        None if otherwise is None else _integer(otherwise, "otherwise", place),
        tuple(defects),
    )


def _integer(value: Any, name: str, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{place}: field {name!r} holds {value!r}, accepted is a whole number")
    return value


def labelled_shards(paths: Iterable[str]) -> list[Shard]:
    """The shards of all ``paths`` (files, URLs, folders, globs, brace patterns), each once.

    Unlike a run's they may share their names, since nothing is called after them. Raises InputError.
    """
    found: dict[str, Shard] = {}
    for path in paths:
        if path == storage.STDIN:
            raise InputError("standard input can be read once only; give files, folders or URLs")
        found.update((shard.url, shard) for shard in find_shards([Pattern(path)]))
    return list(found.values())
