"""How many parts an image file is made of: more than any camera or editor writes cost more time than they are worth.

A decoder works part by part (JPEG segments and scans, PNG chunks, GIF blocks), each of which a stranger
can make as small as they like: 16 MB of fill bytes in front of a JPEG's frame keep Pillow busy for a
minute, and so do 100 KB of scans over one small picture. The walk here takes no longer than the caps allow.

Sources: ITU-T T.81 annex B (JPEG), W3C PNG section 5, CompuServe GIF89a. WEBP, AVIF and BMP are left to
their decoders, which are linear.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping

import numpy as np

from wdsfilter.errors import BadImage

MAX_PARTS = 10_000
MAX_PIXEL_PARTS = 200_000
"""IDAT chunks, which some writers fill with a few kilobytes each."""

MAX_METADATA = 8 << 20
"""Bytes in front of a JPEG's pixels, fill bytes included."""

MAX_SCANNED = 2_000_000_000
"""Pixels that the scans of a JPEG pass over, all together: 30 times over the largest accepted image."""

_SMALLEST = 1 << 20  # pixels: what a scan costs at least
_NO_FILL = re.compile(rb"[^\xff]")
_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # no stuffed byte, no restart
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_START_OF_SCAN, _END = 0xDA, 0xD9


def check(format: str, data: bytes | memoryview) -> None:
    """Raise BadImage (``image_too_complex``) where ``data`` has too many parts. Broken files pass:
    their decoder has the better words for it."""
    if walk := _WALKS.get(format):
        walk(bytes(data))


def _refuse(what: str) -> BadImage:
    return BadImage("image_too_complex", what)


def _jpeg(data: bytes) -> None:
    at, pixels, components = 2, 0, b""
    for _ in range(MAX_PARTS):
        marker = data.find(b"\xff", at, MAX_METADATA)
        found = _NO_FILL.search(data, marker, MAX_METADATA) if marker >= 0 else None
        if found is None:
            if len(data) > MAX_METADATA:
                raise _refuse(f"no pixels among a JPEG's first {MAX_METADATA} bytes")
            return None
        kind, at = found[0][0], found.end()
        if kind == _START_OF_SCAN:
            return None if data[at + 2 : at + 3] == components else _scans(data, at, pixels)
        if kind == _END or at + 2 > len(data):
            return None
        if kind in _ALONE:
            continue
        if kind in _FRAMES and at + 7 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 3)
            pixels = width * height
            # A first scan of all of a sequential frame's components is the only one that is decoded.
            components = data[at + 7 : at + 8] if kind in _SEQUENTIAL else b""
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    raise _refuse(f"more than {MAX_PARTS} segments in a JPEG")


def _scans(data: bytes, at: int, pixels: int) -> None:
    """A JPEG's scans, from the first one's header ``at`` on."""
    most = MAX_SCANNED // max(pixels, _SMALLEST)
    if _count_pairs(data, b"\xff\xda") < most:  # far quicker than to tell scans from what looks like them
        return
    scans = 1
    for found in _IN_SCAN.finditer(data, at):
        kind = data[found.end() - 1]
        if kind == _END:
            return
        scans += kind == _START_OF_SCAN
        if scans > most:
            raise _refuse(f"more than {most} scans over {pixels} pixels in a JPEG")


def _count_pairs(data: bytes, pair: bytes) -> int:
    """How often the two bytes of ``pair`` follow each other. Six times as fast as ``data.count``."""
    wanted = np.frombuffer(pair, np.uint16)
    both = (np.frombuffer(data, np.uint16, (len(data) - start) // 2, start) for start in (0, 1))
    return sum(int(np.count_nonzero(pairs == wanted)) for pairs in both)


def _png(data: bytes) -> None:
    at, parts, pixel_parts = 8, 0, 0
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        if kind == b"IDAT":
            pixel_parts += 1
        else:
            parts += 1
        if parts > MAX_PARTS or pixel_parts > MAX_PIXEL_PARTS:
            raise _refuse(f"more than {MAX_PARTS} chunks, or {MAX_PIXEL_PARTS} of pixels, in a PNG")
        if kind == b"IEND":
            return
        at += 12 + length


def _gif(data: bytes) -> None:
    """Up to the first frame, which is all that is decoded."""
    flags = data[10] if len(data) > 10 else 0
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    parts = 0
    while at < len(data) and data[at] not in b",;":
        in_extension = data[at] == ord("!")
        at += 2 if in_extension else 1
        while in_extension and at < len(data) and data[at]:
            at += 1 + data[at]
            parts += 1
        at += in_extension
        parts += 1
        if parts > MAX_PARTS:
            raise _refuse(f"more than {MAX_PARTS} blocks in front of a GIF's frame")


_WALKS: Mapping[str, Callable[[bytes], None]] = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif}
