"""Workers: order, bounds, poison, and that nothing is left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import prepares
from wdsfilter.errors import JudgeError, WdsfilterError
from wdsfilter.samples import Pair, Prepared, Unreadable
from wdsfilter.workers import Workers, default_count

ROOT = Path(__file__).parent.parent


def itself(pair: Pair | None) -> Pair | None:
    return pair


def pairs_of(*captions: str, image: bytes = b"i") -> list[Pair]:
    return [Pair(f"{number:03}", image, caption) for number, caption in enumerate(captions)]


def counted(pairs: list[Pair], pulled: list[Pair]) -> Iterator[Pair]:
    for pair in pairs:
        pulled.append(pair)
        yield pair


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_order_does_not_depend_on_timing(count: int) -> None:
    """Results come in input order, the same for any number of workers, whatever each takes."""
    random_ = random.Random(0)
    pairs = pairs_of(*(f"sleep {random_.random() / 50}" for _ in range(40)))
    with Workers([prepares.obey], count) as workers:
        results = list(workers.prepared(0, pairs, itself, lookahead=8))
    assert results == [(pair, Prepared(pair.key)) for pair in pairs]


@pytest.mark.parametrize(
    ("caption", "reason", "detail"),
    [
        pytest.param("exit 3", "worker_crashed", "exit code 3", id="exit"),
        pytest.param("signal SIGKILL", "worker_crashed", "SIGKILL", id="killed"),
        pytest.param("signal SIGSEGV", "worker_crashed", "SIGSEGV", id="segfault"),
        pytest.param("sleep 1000", "worker_timed_out", "no answer in 1 s", id="hang"),
        pytest.param("regex", "worker_timed_out", "no answer in 1 s", id="hang-holding-the-gil"),
        pytest.param("raise oh no", "prepare_failed", "ValueError: oh no", id="exception"),
        pytest.param("raise " + "x" * 999, "prepare_failed", "ValueError: " + "x" * 188, id="long-message"),
        pytest.param("bad a tag", "caption_control", "a tag", id="our-own-error"),
        pytest.param("unreadable image_empty", "image_empty", "", id="unreadable"),
    ],
)
def test_poison_costs_itself(caption: str, reason: str, detail: str) -> None:
    """A pair that crashes, hangs or fails is Unreadable with a reason; its neighbours are not."""
    captions = ["", caption, caption, "", ""]
    pairs = pairs_of(*captions, image=b"i" * 400_000)  # more than a socket holds, behind one that hangs
    with Workers([prepares.obey], 2, timeout=1.0) as workers:
        results = [result for _, result in workers.prepared(0, pairs, itself, lookahead=5)]
    assert results == [
        Unreadable(pair.key, reason, detail) if pair.caption else Prepared(pair.key) for pair in pairs
    ]


def test_a_hung_worker_holds_up_no_other(tmp_path: Path) -> None:
    """While a pair hangs, the others of the window get prepared, but for one that waits at the same worker."""
    pairs = pairs_of("sleep 1000", *(f"touch {tmp_path / str(number)}" for number in range(5)))
    with Workers([prepares.obey], 2) as workers:

        def consume() -> None:
            with suppress(WdsfilterError):  # closed
                list(workers.prepared(0, pairs, itself, lookahead=6))

        consumer = threading.Thread(target=consume)
        consumer.start()
        assert eventually(lambda: len(list(tmp_path.iterdir())) >= 4, 60)
    consumer.join()


def test_unpicklable_answer_costs_itself() -> None:
    """A result that cannot leave its worker is its pair's failure."""
    with Workers([prepares.obey], 1) as workers:
        first, second = (r for _, r in workers.prepared(0, pairs_of("unpicklable", ""), itself, lookahead=2))
    assert isinstance(first, Unreadable)
    assert first.reason == "prepare_failed"
    assert second == Prepared("001")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA")
def test_memory_is_limited() -> None:
    """A pair that eats memory without end is out_of_memory, and its worker goes on."""
    with Workers([prepares.obey], 1, memory=256 << 20) as workers:
        pids = pairs_of("", "eat", "")
        results = [result for _, result in workers.prepared(0, pids, itself, lookahead=1)]
    assert results == [Prepared("000"), Unreadable("001", "out_of_memory"), Prepared("002")]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_is_given_back() -> None:
    """What a huge image left in pieces does not lie beside the next one."""
    with Workers([prepares.obey], 1) as workers:
        pairs = pairs_of("resident", "litter 600", "resident")
        before, _, after = (result for _, result in workers.prepared(0, pairs, itself, lookahead=1))
    assert isinstance(before, Prepared)
    assert isinstance(after, Prepared)
    assert after.value - before.value < 256 << 20


def test_accident_costs_nothing(tmp_path: Path) -> None:
    """A worker that dies once under a pair, as by the kernel's choice, costs no pair."""
    pairs = pairs_of("", f"exit-once {tmp_path / 'died'}", "", "")
    with Workers([prepares.obey], 1) as workers:
        results = [result for _, result in workers.prepared(0, pairs, itself, lookahead=4)]
    assert results == [Prepared(pair.key) for pair in pairs]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked there only")
def test_a_crash_imports_nothing_again(tmp_path: Path) -> None:
    """What a judge's prepares need is loaded once, however many workers there are and go down."""
    pairs = pairs_of(*["", "exit 1"] * 3)
    with Workers([prepares.Counted(tmp_path / "loaded")], 2) as workers:
        results = [result for _, result in workers.prepared(0, pairs, itself, lookahead=6)]
    assert [isinstance(result, Unreadable) for result in results] == [False, True] * 3
    assert (tmp_path / "loaded").read_bytes() == b"+"


def test_nothing_is_forked_beside_a_thread(tmp_path: Path) -> None:
    """Where loading a prepare starts a thread workers start from nothing: what it held in a fork, nobody would free."""
    pairs = pairs_of("", "exit 1", "raise oh no", "")
    with Workers([prepares.Counted(tmp_path / "loaded", threaded=True)], 1, timeout=20) as workers:
        results = [result for _, result in workers.prepared(0, pairs, itself, lookahead=4)]
    assert results == [
        Prepared("000"),
        Unreadable("001", "worker_crashed", "exit code 1"),
        Unreadable("002", "prepare_failed", "ValueError: oh no"),
        Prepared("003"),
    ]
    assert len((tmp_path / "loaded").read_bytes()) >= 3  # once in each worker


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked there only")
def test_a_lost_forkserver_costs_nothing() -> None:
    """When the process that workers come from dies, another takes its place, and no pair is lost."""
    with Workers([prepares.surroundings, prepares.obey], 2) as workers:
        ((_, result),) = workers.prepared(0, pairs_of(""), itself, lookahead=1)
        assert isinstance(result, Prepared)
        ready = workers.prepared(1, pairs_of(*["sleep 0.1"] * 8), itself, lookahead=8)
        next(ready)
        os.kill(result.value["parent"], signal.SIGKILL)
        assert [prepared for _, prepared in ready] == [Prepared(f"{number:03}") for number in range(1, 8)]


@pytest.mark.parametrize("count", [0, 1])
def test_lookahead_bounds_what_is_pulled(count: int) -> None:
    """No more than lookahead pairs are ever in flight, the one handed out included."""
    pulled: list[Pair] = []
    lookahead = 5 if count else 1
    with Workers([prepares.obey], count) as workers:
        source = counted(pairs_of(*[""] * 20), pulled)
        for taken, _ in enumerate(workers.prepared(0, source, itself, lookahead=lookahead)):
            assert len(pulled) == min(20, taken + lookahead)


def test_bytes_bound_what_is_pulled() -> None:
    """No more than max_bytes of images, and the one that exceeds them, are ever in flight."""
    pulled: list[Pair] = []
    with Workers([prepares.obey], 1) as workers:
        source = counted(pairs_of(*[""] * 20, image=b"i" * 1000), pulled)
        for taken, _ in enumerate(workers.prepared(0, source, itself, lookahead=99, max_bytes=3500)):
            assert len(pulled) == min(20, taken + 4)


def test_items_without_a_pair_pass() -> None:
    """What needs no preparing keeps its place, untouched, and cannot pile up behind a slow pair."""
    most = 0
    pulled: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            pulled.append(number)
            yield number

    with Workers([prepares.obey], 1) as workers:
        ready = workers.prepared(
            0, numbers(), lambda n: Pair(str(n), b"", "") if n % 30 == 0 else None, lookahead=2
        )
        for taken, (number, result) in enumerate(ready):
            assert number == taken
            assert result == (Prepared(str(number)) if number % 30 == 0 else None)
            most = max(most, len(pulled) - taken)
    assert most <= 8


@pytest.mark.parametrize("count", [0, 1, 2])
def test_judges_share_the_pool(count: int) -> None:
    """One judge's output is the next one's input, on the same workers, in the same order."""
    pairs = pairs_of(*["", "exit 1" if count else "raise", "", ""] * 5)

    def accepted(item: tuple[Pair, Any]) -> Pair | None:
        return item[0] if isinstance(item[1], Prepared) else None

    with Workers([prepares.obey, prepares.double], count) as workers:
        first = workers.prepared(0, pairs, itself, lookahead=4)
        second = list(workers.prepared(1, first, accepted, lookahead=3))
    assert [pair for (pair, _), _ in second] == pairs
    for (pair, one), two in second:
        assert isinstance(one, Unreadable) == bool(pair.caption)
        assert two == (None if pair.caption else Prepared(b"ii"))


def test_workers_go_on_while_the_consumer_is_away() -> None:
    """What was handed out gets prepared while nobody waits for it."""
    with Workers([prepares.obey], 2) as workers:
        ready = workers.prepared(0, pairs_of(*["sleep 0.05"] * 20), itself, lookahead=20)
        next(ready)
        time.sleep(2)
        start = time.monotonic()
        assert len(list(ready)) == 19
        assert time.monotonic() - start < 0.25


def test_large_pairs_and_answers() -> None:
    """Images and results that no pipe holds go through, both ways at once."""
    pairs = pairs_of(*[""] * 8, image=b"i" * 3_000_000)
    with Workers([prepares.double], 1) as workers:
        for _, result in workers.prepared(0, pairs, itself, lookahead=8):
            assert isinstance(result, Prepared)
            assert len(result.value) == 6_000_000


def test_closing_takes_back_what_no_worker_has_begun(tmp_path: Path) -> None:
    """A consumer that leaves early leaves no work behind for the next one."""
    pairs = pairs_of(*(f"touch {tmp_path / str(number)}" for number in range(20)))
    with Workers([prepares.obey], 1) as workers:
        ready = workers.prepared(0, pairs, itself, lookahead=20)
        next(ready)
        ready.close()
        assert [r for _, r in workers.prepared(0, pairs_of(""), itself, lookahead=1)] == [Prepared("000")]
    assert len(list(tmp_path.iterdir())) < 6


def test_surroundings() -> None:
    """A worker has one thread per library, its own socket, no device and no torch; a memoryview arrives as bytes."""
    before = dict(os.environ)
    with Workers([prepares.surroundings, prepares.obey], 3) as workers:
        list(workers.prepared(1, pairs_of("exit 1"), itself, lookahead=1))
        pairs = [Pair("a", memoryview(b"image"), "")]
        ((_, result),) = workers.prepared(0, pairs, itself, lookahead=1)
    assert isinstance(result, Prepared)
    assert result.value | {"pid": 0, "parent": 0} == {
        "pid": 0,
        "parent": 0,
        "sockets": 1,
        "threads": "1",
        "devices": "",
        "torch": False,
        "image": "bytes",
    }
    assert result.value["pid"] != os.getpid()
    assert dict(os.environ) == before


def test_workers_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither what a prepare prints nor how it dies reaches our stdout or stderr."""
    with Workers([prepares.obey], 1) as workers:
        list(workers.prepared(0, pairs_of("print", "signal SIGSEGV"), itself, lookahead=2))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        pytest.param("raises", "ImportError: no module named tokenizers", id="raises"),
        pytest.param("dies", "exit code 7", id="dies"),
    ],
)
def test_worker_that_cannot_start(how: str, message: str) -> None:
    """Workers that never get ready end the run with their message, for all who wait or come later."""
    with Workers([prepares.FailsInWorker(how)], 2) as workers:
        for _ in range(2):
            with pytest.raises(JudgeError, match=message):
                list(workers.prepared(0, pairs_of("", ""), itself, lookahead=2))


def test_unpicklable_prepare() -> None:
    """A prepare that cannot be sent is refused at once; without workers it need not be sent."""
    prepare = lambda pair: Prepared(1)  # noqa: E731  # what this is about
    with pytest.raises(JudgeError, match="cannot be pickled"):
        Workers([prepare], 1)
    with Workers([prepare], 0) as workers:
        assert [r for _, r in workers.prepared(0, pairs_of(""), itself, lookahead=1)] == [Prepared(1)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_close_leaves_nothing() -> None:
    """Closing ends busy workers at once; no process, thread or descriptor stays. Twice is fine."""
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    pids = set()
    with suppress(ZeroDivisionError), Workers([prepares.obey, prepares.surroundings], 2) as workers:
        for _, result in workers.prepared(1, pairs_of(*[""] * 20), itself, lookahead=20):
            assert isinstance(result, Prepared)
            pids |= {result.value["pid"], result.value["parent"]}
        for _ in workers.prepared(0, pairs_of("", *["sleep 1000", "regex"] * 3), itself, lookahead=7):
            time.sleep(0.2)
            start = time.monotonic()
            raise ZeroDivisionError
    workers.close()
    assert time.monotonic() - start < 4
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(WdsfilterError, match="closed"):
        list(workers.prepared(0, pairs_of(""), itself, lookahead=1))


def script(tmp_path: Path, body: str) -> list[str]:
    """A command that runs ``body``; no ``__main__`` guard, as a script of somebody's may be."""
    path = tmp_path / "script.py"
    path.write_text(
        "import os, signal, sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests import prepares\n"
        "from wdsfilter.samples import Pair\n"
        "from wdsfilter.workers import Workers\n"
        "itself = lambda pair: pair\n" + body
    )
    return [sys.executable, str(path)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("busy", ["idle", "sleep 1000", "regex"])
def test_no_orphans(tmp_path: Path, busy: str) -> None:
    """When this process is killed its workers go too, even one that hangs in C code, and what they come from."""
    body = (
        "workers = Workers([prepares.surroundings, prepares.obey], 1)\n"
        "((_, result),) = workers.prepared(0, [Pair('', b'', '')], itself, lookahead=1)\n"
        "print(result.value['pid'], result.value['parent'], flush=True)\n"
        f"list(workers.prepared(1, [Pair('', b'', {busy!r})], itself, lookahead=1))\n"
        "time.sleep(20)\n"
    )
    with subprocess.Popen(script(tmp_path, body), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        others = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.3)
        assert all(map(is_alive, others))
        parent.kill()
        assert eventually(lambda: not any(map(is_alive, others)))


def test_ctrl_c_is_for_the_parent(tmp_path: Path) -> None:
    """SIGINT and SIGTERM to the whole group reach the parent only: it decides, its workers go on."""
    body = (
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which it is not in a job in the background
        "with Workers([prepares.surroundings], 2) as workers:\n"
        "    def pids():\n"
        "        pairs = [Pair('', b'', '')] * 30\n"
        "        return {r.value['pid'] for _, r in workers.prepared(0, pairs, itself, lookahead=30)}\n"
        "    before = set()\n"
        "    while len(before) < 2:\n"
        "        before |= pids()\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(20)\n"
        "    except KeyboardInterrupt:\n"
        "        time.sleep(0.3)\n"
        "        print(pids() <= before)\n"
    )
    with subprocess.Popen(
        script(tmp_path, body), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "ready\n"
        os.killpg(parent.pid, signal.SIGTERM)
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.readline() == "True\n"
    assert parent.returncode == 0


@pytest.mark.parametrize(
    ("own", "parents", "quota", "ranks", "expected"),
    [
        pytest.param(64, 64, None, 1, 16, id="at-most-16"),
        pytest.param(64, 64, None, 8, 7, id="shared-by-ranks"),
        pytest.param(8, 64, None, 8, 7, id="given-to-this-rank"),
        pytest.param(1, 1, None, 4, 1, id="at-least-1"),
        pytest.param(64, 64, "800000 100000", 2, 3, id="container-quota"),
        pytest.param(4, 4, "max 100000", 1, 3, id="no-quota"),
    ],
)
def test_default_count(
    monkeypatch: pytest.MonkeyPatch, own: int, parents: int, quota: str | None, ranks: int, expected: int
) -> None:
    """A rank gets workers for the cores that it really has, less one for itself."""

    def read_text(path: Path) -> str:
        if quota is None:
            raise FileNotFoundError(path)
        return quota

    monkeypatch.setattr(
        os, "sched_getaffinity", lambda pid: set(range(parents if pid else own)), raising=False
    )
    monkeypatch.setattr(Path, "read_text", read_text)
    assert default_count(ranks) == expected
