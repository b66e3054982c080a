"""Numbers of things, as people write them."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``1 shard``, ``2,176 shards``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
