"""The last stage: decided samples in, one commit for each shard, and how it went out."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from wdsfilter import storage
from wdsfilter.commit import Fingerprints, ShardOutput
from wdsfilter.errors import OutputError, ReadError, StoreError
from wdsfilter.filled import REJECTED
from wdsfilter.ledger import Header
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import Recipe
from wdsfilter.shards.source import Shard
from wdsfilter.stages import Case, Item, ShardBegins


@dataclass(frozen=True, slots=True)
class Committed:
    """A shard is done; ``header`` is what its ledger says."""

    shard: Shard
    header: Header


@dataclass(frozen=True, slots=True)
class Failed:
    """A shard's bytes could not be had: nothing of it was committed."""

    shard: Shard
    error: ReadError


@dataclass(slots=True)
class CommitStage:
    """Writes every case's row and the kept samples, commits shard by shard.

    ``open_samples`` are those of the shard in hand, not committed yet, for the progress line; of a fill
    (``filling``) those that a judge had never seen.
    """

    folder: OutputFolder
    recipe: Recipe
    fingerprints: Fingerprints
    filling: bool = False
    open_samples: int = 0

    def __call__(self, items: Iterator[Item]) -> Generator[Committed | Failed, None, None]:
        output: ShardOutput | None = None
        try:
            for item in items:
                if isinstance(item, ShardBegins):
                    output = ShardOutput(self.folder, item.shard, self.recipe, self.fingerprints)
                    continue
                assert output is not None, "a shard's items begin with ShardBegins"
                if isinstance(item, Case):
                    decision = item.decision or item.standing
                    item.row["status"] = decision.status
                    item.row["reason"] = decision.reason
                    item.row["detail"] = decision.detail
                    output.add(item.row, item.sample)
                    self.open_samples += item.standing.status in REJECTED or not self.filling
                    continue
                self.open_samples = 0
                if item.source is not None:
                    try:
                        result: Committed | Failed = Committed(
                            item.shard, output.commit(item.source, item.damage)
                        )
                    except ReadError as error:  # another was faster, and its shard could not be made again
                        output.abandon()
                        result = Failed(item.shard, error)
                    output = None
                    yield result
                else:
                    output.abandon()
                    output = None
                    yield Failed(
                        item.shard, item.error or ReadError(f"{storage.shown(item.shard.url)}: not read")
                    )
        except OSError as error:
            told = (
                error if isinstance(error, StoreError) else f"{self.folder.root}: {error.strerror or error}"
            )
            raise OutputError(f"{told}; what is committed is whole, run again to go on") from error
        finally:
            if output is not None:
                output.abandon()
