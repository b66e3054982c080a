"""A sample as a page shows it: a small picture made anew, the caption as text, and what the judges said."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, features

from wdsfilter import images
from wdsfilter.errors import BadImage
from wdsfilter.ledger import Row
from wdsfilter.pairs import PairReader
from wdsfilter.report.finding import Found
from wdsfilter.report.measures import Ruler
from wdsfilter.samples import Pair, Sample

_SIDE = 240
_QUALITY = 62
_MOST_TEXT = 600


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as a data URL, and its size in pixels."""

    url: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Card:
    """What is shown of one sample. ``values`` are the ruler's measures; ``note`` says what could not be had."""

    shard: str
    key: str
    status: str
    reason: str
    detail: str
    caption: str | None
    picture: Thumbnail | None
    note: str
    values: Mapping[str, float]
    candidate: bool
    probabilities: tuple[float, ...]
    justification: str
    truth: float | None

    @property
    def finest(self) -> float:
        """The expected score, or the grade; below every one where there is neither."""
        return self.values.get("score", self.values.get("grade", float("-inf")))


def make_card(
    shard: str,
    found: Found,
    pair: Pair | None,
    ruler: Ruler | None,
    truth: float | None,
    *,
    with_picture: bool = True,
) -> Card:
    """``pair`` is what the sample gave, None where it is none."""
    row, note, picture = found.row, found.why, None
    image = pair.image if pair is not None else None
    if image is not None and not with_picture:
        note = "left out, to keep the page small"
    elif image is not None:
        try:
            picture = thumbnail(image)
        except BadImage as error:
            note = str(error)
    elif found.sample is not None and not note:
        note = str(row["detail"] or row["reason"])
    values, probabilities, justification = _numbers(row, ruler)
    decided = row["status"] == "kept" or (ruler is not None and row["reason"] == f"{ruler.judge}.at_least")
    return Card(
        shard,
        row["key"],
        row["status"],
        row["reason"],
        cut(row["detail"]),
        cut(pair.caption) if pair is not None and pair.caption else None,
        picture,
        cut(note),
        values,
        bool(values) and decided,
        probabilities,
        cut(justification),
        truth,
    )


def read_pair(reader: PairReader, sample: Sample | None) -> Pair | None:
    """Image and caption of a sample; the image alone, with an empty caption, where there is no other."""
    if sample is None:
        return None
    pair = reader.read(sample)
    if isinstance(pair, Pair):
        return pair
    image = sample.first(reader.image)
    return Pair(sample.key, image.data, "") if image is not None else None


def thumbnail(data: bytes | memoryview, side: int = _SIDE) -> Thumbnail:
    """A small picture made anew from decoded pixels: none of a stranger's bytes go on. Raises BadImage."""
    pixels = images.decode(data)
    pixels.thumbnail((side, side), Image.Resampling.LANCZOS)
    kind = "WEBP" if features.check("webp") else "JPEG"
    file = io.BytesIO()
    pixels.save(file, kind, quality=_QUALITY)
    text = base64.b64encode(file.getvalue()).decode()
    return Thumbnail(f"data:image/{kind.lower()};base64,{text}", *pixels.size)


def _numbers(row: Row, ruler: Ruler | None) -> tuple[dict[str, float], tuple[float, ...], str]:
    numbers: Mapping[str, Any] | None = row.get(ruler.judge) if ruler else None
    if ruler is None or numbers is None:
        return {}, (), ""
    probabilities = tuple(float(p) for p in numbers.get("p") or ())
    values = {name: float(numbers[name]) for name in ("grade", "score") if numbers.get(name) is not None}
    if probabilities:
        good = (p for p, grade in zip(probabilities, ruler.grades, strict=False) if grade >= ruler.worth)
        values["probability"] = sum(good)
    return values, probabilities, str(numbers.get("justification") or "")


def cut(text: str, most: int = _MOST_TEXT) -> str:
    """The beginning of a text."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
