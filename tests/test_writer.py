"""What the writer writes: read back alike by everybody, and made of nothing but its input."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from webdataset import tariterators

from tests.shards import contents, names, pairs, read, tar_bytes
from wdsfilter.samples import Damage, Member, Sample
from wdsfilter.shards import tar
from wdsfilter.shards.writer import ShardWriter, Written


def sample_members(seed: int) -> list[list[Member]]:
    """Samples with keys of all kinds and members of all sizes, some larger than the writer's buffer."""
    chance = random.Random(seed)
    sizes = [0, 1, 511, 512, 513, 70_000, 3 << 20, (4 << 20) + 1]
    samples = []
    for key in dict.fromkeys(names(chance, 12)):
        data = [chance.randbytes(chance.choice(sizes)) for _ in range(3)]
        extensions = ("jpg", "txt", "seg.png")
        samples.append([Member(f"{key}.{e}", e, d) for e, d in zip(extensions, data, strict=True)])
    return samples


def written(path: Path, samples: Sequence[Sequence[Member]]) -> Written:
    writer = ShardWriter(path)
    for members in samples:
        writer.add(members)
    return writer.close()


def flat(samples: Sequence[Sequence[Member]]) -> list[tuple[str, bytes]]:
    return [(m.name, bytes(m.data)) for members in samples for m in members]


def by_tarfile(path: Path) -> list[tuple[str, bytes]]:
    found = []
    with tarfile.open(path) as archive:
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None
            found.append((info.name, file.read()))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_python_and_webdataset_read_it_back(tmp_path: Path, seed: int) -> None:
    """Names, bytes and order are the same in tarfile, in webdataset and in the strict reader."""
    samples = sample_members(seed)
    path = tmp_path / "a.tar"
    written(path, samples)
    assert by_tarfile(path) == flat(samples)
    source = [{"url": "a.tar", "stream": io.BytesIO(path.read_bytes())}]
    loaded = list(tariterators.group_by_keys(tariterators.tar_file_expander(source)))
    expected = [{m.extension: bytes(m.data) for m in members} for members in samples]
    assert [{k: v for k, v in s.items() if not k.startswith("__")} for s in loaded] == expected
    assert contents(read(path.read_bytes())) == [
        (loaded[i]["__key__"], list(expected[i].items())) for i in range(len(samples))
    ]


def test_gnu_tar_reads_it_back(tmp_path: Path) -> None:
    """GNU tar lists the same names and extracts the same bytes, without a complaint."""
    samples = sample_members(3)
    written(tmp_path / "a.tar", samples)
    command = ["tar", "--extract", "--to-stdout", "--file", str(tmp_path / "a.tar")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"".join(data for _, data in flat(samples))
    assert done.stderr == b""
    listing = ["tar", "--list", "--quoting-style=literal", "--file", str(tmp_path / "a.tar")]
    listed = subprocess.run(listing, capture_output=True, check=True).stdout.decode().splitlines()
    assert listed == [name for name, _ in flat(samples)]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    """Neither the clock, the user, the source's headers nor how the bytes are held leaves a trace."""
    samples = sample_members(4)
    first = written(tmp_path / "first.tar", samples)
    stored = tar_bytes(flat(samples), tarfile.PAX_FORMAT)
    reread = [item.members for item in read(stored) if isinstance(item, Sample)]
    assert all(isinstance(m.data, memoryview) for members in reread for m in members)
    assert written(tmp_path / "second.tar", reread) == first
    data = (tmp_path / "first.tar").read_bytes()
    assert (tmp_path / "second.tar").read_bytes() == data
    assert first == Written(hashlib.sha256(data).hexdigest(), len(data), len(samples))
    assert len(data) % tar.RECORD == 0


def test_headers_hold_no_time_and_no_owner(tmp_path: Path) -> None:
    """Every member belongs to nobody, was made in 1970 and may be read by all."""
    written(tmp_path / "a.tar", [[Member("a.jpg", "jpg", b"i"), Member("x" * 300 + ".txt", "txt", b"c")]])
    with tarfile.open(tmp_path / "a.tar") as archive:
        for info in archive:
            owner = (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode, info.pax_headers)
            assert owner == (0, 0, 0, "", "", 0o644, {})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a.jpg", id="plain"),
        pytest.param("x" * 96 + ".jpg", id="100-bytes"),
        pytest.param("x" * 97 + ".jpg", id="101-bytes"),
        pytest.param("é" * 60 + ".jpg", id="100-characters-in-more-bytes"),
        pytest.param("folder/" * 100 + "a.jpg", id="very-long"),
        pytest.param("a\udcff\udcfe.jpg", id="not-utf8"),
        pytest.param("\udcff" * 200 + ".jpg", id="not-utf8-and-long"),
    ],
)
def test_names_survive(tmp_path: Path, name: str) -> None:
    """A name of any length and any bytes is the same in tarfile and in the bytes that GNU tar sees."""
    written(tmp_path / "a.tar", [[Member(name, "jpg", b"image")]])
    assert by_tarfile(tmp_path / "a.tar") == [(name, b"image")]
    listing = ["tar", "--list", "--quoting-style=literal", "--file", str(tmp_path / "a.tar")]
    assert subprocess.run(listing, capture_output=True, check=True).stdout == os.fsencode(name) + b"\n"


@pytest.mark.parametrize("name", ["a.jpg", "x" * 100, "folder/é.json"])
@pytest.mark.parametrize("size", [0, 1, 45_000, (1 << 33) - 1])
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    """Where a name fits, the header is to the byte the one that tarfile makes of the same facts."""
    info = tarfile.TarInfo(name)
    info.size = size
    assert tar.header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_an_empty_shard_is_an_archive(tmp_path: Path) -> None:
    """Without samples it is one record of zeros, which every tar reader takes for an empty archive."""
    assert written(tmp_path / "a.tar", []).samples == 0
    assert (tmp_path / "a.tar").read_bytes() == bytes(tar.RECORD)
    assert read((tmp_path / "a.tar").read_bytes()) == []


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system takes only a part of what it is given, the rest follows."""
    samples = sample_members(5)
    expected = written(tmp_path / "a.tar", samples)
    chance = random.Random(5)

    write = os.write

    def few(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[: chance.randrange(1, 100_000)])

    monkeypatch.setattr(os, "write", few)
    assert written(tmp_path / "b.tar", samples) == expected
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A writer makes a new file or none."""
    (tmp_path / "a.tar").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        ShardWriter(tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == b"precious"


def test_an_abandoned_shard_is_no_archive(tmp_path: Path) -> None:
    """What is left of a shard that was given up is seen to be damaged."""
    writer = ShardWriter(tmp_path / "a.tar")
    for name, data in pairs(600):
        writer.add([Member(name, "jpg", data)])
    writer.abandon()
    assert isinstance(read((tmp_path / "a.tar").read_bytes())[-1], Damage)


def test_memory_is_bounded_where_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples wait for the disk up to a bound; then whoever adds them waits."""
    moves, added = threading.Event(), threading.Semaphore(0)
    write = os.write

    def slow(descriptor: int, data: bytes) -> int:
        moves.wait(10)
        return write(descriptor, data)

    def add() -> None:
        for number in range(64):
            writer.add([Member(f"{number}.bin", "bin", bytes(1 << 20))])
            added.release()

    monkeypatch.setattr(os, "write", slow)
    writer = ShardWriter(tmp_path / "a.tar")
    adding = threading.Thread(target=add)
    adding.start()
    count = 0
    while added.acquire(timeout=0.3):
        count += 1
    assert 8 <= count <= 14  # what may wait, and the block at hand
    moves.set()
    adding.join()
    assert writer.close().samples == 64
    assert len(read((tmp_path / "a.tar").read_bytes())) == 64
