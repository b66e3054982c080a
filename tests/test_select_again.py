"""`wdsfilter select` from what `wdsfilter select` made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import members
from tests.selections import exported, rows_of, run_here, select
from wdsfilter.cli import main
from wdsfilter.measure.origin import filters
from wdsfilter.shards.source import Shard


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selection in shuffled shards, whose inputs are gone. Nothing may change it."""
    folder = tmp_path_factory.mktemp("again")
    run_here(folder, shards=3, samples=8)
    arguments = ["--where", "scripted.score >= 2", "--shuffle", "--samples-per-shard", 6]
    assert select(folder / "run", "--shards", folder / "in", "-o", folder / "first", *arguments) == 0
    (folder / "in").rename(folder / "gone")
    return folder / "first"


def test_a_selection_can_be_selected_from(first: Path, tmp_path: Path) -> None:
    """Its samples come out of its own shards with all their members, under the keys that they have there."""
    out = tmp_path / "out"
    assert select(first, "-o", out, "--where", "scripted.score >= 6") == 0
    due = [row for row in rows_of(first) if row["scripted"]["score"] >= 6]
    rows = rows_of(out)
    assert [(row["source_shard"], row["source_key"]) for row in rows] == [(r["shard"], r["key"]) for r in due]
    assert 0 < len(due) < len(rows_of(first))
    there = {name: data for path in first.glob("*.tar") for name, data in members(path).items()}
    found = members(out / "00000.tar")
    assert len(found) == 5 * len(due)
    assert all(there[name] == data for name, data in found.items())
    assert main(["verify", str(out)]) == 0


def test_all_that_decided_before_are_known(first: Path, tmp_path: Path) -> None:
    """What filtered a selection filtered all that is selected from it."""
    assert select(first, "-o", tmp_path / "out", "--where", "rules.width > 1") == 0
    assert [f.judge for f in filters([Shard("0", str(first / "00000.tar"))])] == ["scripted"]
    assert [f.judge for f in filters([Shard("0", str(tmp_path / "out/00000.tar"))])] == ["rules", "scripted"]


def test_ranks_and_lists_of_a_selection(first: Path, tmp_path: Path) -> None:
    """Without --by the best of a selection are those with the best scores."""
    keys = exported([first], tmp_path / "keys.txt", "--top", "3")
    scores = {row["key"]: row["scripted"]["score"] for row in rows_of(first)}
    assert sorted(scores[key] for key in keys) == sorted(scores.values())[-3:]


def test_a_shard_of_a_selection_that_changed_is_refused(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is compared with its ledger like an input shard with a run's."""
    other = tmp_path / "00000.tar"
    other.write_bytes((first / "00000.tar").read_bytes() + bytes(512))
    assert select(first, "--shards", other, "-o", tmp_path / "out") == 1
    assert "00000.tar has" in capsys.readouterr().err
