"""Duplicates among the samples that a question lets pass: the SQL that leaves the best of them.

Each is a query over the table ``picked`` (shard, offset, key, worth, and the column of hashes).
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pyarrow as pa

from wdsfilter.errors import QuestionError
from wdsfilter.select import near

BEST_FIRST = 'worth DESC NULLS LAST, shard, "offset"'
"""The better of two; of equals the earlier one."""
_TOLD = 0.01
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def first_of(column: str) -> str:
    """The best of the samples that have one value in ``column``; those without a value all stay."""
    return (
        f"SELECT * FROM picked QUALIFY {column} IS NULL OR "
        f"row_number() OVER (PARTITION BY {column} ORDER BY {BEST_FIRST}) = 1"
    )


def take_half(connection: duckdb.DuckDBPyConnection) -> int:
    """Halve DuckDB's memory and say how many bytes that leaves to others."""
    amount, unit = connection.execute("SELECT current_setting('memory_limit')").fetchall()[0][0].split()
    half = int(float(amount) * 1024 ** _UNITS.index(unit)) // 2
    connection.execute(f"SET memory_limit = '{half}B'")
    return half


def without_near(
    connection: duckdb.DuckDBPyConnection, distance: int, memory: int, remark: Callable[[str], object]
) -> str:
    """Without what has a better sample within ``distance`` bits, be that one dropped itself or not.

    ``picked`` has each ``phash`` once. ``memory`` is how many bytes looking for them may take. Makes the table
    ``worse``. Raises QuestionError where that is too little.
    """
    hashes = connection.execute(
        f"SELECT phash FROM picked WHERE phash IS NOT NULL ORDER BY {BEST_FIRST}"
    ).fetchnumpy()["phash"]
    count = len(hashes)
    allowed = int(connection.execute("SELECT current_setting('threads')").fetchall()[0][0])
    threads = min(allowed, (memory - near.BYTES * count) // (near.BYTES_A_THREAD * max(count, 1)))
    if threads < 1:
        least = 2 * (near.BYTES + near.BYTES_A_THREAD) * count // (1 << 20) + 1
        raise QuestionError(
            f"--near {distance} of {count:,} different hashes: give --memory {least}MiB or more"
        )
    if (chance := count * near.chance(distance)) >= _TOLD:
        remark(
            f"--near {distance}: of {count:,} different hashes each has {chance:.2g} others within so few bits by "
            "chance alone"
        )
    worse = pa.table({"phash": hashes[near.with_better(hashes, distance, threads)]})
    connection.register("found", worse)
    connection.execute("CREATE TABLE worse AS SELECT * FROM found")
    connection.unregister("found")
    return "SELECT * FROM picked ANTI JOIN worse USING (phash)"
