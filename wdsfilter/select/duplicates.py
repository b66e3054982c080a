"""Duplicates among the samples that a question lets pass: the SQL that leaves the best of them.

Each is a query over the table ``picked`` (shard, offset, key, worth, and the column of hashes).
"""

from __future__ import annotations

from itertools import pairwise

BEST_FIRST = 'worth DESC NULLS LAST, shard, "offset"'
"""The better of two; of equals the earlier one."""


def first_of(column: str) -> str:
    """The best of the samples that have one value in ``column``; those without a value all stay."""
    return (
        f"SELECT * FROM picked QUALIFY {column} IS NULL OR "
        f"row_number() OVER (PARTITION BY {column} ORDER BY {BEST_FIRST}) = 1"
    )


def without_near(distance: int) -> str:
    """Without what has a better sample within ``distance`` bits, be that one dropped itself or not.

    Hashes that differ in N of 64 bits agree in one of N + 1 bands of them.
    """
    edges = [64 * n // (distance + 1) for n in range(distance + 2)]
    bands = " UNION ALL ".join(
        f"SELECT {n} AS band, (bits >> {low}) & {(1 << high - low) - 1} AS part, place, bits FROM hashes"
        for n, (low, high) in enumerate(pairwise(edges))
    )
    return (
        f"WITH hashes AS MATERIALIZED (SELECT CAST('0x' || phash AS UBIGINT)::HUGEINT AS bits, phash, "
        f"row_number() OVER (ORDER BY {BEST_FIRST}) AS place FROM picked WHERE phash IS NOT NULL), "
        f"bands AS ({bands}), worse AS (SELECT DISTINCT y.bits FROM bands x JOIN bands y ON x.band = y.band "
        f"AND x.part = y.part AND x.place < y.place WHERE bit_count(xor(x.bits, y.bits)) <= {distance}) "
        "SELECT * FROM picked WHERE phash IS NULL OR phash NOT IN "
        "(SELECT phash FROM hashes JOIN worse ON hashes.bits = worse.bits)"
    )
