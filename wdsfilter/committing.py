"""The last stage: decided samples in, one commit for each shard, and how it went out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from wdsfilter import storage
from wdsfilter.background import helper
from wdsfilter.commit import Fingerprints, ShardOutput
from wdsfilter.errors import OutputError, ReadError, StoreError
from wdsfilter.filled import REJECTED
from wdsfilter.ledger import Header
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import Recipe
from wdsfilter.shards.source import Shard
from wdsfilter.stages import Case, Item, ShardBegins, ShardEnds

P = ParamSpec("P")
R = TypeVar("R")


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

    A thread hashes, writes, flushes and commits, while the caller goes on with what comes next. ``open_samples`` are
    those of the shard in hand, not committed yet, for the progress line; of a fill (``filling``) those that a judge
    had never seen.
    """

    folder: OutputFolder
    recipe: Recipe
    fingerprints: Fingerprints
    filling: bool = False
    open_samples: int = 0

    def __call__(self, items: Iterator[Item]) -> Generator[Committed | Failed, None, None]:
        """How each shard went out. However this ends, what had come to its end by then is committed."""
        output: ShardOutput | None = None
        ending: deque[Future[Committed | Failed]] = deque()
        with helper("write") as thread:
            try:
                for item in items:
                    if isinstance(item, ShardBegins):
                        output = self._done(self._begun, item.shard, thread)
                        continue
                    assert output is not None, "a shard's items begin with ShardBegins"
                    if isinstance(item, Case):
                        self._done(_add, output, item)
                        self.open_samples += item.standing.status in REJECTED or not self.filling
                    else:
                        ending.append(thread.submit(_end, output, item))
                        output, self.open_samples = None, 0
                    while ending and ending[0].done():
                        yield self._done(ending.popleft().result)
                while ending:
                    yield self._done(ending.popleft().result)
            finally:
                if output is not None:
                    output.abandon()

    def _begun(self, shard: Shard, thread: Executor) -> ShardOutput:
        return ShardOutput(self.folder, shard, self.recipe, self.fingerprints, thread)

    def _done(self, step: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        """What the step gives. Raises OutputError where the disk or the store refuses it."""
        try:
            return step(*arguments, **options)
        except OSError as error:
            told = (
                error if isinstance(error, StoreError) else f"{self.folder.root}: {error.strerror or error}"
            )
            raise OutputError(f"{told}; what is committed is whole, run again to go on") from error


def _add(output: ShardOutput, case: Case) -> None:
    decision = case.decision or case.standing
    row = case.row
    row["status"], row["reason"], row["detail"] = decision.status, decision.reason, decision.detail
    output.add(row, case.sample)


def _end(output: ShardOutput, end: ShardEnds) -> Committed | Failed:
    """Commit the shard, or leave nothing of it."""
    done = False
    try:
        if end.source is None:
            error = end.error or ReadError(f"{storage.shown(end.shard.url)}: not read")
            return Failed(end.shard, error)
        header = output.commit(end.source, end.damage)
        done = True
        return Committed(end.shard, header)
    except ReadError as error:  # another was faster, and its shard could not be made again
        return Failed(end.shard, error)
    finally:
        if not done:
            output.abandon()
