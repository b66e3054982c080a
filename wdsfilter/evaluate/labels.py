"""Labelled pairs: what a sample's ``.json``, or a file of labels that a person gave, says about the truth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pydantic

from wdsfilter import storage
from wdsfilter.errors import InputError
from wdsfilter.shards.source import Pattern, Shard, find_shards


@dataclass(frozen=True, slots=True)
class Label:
    """A pair's true ``score``, the ``defects`` it has, and the score it would have ``otherwise``, without them."""

    score: int
    otherwise: int | None = None
    defects: tuple[str, ...] = ()


class Labels(Protocol):
    """Where labels come from."""

    @property
    def needs_fields(self) -> bool:
        """Whether a pair without a readable ``.json`` cannot have a label."""
        ...

    def find(self, fields: Mapping[str, Any], shard: Shard, key: str) -> Label | None:
        """The label of a pair; None where it is not to be asked about. Raises InputError."""
        ...


@dataclass(frozen=True, slots=True)
class FieldLabels:
    """Every pair's ``.json`` holds its label, in the field ``name``."""

    name: str
    needs_fields: bool = True

    def find(self, fields: Mapping[str, Any], shard: Shard, key: str) -> Label | None:
        return read_label(fields, self.name, f"{storage.shown(shard.url)}: {key}")


@dataclass(frozen=True, slots=True)
class FileLabels:
    """A file of labels, as the page of ``report --label`` exports it: ``scores`` by shard and key.

    ``scoring`` is the fingerprint of the run that the pairs were drawn from.
    """

    scoring: str
    scores: Mapping[str, Mapping[str, int]]
    needs_fields: bool = False

    def find(self, fields: Mapping[str, Any], shard: Shard, key: str) -> Label | None:
        score = self.scores.get(shard.name, {}).get(key)
        return None if score is None else Label(score)

    def __len__(self) -> int:
        return sum(map(len, self.scores.values()))


KEEP, DROP = 10, 1
"""What a label without a grade counts as: worth keeping at every threshold, and at none."""

FORMAT = 1


class _Head(pydantic.BaseModel):
    """The first line of a file of labels."""

    labels: int
    scoring: str


class _Line(pydantic.BaseModel):
    """Each other line: a pair's place, and its score or whether to keep it."""

    model_config = pydantic.ConfigDict(strict=True)

    shard: str
    key: str
    score: int | None = None
    keep: bool | None = None

    @property
    def worth(self) -> int:
        if self.score is not None:
            return self.score
        return KEEP if self.keep else DROP


def read_file(path: Path) -> FileLabels:
    """Labels by shard and key; of a pair that is there twice, the last. Raises InputError, with the line."""
    try:
        lines = path.read_text("utf-8").splitlines()
        head = _Head.model_validate_json(lines[0] if lines else "")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a file of labels, which `report --label` makes a page for ({error})"
        ) from error
    if head.labels != FORMAT:
        raise InputError(f"{path}: labels of format {head.labels}, accepted is {FORMAT}")
    scores: dict[str, dict[str, int]] = {}
    for number, text in enumerate(lines[1:], 2):
        try:
            line = _Line.model_validate_json(text)
        except pydantic.ValidationError as error:
            raise InputError(f"{path}: line {number}: {error.errors()[0]['msg']}: {text[:80]}") from error
        if (line.score is None) == (line.keep is None):
            raise InputError(f"{path}: line {number}: expected a score, or keep: true or false: {text[:80]}")
        scores.setdefault(line.shard, {})[line.key] = line.worth
    if not scores:
        raise InputError(f"{path}: no labels in it")
    return FileLabels(head.scoring, scores)


def file_head(scoring: str) -> str:
    """The first line of a file of labels."""
    return json.dumps({"labels": FORMAT, "scoring": scoring})


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
