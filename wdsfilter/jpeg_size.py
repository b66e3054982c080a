"""The size of a JPEG as nearly all are, from its first bytes: Pillow takes several times as long.

What has anything in it that a decoder might object to, or that turns the picture, is left to Pillow.
Source: ITU-T T.81 annex B.
"""

from __future__ import annotations

_ENOUGH = 4096  # bytes in which tables and frame end, where neither EXIF nor a profile is
_PARTS = 64
_COLOURS = frozenset({1, 3, 4})  # components that Pillow knows a mode for
_BASELINE, _EXTENDED, _HUFFMAN, _SCAN, _TABLES, _RESTART, _COMMENT = 0xC0, 0xC1, 0xC4, 0xDA, 0xDB, 0xDD, 0xFE
_LENGTHS = {0xE0: 16, 0xEE: 14}  # of JFIF's and Adobe's segments


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) of a JPEG that Pillow opens, without EXIF or profile, of one scan; None where that is unsure."""
    start = bytes(data[:_ENOUGH])
    if not start.startswith(b"\xff\xd8"):
        return None
    size, components, at = None, 0, 2
    for _ in range(_PARTS):
        if at + 5 > len(start) or start[at] != 0xFF:
            return None
        kind, length = start[at + 1], start[at + 2] << 8 | start[at + 3]
        first, at = at + 4, at + 2 + length
        if length < 3 or at > len(start):
            return None
        if kind == _TABLES:
            if (length - 2) % 65 or any(start[table] > 15 for table in range(first, at, 65)):
                return None
        elif kind in (_BASELINE, _EXTENDED):
            components = start[first + 5] if length > 7 else 0
            if size or start[first] != 8 or components not in _COLOURS or length != 8 + 3 * components:
                return None
            height, width = (start[place] << 8 | start[place + 1] for place in (first + 1, first + 3))
            size = (width, height)
        elif kind == _SCAN:
            return size if size and all(size) and start[first] == components else None
        elif kind not in (_HUFFMAN, _RESTART, _COMMENT) and length != _LENGTHS.get(kind):
            return None
    return None
