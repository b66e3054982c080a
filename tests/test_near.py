"""Near duplicates by perceptual hash: all that are near are found, and nothing else, however it is looked for."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest

from wdsfilter.errors import QuestionError
from wdsfilter.select import near
from wdsfilter.select.duplicates import without_near
from wdsfilter.select.near import Blocks, Hashes, with_better


def hashes(count: int) -> Hashes:
    """Different ones, in a drawn order: a third drawn, a third near one of these, a third with few bits."""
    chance = np.random.default_rng(count)
    far = chance.integers(0, 1 << 64, count // 3, dtype=np.uint64)
    found = np.concatenate([far, far, np.zeros(count // 3, dtype=np.uint64)])
    for _ in range(8):
        flips = np.uint64(1) << chance.integers(0, 64, len(found), dtype=np.uint64)
        found ^= np.where(chance.random(len(found)) < 0.5, flips, np.uint64(0))
    return chance.permutation(np.unique(found))


def one_by_one(hashes: Hashes, distance: int) -> list[bool]:
    return [bool((np.bitwise_count(hashes[:n] ^ value) <= distance).any()) for n, value in enumerate(hashes)]


@pytest.mark.parametrize("count", [0, 3, 3000])
@pytest.mark.parametrize("distance", [1, 3, 8, 15])
def test_exactly_what_has_a_better_one_near_it(count: int, distance: int) -> None:
    """What is marked is what comparing everything with everything marks, with any number of threads."""
    some = hashes(count)
    assert with_better(some, distance).tolist() == one_by_one(some, distance)
    assert with_better(some, distance, threads=3).tolist() == one_by_one(some, distance)


@pytest.mark.parametrize("alike", [1, 2, 3])
def test_any_blocks_find_the_same(alike: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many blocks there are is a question of time alone."""
    some = hashes(900)
    monkeypatch.setattr(near, "blocks_for", lambda hashes, distance: Blocks(distance + alike, alike))
    assert with_better(some, 4).tolist() == one_by_one(some, 4)


def test_large_crowds_are_seen_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of many with the same block may be the only one near the last of them."""
    monkeypatch.setattr(near, "blocks_for", lambda hashes, distance: Blocks(2, 1))
    far = np.arange(1, 5001, dtype=np.uint64) * np.uint64(0x9E3779B1) & np.uint64((1 << 32) - 1)
    some = np.concatenate([[np.uint64(1 << 31)], far, [np.uint64(1 << 31 | 1)]]).astype(np.uint64)
    assert with_better(some, 1).tolist() == one_by_one(some, 1)


def test_more_hashes_are_cut_into_more_blocks() -> None:
    """Few hashes are sorted a few times, many more often, so that few of them have to be compared."""
    drawn = np.random.default_rng(0).integers(0, 1 << 64, 300_000, dtype=np.uint64)
    assert near.blocks_for(drawn[:1000], 8) == Blocks(9, 1)
    assert near.blocks_for(drawn, 8).alike > 1


def test_too_little_memory_is_told() -> None:
    """Where one thread's arrays do not fit, the amount that would do is named."""
    connection = duckdb.connect()
    connection.execute('CREATE TABLE picked (shard VARCHAR, "offset" BIGINT, phash UBIGINT, worth DOUBLE)')
    connection.execute("INSERT INTO picked SELECT 'a.tar', n, n, NULL FROM range(100000) t(n)")
    with pytest.raises(QuestionError, match=r"--near 3 of 100,000 different hashes: give --memory 8MiB"):
        without_near(connection, 3, 2_000_000, print)
