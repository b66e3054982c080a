"""Disks that are full, fail or change under a reader's hands: nothing half-done, and the next run completes it."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.runs import make_shards, tree, write_recipe
from tests.shards import pairs, tar_bytes
from wdsfilter import ledger, storage
from wdsfilter.cli import main
from wdsfilter.errors import ReadError
from wdsfilter.recipe import parse
from wdsfilter.shards.source import Shard
from wdsfilter.stages import ShardEnds, read_items
from wdsfilter.streams import Stat

WRITES = ("write", "fsync", "link", "replace", "mkdir")
RECIPE = parse({"judges": ["scripted"], "guard": "off"})


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A run of four shards, without its output folder."""
    return ["run", str(write_recipe(tmp_path)), "--shards", make_shards(tmp_path / "in", 4)]


@pytest.fixture
def expected(arguments: list[str], ram_path: Path) -> dict[str, str]:
    """The tree that it gives on a sound disk."""
    assert main([*arguments, "-o", str(ram_path / "sound")]) == 0
    return tree(ram_path / "sound")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``small_disk("64k")`` is a folder on a file system of that size; called again, it grows."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        options = f"size={size}" if not os.path.ismount(folder) else f"remount,size={size}"
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True, text=True
        )
        if made.returncode:
            pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
        return folder

    yield mount
    deadline = time.monotonic() + 10
    while os.path.ismount(folder):  # a thread that ends by itself may still hold a file
        gone = subprocess.run(["umount", str(folder)], capture_output=True, text=True)
        assert not gone.returncode or time.monotonic() < deadline, gone.stderr
        time.sleep(0.1)


def check_resumable(arguments: list[str], output: Path, expected: dict[str, str]) -> None:
    """What is there is a part of the sound tree, derived files aside, and the next run completes it."""
    there = {n: sha for n, sha in tree(output).items() if n.endswith((".tar", ".parquet"))}
    assert there.items() <= expected.items()
    assert main([*arguments, "-o", str(output)]) == 0
    assert tree(output) == expected


SIZES = range(16, 192, 4)  # kilobytes; the tree needs more


@pytest.mark.parametrize(
    "kilobytes",
    [size if size % 44 == 16 else pytest.param(size, marks=pytest.mark.nightly) for size in SIZES],
)
def test_a_full_disk(
    kilobytes: int,
    arguments: list[str],
    expected: dict[str, str],
    small_disk: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A disk that is full at any point is one line; with more room, the next run completes the tree."""
    output = small_disk(f"{kilobytes}k") / "out"
    assert main([*arguments, "-o", str(output)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    small_disk("8m")
    check_resumable(arguments, output, expected)


def test_a_full_disk_under_a_selection(
    arguments: list[str],
    tmp_path: Path,
    small_disk: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is one line that names the folder; with more room, the same command comes to the undisturbed tree."""
    assert main([*arguments, "-o", str(tmp_path / "run")]) == 0
    cut = ["select", str(tmp_path / "run"), "--samples-per-shard", "8", "--workers", "1", "-o"]
    assert main([*cut, str(tmp_path / "sound")]) == 0
    output = small_disk("96k") / "out"
    capsys.readouterr()
    assert main([*cut, str(output)]) == 1
    told = capsys.readouterr().err
    assert f"wdsfilter: {output}: No space left on device; what is committed is whole, run again" in told
    small_disk("8m")
    assert main([*cut, str(output)]) == 0
    assert tree(output) == tree(tmp_path / "sound")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize("room", [0, 100])
def test_a_ledger_that_finds_no_room_is_let_go_of(room: int, tmp_path: Path) -> None:
    """Whatever stops it, an abandoned ledger leaves no descriptor open, whoever still holds its writer."""
    before, limit = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_FSIZE)
    writers = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:  # noqa: PT012  # at the start, or the end
            writers.append(ledger.LedgerWriter(tmp_path / "s.parquet", ledger.schema(RECIPE)))
            writers[0].close(ledger.Header("s.tar", Stat(1, None), writers[0].counts, None, None, "", ""))
    finally:
        for writer in writers:
            writer.abandon()
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert caught.tb is not None, "somebody who looks into what happened holds on to everything"
    assert len(writers) == bool(room)
    assert len(os.listdir("/proc/self/fd")) == before


@dataclass
class FullOnce:
    """Functions that write: the call number ``at`` among all of them finds no space."""

    at: int
    calls: int = 0

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*values, **named)

        return call


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.nightly)])
def test_every_write_may_fail(
    step: int, arguments: list[str], expected: dict[str, str], ram_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write, flush, link or rename finds no space: nothing is half-done, and the next run completes it."""
    for at in count(1, step):
        full, output = FullOnce(at), ram_path / f"out{at}"
        with monkeypatch.context() as patch:
            for name in WRITES:
                patch.setattr(os, name, full.wrap(getattr(os, name)))
            code = main([*arguments, "-o", str(output)])
        assert code in (0, 1), "0 where what failed was a sign of life"
        check_resumable(arguments, output, expected)
        if full.calls < at:
            break
    assert at > 60


class FailingFile:
    """A file that gives ``sound`` bytes and then an error."""

    def __init__(self, path: str, sound: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed by its reader
        self._sound = sound
        self.fileno, self.close = self._file.fileno, self._file.close

    def readinto(self, buffer: Any) -> int:
        if not self._sound:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        got = self._file.readinto(memoryview(buffer)[: self._sound]) or 0
        self._sound -= got
        return got


def break_reading(patch: pytest.MonkeyPatch, name: str, sound: int) -> None:
    """From now on a file of this name can be read no further than ``sound`` bytes."""

    def fails(path: str, *mode: Any, **options: Any) -> Any:
        return FailingFile(path, sound) if path.endswith(name) else open(path, *mode, **options)

    patch.setattr(storage, "open", fails, raising=False)


def test_a_read_error_at_any_block_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a disk cannot be read, the shard ends with an error, and nothing is said of its bytes."""
    path = tmp_path / "s.tar"
    path.write_bytes(tar_bytes(pairs(6)))
    for sound in range(0, path.stat().st_size, 512):
        break_reading(monkeypatch, "s.tar", sound)
        *_, end = read_items([Shard("s.tar", str(path))], RECIPE)
        assert isinstance(end, ShardEnds)
        assert (end.source, end.damage) == (None, None)
        assert "Input/output error" in str(end.error)


def test_what_cannot_be_read_is_listed_and_tried_again(
    arguments: list[str], expected: dict[str, str], ram_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard on a bad block commits nothing, gives exit code 3, stands in `status`, and the next run takes it up."""
    output = ram_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        break_reading(patch, "s-0002.tar", 2048)
        assert main([*arguments, "-o", str(output), "--set", "run.read_attempts=2"]) == 3
    assert not (output / "wdsfilter/ledger/s-0002.parquet").exists()
    capsys.readouterr()
    assert main(["status", str(output)]) == 3
    said = capsys.readouterr().out
    assert "not read: s-0002.tar" in said
    assert "Input/output error" in said
    assert main([*arguments, "-o", str(output)]) == 0
    assert main(["status", str(output)]) == 0
    assert tree(output) == expected


@pytest.mark.parametrize("change", ["shrinks", "grows", "is rewritten"])
def test_a_shard_that_changes_while_it_is_read_is_an_error(change: str, tmp_path: Path) -> None:
    """A shard that somebody writes to while it is read is not what it was, whatever its bytes look like."""
    path = tmp_path / "s.tar"
    data = tar_bytes([("0.bin", bytes(3 << 20))])
    path.write_bytes(data)
    with storage.open_read(str(path)) as stream:
        stream.read(1 << 20)
        if change == "shrinks":
            os.truncate(path, 2 << 20)
        elif change == "grows":
            path.write_bytes(data + bytes(10240))
        else:
            path.write_bytes(data)
        with pytest.raises(ReadError, match=r"written to|ended after"):
            stream.read()


@pytest.mark.parametrize("content", [b"\xff", b"[3]", b'{"scripted": 3}'])
def test_a_spoiled_readout_is_told(
    content: bytes, arguments: list[str], ram_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on a folder whose readout.json somebody spoiled is refused with its name, and no traceback."""
    assert main([*arguments, "-o", str(ram_path / "out")]) == 0
    (ram_path / "out/wdsfilter/readout.json").write_bytes(content)
    assert main([*arguments, "-o", str(ram_path / "out")]) == 1
    assert "readout.json" in capsys.readouterr().err


@pytest.mark.parametrize("with_ledger", [True, False])
def test_a_link_to_nowhere_is_in_the_way(
    with_ledger: bool, arguments: list[str], ram_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a shard's name is taken by a dangling link, it is told, nothing is written through it, and no traceback."""
    assert main([*arguments, "-o", str(ram_path / "out")]) == 0
    shard = min((ram_path / "out").glob("*.tar"))
    shard.unlink()
    shard.symlink_to(ram_path / "elsewhere")
    if not with_ledger:
        (ram_path / f"out/wdsfilter/ledger/{shard.stem}.parquet").unlink()
    assert main([*arguments, "-o", str(ram_path / "out")]) == 1
    assert str(shard) in capsys.readouterr().err
    assert not (ram_path / "elsewhere").exists()


@pytest.mark.parametrize("content", [b"", b"\xff{[", b"[1]", b'{"token": [], "beat": {}, "process": 3}'])
def test_a_spoiled_claim_holds_nobody_up(content: bytes, arguments: list[str], ram_path: Path) -> None:
    """A claim that says nothing that can be understood is stale after its time, like any other."""
    claims = ram_path / "out/wdsfilter/claims"
    claims.mkdir(parents=True)
    for number in range(4):
        (claims / f"s-{number:04d}.tar.json").write_bytes(content)
    assert main([*arguments, "-o", str(ram_path / "out"), "--set", "run.stale_after=0.3"]) == 0
