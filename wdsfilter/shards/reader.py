"""A tar stream -> samples, by webdataset's rules; what webdataset would merge or raise on is Unreadable.

A sample is a run of adjacent members with one key. The key is the name up to the first dot of its
base name, the extension is the rest in lower case: ``a/img.seg.png`` is key ``a/img``, extension
``seg.png``. Source: ``webdataset.tariterators`` (``base_plus_ext``, ``group_by_keys``); a test holds
the two together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from wdsfilter.samples import Damage, Member, Sample, Unreadable
from wdsfilter.shards import archive, tar

_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")
RESERVED = frozenset({"__key__", "__url__", "__bad__", "__local_path__"})

MAX_SAMPLE_BYTES = 256 << 20
_SHORT = 64  # letters of a key that is remembered as it is; of a longer one its digest is


def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension) of a member's name; None where webdataset passes the member over."""
    if name.startswith("__") and _META.match(name):
        return None
    if "/" in name:
        match = _NAME.fullmatch(name)
        return (match[1], match[2].lower()) if match else None
    key, dot, extension = name.partition(".")
    return (key, extension.lower()) if key and dot else None


def is_safe(key: str) -> bool:
    """Whether files of this key stay in the folder that they are unpacked in."""
    return not key.startswith("/") and (".." not in key or ".." not in key.split("/"))


@dataclass(slots=True)
class _Group:
    """The members of one key that came so far."""

    key: str
    offset: int
    end: int
    size: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""

    def add(self, entry: archive.Entry, extension: str, max_bytes: int) -> None:
        self.end = entry.end
        self.size += len(entry.data) + tar.BLOCK
        if not self.reason:
            self.reason, self.detail = self._objection(entry, extension, max_bytes)
        if self.reason:
            self.members.clear()  # nothing of it will be used: keep memory bounded
        else:
            self.members[extension] = Member(entry.name, extension, entry.data, entry.stored)

    def _objection(self, entry: archive.Entry, extension: str, max_bytes: int) -> tuple[str, str]:
        """Why the sample cannot be read with this member, and what about it; two empty ones where it can."""
        name = entry.name
        if entry.flaw:
            return entry.flaw, name
        if not name.isascii() and _printable(name) != name:
            return "name_not_utf8", name
        if "\0" in name:
            return "unsafe_name", name
        if extension in RESERVED:
            return "reserved_name", name
        if extension in self.members:
            return "duplicate_member", name
        if self.size > max_bytes:
            return "too_large", f"more than {max_bytes} bytes"
        return "", ""

    def close(self, seen: set[str | bytes]) -> Sample | Unreadable:
        mark = self.key if len(self.key) <= _SHORT else _digest(self.key)
        if not self.reason and not is_safe(self.key):
            self.reason, self.detail = "unsafe_name", self.key
        elif not self.reason and mark in seen:
            self.reason, self.detail = "duplicate_key", "a sample of this key came earlier in the shard"
        seen.add(mark)
        length = self.end - self.offset
        if self.reason:
            return Unreadable(_printable(self.key), self.reason, _printable(self.detail), self.offset, length)
        return Sample(self.key, tuple(self.members.values()), self.offset, length)


def read_samples(
    stream: BinaryIO, *, max_sample_bytes: int = MAX_SAMPLE_BYTES
) -> Iterator[Sample | Unreadable | Damage]:
    """Every sample of the shard in stored order; a :class:`Damage` comes last where there is one.

    The sample right before a damage counts as incomplete, for nothing tells that its last member
    was there. Raises ReadError when ``stream`` does; holds one sample in memory at a time.
    """
    seen: set[str | bytes] = set()
    group: _Group | None = None
    for entry in archive.members(stream, max_member=max_sample_bytes):
        if isinstance(entry, Damage):
            if group is not None:
                group.reason, group.detail = "incomplete", f"the shard is damaged after it: {entry.reason}"
                yield group.close(seen)
            yield entry
            return
        split = split_name(entry.name)
        if split is None:
            continue
        key, extension = split
        if group is None or group.key != key:
            if group is not None:
                yield group.close(seen)
            group = _Group(key, entry.offset, entry.end)
        group.add(entry, extension, max_sample_bytes)
    if group is not None:
        yield group.close(seen)


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _printable(text: str) -> str:
    """``text`` as it can be stored: bytes of a name that are no UTF-8 become ``\\udcXX``."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()
