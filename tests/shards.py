"""Tiny shards for tests: well-formed tars in every dialect, and ways to break them."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image

from wdsfilter.samples import Damage, Sample, Unreadable
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import MAX_SAMPLE_BYTES, read_samples

Content = tuple[str, list[tuple[str, bytes]]]
"""What loaders see of a sample: its key, and extension and bytes of its members."""


def jpeg(number: int = 0, width: int = 16, height: int = 12) -> bytes:
    """A small picture, another one for every ``number``."""
    file = io.BytesIO()
    color = (number * 37 % 256, number * 101 % 256, number * 59 % 256)
    Image.new("RGB", (width, height), color).save(file, "JPEG")
    return file.getvalue()


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A member's description, with a clock and an owner that no output may show."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    info.mtime, info.uid, info.uname = 1_600_000_000, 1000, "somebody"
    return info


def tar_bytes(
    members: Iterable[tuple[str | tarfile.TarInfo, bytes]], format: int = tarfile.GNU_FORMAT
) -> bytes:
    """A whole archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, errors="surrogateescape") as tar:
        for name, data in members:
            info = member(name, data) if isinstance(name, str) else name
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def pairs(count: int, first: int = 0, image: bytes | None = None) -> list[tuple[str, bytes]]:
    """Members of ``count`` ordinary samples: ``.jpg``, ``.txt``, ``.json``."""
    members: list[tuple[str, bytes]] = []
    for number in range(first, first + count):
        key = f"{number:05d}"
        members.append((f"{key}.jpg", image or jpeg(number)))
        members.append((f"{key}.txt", f"A picture that has the number {number}.".encode()))
        members.append((f"{key}.json", f'{{"uid": "{number:032x}", "width": 16}}'.encode()))
    return members


def write_shard(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))
    return path


def block(
    name: bytes, size: int | bytes = 0, kind: bytes = b"0", prefix: bytes = b"", magic: bytes = b"ustar\x0000"
) -> bytes:
    """A header block by hand, with the right checksum. ``size`` may be the field's own bytes."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    before = (
        name.ljust(100, b"\0")
        + b"0000644\x000000000\x000000000\0"
        + field.ljust(12, b"\0")
        + b"00000000000\0"
    )
    after = kind + bytes(100) + magic.ljust(8, b"\0") + bytes(80) + prefix.ljust(155, b"\0") + bytes(12)
    return before + b"%06o\0 " % (sum(before) + 8 * 0x20 + sum(after)) + after


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """An extended header that holds ``records`` as they are."""
    payload = b"".join(records)
    return block(b"PaxHeader", len(payload), kind) + padded(payload)


def record(keyword: bytes, value: bytes) -> bytes:
    """A record of an extended header, with its own length in front."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def flipped(data: bytes, bit: int) -> bytes:
    """``data`` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def stream(data: bytes) -> BinaryIO:
    """``data`` as storage would hand it out."""
    return cast(BinaryIO, io.BufferedReader(io.BytesIO(data)))


def read(data: bytes, max_sample_bytes: int = MAX_SAMPLE_BYTES) -> list[Sample | Unreadable | Damage]:
    """What the strict reader makes of a shard of these bytes."""
    return list(read_samples(decompressed(stream(data)), max_sample_bytes=max_sample_bytes))


def contents(items: Sequence[Sample | Unreadable | Damage]) -> list[Content]:
    """Keys, extensions and bytes of the samples among ``items``."""
    return [
        (item.key, [(m.extension, bytes(m.data)) for m in item.members])
        for item in items
        if isinstance(item, Sample)
    ]


def outcome(items: Sequence[Sample | Unreadable | Damage]) -> list[str]:
    """One word an item: a sample's key, ``key:reason`` of an unreadable one, ``!reason`` of a damage."""
    words = []
    for item in items:
        if isinstance(item, Sample):
            words.append(item.key)
        else:
            words.append(f"{item.key}:{item.reason}" if isinstance(item, Unreadable) else f"!{item.reason}")
    return words


def names(chance: random.Random, count: int) -> list[str]:
    """Keys as wild as webdataset takes them: folders, ``./``, Unicode, blanks, and long ones."""
    stems = ["a", "b7", "Ünï", "図", "with blank", "x" * 120, "-", "__", "a-b_c", "%41", "~", "é" * 60]
    folders = ["", "./", "d/", "d.1/", "d/e.f/", "./d//", "folder" * 20 + "/", "__data/"]
    return [f"{chance.choice(folders)}{chance.choice(stems)}{number}" for number in range(count)]
