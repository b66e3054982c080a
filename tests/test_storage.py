"""Committing to a folder: nothing is overwritten, nothing half-done is visible."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.runs import make_shards, write_recipe
from wdsfilter import remote, storage
from wdsfilter.cli import main
from wdsfilter.errors import OutputError
from wdsfilter.output import OutputFolder


def test_put_if_absent_gives_a_name_once(tmp_path: Path) -> None:
    """The first writer of a name wins, and what is there is never changed."""
    for number in range(2):
        storage.write_synced(tmp_path / f"{number}", b"%d" % number)
    assert storage.put_if_absent(tmp_path / "0", tmp_path / "sub/final")
    assert not storage.put_if_absent(tmp_path / "1", tmp_path / "sub/final")
    assert (tmp_path / "sub/final").read_bytes() == b"0"
    assert (tmp_path / "sub/final").samefile(tmp_path / "0"), "a copy would be visible before it is whole"


def test_a_derived_file_is_replaced_whole(tmp_path: Path) -> None:
    """Whoever reads a derived file while it is renewed reads the old one to its end, or the new one."""
    folder, final = OutputFolder(tmp_path), tmp_path / "sizes.json"
    folder.replace(b"old" * 1000, final)
    with final.open("rb", buffering=0) as reader:
        begun = reader.read(10)
        folder.replace(b"new", final)
        assert begun + reader.read() == b"old" * 1000
    assert final.read_bytes() == b"new"
    assert not list((tmp_path / "wdsfilter/tmp").iterdir())


def test_what_gets_its_name_has_been_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run, every file is flushed whole before it is linked or renamed, and its folder after that."""
    flushed: dict[int, tuple[int, int]] = {}
    named: list[Path] = []
    unflushed: set[Path] = set()
    real_fsync, real_link, real_replace = os.fsync, os.link, os.replace

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        status = os.fstat(descriptor)
        flushed[status.st_ino] = (status.st_size, status.st_mtime_ns)
        unflushed.difference_update(
            [f for f in list(unflushed) if f.exists() and f.stat().st_ino == status.st_ino]
        )

    def name(real: Callable[[Path, Path], None], source: Path, final: Path) -> None:
        status = source.stat()
        assert flushed.get(status.st_ino) == (status.st_size, status.st_mtime_ns), f"{final}: not flushed"
        real(source, final)
        named.append(final)
        unflushed.add(final.parent)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", partial(name, real_link))
    monkeypatch.setattr(os, "replace", partial(name, real_replace))
    shards = make_shards(tmp_path / "in", 3)
    assert main(["run", str(write_recipe(tmp_path)), "--shards", shards, "-o", str(tmp_path / "out")]) == 0
    assert not unflushed, "a name that a power cut takes away again"
    assert {path.suffix for path in named} >= {".tar", ".parquet", ".json", ".txt"}


def test_of_many_writers_one_wins(tmp_path: Path) -> None:
    """Two hundred races of four writers have one winner each, and its bytes stay."""
    for race in range(200):
        gate = threading.Barrier(4)
        won: list[int] = []

        def write(
            number: int, race: int = race, gate: threading.Barrier = gate, won: list[int] = won
        ) -> None:
            storage.write_synced(tmp_path / f"{race}.{number}", b"%d" % number)
            gate.wait()
            if storage.put_if_absent(tmp_path / f"{race}.{number}", tmp_path / f"final.{race}"):
                won.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [b"%d" % number for number in won] == [(tmp_path / f"final.{race}").read_bytes()]


def test_an_answer_that_got_lost_is_a_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the link was made but the answer says that it exists (NFS asks twice), the writer has won."""
    storage.write_synced(tmp_path / "temporary", b"x")
    real = os.link

    def link_twice(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", link_twice)
    assert storage.put_if_absent(tmp_path / "temporary", tmp_path / "final")


def test_a_folder_without_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe refuses a file system without hard links, in words."""

    def no_link(source: Path, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(OutputError, match="hard links"):
        storage.probe(tmp_path, "token")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """An output folder that is a file is a user's error."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="has to be a folder"):
        storage.probe(tmp_path / "file/tmp", "token")
    with pytest.raises(OutputError):
        storage.probe(tmp_path / "file", "token")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/data/x?.tar", "/data/x?.tar"),
        ("https://user:secret@host/a/x.tar?X-Signature=secret", "https://host/a/x.tar"),
        ("s3://bucket/x.tar", "s3://bucket/x.tar"),
    ],
)
def test_secrets_are_not_shown(location: str, expected: str) -> None:
    """What is printed of a URL holds neither its query nor its user."""
    assert storage.shown(location) == expected


@pytest.mark.parametrize(
    ("location", "path", "name", "expected"),
    [
        ("s3://bucket/in/*.tar", "bucket/in/*.tar", "bucket/in/0.tar", "s3://bucket/in/0.tar"),
        ("az://bucket/in/", "bucket/in", "bucket/in/0.tar", "az://bucket/in/0.tar"),
        ("sftp://me@host:22/in/*", "/in/*", "/in/0.tar", "sftp://me@host:22/in/0.tar"),
        ("abfs://c@account.dfs.core.windows.net/in", "c/in", "c/in/0.tar", "abfs://c/in/0.tar"),
    ],
)
def test_what_is_listed_is_spelled_as_it_was_asked_for(
    location: str, path: str, name: str, expected: str
) -> None:
    """A store's own spelling would lose a host, or hide that a shard lies in the output folder."""

    class Store:
        @staticmethod
        def unstrip_protocol(name: str) -> str:
            return f"abfs://{name}"

    assert remote.urls(location, Store(), path, [name]) == [expected]
