"""An answer -> an output folder: even shards, each with its ledger, by the commit rules of a run.

A shard is a pure function of the answer and its number, so what was killed goes on by doing what is not
there, and processes that meet in one folder do each other no harm.
"""

from __future__ import annotations

import json
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from wdsfilter import fingerprint, launch, ledger, storage
from wdsfilter.commit import is_complete
from wdsfilter.errors import OutputError
from wdsfilter.failpoints import hit
from wdsfilter.ledger import Header, LedgerWriter
from wdsfilter.output import OutputFolder
from wdsfilter.select.copying import Copying
from wdsfilter.select.inputs import Located, check_unchanged
from wdsfilter.select.sources import PLACED
from wdsfilter.shards.writer import ShardWriter, Written
from wdsfilter.storage import StoredPath
from wdsfilter.streams import Stat

_DIGITS = 5
_AHEAD = 2  # shards per worker that are asked for before the first of them is done


@dataclass(frozen=True, slots=True)
class Cut:
    """The job: ``rows`` of the answer, ``per_shard`` of them a shard, into ``root``."""

    root: StoredPath
    copying: Copying
    located: Mapping[str, Located]
    columns: pa.Schema
    rows: int
    per_shard: int
    scoring: str
    decision: str

    @property
    def shards(self) -> int:
        return -(-self.rows // self.per_shard)

    def name(self, number: int) -> str:
        digits = max(_DIGITS, len(str(self.shards - 1)))
        return f"{number:0{digits}d}.tar"


def claim_folder(folder: OutputFolder, record: fingerprint.Record) -> None:
    """Make the folder this selection's. Raises OutputError where it is another's, with the difference."""
    if folder.record.exists():
        raise OutputError(f"{folder.root} is the folder of a run; select into another one")
    if not folder.selection.exists() and folder.shard_names():
        raise OutputError(f"{folder.root} has ledgers but no select.json: it is no selection's folder")
    if not folder.put(fingerprint.canonical(record), folder.selection):
        try:
            there = json.loads(folder.selection.read_bytes())
        except ValueError as error:
            raise OutputError(f"{folder.selection}: {error}") from error
        if there != record:
            lines = fingerprint.differences(there, record)
            raise OutputError(
                "\n  ".join([f"{folder.root} is the folder of another selection; use another one", *lines])
            )
    hit("run.committed")


def cut(job: Cut, workers: int, check: Callable[[], None]) -> Iterator[Header]:
    """Commit every shard of the job and yield what its ledger says, in order.

    ``check`` is called between shards and may raise; what was begun by then is finished first.
    Raises InputError, OutputError, ReadError.
    """
    if workers <= 1 or job.shards <= 1:
        folder = OutputFolder(job.root)
        for number in range(job.shards):
            yield make_shard(job, folder, number)
            check()
        return
    count = min(workers, job.shards)
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_start_worker, initargs=(job,)) as pool:
        waiting: deque[Future[Header]] = deque()
        try:
            for number in range(job.shards):
                waiting.append(pool.submit(_in_worker, number))
                if len(waiting) >= _AHEAD * count:
                    yield waiting.popleft().result()
                    check()
            while waiting:
                yield waiting.popleft().result()
                check()
        except BrokenProcessPool as error:
            raise OutputError(
                "a process that copies was killed (was memory short?); what is committed is whole, run again to go on"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


_worker: list[tuple[Cut, OutputFolder]] = []


def _start_worker(job: Cut) -> None:
    launch.exit_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, signal.SIG_IGN
        )  # a terminal signals the whole group, and the main process decides
    _worker.append((job, OutputFolder(job.root)))


def _in_worker(number: int) -> Header:
    job, folder = _worker[0]
    return make_shard(job, folder, number)


def make_shard(job: Cut, folder: OutputFolder, number: int) -> Header:
    """Commit shard ``number``, or the shard of a ledger that is there. Returns what its ledger says."""
    name = job.name(number)
    folder.check_free(name)
    final = folder.ledger(name)
    committed = ledger.read_header(final) if final.exists() else None
    if committed is not None and is_complete(folder, name):
        return committed
    tar_path, ledger_path = folder.temporary(), folder.temporary()
    tar = ShardWriter(tar_path)
    rows = LedgerWriter(ledger_path, job.columns)
    begin = 0
    try:
        hit("shard.begun")
        used: set[str] = set()
        for table in job.copying.tables(number * job.per_shard, job.per_shard):
            sizes = []
            for samples in job.copying.stored(table):
                tar.add_stored(samples.buffers, len(samples.sizes))
                sizes += samples.sizes
            rows.add_table(_placed(table, begin, sizes))
            begin += sum(sizes)
            used.update(pc.unique(table["source_shard"]).to_pylist())
        check_unchanged(job.located[shard] for shard in sorted(used))
        written = tar.close()
        hit("shard.written")
        header = Header(name, Stat(None), rows.counts, None, written, job.scoring, job.decision)
        rows.close(header)
        hit("ledger.written")
        if committed is None and not storage.put_if_absent(ledger_path, final):
            committed = ledger.read_header(final)
        hit("ledger.linked")
        _link(folder, name, tar_path, written, committed or header)
        hit("shard.linked")
        return header
    finally:
        with suppress(OSError):
            tar.abandon()
        rows.abandon()
        tar_path.unlink(missing_ok=True)
        ledger_path.unlink(missing_ok=True)
        hit("temporaries.removed")


def _placed(rows: pa.Table, begin: int, sizes: Sequence[int]) -> pa.Table:
    """The rows with where their samples were written, one after the other from byte ``begin`` on."""
    offsets = list(accumulate(sizes[:-1], initial=begin))
    for name, values in zip(PLACED, (offsets, sizes), strict=True):
        rows = rows.append_column(name, pa.array(values, pa.int64()))
    return rows


def _link(folder: OutputFolder, name: str, temporary: Path, written: Written, header: Header) -> None:
    final = folder.shard(name)
    if header.output != written:
        raise OutputError(
            f"{folder.ledger(name)} speaks of another shard than its selection makes; remove both"
        )
    if not storage.put_if_absent(temporary, final) and final.stat().st_size != written.size:
        raise OutputError(f"{final} is not the shard that its ledger speaks of; remove it, and run again")
