"""Samples that are copied without being taken apart: byte for byte what reading and writing them makes."""

from __future__ import annotations

import random
import tarfile

import pytest

from tests.corpus import tars
from tests.shards import block, flipped, pairs, read, tar_bytes
from wdsfilter.samples import Damage, Sample
from wdsfilter.shards import tar
from wdsfilter.shards.plain import normalise
from wdsfilter.shards.writer import stored


def compared(data: bytes, key: str) -> bool:
    """Whether a sample's bytes are copied as they lie; they are then what the strict reader and the writer make."""
    block = bytearray(data)
    [extensions] = normalise(memoryview(block), [(key, len(block))])
    found = read(data + tar.ZERO_BLOCK * 2)
    if extensions is None:
        again = read(bytes(block) + tar.ZERO_BLOCK * 2)
        assert [getattr(item, "members", item) for item in again] == [
            getattr(item, "members", item) for item in found
        ]
        return False
    [sample] = found
    assert isinstance(sample, Sample)
    assert sample.key == key
    assert extensions == {member.extension for member in sample.members}
    assert bytes(block) == b"".join(stored(sample.members))
    return True


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_ordinary_shards_are_copied_as_they_lie(dialect: int) -> None:
    """Samples with a ustar header before each member are, whatever owner and time stand there."""
    data = tar_bytes(pairs(3), dialect)
    samples = [item for item in read(data) if isinstance(item, Sample)]
    assert [compared(data[s.offset : s.offset + s.length], s.key) for s in samples] == [True] * 3


def test_hostile_shards_are_what_the_strict_reader_says() -> None:
    """Nothing that the strict reader would refuse, or see otherwise, is copied as it lies."""
    for case in tars.cases():
        if not case.name.startswith(("tar/large", "tar/compressed")):
            data = case.build()
            for item in read(data):
                if not isinstance(item, Damage):
                    compared(data[item.offset : item.offset + item.length], item.key)


def test_a_flipped_bit_changes_nothing_unseen() -> None:
    """Wherever a bit of a sample's headers turns: it is refused, or means what the strict reader reads there."""
    data = tar_bytes(pairs(1, image=b"i" * 40))
    [sample] = [item for item in read(data) if isinstance(item, Sample)]
    data = data[: sample.length]
    chance = random.Random(0)
    plain = [compared(flipped(data, chance.randrange(8 * len(data))), sample.key) for _ in range(800)]
    assert any(plain)
    assert not all(plain)


def test_each_sample_stands_for_itself() -> None:
    """Of many samples that lie side by side, one that is not plain changes nothing about its neighbours."""
    plain = [tar.header(f"{key}.txt", 700) + b"t" * 700 for key in "abcd"]
    mixed = tar.header("m.txt", 0) + tar.header("other.txt", 0)
    padded = [data + b"garbage".ljust(324) for data in plain]
    block = bytearray().join([*padded[:2], mixed, *padded[2:]])
    lying = [("a", 1536), ("b", 1536), ("m", 1024), ("c", 1536), ("d", 1536)]
    assert normalise(memoryview(block), lying) == [{"txt"}, {"txt"}, None, {"txt"}, {"txt"}]
    written = [data + bytes(324) for data in plain]
    assert block == bytearray().join([*written[:2], mixed, *written[2:]])


@pytest.mark.parametrize("name", ["b.jpg", "a.jpg/b", "a", "a.__key__", "a.b\0c", "__a__/a.jpg", "../a.jpg"])
def test_other_names_are_read_strictly(name: str) -> None:
    """A member that is not the sample's, or has a name that no sample may have, is not copied as it lies."""
    data = tar.header(name, 0)
    assert normalise(memoryview(bytearray(data)), [("a", len(data))]) == [None]
    behind = tar.header("a.jpg", 0) + data
    assert normalise(memoryview(bytearray(behind)), [("a", len(behind))]) == [None]


@pytest.mark.parametrize(
    "size", [b"-0000000001\0", b"-0000001000\0"], ids=["less-than-nothing", "a-block-back"]
)
def test_no_size_leads_back(size: bytes) -> None:
    """A size below nothing is no size, though a number could be read from it."""
    data = bytearray(block(b"a.jpg", size) + tar.ZERO_BLOCK)
    assert normalise(memoryview(data), [("a", len(data))]) == [None]
