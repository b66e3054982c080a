"""Numbers of things, as people write them."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``1 shard``, ``2,176 shards``."""
    return f"{count:,} {plural(noun, count)}"


def plural(noun: str, count: int) -> str:
    """The noun behind so many of it; one that takes an s."""
    return noun if count == 1 else f"{noun}s"
