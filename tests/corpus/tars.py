"""Archives: cut, overwritten, lying about their sizes, of every dialect, and full of names that loaders trip over."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tests.corpus import Case
from tests.shards import block, flipped, jpeg, member, padded, pairs, pax, record, tar_bytes
from wdsfilter.shards import tar

BLOCK = tar.BLOCK
END = bytes(2 * BLOCK)
_SAMPLES = 10


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _no_archives()
    yield from _cuts()
    yield from _overwritten()
    yield from _sizes()
    yield from _extended_headers()
    yield from _other_kinds()
    yield from _names()
    yield from _duplicates()
    yield from _compressed()
    yield from _large()


def keys(count: int, first: int = 0) -> list[str]:
    """The keys of ``pairs``."""
    return [f"{number:05d}" for number in range(first, first + count)]


def _case(name: str, data: bytes | Callable[[], bytes], rows: Sequence[str] = (), damage: str = "") -> Case:
    return Case(f"tar/{name}", data if callable(data) else lambda: data, tuple(rows), damage)


def _samples(*names: str) -> bytes:
    """Members of these names, each a picture or a text, without the archive's end."""
    listed = [(name, _content(name)) for name in names]
    return _open(tar_bytes(listed))


def _content(name: str) -> bytes:
    return jpeg() if name.lower().endswith("jpg") else b"A picture with a caption."


def _open(data: bytes) -> bytes:
    """An archive without its end."""
    return padded(data.rstrip(b"\0"))


def _pair(key: str) -> bytes:
    """One sound sample."""
    return _samples(f"{key}.jpg", f"{key}.txt")


def _no_archives() -> Iterator[Case]:
    yield _case("empty/zero-bytes", b"", damage="empty_file")
    yield _case("empty/one-byte", b"x", damage="cut_in_header")
    yield _case("empty/one-zero-block", bytes(BLOCK), damage="no_end_of_archive")
    yield _case("empty/511-zeros", bytes(511), damage="cut_in_header")
    yield _case("empty/archive-without-members", END)
    yield _case("empty/padded-archive-without-members", bytes(tar.RECORD))
    yield _case("empty/4-MiB-of-zeros", bytes(4 << 20), damage="zeros_after_end")
    for name, start in (
        ("html", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
        ("xml-of-a-store", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
        ("json", b'{"error": "rate limited"}'),
        ("lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00"),
        ("jpeg", jpeg()[:400]),
        ("parquet", b"PAR1" + bytes(99) + b"PAR1"),
        ("script", b"#!/bin/sh\ntouch /tmp/owned\n"),
        ("pickle", b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93."),
    ):
        yield _case(f"no-tar/{name}", start, damage="cut_in_header")
        yield _case(f"no-tar/long-{name}", start.ljust(3 * BLOCK, b" "), damage="bad_header")
    yield _case("no-tar/zip", _zip, damage="bad_header")
    yield _case("no-tar/noise", random.Random(0).randbytes(1 << 16), damage="bad_header")
    yield _case("no-tar/cpio", b"070701".ljust(2048, b"0"), damage="bad_header")


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", jpeg(width=64, height=64))
        archive.writestr("a.txt", "text " * 200)
    return file.getvalue()


def _cuts() -> Iterator[Case]:
    """A shard of ten samples, cut at every block: what is expected follows from where its members lie."""
    data = tar_bytes(pairs(_SAMPLES))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        listed = [
            (m.name.partition(".")[0], m.offset, m.offset_data, m.offset_data + m.size) for m in archive
        ]
    last = -(-listed[-1][3] // BLOCK) * BLOCK
    for cut in range(BLOCK, last + 3 * BLOCK, BLOCK):
        begun = list(dict.fromkeys(key for key, _, _, end in listed if -(-end // BLOCK) * BLOCK <= cut))
        inside = any(begins <= cut < -(-end // BLOCK) * BLOCK for _, _, begins, end in listed)
        reason = "cut_in_member" if inside else "no_end_of_archive"
        if cut >= last + len(END):
            yield _case(f"cut/{cut:06d}-after-the-end", data[:cut], begun)
            continue
        rows = [*begun[:-1], *(f"{key}:incomplete" for key in begun[-1:])]
        yield _case(f"cut/{cut:06d}", data[:cut], rows, reason)
    for name, cut in (("one-byte-short", last - 1), ("inside-a-header", listed[3][1] + 100)):
        whole = [key for key, _, _, end in listed if end <= cut]
        begun = list(dict.fromkeys(whole))
        reason = "cut_in_header" if name == "inside-a-header" else "cut_in_member"
        yield _case(f"cut/{name}", data[:cut], [*begun[:-1], f"{begun[-1]}:incomplete"], reason)


def _overwritten() -> Iterator[Case]:
    data = tar_bytes(pairs(5))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        third = next(m.offset for m in archive if m.name == "00002.jpg")
    before = ["00000", "00001:incomplete"]
    noise = random.Random(1).randbytes(BLOCK)
    for name, wrong, reason in (
        ("garbage", noise, "bad_header"),
        ("zeroed", bytes(BLOCK), "data_after_end"),
        ("lost", b"", "bad_header"),
        ("ones", b"\xff" * BLOCK, "bad_header"),
        ("spaces", b" " * BLOCK, "bad_header"),
        ("doubled-data", data[third - BLOCK : third] * 2, "bad_header"),
    ):
        yield _case(f"overwritten/{name}", data[:third] + wrong + data[third + BLOCK :], before, reason)
    yield _case("overwritten/zeroed-to-the-end", data[:third] + bytes(len(data) - third), keys(2))
    yield _case("overwritten/garbage-inserted", data[:third] + noise + data[third:], before, "bad_header")
    yield _case("overwritten/zeros-inserted", data[:third] + END + data[third:], before, "data_after_end")
    for field, at in (
        ("name", 0),
        ("mode", 101),
        ("size", 130),
        ("checksum", 150),
        ("kind", 156),
        ("magic", 257),
    ):
        changed = flipped(data, 8 * (third + at) + 1)
        yield _case(f"overwritten/bit-of-{field}", changed, before, "bad_header")
    yield _case(
        "overwritten/checksum-blank", _changed(data, third, slice(148, 156), b" " * 8), before, "bad_header"
    )
    yield _case("joined/two-archives", data + data, [*keys(4), "00004:incomplete"], "data_after_end")
    yield _case(
        "joined/two-archives-without-padding",
        _open(data) + END + tar_bytes(pairs(2, 7)),
        [*keys(4), "00004:incomplete"],
        "data_after_end",
    )
    yield _case("joined/an-empty-one-first", bytes(tar.RECORD) + data, damage="data_after_end")
    yield _case("joined/first-without-its-end", _open(data) + tar_bytes(pairs(2, 7)), [*keys(5), *keys(2, 7)])
    yield _case("joined/html-behind-it", data + b"<html>", [*keys(4), "00004:incomplete"], "data_after_end")
    yield _case("joined/one-byte-behind-it", data + b"\1", [*keys(4), "00004:incomplete"], "data_after_end")
    yield _case(
        "joined/megabytes-of-zeros-behind-it",
        data + bytes(4 << 20),
        [*keys(4), "00004:incomplete"],
        "zeros_after_end",
    )


def _changed(data: bytes, header: int, field: slice, value: bytes) -> bytes:
    changed = bytearray(data)
    changed[header + field.start : header + field.stop] = value
    return bytes(changed)


def _sizes() -> Iterator[Case]:
    """The second sample's picture lies about its size."""
    sound, after = _pair("a"), _pair("c") + END
    lost = ["a:incomplete"]
    for name, size, reason in (
        ("not-octal", b"8" * 11, "bad_header"),
        ("text", b"large", "bad_header"),
        ("minus-one", b"-0000000001", "bad_header"),
        ("minus-one-in-base-256", b"\xff" * 12, "bad_header"),
        ("2^33", b"\x80" + (1 << 33).to_bytes(11, "big"), "cut_in_member"),
        ("2^60", b"\x80" + (1 << 60).to_bytes(11, "big"), "cut_in_member"),
        ("2^63", b"\x80" + (1 << 63).to_bytes(11, "big"), "cut_in_member"),
        ("2^88", b"\x80" + b"\xff" * 11, "cut_in_member"),
        ("8-GiB-in-octal", b"7" * 11, "cut_in_member"),
        ("one-block-too-many", b"%011o" % (len(after) + 1), "cut_in_member"),
    ):
        yield _case(f"size/{name}", sound + block(b"b.jpg", size) + after, lost, reason)
    yield _case("size/blank", sound + block(b"b.txt", b" " * 12) + after, ["a", "b:no_image", "c"])
    yield _case(
        "size/one-block-short",
        sound + block(b"b.jpg", 1) + padded(jpeg(width=64, height=64)) + after,
        ["a", "b:incomplete"],
        "bad_header",
    )
    yield _case(
        "size/swallows-the-next-header",
        sound + block(b"b.bin", 2 * BLOCK) + after,
        ["a", "b:incomplete"],
        "bad_header",
    )


def _extended_headers() -> Iterator[Case]:
    sound, after = _pair("a"), _pair("c") + END
    lost = ["a:incomplete"]
    name = block(b"n", 2, b"L") + padded(b"n\0")
    for what, data, reason in (
        ("giant-long-name", block(b"n", 1 << 30, b"L"), "bad_header"),
        ("giant-pax", block(b"n", 1 << 30, b"x"), "bad_header"),
        ("giant-global-pax", block(b"n", 1 << 40 - 8, b"g"), "bad_header"),
        (
            "long-name-longer-than-its-size",
            block(b"n", 2, b"L") + padded(b"b.jpg\0") + block(b"b.jpg"),
            "bad_header",
        ),
        ("chain-of-long-names", name * 9, "bad_header"),
        ("chain-of-pax", pax(record(b"comment", b"x")) * 9, "bad_header"),
        ("chain-of-global-pax", pax(record(b"comment", b"x"), kind=b"g") * 1000, "bad_header"),
        ("chain-of-everything", (name + pax(record(b"path", b"x"))) * 5, "bad_header"),
        ("pax-no-record", pax(b"no record"), "bad_header"),
        ("pax-length-too-long", pax(b"99 path=a.jpg\n"), "bad_header"),
        ("pax-length-too-short", pax(b"7 path=a.jpg\n"), "bad_header"),
        ("pax-length-zero", pax(b"0 path=a.jpg\n"), "bad_header"),
        ("pax-length-huge", pax(b"9" * 500), "bad_header"),
        ("pax-size-negative", pax(record(b"size", b"-1")) + block(b"b.jpg"), "bad_header"),
        ("pax-size-text", pax(record(b"size", b"many")) + block(b"b.jpg"), "bad_header"),
        ("pax-size-of-25-digits", pax(record(b"size", b"9" * 25)) + block(b"b.jpg"), "bad_header"),
        ("pax-size-2^60", pax(record(b"size", b"%d" % (1 << 60))) + block(b"b.jpg"), "cut_in_member"),
    ):
        yield _case(f"extended/{what}", sound + data + after, lost, reason)
    for what, data in (
        ("long-name", name),
        ("long-link", block(b"n", 2, b"K") + padded(b"n\0")),
        ("pax", pax(record(b"mtime", b"1"))),
    ):
        yield _case(f"extended/{what}-without-member", sound + data + END, lost, "cut_in_header")
        yield _case(f"extended/cut-behind-{what}", sound + data, lost, "no_end_of_archive")
    long = "folder/" * 20 + "x" * 120
    for what, format in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        members = [(f"{long}.jpg", jpeg()), (f"{long}.txt", b"A caption.")]
        yield _case(f"extended/long-names-of-{what}", tar_bytes(members, format), [long])
    yield _case(
        "extended/a-megabyte-of-records", sound + pax(b"5 a=\n" * 200_000, kind=b"g") + after, ["a", "c"]
    )
    yield _case(
        "extended/nul-in-a-pax-name",
        sound + pax(b"18 path=b\0b.jpg.x\n") + block(b"b.jpg") + after,
        ["a", "b\0b:unsafe_name", "c"],
    )
    yield _case("extended/pax-name-empty", sound + pax(b"8 path=\n") + after, ["a", "c:no_image"])
    yield _case("extended/charset-binary", sound + pax(record(b"hdrcharset", b"BINARY")) + after, ["a", "c"])


def _other_kinds() -> Iterator[Case]:
    """What is no file: passed over, whatever it points to."""
    for name, kind in (
        ("hard-link", tarfile.LNKTYPE),
        ("symbolic-link", tarfile.SYMTYPE),
        ("character-device", tarfile.CHRTYPE),
        ("block-device", tarfile.BLKTYPE),
        ("folder", tarfile.DIRTYPE),
        ("fifo", tarfile.FIFOTYPE),
    ):
        info = member("b.jpg", kind=kind, link="../../etc/passwd")
        middle = _open(tar_bytes([(info, b"")]))
        yield _case(f"kind/{name}", _pair("a") + middle + _pair("c") + END, ["a", "c"])
        inside = _samples("b.jpg") + _open(tar_bytes([(member("b.txt", kind=kind, link="/dev/zero"), b"")]))
        yield _case(
            f"kind/{name}-for-a-caption", _pair("a") + inside + _pair("c") + END, ["a", "b:no_caption", "c"]
        )
    sparse = block(b"b.jpg", BLOCK, b"S", magic=b"ustar  \0") + bytes(BLOCK)
    yield _case(
        "kind/sparse-gnu", _pair("a") + sparse + _samples("b.txt") + _pair("c") + END, ["a", "b:sparse", "c"]
    )
    for version in (b"0", b"1"):
        header = pax(record(b"GNU.sparse.major", version), record(b"GNU.sparse.name", b"b.jpg"))
        data = header + block(b"GNUSparseFile.0/b.jpg", BLOCK) + bytes(BLOCK)
        yield _case(
            f"kind/sparse-pax-{version.decode()}",
            _pair("a") + data + _samples("b.txt") + _pair("c") + END,
            ["a", "b:sparse", "c"],
        )
    volume = block(b"volume", 0, b"V") + block(b"part", 0, b"M")
    yield _case("kind/volume-and-continuation", _pair("a") + volume + _pair("c") + END, ["a", "c"])
    yield _case(
        "kind/contiguous", _samples("a.jpg") + block(b"a.txt", 9, b"7") + padded(b"A caption") + END, ["a"]
    )
    yield _case(
        "kind/unknown",
        _pair("a") + block(b"b.jpg", 5, b"Z") + padded(b"bytes") + _pair("c") + END,
        ["a", "c"],
    )


def _names() -> Iterator[Case]:
    for name, listed, rows in (
        ("absolute", ["/etc/b.jpg", "/etc/b.txt"], ["/etc/b:unsafe_name"]),
        ("dot-dot", ["../b.jpg", "../b.txt"], ["../b:unsafe_name"]),
        ("dot-dot-inside", ["x/../../b.jpg", "x/../../b.txt"], ["x/../../b:unsafe_name"]),
        ("not-utf8", ["b\udcff.jpg", "b\udcff.txt"], ["b\\udcff:name_not_utf8"]),
        ("extension-not-utf8", ["b.jpg", "b.txt", "b.\udcff"], ["b:name_not_utf8"]),
        ("reserved-bad", ["b.jpg", "b.txt", "b.__bad__"], ["b:reserved_name"]),
        ("reserved-key", ["b.jpg", "b.txt", "b.__key__"], ["b:reserved_name"]),
        ("reserved-url", ["b.jpg", "b.txt", "b.__URL__"], ["b:reserved_name"]),
        ("reserved-path", ["b.jpg", "b.txt", "b.__local_path__"], ["b:reserved_name"]),
        ("upper-and-lower-case", ["b.jpg", "b.JPG", "b.txt"], ["b:duplicate_member"]),
        ("numbered", ["b.001.jpg", "b.002.jpg", "b.txt"], ["b:merged_names"]),
        ("one-dot-too-many", ["b.v2.jpg", "b.txt"], ["b:no_image"]),
        ("dot-in-a-folder", ["v1.5/b.jpg", "v1.5/b.txt"], ["v1.5/b"]),
        ("folders-tell-keys-apart", ["x/b.jpg", "x/b.txt", "y/b.jpg", "y/b.txt"], ["x/b", "y/b"]),
        ("upper-case", ["b.JPG", "b.TXT"], ["b"]),
        ("unicode", ["図/é.jpg", "図/é.txt"], ["図/é"]),
        ("blank-and-line-break", ["b b\n.jpg", "b b\n.txt"], ["b b\n"]),
        ("html", ["<script>b.jpg", "<script>b.txt"], ["<script>b"]),
        ("no-key", [".jpg", "README", "__meta__"], []),
        ("folder-for-a-key", ["x/.jpg"], ["x/:no_caption"]),
        ("score-name-taken", ["b.jpg", "b.txt", "b.score.json"], ["b:score_name_taken"]),
        ("image-alone", ["b.jpg"], ["b:no_caption"]),
        ("caption-alone", ["b.txt"], ["b:no_image"]),
        ("neither", ["b.json"], ["b:no_image"]),
    ):
        yield _case(f"name/{name}", _pair("a") + _samples(*listed) + _pair("c") + END, ["a", *rows, "c"])


def _duplicates() -> Iterator[Case]:
    twice = "a:duplicate_key"
    yield _case(
        "twice/member", _samples("a.jpg", "a.jpg", "a.txt") + _pair("b") + END, ["a:duplicate_member", "b"]
    )
    yield _case("twice/sample", _pair("a") + _pair("a") + _pair("b") + END, ["a:duplicate_member", "b"])
    yield _case("twice/key-later", _pair("a") + _pair("b") + _pair("a") + END, ["a", "b", twice])
    yield _case(
        "twice/thrice",
        _pair("a") + _pair("b") + _pair("a") + _pair("c") + _pair("a") + END,
        ["a", "b", twice, "c", twice],
    )
    yield _case(
        "twice/interleaved",
        _samples("a.jpg", "b.jpg", "a.txt", "b.txt") + END,
        ["a:no_caption", "b:no_caption", twice, "b:duplicate_key"],
    )


def _compressed() -> Iterator[Case]:
    data = tar_bytes(pairs(5))
    last = [*keys(4), "00004:incomplete"]
    for name, compress in (
        ("gzip", partial(gzip.compress, mtime=0)),
        ("bzip2", bz2.compress),
        ("xz", lzma.compress),
    ):
        packed = compress(data)
        yield _case(f"compressed/{name}", packed, keys(5))
        yield _case(f"compressed/{name}-of-nothing", compress(b""), damage="empty_file")
        yield _case(f"compressed/{name}-of-html", compress(b"<html>" * 200), damage="bad_header")
        yield _case(f"compressed/{name}-magic-alone", packed[:8], damage="bad_compression")
        yield _case(
            f"compressed/{name}-of-{name}",
            compress(compress(random.Random(2).randbytes(999))),
            damage="bad_header",
        )
        yield _case(f"compressed/{name}-bomb", _bomb(compress), ["a:incomplete"], "bad_compression")
    packed = gzip.compress(data, mtime=0)
    yield _case(
        "compressed/gzip-checksum-wrong", flipped(packed, 8 * (len(packed) - 6)), last, "bad_compression"
    )
    yield _case("compressed/gzip-last-byte-missing", packed[:-1], last, "bad_compression")
    yield _case("compressed/gzip-garbage-behind-it", packed + b"garbage", last, "bad_compression")
    yield _case(
        "compressed/gzip-in-two-members",
        b"".join(gzip.compress(part, mtime=0) for part in (data[:4096], data[4096:])),
        keys(5),
    )
    yield _case("compressed/xz-bit-flipped", flipped(lzma.compress(data), 8 * 40), damage="bad_compression")
    yield _case("compressed/zstd", b"\x28\xb5\x2f\xfd".ljust(BLOCK, b"z"), damage="bad_header")


def _bomb(compress: Callable[[bytes], bytes]) -> bytes:
    """160 MB of zeros in a few kilobytes: all three formats are what they are when they are repeated."""
    start = _pair("a") + block(b"b.bin", 160 << 20)
    return compress(start) + compress(bytes(1 << 20)) * 160


def _large() -> Iterator[Case]:
    def tiny(count: int) -> bytes:
        return b"".join(tar.header(f"{number}.jpg", 0) for number in range(count))

    def one(count: int) -> bytes:
        return _samples("a.jpg", "a.txt") + b"".join(tar.header(f"a.x{number}", 0) for number in range(count))

    many = 100_000
    yield _case(
        "large/100-thousand-tiny-members", lambda: tiny(many) + END, [f"{n}:no_caption" for n in range(many)]
    )
    yield _case(
        "large/100-thousand-members-of-one-sample", lambda: one(many) + _pair("b") + END, ["a:too_large", "b"]
    )
    yield _case(
        "large/member-of-33-MiB",
        lambda: _pair("a") + block(b"b.jpg", 33 << 20) + bytes(33 << 20) + _pair("c") + END,
        ["a", "b:too_large", "c"],
    )
