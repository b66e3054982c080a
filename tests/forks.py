"""``wdsfilter`` in processes of their own that come up at once, and a watch over what they commit.

They are forked from a server that has everything imported already; nothing else about them is special,
so they can be killed, stopped and woken like any other.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.runs import OUTSIDE
from wdsfilter.cli import main

_LOADED = [
    "tests.forks",
    "wdsfilter.cli.run",
    "wdsfilter.pipeline",
    "wdsfilter.progress",
    "wdsfilter.recipe_files",
]
_COMMITTED = (".tar", ".parquet", "run.json", "readout.json")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_LOADED)


def fork(
    *arguments: str | Path, log: Path, times: int = 1, set_scores: bool = False, **variables: str
) -> ForkServerProcess:
    """``wdsfilter ARGUMENTS`` in a new process, which writes stdout and stderr into ``log``.

    ``times`` more than 1 runs it so often in one process, each time with a ``{}`` in its arguments
    counted up. ``set_scores`` makes its judges give scores of their own.
    """
    process = _context.Process(
        target=_run, args=([*map(str, arguments)], str(log), times, set_scores, variables), daemon=True
    )
    process.start()
    return process


def _run(
    arguments: Sequence[str], log: str, times: int, set_scores: bool, variables: Mapping[str, str]
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(variables)
    if set_scores:
        _set_scores()
    code = 0
    for number in range(1, times + 1):
        code = code or main([argument.replace("{}", str(number)) for argument in arguments])
    sys.stdout.flush()
    os._exit(code)


def _set_scores() -> None:
    """What another device's rounding might do, only more of it: every grade is turned around."""
    from wdsfilter.judges import scripted

    real = scripted.ScriptedJudge.score

    def other(self: scripted.ScriptedJudge, batch: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        return [
            {"grade": 11 - numbers["grade"], "score": 11 - numbers["score"]} for numbers in real(self, batch)
        ]

    scripted.ScriptedJudge.score = other  # type: ignore[method-assign]


class Watch:
    """Looks at an output folder again and again while others work in it.

    A committed file has to have its final bytes when it is first seen, and never changes or goes:
    AssertionError where it does. ``expected`` holds the SHA-256 of each; None takes what comes first.
    """

    def __init__(self, output: Path, expected: Mapping[str, str] | None) -> None:
        self.output = output
        self.looks = 0
        self._expected = expected
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._hashes: dict[str, str] = {}

    def look(self) -> None:
        """See what is there now."""
        found = {}
        for folder, below, names in os.walk(self.output):
            inside = Path(folder).relative_to(self.output).as_posix()
            if inside == "wdsfilter":
                below[:] = [name for name in below if name not in OUTSIDE]
            found.update(
                {os.path.join(inside, n): os.path.join(folder, n) for n in names if n.endswith(_COMMITTED)}
            )
        gone = self._seen.keys() - found.keys()
        assert not gone, f"{gone}: committed, and gone"
        for name, path in found.items():
            status = os.stat(path)
            identity = (status.st_ino, status.st_mtime_ns, status.st_size)
            if name in self._seen:
                assert self._seen[name] == identity, f"{name}: committed, and changed"
                continue
            self._seen[name] = identity
            self._hashes[name] = self._hash(name)
        self.looks += 1

    def _hash(self, name: str) -> str:
        found = hashlib.sha256((self.output / name).read_bytes()).hexdigest()
        if self._expected is not None:
            assert found == self._expected.get(name.removeprefix("./")), f"{name}: visible, and not whole"
        return found

    def until(self, process: ForkServerProcess, timeout: float = 120) -> int:
        """Look until ``process`` has ended, and once more at every byte. Returns its exit code."""
        deadline = time.monotonic() + timeout
        while process.exitcode is None:
            self.look()
            process.join(0.01)
            assert time.monotonic() < deadline, "it does not end"
        self.look()
        for name, before in self._hashes.items():
            assert self._hash(name) == before, f"{name}: committed, and changed"
        assert process.exitcode is not None
        return process.exitcode


def wait_until_stopped(process: ForkServerProcess, timeout: float = 60) -> None:
    """Until SIGSTOP has reached it."""
    deadline = time.monotonic() + timeout
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.exitcode is None, "it ended before its failpoint"
        assert time.monotonic() < deadline, "it never came to its failpoint"
        time.sleep(0.01)


def wake(process: ForkServerProcess) -> None:
    """Let a stopped process go on."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)


def judged_by(output: Path) -> dict[str, list[str]]:
    """Process name -> shards it committed, from the events."""
    found: dict[str, list[str]] = {}
    for path in (output / "wdsfilter/events").glob("*.jsonl"):
        events = map(json.loads, path.read_text().splitlines())
        found[path.stem] = [event["shard"] for event in events if event["event"] == "committed"]
    return found
