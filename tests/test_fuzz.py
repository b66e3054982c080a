"""A few thousand mutated tars and images; ``python -m tests.fuzz`` does a million."""

from __future__ import annotations

import random

import pytest

from tests import fuzz


@pytest.mark.parametrize("seed", range(2))
def test_mutants(seed: int) -> None:
    """No crash, no hang, no sample that is not accounted for."""
    fuzz.run(seed, 0, 1500)


def test_a_case_is_the_same_again() -> None:
    """What a case mutates depends on its seed and number alone."""
    seen = [fuzz.mutated(b"x" * 2000, random.Random("1/tar/7"), 512) for _ in range(2)]
    assert seen[0] == seen[1] != b"x" * 2000
