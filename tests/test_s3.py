"""Reading from an S3 server: whole or not at all, and as often as it takes."""

from __future__ import annotations

import random

import fsspec
import pytest

from tests.s3 import Gate
from wdsfilter import readahead, storage
from wdsfilter.errors import ReadError
from wdsfilter.ranges import Range, read_ranges
from wdsfilter.shards.source import Pattern, find_shards


def test_a_bucket_is_read_like_a_folder(bucket: str) -> None:
    """Patterns and folders list objects; size and entity tag are known; the bytes are the object's."""
    store, root = fsspec.core.url_to_fs(bucket)
    data = random.Random(0).randbytes(5 << 20)
    for name in ("a/0.tar", "a/1.tar", "a/b/2.tar", "a/3.txt"):
        store.pipe_file(f"{root}/{name}", data[: len(name) << 18])
    for pattern, names in {
        f"{bucket}/a/*.tar": ["0.tar", "1.tar"],
        f"{bucket}/a/{{0..1}}.tar": ["0.tar", "1.tar"],
        f"{bucket}/a/": ["0.tar", "1.tar", "b/2.tar"],
        f"{bucket}/a": ["0.tar", "1.tar", "b/2.tar"],
    }.items():
        assert [shard.name for shard in find_shards([Pattern(pattern)])] == names
    stat = storage.stat(f"{bucket}/a/b/2.tar")
    assert stat.size == 9 << 18
    assert stat.etag
    with storage.open_read(f"{bucket}/a/b/2.tar", stat) as stream:
        assert stream.read() == data[: 9 << 18]
    with pytest.raises(ReadError, match="No such file"):
        storage.stat(f"{bucket}/a/none.tar")


def test_what_fails_is_asked_again_and_a_changed_object_is_noticed(
    bucket: str, s3: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors that pass cost nothing but time; an object that is replaced while it is read is a ReadError."""
    monkeypatch.setattr(readahead, "_FIRST_BLOCK", 1 << 16)
    monkeypatch.setattr(readahead, "_BLOCK", 1 << 16)
    store, root = fsspec.core.url_to_fs(bucket)
    data = random.Random(1).randbytes(1 << 20)
    store.pipe_file(f"{root}/0.tar", data)
    with storage.open_read(f"{bucket}/0.tar") as stream:
        start = stream.read(1 << 16)
        s3.failing = 3
        assert start + stream.read() == data
    s3.failing = 99
    with pytest.raises(ReadError, match=r"0\.tar: Service Unavailable"):
        storage.stat(f"{bucket}/0.tar")
    s3.clear()
    with storage.open_read(f"{bucket}/0.tar") as stream:
        stream.read(1 << 16)
        store.pipe_file(f"{root}/0.tar", data[::-1])
        with pytest.raises(ReadError):
            stream.read()


def test_ranges_that_lie_close_together_are_one_request(bucket: str, s3: Gate) -> None:
    """Of many ranges those with small gaps come together, and every one has its own bytes."""
    store, root = fsspec.core.url_to_fs(bucket)
    data = random.Random(2).randbytes(2 << 20)
    store.pipe_file(f"{root}/0.tar", data)
    s3.clear()
    wanted = [Range(f"{bucket}/0.tar", at, 1000) for at in (1 << 20, 0, 5000, (1 << 20) + 999, 400_000)]
    assert read_ranges(wanted) == [data[r.offset : r.end] for r in wanted]
    assert [method for method, _ in s3.requests] == ["GET"] * 3
    with pytest.raises(ReadError, match="ended before byte"):
        read_ranges([Range(f"{bucket}/0.tar", len(data) - 10, 20)])


def test_secrets_of_a_store_are_in_no_message() -> None:
    """What a store's library says of a failure is shown without keys and signed queries."""
    from wdsfilter.locations import without_secrets

    said = "GET https://u:pw@host/a.tar?X-Amz-Signature=abc failed (Bearer hf_abcdefghijkl, AKIAABCDEFGHIJKLMNOP)"
    assert without_secrets(said) == "GET https://host/a.tar failed ((secret), (secret))"
