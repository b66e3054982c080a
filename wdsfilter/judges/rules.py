"""Cheap rules that need no model: sizes, aspect ratio, caption length and words, fields of the json.

It measures everything it can, whatever the limits, so that ledgers can be asked about other limits
later. Only the image's header is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from wdsfilter import images, suspicion
from wdsfilter.errors import BadImage
from wdsfilter.judges import JudgeOptions, Runtime, decides, rejects
from wdsfilter.samples import Decision, Numbers, Pair, Prepared, Unreadable
from wdsfilter.suspicion import Kind

VERSION = 2


class FieldLimit(BaseModel):
    """What a field of a sample's json must be. A sample without the field is dropped, unless ``optional``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    at_least: float | None = None
    at_most: float | None = None
    one_of: list[str | int | float | bool | None] | None = None
    optional: bool = False


class Options(JudgeOptions):
    """Limits; one that is not given does not bind. Sides in pixels, upright; sizes in bytes."""

    min_side: int | None = decides(ge=1)
    max_side: int | None = decides(ge=1)
    min_pixels: int | None = decides(ge=1)
    max_aspect: float | None = decides(ge=1)
    min_bytes: int | None = decides(ge=0)
    max_bytes: int | None = decides(ge=0)
    min_chars: int | None = decides(ge=0)
    max_chars: int | None = decides(ge=0)
    min_words: int | None = decides(ge=0)
    max_words: int | None = decides(ge=0)
    blocklist: list[str] = rejects([])
    """Phrases, found as whole words without regard to case, that a caption must not hold."""
    suspicious: bool | list[Kind] = decides(False)
    """Whether a caption that talks to its judge is dropped, or only one that does so in one of these ways."""
    pattern: str | None = rejects()
    """Regular expression that a caption must match somewhere."""
    json_fields: dict[str, FieldLimit] = rejects({}, alias="json")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return value


_LIMITS = (
    ("min_side", "side", False),
    ("max_side", "longest_side", True),
    ("min_pixels", "pixels", False),
    ("max_aspect", "aspect", True),
    ("min_bytes", "bytes", False),
    ("max_bytes", "bytes", True),
    ("min_chars", "chars", False),
    ("max_chars", "chars", True),
    ("min_words", "words", False),
    ("max_words", "words", True),
)


def resolve(options: Options) -> tuple[Options, Sequence[str]]:
    return options, ()


def fields(options: Options) -> Mapping[str, str]:
    return {
        "width": "int32",
        "height": "int32",
        "bytes": "int64",
        "chars": "int32",
        "words": "int32",
        "blocked_phrase": "string",
        "suspicious": "string",
        "matches_pattern": "bool",
        "offending_field": "string",
    }


def decide(options: Options, numbers: Numbers) -> Decision | None:
    width, height = numbers["width"], numbers["height"]
    measured = {
        **numbers,
        "side": min(width, height),
        "longest_side": max(width, height),
        "pixels": width * height,
        "aspect": max(width, height) / min(width, height),
    }
    for option, name, is_upper in _LIMITS:
        limit = getattr(options, option)
        if limit is not None and (measured[name] > limit if is_upper else measured[name] < limit):
            return Decision("dropped", option, f"{name} {measured[name]:.6g}, limit {limit}")
    if numbers["blocked_phrase"] is not None:
        return Decision("dropped", "blocklist", numbers["blocked_phrase"])
    found, wanted = numbers["suspicious"], options.suspicious
    if found is not None and (wanted is True or (wanted and found.partition(":")[0] in wanted)):
        return Decision("dropped", "suspicious", found)
    if numbers["matches_pattern"] is False:
        return Decision("dropped", "pattern")
    if numbers["offending_field"] is not None:
        return Decision("dropped", "json", numbers["offending_field"])
    return None


def identify(options: Options, runtime: Runtime) -> Mapping[str, Any]:
    return {"version": VERSION}


def load(options: Options, runtime: Runtime) -> RulesJudge:
    phrases = "|".join(re.escape(phrase) for phrase in options.blocklist)
    return RulesJudge(
        options,
        re.compile(rf"(?<!\w)(?:{phrases})(?!\w)", re.IGNORECASE) if phrases else None,
        re.compile(options.pattern) if options.pattern else None,
    )


@dataclass(frozen=True, slots=True)
class RulesJudge:
    """Measures on the CPU, in the process that reads."""

    options: Options
    blocked: re.Pattern[str] | None
    pattern: re.Pattern[str] | None
    window: int = 64
    batch_cost: int = 64
    inline: bool = True

    def prepare(self, pair: Pair) -> Prepared | Unreadable:
        try:
            header = images.header(pair.image)
        except BadImage as error:
            return Unreadable(pair.key, error.reason, error.detail)
        blocked = self.blocked.search(pair.caption) if self.blocked else None
        return Prepared(
            {
                "width": header.width,
                "height": header.height,
                "bytes": len(pair.image),
                "chars": len(pair.caption),
                "words": len(pair.caption.split()),
                "blocked_phrase": blocked[0].lower() if blocked else None,
                "suspicious": suspicion.find(pair.caption),
                "matches_pattern": bool(self.pattern.search(pair.caption)) if self.pattern else None,
                "offending_field": self._offending_field(pair.fields),
            }
        )

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        return batch

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}

    def _offending_field(self, values: Mapping[str, Any]) -> str | None:
        for name, limit in self.options.json_fields.items():
            value = values.get(name)
            if value is None and limit.optional:
                continue
            if limit.one_of is not None and value not in limit.one_of:
                return _stored(f"{name} is {value!s:.80}")
            if limit.at_least is None and limit.at_most is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return _stored(f"{name} is no number")
            too_low = limit.at_least is not None and not value >= limit.at_least
            if too_low or (limit.at_most is not None and not value <= limit.at_most):
                return _stored(f"{name} is {value!s:.80}")
        return None


def _stored(text: str) -> str:
    """``text`` as a ledger can hold it: json may bring lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()
