"""Members that are looked at many at once: they mean what the strict reader sees, and are written as it writes them."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Iterator

import pytest

from tests.corpus import tars
from tests.shards import block, flipped, padded, pairs, pax, read, record, tar_bytes
from wdsfilter.samples import Damage, Sample, Unreadable
from wdsfilter.select.lying import lying_samples
from wdsfilter.shards import archive, tar
from wdsfilter.shards.plain import plain_members
from wdsfilter.shards.writer import stored

Item = Sample | Unreadable | Damage
END = tar.ZERO_BLOCK * 2
TIME = record(b"mtime", b"1795857213.0007782")


@pytest.fixture
def strictly(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """For what is read inside ``with strictly.context()``: nothing is plain."""
    with monkeypatch.context() as patch:
        yield patch


def both(data: bytes, patch: pytest.MonkeyPatch) -> list[Item]:
    """What is read, after making sure that it is what is read one by one."""
    fast = read(data)
    with patch.context() as inner:
        inner.setattr(archive, "plain_members", lambda *_: [])
        slow = read(data)
    assert [bare(item) for item in fast] == [bare(item) for item in slow]
    for item in fast:
        for member in item.members if isinstance(item, Sample) else ():
            assert member.stored in (b"", b"".join(stored([member._replace(stored=b"")])))
    return fast


def bare(item: Item) -> Item:
    if isinstance(item, Sample):
        return item._replace(members=tuple(member._replace(stored=b"") for member in item.members))
    return item


def is_fast(item: Item) -> bool:
    """Whether all of the sample's members were plain."""
    return isinstance(item, Sample) and all(member.stored for member in item.members)


def copied(data: bytes, key: str) -> bool:
    """Whether a sample's bytes are copied as they lie; they are then what the strict reader and the writer make."""
    block = bytearray(data)
    [lying] = lying_samples(block, [(key, len(block))])
    found = [bare(item) for item in read(data + END)]
    if lying is None:
        assert [bare(item) for item in read(bytes(block) + END)] == found
        return False
    [sample] = found
    assert isinstance(sample, Sample)
    assert sample.key == key
    assert lying.extensions == {member.extension for member in sample.members}
    assert b"".join(block[begin:end] for begin, end in lying.pieces) == b"".join(stored(sample.members))
    return True


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("time", [1_600_000_000, 1795857213.0007782], ids=["seconds", "fractions"])
def test_ordinary_shards_are_plain(dialect: int, time: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever owner and time stand there, and where Python's tarfile gives the time a header of its own."""
    members = []
    for name, content in pairs(3):
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.uname, info.mode = len(content), time, "somebody", 0o444
        members.append((info, content))
    data = tar_bytes(members, dialect)
    assert (b"mtime=" in data) == (dialect == tarfile.PAX_FORMAT and time != int(time))
    samples = both(data, monkeypatch)
    assert [is_fast(sample) for sample in samples] == [True] * 3
    lying = [(s.key, data[s.offset : s.offset + s.length]) for s in samples if isinstance(s, Sample)]
    assert [copied(content, key) for key, content in lying] == [True] * 3


def test_hostile_shards_are_what_the_strict_reader_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that it would refuse, or see otherwise, is taken for plain."""
    for case in tars.cases():
        if not case.name.startswith(("tar/large", "tar/compressed")):
            data = case.build()
            for item in both(data, monkeypatch):
                if not isinstance(item, Damage):
                    copied(data[item.offset : item.offset + item.length], item.key)


def test_a_flipped_bit_changes_nothing_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a bit of a sample's headers turns: it is refused, or means what the strict reader reads there."""
    members = [
        pax(TIME) + block(name.encode(), len(data)) + padded(data) for name, data in pairs(1, image=b"i" * 40)
    ]
    data = b"".join(members)
    chance = random.Random(0)
    plain = []
    for _ in range(800):
        broken = flipped(data, chance.randrange(8 * len(data)))
        plain.append(copied(broken, "00000"))
        both(broken + END, monkeypatch)
    assert any(plain)
    assert not all(plain)


@pytest.mark.parametrize("size", [1, 512, 5_000, 600_000, 1_100_000])
def test_members_of_any_size_come_in_order(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that cross a block that was read, or are larger than one, too; and what lies between is no other."""
    chance = random.Random(size)
    members = [
        (f"{n:03d}.bin", chance.randbytes(chance.randrange(size) + 1))
        for n in range(3_000_000 // (size + 50_000))
    ]
    members.insert(1, ("n" * 150 + ".bin", b"a name of two headers"))
    data = tar_bytes(members)
    found = both(data, monkeypatch)
    assert [(m.name, bytes(m.data)) for s in found if isinstance(s, Sample) for m in s.members] == members
    cut = data[: chance.randrange(len(data) // 2, len(data) - 20_000)]
    assert isinstance(both(cut, monkeypatch)[-1], Damage)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(TIME + record(b"path", b"other.jpg"), id="a-name-too"),
        pytest.param(record(b"path", b"mtime.jpg"), id="a-name"),
        pytest.param(record(b"size", b"512"), id="a-size"),
        pytest.param(b"99 mtime=1795857213.0007782\n", id="a-wrong-length"),
        pytest.param(record(b"mtime", b"soon"), id="no-time"),
    ],
)
def test_other_extended_headers_are_read_strictly(records: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What says more than a time, or says it wrongly, is left to the strict reader."""
    data = pax(records) + block(b"a.jpg", 512) + bytes(512)
    assert plain_members(bytearray(data), 0, len(data), 1 << 20) == []
    assert not any(map(is_fast, both(data + END, monkeypatch)))


def test_a_time_for_all_that_follow_is_read_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A global header may hold for members after it."""
    data = pax(record(b"path", b"b.jpg"), kind=b"g") + block(b"a.jpg", 0)
    assert [item.key for item in both(data + END, monkeypatch) if isinstance(item, Sample)] == ["b"]


def test_each_sample_stands_for_itself() -> None:
    """Of many samples that lie side by side, one that is not plain changes nothing about its neighbours."""
    plain = [tar.header(f"{key}.txt", 700) + b"t" * 700 for key in "abcde"]
    mixed = tar.header("m.txt", 0) + tar.header("other.txt", 0)
    prefixed = block(b"d.txt", 700, prefix=b"folder") + padded(b"t" * 700)
    garbled = [data + b"garbage".ljust(324) for data in plain]
    data = bytearray().join([*garbled[:2], mixed, garbled[2], prefixed, garbled[4]])
    samples = [("a", 1536), ("b", 1536), ("m", 1024), ("c", 1536), ("folder/d", 1536), ("e", 1536)]
    found = list(lying_samples(data, samples))
    assert [lying and lying.pieces for lying in found] == [
        [(0, 1536)], [(1536, 3072)], None, [(4096, 5632)], None, [(7168, 8704)]
    ]  # fmt: skip
    written = [sample + bytes(324) for sample in plain]
    assert data == bytearray().join([*written[:2], mixed, written[2], prefixed, written[4]])


@pytest.mark.parametrize("length", [511, 1, 0])
def test_lengths_that_no_sample_has_lead_nowhere(length: int) -> None:
    """A ledger of another file may say anything: what ends inside a member is read strictly, and refused there."""
    data = bytearray(tar.header("a.txt", 0)) * 3
    samples = [("a", length), ("a", len(data) - length - 512), ("a", 512)]
    assert [lying and lying.pieces for lying in lying_samples(data, samples)] == [None, None, [(1024, 1536)]]


@pytest.mark.parametrize("name", ["b.jpg", "a.jpg/b", "a", "a.__key__", "a.b\0c", "__a__/a.jpg", "../a.jpg"])
def test_other_names_are_read_strictly(name: str) -> None:
    """A member that is not the sample's, or has a name that no sample may have, is not copied as it lies."""
    data = tar.header(name, 0)
    assert list(lying_samples(bytearray(data), [("a", len(data))])) == [None]
    behind = tar.header("a.jpg", 0) + data
    assert list(lying_samples(bytearray(behind), [("a", len(behind))])) == [None]


@pytest.mark.parametrize("size", [b"-0000000001\0", b"-0000001000\0", b"\x0000000001000", b"000000010008"])
def test_a_size_is_digits_and_a_nul(size: bytes) -> None:
    """Anything else is no size here, though a number could be read from it."""
    data = bytearray(block(b"a.jpg", size) + tar.ZERO_BLOCK)
    assert list(lying_samples(data, [("a", len(data))])) == [None]
