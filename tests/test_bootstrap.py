"""Intervals, and counting in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest

from wdsfilter.bootstrap import Mean
from wdsfilter.measure import facts


@pytest.mark.parametrize("count", [50, 30_000])
def test_an_interval_is_as_wide_as_theory_has_it(count: int) -> None:
    """Of independent values: 1.96 standard errors to both sides, however many were put into groups."""
    values = np.random.default_rng(1).exponential(size=count)
    mean = Mean()
    for value in values:
        mean.add(float(value))
    assert mean.value == pytest.approx(values.mean())
    found = mean.interval()
    assert found is not None
    error = values.std() / count**0.5
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.12)
    assert found == mean.interval(), "seeded"


def test_neighbours_that_are_alike_widen_it() -> None:
    """Values that come in equal blocks are worth less than as many independent ones."""
    drawn = np.random.default_rng(2).normal(size=1000)
    blocks, mixed = Mean(), Mean()
    for value in np.repeat(drawn, 32):
        blocks.add(float(value))
    for value in np.random.default_rng(3).permutation(np.repeat(drawn, 32)):
        mixed.add(float(value))
    one, other = blocks.interval(), mixed.interval()
    assert one is not None
    assert other is not None
    assert one.high - one.low > 1.5 * (other.high - other.low)


def test_a_single_value_has_no_interval() -> None:
    """Nor has none a mean."""
    mean = Mean()
    assert mean.value is None
    mean.add(1.0)
    assert mean.interval() is None


def test_distinct_things_are_counted_past_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting settles what it holds now and then, and stays exact."""
    monkeypatch.setattr(facts, "_WAITING", 10)
    seen = facts.Distinct()
    for number in [*range(35), *range(20), 2**64 - 1]:
        seen.add(number)
    assert (seen.total, seen.count, seen.repeated) == (56, 36, 20)


def test_variety_is_of_a_thousand_words_in_a_row() -> None:
    """It does not fall with the size of a set, as the ratio of all words does."""
    words = facts.Words()
    for number in range(4000):
        words.add(f"word{number % 100}")
    assert words.variety.value == 0.1
    assert words.ratio == 100 / 4000
