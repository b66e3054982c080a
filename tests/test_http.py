"""Shards behind a web server that fails in every way: read whole, or not at all."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import fsspec
import pytest

from tests.flaky import Fault, FlakyServer, serving
from tests.runs import make_shards, tree, write_recipe
from tests.shards import pairs, tar_bytes
from wdsfilter import remote, retry, storage
from wdsfilter.cli import main
from wdsfilter.errors import ReadError
from wdsfilter.recipe import parse
from wdsfilter.shards.source import Shard
from wdsfilter.stages import Case, ShardEnds, read_items

pytest.importorskip("aiohttp")

DATA = tar_bytes(pairs(6))
OTHER = tar_bytes(pairs(6, first=10))
Length = Literal["announced", "chunked", "none"]
RECIPE = parse({"judges": ["scripted"], "guard": "off"})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pauses; and no file system that remembers another test's server."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.0)
    yield
    fsspec.get_filesystem_class("http").clear_instance_cache()


def read(server: FlakyServer, name: str = "s.tar") -> bytes:
    with storage.open_read(server.url + name) as stream:
        return stream.read()


def outcome(server: FlakyServer, name: str = "s.tar") -> tuple[int, str]:
    """How many samples a run would get of the shard, and what it would say of its end."""
    *items, end = read_items([Shard("s.tar", server.url + name)], RECIPE)
    assert isinstance(end, ShardEnds)
    said = str(end.error) if end.error else end.damage.reason if end.damage else "whole"
    return sum(isinstance(item, Case) for item in items), said


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
def test_a_cut_anywhere_is_made_up_for(ranges: bool) -> None:
    """A connection that breaks at any block, member boundaries among them, costs one request and no byte."""
    with serving(FlakyServer({"s.tar": DATA}, ranges=ranges)) as server:
        for cut in range(0, len(DATA), 512):
            server.faults["s.tar"] = [Fault(cut=cut)]
            assert read(server) == DATA
            assert not server.faults["s.tar"]


def test_a_cut_between_chunks_is_made_up_for() -> None:
    """A body in chunks, of no announced length, that lacks its last chunk was cut, and is resumed too."""
    with serving(FlakyServer({"s.tar": DATA}, length="chunked")) as server:
        for cut in range(0, len(DATA), 4096):
            server.faults["s.tar"] = [Fault(), Fault(cut=cut, stall=0.05)]  # the first is asked for the size
            assert read(server) == DATA
        assert any(asked for _, asked in server.requests)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_stream_of_unknown_length_is_never_short(suffix: str) -> None:
    """Where nothing tells the length, a cut at any block, or any byte of the last, is told by the archive's end."""
    data = gzip.compress(DATA, mtime=0) if suffix else DATA
    name = f"s.tar{suffix}"
    with serving(FlakyServer({name: data}, length="none", etags=False)) as server:
        assert outcome(server, name) == (6, "whole")
        end = len(data) if suffix else len(DATA.rstrip(b"\0")) + 1024
        for cut in [*range(0, end, 512), *range(end - 20, end)]:
            server.faults[name] = [Fault(), Fault(cut=cut)]  # the first is asked for the size, in vain
            _, said = outcome(server, name)
            assert "its server does not tell its size" in said, cut


@pytest.mark.parametrize("length", ["announced", "chunked"])
def test_without_an_entity_tag_nothing_is_resumed(length: Length) -> None:
    """What cannot be told from another object is read again from its start by the run, never pieced together."""
    with serving(FlakyServer({"s.tar": DATA}, length=length, etags=False)) as server:
        for cut in range(512, len(DATA) - 10240, 2048):
            server.faults["s.tar"] = [Fault(cut=cut, becomes=OTHER)]
            with suppress(ReadError):
                assert read(server) == OTHER, "it broke before its first byte came"
            assert read(server) == OTHER
            server.files["s.tar"] = DATA


def test_what_changes_on_resume_is_not_pieced_together() -> None:
    """An object that is another one when reading goes on is an error, not a shard of two halves."""
    with serving(FlakyServer({"s.tar": DATA})) as server:
        for cut in range(512, len(DATA), 2048):
            server.files["s.tar"] = DATA
            server.faults["s.tar"] = [Fault(cut=cut, becomes=OTHER)]
            with pytest.raises(ReadError, match="when reading began"):
                read(server)
            assert read(server) == OTHER


def test_what_changes_before_it_is_opened_is_noticed() -> None:
    """The object that was asked about is the one that is read."""
    with serving(FlakyServer({"s.tar": DATA})) as server:
        then = storage.stat(f"{server.url}s.tar")
        server.files["s.tar"] = OTHER + bytes(10240)
        with (
            pytest.raises(ReadError, match=f"has {len(OTHER) + 10240} bytes"),
            storage.open_read(f"{server.url}s.tar", then) as stream,
        ):
            stream.read()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that turns a request away for the moment is asked again, a few times."""
    with serving(FlakyServer({"s.tar": DATA})) as server:
        server.faults["s.tar"] = [Fault(status)] * (retry.ATTEMPTS - 1)
        assert read(server) == DATA
        server.faults["s.tar"] = [Fault(status)] * 99
        with pytest.raises(ReadError, match=rf"s\.tar: {status}"):
            read(server)
        assert len(server.faults["s.tar"]) == 99 - retry.ATTEMPTS


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_will_not_pass_is_not_asked_again(status: int) -> None:
    """An object that is not there, or not ours to read, is asked for once."""
    with serving(FlakyServer({"s.tar": DATA}, head=False)) as server:
        server.faults["s.tar"] = [Fault(status)] * 9
        with pytest.raises(ReadError):
            storage.stat(f"{server.url}s.tar")
        assert len(server.faults["s.tar"]) == 8


def test_pauses_grow_are_drawn_and_obey_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause is drawn from a range twice as long, and begins where Retry-After says, within reason."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(retry, "FIRST_PAUSE", 1.0)
    for failures in (1, 2, 3, 4):
        for _ in range(50):
            retry.pause(failures, OSError())
    for number, longest in enumerate((1, 2, 4, 8)):
        drawn = slept[50 * number : 50 * number + 50]
        assert longest / 2 < max(drawn) <= longest
        assert len(set(drawn)) == 50
    slept.clear()
    with serving(FlakyServer({"s.tar": DATA})) as server:
        for asked in ("7", "86400", "Fri, 31 Dec 1999 23:59:59 GMT"):
            server.faults["s.tar"] = [Fault(429, retry_after=asked)]
            read(server)
    assert 7 <= slept[0] <= 8
    assert retry.LONGEST_PAUSE <= slept[1] <= retry.LONGEST_PAUSE + 1
    assert slept[2] <= 1


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes may take as long as they like to come; a server that says nothing any more is asked again."""
    monkeypatch.setattr(remote, "SILENCE", 0.3)
    with serving(FlakyServer({"s.tar": DATA})) as server:
        server.faults["s.tar"] = [Fault(cut=1024, stall=0.1)]
        assert read(server) == DATA
        server.faults["s.tar"] = [Fault(cut=2048, stall=1.0)]
        assert read(server) == DATA
        assert [asked for _, asked in server.requests if asked] == ["bytes=1024-", "bytes=2048-"]


def test_secrets_stay_out_of_messages() -> None:
    """A signed URL's query is in no error, whoever made the sentence."""
    with serving(FlakyServer({"s.tar": DATA})) as server:
        server.faults["s.tar"] = [Fault(500)] * 99
        with pytest.raises(ReadError) as caught:
            read(server, "s.tar?X-Signature=hush")
        assert "hush" not in str(caught.value)
        with pytest.raises(ReadError) as caught:
            read(server, "gone.tar?X-Signature=hush")
        assert "hush" not in str(caught.value)


def test_a_run_over_a_flaky_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cuts and errors that pass leave no trace; what cannot be had is listed, gives 3, and is tried again."""
    pattern = make_shards(tmp_path / "in", 4)
    recipe = write_recipe(tmp_path)
    files = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    assert main(["run", str(recipe), "--shards", pattern, "-o", str(tmp_path / "undisturbed")]) == 0
    with serving(FlakyServer(files)) as server:
        arguments = [
            "run",
            str(recipe),
            "--shards",
            f"{server.url}s-{{0000..0003}}.tar",
            "-o",
            str(tmp_path / "out"),
        ]
        server.faults = {name: [Fault(cut=700), Fault(503), Fault(cut=9000), Fault(429)] for name in files}
        server.faults["s-0002.tar"] = [Fault(500)] * 999
        del server.files["s-0003.tar"]
        assert main([*arguments, "--set", "run.read_attempts=1"]) == 3
        shown = capsys.readouterr()
        assert "s-0002.tar: 500" in shown.err
        assert "s-0003.tar: No such file" in shown.err
        ledgers = sorted(path.stem for path in (tmp_path / "out/wdsfilter/ledger").iterdir())
        assert ledgers == ["s-0000", "s-0001"]
        assert main(["status", str(tmp_path / "out")]) == 3
        listed = capsys.readouterr().out
        assert "not read: s-0002.tar" in listed
        assert "not read: s-0003.tar" in listed
        server.faults.clear()
        server.files = files | {"s-0003.tar": (tmp_path / "in/s-0003.tar").read_bytes()}
        assert main(arguments) == 0
        assert main(["verify", str(tmp_path / "out"), "--shards", arguments[3]]) == 0
    shards = {n: sha for n, sha in tree(tmp_path / "out").items() if n.endswith(".tar")}
    assert shards == {n: sha for n, sha in tree(tmp_path / "undisturbed").items() if n.endswith(".tar")}
