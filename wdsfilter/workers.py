"""Judges' CPU halves in processes that may crash or hang without harm.

    consumer ── prepared() ── queue ──┬── thread ── socket ── worker
                                      ├── thread ── socket ── worker
                                      └── ...

One thread of this process keeps one worker process going: starts it, hands it pairs, takes its
answers, replaces it. So workers stay busy while the consumer is away in a model. A worker answers in
order, and has a second pair waiting while it works on the first.

Workers come from one process that keeps what they need ready (:mod:`wdsfilter.forkserver`). When one dies or
hangs, what it held is tried again in a new one, a pair at a time. A pair that takes its worker down this
second time, alone, is Unreadable: ``worker_crashed`` or
``worker_timed_out``. Its neighbours never notice. What a prepare raises is its pair's reason:
``prepare_failed``, ``out_of_memory``, or that of a BadImage or BadCaption.
"""

from __future__ import annotations

import os
import pickle
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from wdsfilter.background import start_thread
from wdsfilter.errors import JudgeError, WdsfilterError
from wdsfilter.forkserver import ForkServer
from wdsfilter.judges import Prepare
from wdsfilter.samples import Pair, Prepared, Unreadable
from wdsfilter.worker import Down, Worker, attempt

T = TypeVar("T")

_HELD = 2  # pairs at one worker: one in work, one waiting
_PASSING = 4  # items in a window, in multiples of its lookahead, where most of them have no pair
_STARTS = 3  # workers that die before they are ready, in a row, until it is no accident


def default_count(ranks_per_node: int) -> int:
    """Workers for one of ``ranks_per_node`` ranks: a core each, one left for the rank itself; 1 to 16."""
    return max(1, min(16, cores(ranks_per_node) - 1))


def cores(ranks_per_node: int) -> int:
    """Cores that one of ``ranks_per_node`` processes has for itself; 1 or more.

    Cores that the launcher gave to this rank alone (its affinity is narrower than its parent's) are
    not shared with other ranks; everything else is, a container's CPU quota too.
    """
    found = float(os.cpu_count() or 1)
    ours = False
    if hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
        with suppress(OSError):  # a parent that we cannot see
            ours = found < len(os.sched_getaffinity(os.getppid()))
    if not ours:
        found /= ranks_per_node
    with suppress(OSError, ValueError):  # no cgroup v2, or "max": no quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        found = min(found, int(quota) / int(period) / ranks_per_node)
    return max(1, int(found))


@dataclass(frozen=True, slots=True)
class _Task:
    which: int
    pair: Pair
    outcome: Future[Prepared | Unreadable] = field(default_factory=Future)


class Workers:
    """``count`` processes that run ``prepares``, for all judges of a rank. A context manager.

    Each of ``prepares`` is picklable and importable: JudgeError where one is not, here or from
    :meth:`prepared`. A pair may take ``timeout`` seconds, and ``memory`` bytes more than its worker
    holds when it starts (None: no limit; Linux only). With ``count=0`` the same happens in this
    process, unprotected, when a result is asked for.
    """

    def __init__(
        self, prepares: Sequence[Prepare], count: int, *, timeout: float = 60.0, memory: int | None = 4 << 30
    ) -> None:
        self._prepares = tuple(prepares)
        self._timeout = timeout
        try:
            self._equipment = pickle.dumps((memory, self._prepares if count else ()), protocol=5)
        except Exception as error:
            raise JudgeError(f"a judge's prepare cannot be pickled for workers: {error}") from error
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # past the end no worker starts and no task is queued
        self._end: Exception | None = None
        self._alive: set[Worker] = set()
        self._server: ForkServer | None = None
        # A worker inherits that signals are blocked: a terminal or a scheduler signals the whole group,
        # but the parent decides.
        self._threads = [start_thread(self._lane, f"worker-{number}") for number in range(count)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers at once, whatever they are at. May be called again."""
        self._stop(WdsfilterError("the workers are closed"))
        for thread in self._threads:
            thread.join()
        if self._server:
            self._server.end()
            self._server = None

    def prepared(
        self,
        which: int,
        items: Iterable[T],
        pair_of: Callable[[T], Pair | None],
        *,
        lookahead: int,
        max_bytes: int = 64 << 20,
        size_of: Callable[[T], int] = lambda item: 0,
    ) -> Generator[tuple[T, Prepared | Unreadable | None], None, None]:
        """Items in order, each with what prepare number ``which`` made of its pair; None without a pair.

        ``items`` is pulled only until ``lookahead`` pairs (or ``4 * lookahead`` items, or ``max_bytes``
        of images, or what ``size_of`` says of an item where that is more) are in flight. Calls may be
        nested: one's output can be another's items. Closing the generator takes back what no worker has begun.
        """
        if not self._threads:
            for item in items:
                pair = pair_of(item)
                yield item, attempt(self._prepares[which], pair) if pair else None
            return
        window: deque[tuple[T, _Task | None]] = deque()
        pairs = size = 0

        def is_full() -> bool:
            return pairs >= lookahead or size >= max_bytes or len(window) >= _PASSING * lookahead

        def oldest() -> tuple[T, Prepared | Unreadable | None]:
            nonlocal pairs, size
            item, task = window.popleft()
            if task is None:
                return item, None
            pairs -= 1
            size -= max(len(task.pair.image), size_of(item))
            return item, task.outcome.result()

        try:
            for item in items:
                pair = pair_of(item)
                window.append((item, self._submit(which, pair) if pair else None))
                if pair:
                    pairs += 1
                    size += max(len(pair.image), size_of(item))
                while window and is_full():
                    yield oldest()
            while window:
                yield oldest()
        finally:
            for _, task in window:
                if task:
                    task.outcome.cancel()

    def _submit(self, which: int, pair: Pair) -> _Task:
        if not isinstance(pair.image, bytes):  # a memoryview cannot be pickled
            pair = replace(pair, image=bytes(pair.image))
        task = _Task(which, pair)
        with self._lock:
            if self._end:
                raise self._end
            self._queue.put(task)
        return task

    def _lane(self) -> None:
        """What one thread does: keep one worker going until the end."""
        held: deque[_Task] = deque()  # at the worker, in the order of its answers
        again: deque[_Task] = deque()  # were at a worker that went down
        deaths = 0
        try:
            while True:
                with self._worker() as worker:
                    try:
                        refusal = worker.receive()
                    except Down as down:
                        deaths += 1
                        if deaths == _STARTS:
                            raise JudgeError(f"workers die before they are ready: {down.detail}") from down
                        continue
                    if refusal:
                        raise JudgeError(f"a worker cannot start: {refusal}")
                    deaths = 0
                    worker.patience(self._timeout)
                    self._feed(worker, held, again)
        except Exception as error:  # raised where results are waited for
            self._stop(error)
            for task in (*held, *again):
                task.outcome.set_exception(error)

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        with self._lock:
            if self._end:
                raise self._end
            if self._server and not self._server.is_running:
                self._server.end()
                self._server = None
            self._server = self._server or ForkServer(self._equipment)
            worker = self._server.worker()
            self._alive.add(worker)
        try:
            yield worker
        finally:
            with self._lock:
                self._alive.remove(worker)
            worker.end()

    def _feed(self, worker: Worker, held: deque[_Task], again: deque[_Task]) -> None:
        """Hand out pairs and take answers until the worker goes down. What it held is then in ``again``."""
        alone = False
        while True:
            if not held:
                alone = bool(again)
            try:
                while len(held) < (1 if alone else _HELD):
                    task = again.popleft() if alone else self._take(wait=not held)
                    if task is None:
                        break
                    held.append(task)
                    worker.send((task.which, task.pair))
                outcome = worker.receive()
            except Down as down:
                if self._end:
                    raise self._end from down
                first = held.popleft()
                if alone:
                    first.outcome.set_result(Unreadable(first.pair.key, down.reason, down.detail))
                else:
                    again.append(first)
                again.extend(held)
                held.clear()
                return
            held.popleft().outcome.set_result(outcome)

    def _take(self, *, wait: bool) -> _Task | None:
        """The next task that nobody has taken back; None where there is none now. Raises at the end."""
        while True:
            try:
                task = self._queue.get(block=wait)
            except queue.Empty:
                return None
            if task is None:
                assert self._end
                raise self._end
            if task.outcome.set_running_or_notify_cancel():
                return task

    def _stop(self, why: Exception) -> None:
        """Let nothing more begin, and wake every thread wherever it waits."""
        with self._lock:
            self._end = self._end or why
            for worker in self._alive:
                worker.hang_up()
            with suppress(queue.Empty):
                while True:
                    task = self._queue.get(block=False)
                    if task and task.outcome.set_running_or_notify_cancel():
                        task.outcome.set_exception(self._end)
            for _ in self._threads:
                self._queue.put(None)
