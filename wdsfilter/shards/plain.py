"""Samples that lie in a shard the plainest way, a ustar header before each member: copied without taking them apart."""

from __future__ import annotations

from wdsfilter.shards import tar
from wdsfilter.shards.reader import RESERVED, is_safe, split_name


def normalise(data: memoryview, key: str) -> set[str] | None:
    """Make one sample's bytes in a shard, in place, what :func:`~wdsfilter.shards.writer.stored` makes of it.

    Returns its members' extensions. None where it lies there in any other way, or is not the sound sample
    ``key``: then it has to be read by :func:`~wdsfilter.shards.reader.read_samples`, which is as right as before.
    """
    if not is_safe(key):
        return None
    extensions: set[str] = set()
    at = 0
    while at < len(data):
        raw = bytes(data[at : at + tar.BLOCK])
        try:
            name, size = raw[:100].rstrip(b"\0").decode(), int(raw[124:135], 8)
            header = tar.header(name, size)
        except ValueError:
            return None
        if size < 0 or (raw != header and not (_same_member(raw, header) and tar.is_checksum_right(raw))):
            return None
        split = split_name(name) if "\0" not in name else None
        if split is None or split[0] != key or split[1] in RESERVED or split[1] in extensions:
            return None
        extensions.add(split[1])
        begin, end = at + tar.BLOCK, at + tar.BLOCK + size
        if end + -size % tar.BLOCK > len(data):
            return None
        data[at:begin] = header
        at = end + -size % tar.BLOCK
        data[end:at] = tar.padding(size)
    return extensions


def _same_member(raw: bytes, header: bytes) -> bool:
    """Whether a header differs in nothing but mode, owner, time, link and what kind of ustar it is."""
    return (
        raw[:100] == header[:100]
        and raw[124:136] == header[124:136]
        and raw[156] == header[156]
        and raw[257:262] == header[257:262]
        and raw[345:] == header[345:]
    )
