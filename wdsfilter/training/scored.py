"""Scored pairs, from shards or a Hugging Face data set, and which of them are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wdsfilter import storage
from wdsfilter.errors import InputError, MissingExtra, ReadError
from wdsfilter.pairs import PairReader
from wdsfilter.samples import Damage, Pair, Unreadable
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import find_shards
from wdsfilter.training.recipe import Data

_IMAGES = ("jpg", "jpeg", "png", "webp")
_SHOWN = 3  # unusable pairs that an error names


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A pair, its grade as an answer writes it, and why: empty where nobody said."""

    pair: Pair
    grade: str
    justification: str

    @property
    def identity(self) -> str:
        """What tells it from another pair, its image aside."""
        return "\0".join([self.pair.key, self.pair.caption, self.grade, self.justification])


class Pairs(Protocol):
    """Scored pairs by number. Shards' are held in memory, a data set's stay on the disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> ScoredPair: ...


@dataclass(frozen=True, slots=True)
class Found:
    """The usable ``pairs``, their ``keys`` and a ``digest`` of all but their images; what is ``unusable``, and why."""

    pairs: Pairs
    keys: tuple[str, ...]
    digest: str
    unusable: tuple[Unreadable, ...]


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of ``pairs``, by their numbers."""

    pairs: Pairs
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> ScoredPair:
        return self.pairs[self.numbers[number]]


def find_pairs(data: Data, grades: Mapping[str, int]) -> Found:
    """All scored pairs of ``data``. ``grades``: text of an answer -> its number.

    Raises InputError when there are none, or more are unusable than tolerated; ReadError, MissingExtra.
    """
    labels = _Labels(data.score, data.justification, grades)
    pairs, rows, unusable = (_of_shards if data.dataset is None else _of_dataset)(data, labels)
    examples = "; ".join(f"{bad.key}: {bad.reason} ({bad.detail})" for bad in unusable[:_SHOWN])
    if not len(pairs):
        raise InputError(f"data: no scored pair among {len(unusable)}; {examples or 'it is empty'}")
    if len(unusable) > data.tolerate * (len(pairs) + len(unusable)):
        raise InputError(
            f"data: {len(unusable)} of {len(pairs) + len(unusable)} pairs are unusable, which is more than "
            f"data.tolerate ({data.tolerate:.3g}); {examples}"
        )
    digest = hashlib.sha256()
    for row in rows:
        digest.update(hashlib.sha256(row.encode("utf-8", "surrogatepass")).digest())
    keys = tuple(row.partition("\0")[0] for row in rows)
    return Found(pairs, keys, digest.hexdigest(), tuple(unusable))


def split(found: Found, share: float, seed: int) -> tuple[Subset, Subset]:
    """What is trained on, and what is held out: a pair's side follows from its key and ``seed`` alone."""
    sides: tuple[list[int], list[int]] = ([], [])
    for number, key in enumerate(found.keys):
        drawn = hashlib.sha256(f"held out {seed}:{key}".encode("utf-8", "surrogatepass")).digest()
        sides[int.from_bytes(drawn[:8], "big") < share * 2**64].append(number)
    return Subset(found.pairs, sides[0]), Subset(found.pairs, sides[1])


@dataclass(frozen=True, slots=True)
class _Labels:
    """Finds grade and justification among a pair's fields."""

    score: str
    justification: str | None
    grades: Mapping[str, int]

    def read(self, key: str, find: Callable[[str], Any]) -> tuple[str, str] | Unreadable:
        score = find(self.score)
        if score is None:
            return Unreadable(key, "no_score", f"no {self.score!r}")
        grade = self._grade(score)
        if grade is None:
            few = ", ".join(list(self.grades)[:12])
            return Unreadable(key, "not_on_the_scale", f"{self.score!r} is {score!r:.60}, accepted: {few}")
        why = find(self.justification) if self.justification is not None else None
        if why is not None and not isinstance(why, str):
            return Unreadable(
                key, "justification_not_text", f"{self.justification!r} is {type(why).__name__}"
            )
        return grade, (why or "").strip()

    def _grade(self, score: Any) -> str | None:
        """The text of a grade that is given as its text or as its number."""
        if isinstance(score, str):
            if score.strip() in self.grades:
                return score.strip()
            try:
                score = float(score)
            except ValueError:
                return None
        if isinstance(score, bool) or not isinstance(score, int | float):
            return None
        return next((text for text, value in self.grades.items() if value == score), None)


_Rows = tuple[Pairs, list[str], list[Unreadable]]


def _of_shards(data: Data, labels: _Labels) -> _Rows:
    reader = PairReader(tuple(data.image) or _IMAGES, data.caption or "txt", needs_json=True)
    pairs: list[ScoredPair] = []
    unusable: list[Unreadable] = []
    for shard in find_shards(data.patterns()):
        with storage.open_read(shard.url) as raw:
            for item in read_samples(decompressed(raw), max_sample_bytes=data.max_sample):
                if isinstance(item, Damage):
                    unusable.append(Unreadable(shard.name, item.reason, f"damaged: {item.detail}"))
                    continue
                pair = item if isinstance(item, Unreadable) else reader.read(item)
                key = f"{shard.name.removesuffix('.tar')}/{pair.key}"
                if isinstance(pair, Unreadable):
                    unusable.append(Unreadable(key, pair.reason, pair.detail))
                    continue
                label = labels.read(key, _finder(pair.fields))
                if isinstance(label, Unreadable):
                    unusable.append(label)
                else:
                    pairs.append(ScoredPair(Pair(key, bytes(pair.image), pair.caption), *label))
    return pairs, [pair.identity for pair in pairs], unusable


def _finder(fields: Mapping[str, Any]) -> Callable[[str], Any]:
    def find(path: str) -> Any:
        value: Any = fields
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    return find


@dataclass(frozen=True, slots=True)
class _OfDataset:
    """A data set's usable rows; an image is read when its row is asked for."""

    rows: Any
    image: str
    labelled: Sequence[tuple[int, str, str, str]]

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, number: int) -> ScoredPair:
        row, caption, grade, why = self.labelled[number]
        return ScoredPair(Pair(str(row), _image_bytes(self.rows[row][self.image]), caption), grade, why)


def _of_dataset(data: Data, labels: _Labels) -> _Rows:
    image, caption = (data.image or ["image"])[0], data.caption or "caption"
    wanted = [image, caption, data.score]
    rows = _dataset(data)
    if missing := [name for name in wanted if name not in rows.column_names]:
        raise InputError(
            f"{data.dataset}: no column {', '.join(missing)}; there are: {', '.join(rows.column_names)}"
        )
    texts = rows.select_columns([n for n in (*wanted[1:], data.justification) if n in rows.column_names])
    labelled: list[tuple[int, str, str, str]] = []
    unusable: list[Unreadable] = []
    for number, fields in enumerate(texts):
        text = fields[caption]
        if not isinstance(text, str) or not text.strip():
            unusable.append(Unreadable(str(number), "no_caption", f"{caption!r} is {text!r:.60}"))
            continue
        label = labels.read(str(number), fields.get)
        if isinstance(label, Unreadable):
            unusable.append(label)
        else:
            labelled.append((number, text, *label))
    identities = ["\0".join([str(number), *texts]) for number, *texts in labelled]
    return _OfDataset(rows, image, labelled), identities, unusable


def _dataset(data: Data) -> Any:
    """The rows, images as bytes."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("training on a Hugging Face data set", "train") from error
    assert data.dataset is not None
    folder = Path(data.dataset).expanduser()
    try:
        if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
            rows = datasets.load_from_disk(str(folder))
            rows = rows[data.split] if isinstance(rows, datasets.DatasetDict) else rows
        else:
            rows = datasets.load_dataset(data.dataset, split=data.split, revision=data.revision)
    except Exception as error:  # whatever its transport and its readers raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"data.dataset {data.dataset!r} cannot be read: {reason[0]}") from error
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows


def _image_bytes(cell: Any) -> bytes:
    """An image as a data set stores it; nothing where it cannot be had, which is no image to the decoder."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str):
        try:
            with storage.open_read(cell) as file:
                return file.read()
        except ReadError:
            return b""
    return bytes(cell or b"")
