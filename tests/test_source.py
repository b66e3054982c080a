"""Patterns become shards: what they are called, in which order they come, and how they are read."""

from __future__ import annotations

import gzip
import io
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.shards import contents, pairs, read, tar_bytes, write_shard
from wdsfilter import storage
from wdsfilter.errors import InputError, MissingExtra, ReadError, UserError
from wdsfilter.samples import Damage, Sample
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import Pattern, Shard, find_shards, seeded_order
from wdsfilter.streams import Stat


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder with ``a/0.tar``, ``a/1.tar``, ``b/0.tar`` and one compressed shard."""
    for name in ("a/0.tar", "a/1.tar", "b/0.tar", "b/deep/2.tar.gz"):
        write_shard(tmp_path / name, pairs(1))
    (tmp_path / "a" / "README").write_text("no shard")
    return tmp_path


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, emptied afterwards."""
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def names(*patterns: str | Pattern) -> list[str]:
    return [s.name for s in find_shards([p if isinstance(p, Pattern) else Pattern(p) for p in patterns])]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("{}/a/0.tar", ["0.tar"], id="file"),
        pytest.param("{}/a/{{0..1}}.tar", ["0.tar", "1.tar"], id="braces"),
        pytest.param("{}/{{a,b}}/0.tar", ["a/0.tar", "b/0.tar"], id="braces-over-folders"),
        pytest.param("{}/a/*.tar", ["0.tar", "1.tar"], id="glob"),
        pytest.param("{}/*/0.tar", ["a/0.tar", "b/0.tar"], id="glob-over-folders"),
        pytest.param("{}/**/*.tar*", ["a/0.tar", "a/1.tar", "b/0.tar", "b/deep/2.tar"], id="glob-all"),
        pytest.param("{}/{{a,b}}/[0-9].tar", ["a/0.tar", "a/1.tar", "b/0.tar"], id="braces-and-glob"),
        pytest.param("{}", ["a/0.tar", "a/1.tar", "b/0.tar", "b/deep/2.tar"], id="folder"),
        pytest.param("{}/b/", ["0.tar", "deep/2.tar"], id="folder-with-slash"),
        pytest.param("{}/b/deep/2.tar.gz", ["2.tar"], id="compressed"),
    ],
)
def test_a_name_is_the_path_below_the_fixed_root(shards: Path, pattern: str, expected: list[str]) -> None:
    """An output shard is called after what a pattern leaves open, and always ends in ``.tar``."""
    assert names(pattern.format(shards)) == expected


def test_relative_patterns(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names do not depend on the folder that a run was started in."""
    monkeypatch.chdir(shards / "a")
    assert (
        names("{0..1}.tar") == names("*.tar") == names("../a/{0..1}.tar") == names(".") == ["0.tar", "1.tar"]
    )


def test_a_list_is_the_sum_of_its_patterns(shards: Path) -> None:
    """All patterns' shards come in one list, sorted by name, each with its prefix before it."""
    found = find_shards([Pattern(f"{shards}/b/0.tar", "other"), Pattern(f"{shards}/a/*.tar")])
    assert found == [
        Shard("0.tar", f"{shards}/a/0.tar"),
        Shard("1.tar", f"{shards}/a/1.tar"),
        Shard("other/0.tar", f"{shards}/b/0.tar"),
    ]


def test_a_shard_that_is_named_but_missing_is_listed(shards: Path) -> None:
    """Of a brace pattern every shard is promised: one that is not there fails when it is read, not in silence."""
    assert names(f"{shards}/a/{{0..3}}.tar") == ["0.tar", "1.tar", "2.tar", "3.tar"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        pytest.param(["{}/a/*.tar", "{}/b/*.tar"], "{path: OTHER, as: FOLDER}", id="collision"),
        pytest.param(["{}/a/0.tar", "{}/a/0.tar"], "0.tar is listed 2 times", id="twice"),
        pytest.param(["{}/a/0.tar", "{}/*/0.tar", "{}/a/*.tar"], "is listed 2 times", id="twice-by-glob"),
        pytest.param(["{}/none-*.tar"], "no shard matches", id="glob-without-match"),
        pytest.param(["{}/{{7..9}}.tar"], "no shard matches", id="braces-without-match"),
        pytest.param(["{}/none.tar"], "no shard matches", id="file-missing"),
        pytest.param(["{}/none"], "no shard matches", id="folder-missing"),
        pytest.param(["{}/{{0..1.tar"], "nbalanced", id="unbalanced"),
        pytest.param(["pipe:cat {}/a/0.tar"], "COMMAND | wdsfilter run", id="pipe"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(shards: Path, patterns: list[str], message: str) -> None:
    """No match, two shards of one name, the same shard twice, commands: one line that says what to do."""
    with pytest.raises(InputError) as caught:
        names(*(pattern.format(shards) for pattern in patterns))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    """An empty folder is a mistake, and the message says what is looked for."""
    with pytest.raises(InputError, match=r"no shard in this folder .*tar\.gz"):
        names(str(tmp_path))


def test_no_shard_is_called_like_our_own_folder(tmp_path: Path) -> None:
    """A shard whose output would lie in ``wdsfilter/`` needs a prefix."""
    write_shard(tmp_path / "wdsfilter" / "0.tar", pairs(1))
    with pytest.raises(InputError, match="prefix"):
        names(str(tmp_path))
    assert names(Pattern(str(tmp_path), "in")) == ["in/wdsfilter/0.tar"]


def test_standard_input_is_one_shard() -> None:
    """``-`` stands for a shard on standard input."""
    assert find_shards([Pattern("-")]) == [Shard("stdin.tar", "-")]


def test_the_order_does_not_move_when_shards_are_added() -> None:
    """More shards join a seeded order without changing how the others stand to one another."""
    listed = [Shard(f"{number:05d}.tar", "") for number in range(200)]
    order = seeded_order(listed, 0)
    for count in (1, 50, 199):
        subset = random.Random(count).sample(listed, count)
        assert seeded_order(subset, 0) == [shard for shard in order if shard in subset]
    assert order != listed
    assert seeded_order(listed, 1) != order


@pytest.mark.parametrize("pattern", ["memory://set/*.tar", "memory://set/{0..1}.tar", "memory://set/"])
def test_a_store_is_read_like_a_folder(memory: fsspec.AbstractFileSystem, pattern: str) -> None:
    """Shards behind a URL have the names and the samples that they would have in a folder."""
    expected = {}
    for number in range(2):
        data = tar_bytes(pairs(2, first=10 * number))
        memory.pipe_file(f"/set/{number}.tar", data)
        expected[f"{number}.tar"] = contents(read(data))
    found = find_shards([Pattern(pattern)])
    assert [shard.name for shard in found] == list(expected)
    for shard in found:
        with storage.open_read(shard.url) as stream:
            assert contents(list(read_samples(decompressed(stream)))) == expected[shard.name]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package for a store, the message is the command that installs it."""

    def refuse(url: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(MissingExtra, match=r"pip install 'wdsfilter\[s3\]'"):
        storage.stat("s3://bucket/a.tar")
    with pytest.raises(InputError, match="Install s3fs"):
        storage.stat("other://bucket/a.tar")


def test_an_unknown_protocol_is_the_users_mistake() -> None:
    """A scheme that nobody knows is told in one line."""
    with pytest.raises(UserError, match="nosuch"):
        find_shards([Pattern("nosuch://bucket/*.tar")])


def test_a_stream_that_ends_early_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer bytes than were announced are a failed transport, whatever they look like as a tar."""
    data = tar_bytes(pairs(3))
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    monkeypatch.setattr(storage, "stat", lambda location: Stat(len(data) + 10240))
    with (
        storage.open_read(str(path)) as stream,
        pytest.raises(ReadError, match=f"ended after {len(data)} of"),
    ):
        list(read_samples(decompressed(stream)))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_transport_error_is_no_damage(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """An error of the store's, of whatever type, is a ReadError that names the shard; nothing is said of its bytes."""
    chance = random.Random(0)
    data = tar_bytes([(f"{number}.jpg", chance.randbytes(100_000)) for number in range(30)])
    memory.pipe_file("/a.tar", gzip.compress(data) if suffix else data)

    class StoreError(Exception):
        pass

    original = fsspec.implementations.memory.MemoryFile.read

    def fails(file: io.BytesIO, size: int = -1) -> bytes:
        if file.tell() >= 1 << 20:
            raise StoreError("503 slow down")
        return bytes(original(file, size))

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "read", fails, raising=False)
    seen: list[object] = []

    def read_all() -> None:
        with storage.open_read("memory://a.tar") as stream:
            seen.extend(read_samples(decompressed(stream)))

    with pytest.raises(ReadError, match=r"memory://a.tar: 503 slow down"):
        read_all()
    assert not any(isinstance(item, Damage) for item in seen)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("red\x1b[31m.tar", r"red\\x1b\[31m", id="terminal-sequence"),
        pytest.param("two\nlines.tar", r"two\\nlines", id="line-break"),
        pytest.param("csi\x9b.tar", r"csi\\x9b", id="c1"),
        pytest.param("caf\udce9.tar", r"caf\\udce9", id="not-utf8"),
    ],
)
def test_names_that_cannot_be_printed_are_refused(name: str, shown: str, tmp_path: Path) -> None:
    """A name that would command the terminal or break a list of shards is told, escaped, before anything is read."""
    write_shard(tmp_path / name, pairs(1))
    with pytest.raises(InputError, match=f"{shown}.*has to be UTF-8 without control characters"):
        find_shards([Pattern(f"{tmp_path}/*.tar")])


@pytest.mark.parametrize("url", ["{}/none.tar", "memory://none.tar"])
def test_what_is_not_there_cannot_be_read(tmp_path: Path, url: str) -> None:
    """A shard that is gone is a ReadError, when it is asked for and when it is opened."""
    with pytest.raises(ReadError, match=r"none\.tar"):
        storage.stat(url.format(tmp_path))
    with pytest.raises(ReadError, match=r"none\.tar"), storage.open_read(url.format(tmp_path)):
        pass


def test_standard_input_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` reads the bytes that are piped in."""
    path = write_shard(tmp_path / "a.tar", pairs(2))
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": file}))
        with storage.open_read("-") as stream:
            found = list(read_samples(stream))
    assert [item.key for item in found if isinstance(item, Sample)] == ["00000", "00001"]
