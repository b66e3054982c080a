"""What each shard kept, and which shards are unlike the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from wdsfilter.ledger import Header

_FAR = 4.0


@dataclass(frozen=True, slots=True)
class ShardShare:
    """One shard: ``share`` of its samples that were kept. ``outlier``: far from what the others keep."""

    name: str
    samples: int
    kept: int
    unreadable: int
    share: float
    outlier: bool
    damage: str


def shares(headers: Mapping[str, Header]) -> Sequence[ShardShare]:
    """Every shard, by name.

    An outlier is further from the median share than four standard deviations, the wider of two: what chance
    alone gives a shard of its size, and what the middle half of all shards shows.
    """
    whole = {name: h for name, h in sorted(headers.items()) if h.counts.samples}
    parts = {name: h.counts.kept / h.counts.samples for name, h in whole.items()}
    middle = median(parts.values()) if parts else 0.0
    spread = 1.4826 * median(abs(part - middle) for part in parts.values()) if parts else 0.0
    found = []
    for name, header in sorted(headers.items()):
        counts = header.counts
        share = parts.get(name, 0.0)
        chance = math.sqrt(max(middle * (1 - middle), 0.25 / max(counts.samples, 1)) / max(counts.samples, 1))
        far = name in parts and abs(share - middle) > _FAR * max(spread, chance)
        damage = f"{header.damage.reason}: {header.damage.detail}" if header.damage else ""
        found.append(ShardShare(name, counts.samples, counts.kept, counts.unreadable, share, far, damage))
    return found
