"""Samples of a shard: webdataset's for whatever is well formed, a reason for everything else."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import re
import tarfile
import time
import tracemalloc
from collections.abc import Callable

import pytest
from webdataset import tariterators

from tests.shards import (
    Content,
    block,
    contents,
    flipped,
    member,
    names,
    outcome,
    padded,
    pairs,
    read,
    stream,
    tar_bytes,
)
from wdsfilter.samples import Damage, Sample, Unreadable
from wdsfilter.shards import compression, tar
from wdsfilter.shards.reader import read_samples, split_name

EXTENSIONS = ["jpg", "JPG", "txt", "json", "seg.png", "tar.gz", "Score.JSON", "__x__", "mask.0.npy", "", " b"]
END = bytes(2 * tar.BLOCK)


def by_webdataset(data: bytes) -> list[Content]:
    """The samples that webdataset's own loader finds."""
    source = [{"url": "memory.tar", "stream": io.BytesIO(data)}]
    samples = tariterators.group_by_keys(tariterators.tar_file_expander(source))
    return [
        (s["__key__"], [(n, d) for n, d in s.items() if n not in ("__key__", "__url__")]) for s in samples
    ]


def random_shard(seed: int) -> bytes:
    """A well-formed shard with everything in it that loaders must get along with."""
    chance = random.Random(seed)
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for key in dict.fromkeys(names(chance, chance.randrange(1, 12))):
        extensions = chance.sample(EXTENSIONS, chance.randrange(1, 6))
        for extension in {e.lower(): e for e in extensions}.values():
            size = chance.choice([0, 1, 511, 512, 513, 3000])
            members.append((f"{key}.{extension}", chance.randbytes(size)))
            if chance.random() < 0.3:
                between: list[tuple[str | tarfile.TarInfo, bytes]] = [
                    ("__meta__", b"m"),
                    ("__index__/a.jpg", b"i"),
                    ("README", b"no dot, no sample"),
                    (".hidden", b"h"),
                    (member("folder", kind=tarfile.DIRTYPE), b""),
                    (member("link.jpg", kind=tarfile.SYMTYPE, link="x" * 150), b""),
                ]
                members.append(chance.choice(between))
    data = tar_bytes(members, chance.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])).rstrip(b"\0")
    end = -(-len(data) // tar.BLOCK) * tar.BLOCK + tar.BLOCK * chance.choice([3, 4, 5, 20, 128])
    return data.ljust(end, b"\0")


@pytest.mark.parametrize("seed", range(40))
def test_reads_what_webdataset_reads(seed: int) -> None:
    """Keys, extensions, bytes and order of a well-formed shard are exactly webdataset's."""
    data = random_shard(seed)
    found = read(data)
    assert all(isinstance(item, Sample) for item in found), outcome(found)
    assert contents(found) == by_webdataset(data)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_reads_alike(format: int) -> None:
    """The same members give the same samples in ustar, with GNU's long names and with pax headers."""
    long = "folder/" * 14 + "x" * 60
    listed = [(f"{long}.jpg", b"i"), (f"{long}.txt", b"c"), ("Ü.jpg", b"j"), ("./a/b.TXT", b"d")]
    data = tar_bytes(listed, format)
    assert contents(read(data)) == by_webdataset(data)
    assert outcome(read(data)) == [long, "Ü", "./a/b"]


def test_names_split_as_in_webdataset() -> None:
    """Key and extension of any name are webdataset's, or it has none in both."""
    chance = random.Random(0)
    for _ in range(20_000):
        name = "".join(chance.choices("aB.._/_\n é", k=chance.randrange(1, 10)))
        key, extension = tariterators.base_plus_ext(name)
        is_meta = re.match(r"__[^/]*__($|/)", name) or (name[:2] == name[-2:] == "__" and "/" not in name)
        expected = None if is_meta or key is None else (key, extension.lower())
        assert split_name(name) == expected, repr(name)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        pytest.param(["a.jpg", "a.txt", "b.jpg"], ["a", "b"], id="sound"),
        pytest.param(["a.jpg", "a.jpg", "a.txt", "b.jpg"], ["a:duplicate_member", "b"], id="member-twice"),
        pytest.param(["3.jpg", "3.JPG"], ["3:duplicate_member"], id="upper-and-lower-case"),
        pytest.param(["a.jpg", "b.jpg", "a.txt"], ["a", "b", "a:duplicate_key"], id="key-twice"),
        pytest.param(
            ["a.jpg", "b.jpg", "a.txt", "b.txt"],
            ["a", "b", "a:duplicate_key", "b:duplicate_key"],
            id="interleaved",
        ),
        pytest.param(
            [f"{'k' * 99}.{e}" for e in "abc"] + ["b.jpg", f"{'k' * 98}l.jpg", f"{'k' * 99}.jpg"],
            ["k" * 99, "b", "k" * 98 + "l", "k" * 99 + ":duplicate_key"],
            id="long-key-twice",
        ),
        pytest.param(["a/1.jpg", "b/1.jpg", "1.jpg"], ["a/1", "b/1", "1"], id="folders-tell-keys-apart"),
        pytest.param(["img.001.jpg", "img.002.jpg"], ["img"], id="dotted-names-are-one-sample"),
        pytest.param(["a.jpg", "a.__bad__", "b.jpg"], ["a:reserved_name", "b"], id="reserved-bad"),
        pytest.param(
            ["a.__key__", "b.__URL__"], ["a:reserved_name", "b:reserved_name"], id="reserved-key-and-url"
        ),
        pytest.param(["a.__local_path__"], ["a:reserved_name"], id="reserved-path"),
        pytest.param(["/etc/a.jpg", "b.jpg"], ["/etc/a:unsafe_name", "b"], id="absolute"),
        pytest.param(["../a.jpg", "a/../b.jpg"], ["../a:unsafe_name", "a/../b:unsafe_name"], id="dot-dot"),
        pytest.param(["a\udcff.jpg"], ["a\\udcff:name_not_utf8"], id="key-not-utf8"),
        pytest.param(["a.jpg", "a.\udcff"], ["a:name_not_utf8"], id="extension-not-utf8"),
        pytest.param(["README", ".hidden.jpg", "__meta__", "a/"], [], id="no-sample-names"),
    ],
)
def test_each_flaw_has_its_reason(listed: list[str], expected: list[str]) -> None:
    """What webdataset would merge, drop or raise on costs its own sample, with the exact reason."""
    assert outcome(read(tar_bytes([(name, name.encode("utf-8", "replace")) for name in listed]))) == expected


def test_a_nul_in_a_name_is_unsafe() -> None:
    """Only pax can say such a name, and no reader of the output would see all of it."""
    payload = b"18 path=a\0b.jpg.x\n"
    data = block(b"pax", len(payload), b"x") + padded(payload) + block(b"short.jpg") + END
    assert outcome(read(data)) == ["a\0b:unsafe_name"]


def test_a_sparse_member_costs_its_sample_alone() -> None:
    """A sparse member keeps its place in its sample, which is reported, and the next one is sound."""
    data = (
        block(b"a.jpg") + block(b"a.txt", 512, b"S", magic=b"ustar  \0") + bytes(512) + block(b"b.jpg") + END
    )
    assert outcome(read(data)) == ["a:sparse", "b"]


def test_a_cut_loses_nothing_silently() -> None:
    """However a shard is cut: damage is told, and what was yielded is as it was, in order from the first."""
    data = tar_bytes(pairs(10))
    whole = contents(read(data))
    assert len(whole) == 10
    end = len(data.rstrip(b"\0"))
    end = -(-end // tar.BLOCK) * tar.BLOCK + 2 * tar.BLOCK  # both end-of-archive blocks
    odd = [n * 131 + 1 for n in range(len(data) // 131)]
    for cut in sorted({*range(0, len(data), tar.BLOCK), *odd, end - 1, end, end + 1}):
        found = read(data[:cut])
        sound = contents(found)
        assert sound == whole[: len(sound)], cut
        if cut < end:
            assert isinstance(found[-1], Damage), cut
            assert [item.reason for item in found if isinstance(item, Unreadable)] in ([], ["incomplete"]), (
                cut
            )
            assert found[-1].offset <= cut
        else:
            assert sound == whole, cut


def test_the_sample_before_a_damage_is_incomplete() -> None:
    """A cut right behind a whole sample still costs it, for nothing tells that it was whole."""
    data = tar_bytes(pairs(3))
    second, third = (item.offset for item in read(data)[1:] if isinstance(item, Sample))
    assert outcome(read(data[:third])) == ["00000", "00001:incomplete", "!no_end_of_archive"]
    assert outcome(read(data[:second])) == ["00000:incomplete", "!no_end_of_archive"]
    assert outcome(read(flipped(data, 8 * third + 3))) == ["00000", "00001:incomplete", "!bad_header"]
    zeroed = data[:third] + bytes(tar.BLOCK) + data[third + tar.BLOCK :]
    assert outcome(read(zeroed)) == ["00000", "00001:incomplete", "!data_after_end"]
    assert outcome(read(data + data)) == ["00000", "00001", "00002:incomplete", "!data_after_end"]


@pytest.mark.parametrize("seed", range(30))
def test_vandalism_never_passes_for_data(seed: int) -> None:
    """Blocks that are overwritten, lost, doubled or zeroed: the samples before are sound, the rest is told."""
    chance = random.Random(seed)
    data = tar_bytes(pairs(10))
    keys = [key for key, _ in contents(read(data))]
    for _ in range(20):
        at = chance.randrange(len(data) // tar.BLOCK) * tar.BLOCK
        wrong = chance.choice(
            [chance.randbytes(tar.BLOCK), bytes(tar.BLOCK), b"", data[:at][-tar.BLOCK :] * 2]
        )
        found = read(data[:at] + wrong + data[at + tar.BLOCK :])
        sound = [key for key, _ in contents(found)]
        assert sound == keys[: len(sound)]
        assert sound == keys or isinstance(found[-1], Damage)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_shards_read_alike(compress: Callable[[bytes], bytes]) -> None:
    """gzip, bzip2 and xz are known by their first bytes; a cut anywhere is damage, never an end."""
    data = tar_bytes(pairs(10))
    packed = compress(data)
    assert contents(read(packed)) == contents(read(data))
    for cut in range(8, len(packed), 97):
        found = read(packed[:cut])
        assert isinstance(found[-1], Damage)
        assert found[-1].reason == "bad_compression"
        assert contents(found) == contents(read(data))[: len(contents(found))]


def test_a_wrong_byte_in_gzip_is_damage() -> None:
    """gzip's checksum counts, although it comes after the archive's end."""
    packed = bytearray(gzip.compress(tar_bytes(pairs(2))))
    packed[-6] ^= 1
    assert outcome(read(bytes(packed))) == ["00000", "00001:incomplete", "!bad_compression"]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_decompression_bombs_are_defused(
    compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that grows more than a hundredfold is damage, found long before it has grown."""
    monkeypatch.setattr(compression, "_FREE_BYTES", 4 << 20)
    bomb = compress(tar_bytes([("a.jpg", b"a"), ("b.jpg", bytes(48 << 20))]))
    source = stream(bomb)
    tracemalloc.start()
    found = list(read_samples(compression.decompressed(source), max_sample_bytes=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome(found) == ["a:incomplete", "!bad_compression"]
    assert peak < 24 << 20


def test_a_hundred_thousand_members_in_bounded_time() -> None:
    """Neither many samples nor one sample of many members takes more than linear time."""
    one = b"".join(tar.header(f"a.x{number}", 0) for number in range(50_000))
    many = b"".join(tar.header(f"{number}.jpg", 0) for number in range(50_000))
    started = time.process_time()
    found = read(one + many + END)
    assert time.process_time() - started < 20
    assert len(found) == 50_001
    assert isinstance(found[0], Sample)
    assert len(found[0].members) == 50_000


@pytest.mark.parametrize(
    "large",
    [
        pytest.param([("b.jpg", bytes(20 << 20))], id="one-member"),
        pytest.param([(f"b.{number}", bytes(1 << 19)) for number in range(40)], id="many-members"),
    ],
)
def test_a_sample_may_be_too_large(large: list[tuple[str, bytes]]) -> None:
    """A sample beyond the limit is unreadable; neither its neighbours nor the memory feel it."""
    data = tar_bytes([*pairs(1), *large, ("c.jpg", b"c")])
    source = stream(data)
    tracemalloc.start()
    found = list(read_samples(source, max_sample_bytes=2 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome(found) == ["00000", "b:too_large", "c"]
    assert peak < 6 << 20


def test_offsets_hold_the_sample() -> None:
    """``offset`` and ``length`` cut out of the shard exactly the blocks of a sample."""
    data = tar_bytes([*pairs(3), ("long" * 40 + ".jpg", b"i"), ("z.jpg", b"")])
    found = read(data)
    for item in found:
        assert isinstance(item, Sample)
        part = data[item.offset : item.offset + item.length]
        assert contents(read(part + END)) == contents([item])
    assert [i.offset + i.length for i in found[:-1] if isinstance(i, Sample)] == [
        i.offset for i in found[1:] if isinstance(i, Sample)
    ]
