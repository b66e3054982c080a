"""The last stage: what ended is committed, whatever happens then, and nobody waits for the disk without need."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.runs import make_shards
from wdsfilter import commit, ledger
from wdsfilter.commit import Fingerprints
from wdsfilter.committing import CommitStage, Committed
from wdsfilter.errors import Interrupted, OutputError
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import parse
from wdsfilter.shards.source import Pattern, find_shards
from wdsfilter.stages import Case, Item, ShardBegins, read_items

RECIPE = parse({"judges": [{"scripted": {"at_least": 1}}], "guard": "off"})


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    make_shards(tmp_path / "in", 3)
    return OutputFolder(tmp_path / "out")


def stage(folder: OutputFolder) -> CommitStage:
    return CommitStage(folder, RECIPE, Fingerprints("", ""))


def items(folder: OutputFolder) -> Iterator[Item]:
    """Everything in the shards, judged."""
    for item in read_items(find_shards([Pattern(str(Path(str(folder.root)).parent / "in"))]), RECIPE):
        if isinstance(item, Case):
            item.row["scripted"] = {"grade": 7, "score": 7.0}
        yield item


def left_over(folder: OutputFolder) -> list[str]:
    """Threads that still write, and temporary files."""
    names = [t.name for t in threading.enumerate() if t.name.startswith("wdsfilter-write")]
    return names + [p.name for p in Path(str(folder.temporary())).parent.rglob("*") if p.is_file()]


def test_shards_come_out_in_order(folder: OutputFolder) -> None:
    """Each with the ledger that is there, and no thread is left."""
    results = list(stage(folder)(items(folder)))
    assert [result.shard.name for result in results] == folder.shard_names()
    for result in results:
        assert isinstance(result, Committed)
        assert result.header == ledger.read_header(folder.ledger(result.shard.name))
    assert left_over(folder) == []


def test_judging_goes_on_while_a_shard_is_committed(
    folder: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard's commit takes until the next shard's samples come: both are made, since nobody waits for it."""
    goes_on = threading.Event()
    real = commit.ShardOutput.commit

    def slow(self: commit.ShardOutput, *arguments: object) -> object:
        assert goes_on.wait(10)
        return real(self, *arguments)  # type: ignore[arg-type]

    def watched() -> Iterator[Item]:
        shards = 0
        for item in items(folder):
            shards += isinstance(item, ShardBegins)
            if shards == 2 and isinstance(item, Case):
                goes_on.set()
            yield item

    monkeypatch.setattr(commit.ShardOutput, "commit", slow)
    assert len(list(stage(folder)(watched()))) == 3


@pytest.mark.parametrize("error", [Interrupted("enough"), OSError("enough")], ids=["stopped", "broken"])
def test_what_has_ended_is_committed_when_judging_fails(folder: OutputFolder, error: Exception) -> None:
    """And nothing is left of what had only begun; the error is no matter of the output."""

    def interrupted() -> Iterator[Item]:
        shards = 0
        for item in items(folder):
            shards += isinstance(item, ShardBegins)
            yield item
            if shards == 2 and isinstance(item, Case):
                raise error

    with pytest.raises(type(error), match="enough"):
        list(stage(folder)(interrupted()))
    assert folder.shard_names() == ["s-0000.tar"]
    assert left_over(folder) == []


def test_what_has_ended_is_committed_when_nobody_wants_more(folder: OutputFolder) -> None:
    """Results may be given up at any time; what is half done is waited for, or removed."""
    with closing(stage(folder)(items(folder))) as results:
        first = next(results)
    assert first.shard.name == folder.shard_names()[0]
    assert left_over(folder) == []


def test_an_error_of_the_disk_comes_out(folder: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the results are taken, with what to do; what was begun is removed."""

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="No space left on device; what is committed is whole, run again"):
        list(stage(folder)(items(folder)))
    monkeypatch.undo()
    assert folder.shard_names() == []
    assert left_over(folder) == []
