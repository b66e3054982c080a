"""What flows: samples in, pairs to the judges, decisions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Status = Literal["kept", "dropped", "unreadable", "unparsable"]

Numbers = Mapping[str, Any]
"""What a judge measured of one pair: field name -> int, float, bool, str, list of floats, or None."""


class Member(NamedTuple):
    """One file of a sample. ``name`` as stored in the tar; ``extension`` is webdataset's, lower case.

    ``stored`` is its header, data and padding as they are to be written, in one piece, where that is known already;
    empty where it has to be made.
    """

    name: str
    extension: str
    data: bytes | memoryview
    stored: bytes = b""


class Sample(NamedTuple):
    """All members of one key, in stored order. Its identity is (shard, key).

    ``offset`` and ``length`` (bytes) say where it lay in its uncompressed shard: from its first
    member's first header block to the end of its last member's padding.
    """

    key: str
    members: tuple[Member, ...]
    offset: int
    length: int

    def first(self, extensions: tuple[str, ...]) -> Member | None:
        """The member whose extension stands earliest in ``extensions``; None without one."""
        for extension in extensions:
            for member in self.members:
                if member.extension == extension:
                    return member
        return None

    def under(self, key: str) -> Sample:
        """The sample under another key: its members' names change in front of their extension, their bytes do not."""
        if key == self.key:
            return self
        members = tuple(Member(key + m.name[len(self.key) :], m.extension, m.data) for m in self.members)
        return self._replace(key=key, members=members)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A sample that cannot be judged: a value that is counted, never a swallowed exception."""

    key: str
    reason: str
    detail: str = ""
    offset: int = -1
    length: int = 0


@dataclass(frozen=True, slots=True)
class Damage:
    """Why a shard's stream ended before its archive did, and where (bytes, uncompressed)."""

    reason: str
    detail: str
    offset: int


@dataclass(frozen=True, slots=True)
class Pair:
    """What a judge sees of a sample: the image as stored, the caption as text, fields of its json."""

    key: str
    image: bytes | memoryview
    caption: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class Prepared(NamedTuple):
    """A pair made ready for a judge's device half.

    ``cost`` is what a batch's budget is counted in (tokens for a language model, 1 where nothing
    better is known). ``phash`` is the image's perceptual hash where pixels were decoded anyway.
    """

    value: Any
    cost: int = 1
    phash: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a sample, and by which rule: ``vlm.at_least``, ``rules.min_side``, ..."""

    status: Status
    reason: str = ""
    detail: str = ""


KEPT = Decision("kept")
