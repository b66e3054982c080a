"""The tar format, strictly: what is an archive, what is damage, and what it is called."""

from __future__ import annotations

import io
import tarfile
import time
import tracemalloc
from typing import BinaryIO, cast

import pytest

from tests.shards import block, flipped, member, padded, pairs, pax, record, stream, tar_bytes
from wdsfilter.errors import ReadError
from wdsfilter.samples import Damage
from wdsfilter.shards import archive, tar

END = bytes(2 * tar.BLOCK)
LIMIT = 1 << 20


def entries(data: bytes, max_member: int = LIMIT) -> list[archive.Entry | Damage]:
    return list(archive.members(stream(data), max_member=max_member))


def words(data: bytes, max_member: int = LIMIT) -> list[str]:
    """Name of every entry (with its flaw), ``!reason`` of a damage."""
    return [
        f"!{e.reason}" if isinstance(e, Damage) else e.name + (f":{e.flaw}" if e.flaw else "")
        for e in entries(data, max_member)
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_entries_lie_where_they_say(format: int) -> None:
    """``offset`` to ``end`` holds a member's headers, data and padding, and nothing else."""
    long = "folder/" * 20 + "name.jpg"  # fits ustar's two fields, is long for GNU and pax
    data = tar_bytes([("a.jpg", b"x" * 600), (long, b"y"), ("c.jpg", b"")], format)
    found = entries(data)
    assert [e.name for e in found if isinstance(e, archive.Entry)] == ["a.jpg", long, "c.jpg"]
    at = 0
    for entry in found:
        assert isinstance(entry, archive.Entry)
        assert entry.offset == at
        assert words(data[entry.offset : entry.end] + END) == [entry.name]
        at = entry.end
    assert not data[at:].strip(b"\0")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty_file", id="zero-bytes"),
        pytest.param(b"<!DOCTYPE html>", "cut_in_header", id="short-html"),
        pytest.param(b"<!DOCTYPE html>" * 100, "bad_header", id="html"),
        pytest.param(bytes(512), "no_end_of_archive", id="one-zero-block"),
        pytest.param(bytes(700), "no_end_of_archive", id="one-zero-block-and-a-half"),
        pytest.param(bytes(4 << 20), "zeros_after_end", id="4-MiB-of-zeros"),
        pytest.param(bytes(10240) + b"x", "data_after_end", id="data-after-padding"),
        pytest.param(bytes(1024) + tar_bytes(pairs(1)), "data_after_end", id="second-archive"),
        pytest.param(block(b"a.jpg", b"8" * 11) + END, "bad_header", id="size-not-octal"),
        pytest.param(block(b"a.jpg", b"-0000000001") + END, "bad_header", id="size-minus-one-in-text"),
        pytest.param(block(b"a.jpg", b"\xff" * 12) + END, "bad_header", id="size-minus-one-in-base-256"),
        pytest.param(
            block(b"a.jpg", b"\x80" + (1 << 60).to_bytes(11, "big")) + END, "cut_in_member", id="size-2^60"
        ),
        pytest.param(block(b"a.jpg", b"\x80" + b"\xff" * 11) + END, "cut_in_member", id="size-2^88"),
        pytest.param(block(b"a", 1 << 30, b"L") + END, "bad_header", id="giant-long-name"),
        pytest.param(block(b"a", 1 << 30, b"x") + END, "bad_header", id="giant-pax-header"),
        pytest.param((block(b"n", 2, b"L") + padded(b"n\0")) * 9 + END, "bad_header", id="chain-of-names"),
        pytest.param(block(b"n", 2, b"L") + padded(b"n\0") + END, "cut_in_header", id="name-without-member"),
        pytest.param(block(b"n", 2, b"K") + padded(b"n\0") + END, "cut_in_header", id="link-without-member"),
        pytest.param(pax(record(b"mtime", b"1")) + END, "cut_in_header", id="pax-without-member"),
        pytest.param(pax(b"no record") + END, "bad_header", id="pax-not-a-record"),
        pytest.param(pax(b"99 path=a.jpg\n") + END, "bad_header", id="pax-length-too-long"),
        pytest.param(pax(b"7 path=a.jpg\n") + END, "bad_header", id="pax-length-too-short"),
        pytest.param(pax(b"0 path=a.jpg\n") + END, "bad_header", id="pax-length-zero"),
        pytest.param(pax(b"9" * 500) + END, "bad_header", id="pax-digits-only"),
        pytest.param(
            pax(record(b"size", b"-1")) + block(b"a.jpg") + END, "bad_header", id="pax-size-negative"
        ),
        pytest.param(
            pax(record(b"size", b"9" * 25)) + block(b"a.jpg") + END, "bad_header", id="pax-size-huge"
        ),
        pytest.param(
            pax(record(b"size", b"9" * 19)) + block(b"a.jpg") + END, "cut_in_member", id="pax-size-2^63"
        ),
    ],
)
def test_damage_has_its_reason(data: bytes, reason: str) -> None:
    """What is no archive gives no member and exactly one damage, by its own name."""
    assert words(data) == [f"!{reason}"]


@pytest.mark.parametrize("blocks", [2, 3, 20, 2048])
def test_an_archive_may_be_empty_and_padded(blocks: int) -> None:
    """Two zero blocks are an archive without members, and up to a megabyte more is padding."""
    assert words(bytes(blocks * tar.BLOCK)) == []


@pytest.mark.parametrize(
    "kind",
    [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE],
)
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_is_no_file_is_passed_over(kind: bytes, format: int) -> None:
    """Links, devices, folders and FIFOs are neither members nor damage, whatever their names."""
    info = member("b.jpg" + "x" * 120, kind=kind, link="../etc/passwd" * 20)
    assert words(tar_bytes([("a.jpg", b"a"), (info, b""), ("c.jpg", b"c")], format)) == ["a.jpg", "c.jpg"]


def test_a_v7_folder_is_passed_over() -> None:
    """Old archives know a folder by the slash at its name's end."""
    assert words(block(b"folder/", kind=b"\0", magic=b"") + block(b"a.jpg", kind=b"\0", magic=b"") + END) == [
        "a.jpg"
    ]


def test_a_slash_behind_a_pax_name_is_nothing() -> None:
    """A file of an extended header is not called as a folder; Python's tarfile reads it so."""
    assert words(pax(record(b"path", b"a.jpg/")) + block(b"b.jpg") + END) == ["a.jpg"]


@pytest.mark.parametrize("magic", [b"ustar  \0", b""])
def test_the_prefix_is_ustars_alone(magic: bytes) -> None:
    """Where GNU tar keeps times, no folder is read: only POSIX archives have a prefix."""
    assert words(block(b"a.jpg", prefix=b"14725036", magic=magic) + END) == ["a.jpg"]


def test_sparse_members_are_flaws_under_their_own_name() -> None:
    """Sparse members of all dialects are reported, by the name that a user gave them, and read past."""
    old = bytearray(block(b"old.jpg", 512, b"S", magic=b"ustar  \0"))
    old[482] = 1  # the map goes on in a block of its own
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    new = pax(record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.name", b"new.jpg"))
    data = bytes(old) + bytes(512) + b"s" * 512 + new + block(b"GNUSparseFile.0/new.jpg", 512) + b"s" * 512
    assert words(data + block(b"c.jpg") + END) == ["old.jpg:sparse", "new.jpg:sparse", "c.jpg"]


def test_global_headers_hold_until_they_are_replaced() -> None:
    """A global header speaks for all members after it, an extended one for the next alone."""
    data = pax(record(b"comment", b"from git"), record(b"size", b"3"), kind=b"g")
    data += block(b"a.jpg") + padded(b"abc") + pax(record(b"size", b"1")) + block(b"b.jpg") + padded(b"d")
    data += block(b"c.jpg") + padded(b"efg") + pax(record(b"comment", b"the end"), kind=b"g")
    found = entries(data + END)
    assert [(e.name, bytes(e.data)) for e in found if isinstance(e, archive.Entry)] == [
        ("a.jpg", b"abc"),
        ("b.jpg", b"d"),
        ("c.jpg", b"efg"),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([b"L", b"L"], id="two-long-names"),
        pytest.param([b"x", b"x"], id="two-pax"),
        pytest.param([b"L", b"x"], id="long-name-then-pax"),
        pytest.param([b"x", b"L"], id="pax-then-long-name"),
        pytest.param([b"X", b"L"], id="solaris-then-long-name"),
    ],
)
def test_of_two_names_the_same_one_wins_as_in_tarfile(headers: list[bytes]) -> None:
    """Where extended headers contradict each other, Python's tarfile and this reader agree."""
    data = b""
    for number, kind in enumerate(headers):
        name = b"%d.jpg" % number
        data += (
            block(b"n", len(name) + 1, b"L") + padded(name + b"\0")
            if kind == b"L"
            else pax(record(b"path", name), kind=kind)
        )
    data += block(b"short.jpg") + END
    with tarfile.open(fileobj=io.BytesIO(data)) as reference:
        assert words(data) == reference.getnames()


def test_signed_checksums_are_accepted() -> None:
    """Some old tars summed a header's bytes as signed ones."""
    header = bytearray(block("é.jpg".encode()))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(b - 256 if b > 127 else b for b in header)
    assert words(bytes(header) + END) == ["é.jpg"]


def test_every_flipped_bit_of_a_header_is_damage() -> None:
    """The checksum sees every single bit: nothing after it is taken for members.

    But for a few bits that leave the archive as it was: those which change how the checksum itself is
    spelt, not what it says.
    """
    data = tar_bytes(pairs(1))
    second = entries(data)[0]
    assert isinstance(second, archive.Entry)
    sound = words(data)
    for bit in range(8 * tar.BLOCK):
        found = words(flipped(data, 8 * second.end + bit))
        if found != sound:
            assert found == ["00000.jpg", "!bad_header"], f"bit {bit}"
        else:
            assert 148 <= bit // 8 < 156, f"bit {bit}"


def test_extended_headers_cost_linear_time() -> None:
    """A megabyte of the smallest records is read in well under a second, and kept out of memory."""
    many = pax(b"5 a=\n" * 200_000, kind=b"g")
    started = time.process_time()
    assert words(many * 4 + block(b"a.jpg") + END) == ["a.jpg"]
    assert time.process_time() - started < 5


def test_a_large_member_is_read_past() -> None:
    """A member beyond the limit comes without its data, holding no memory, and the archive goes on."""
    data = tar_bytes([("a.bin", bytes(40 << 20)), ("b.jpg", b"b")])
    source = stream(data)
    tracemalloc.start()
    found = [
        (e.name, e.flaw) for e in archive.members(source, max_member=LIMIT) if isinstance(e, archive.Entry)
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [("a.bin", "too_large"), ("b.jpg", "")]
    assert peak < 8 << 20


def test_read_errors_are_not_damage() -> None:
    """When bytes cannot be had, nothing is said about the archive."""

    class Broken(io.RawIOBase):
        given = False

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            if self.given:
                raise ReadError("connection reset")
            self.given = True
            buffer[: len(start)] = start
            return len(start)

    start = tar_bytes(pairs(2))[:2048]
    with pytest.raises(ReadError, match="connection reset"):
        list(
            archive.members(cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, Broken()))), max_member=LIMIT)
        )
