"""The bugs that benchmarks/mutations.py plants can still be planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.mutations import MUTATIONS, Mutation
from tests.runs import ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_fits_the_sources(mutation: Mutation) -> None:
    """What it changes stands in its file exactly once, and its tests are there."""
    for edit in mutation.edits:
        assert (ROOT / "wdsfilter" / edit.file).read_text().count(edit.old) == 1, edit
    assert Path(ROOT, mutation.tests.split()[0]).exists()
