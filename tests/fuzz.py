"""Seeded mutation fuzz over tars and images: no crash, no hang, no sample that is not accounted for.

    python -m tests.fuzz --cases 1000000 --seed 1

Each case is a function of seed and number alone, so that one that fails can be looked at again:
``--first NUMBER --cases 1``. Cases run in child processes; one that dies or stands still names its case.
What must hold is said in :func:`check_tar` and :func:`check_image`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import get_context
from typing import Any

from webdataset import tariterators

from tests.corpus import images as odd
from tests.shards import Content, contents, pairs, pax, read, record, tar_bytes
from wdsfilter import images
from wdsfilter.errors import BadImage
from wdsfilter.pairs import PairReader
from wdsfilter.samples import Damage, Sample, Unreadable
from wdsfilter.shards import tar

PATIENCE = 60  # seconds: a machine may be busy with other things
MAX_PIXELS = 1_000_000
_PER_CHILD = 20_000
_READER = PairReader(("jpg", "png", "webp"), "txt")
_WORDS = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"0",
    b"7",
    b"ustar",
    b" ",
    b"/",
    b".",
    b"..",
    b"\xff\xd9",
    b"\xff\xda",
)


# --- what is mutated --------------------------------------------------------------------------


@cache
def _archives() -> tuple[bytes, ...]:
    """Small shards of every dialect."""
    listed = pairs(4)
    long = [(f"{'folder/' * 20}{name}", data) for name, data in listed]
    plain = tar_bytes(listed, tarfile.USTAR_FORMAT)
    return (
        plain,
        tar_bytes(long, tarfile.GNU_FORMAT),
        tar_bytes(long, tarfile.PAX_FORMAT),
        pax(record(b"comment", b"global"), kind=b"g") + plain,
        gzip.compress(plain, mtime=0),
    )


@cache
def _pictures() -> tuple[bytes, ...]:
    """One file of every format, and of every odd kind."""
    found = [odd.saved(odd.picture(), format) for format in images.FORMATS]
    found += [odd.saved(odd.picture().convert(mode), "PNG") for mode in ("P", "RGBA", "LA", "1")]
    found += [
        odd.saved(odd.picture().convert("CMYK"), "JPEG"),
        odd.saved(odd.picture(), "JPEG", progressive=True),
    ]
    found += [odd.saved(odd.picture(), "JPEG", exif=odd.exif(6)), odd.scans(3)]
    found += [odd.png(2, 2, 16, 2, bytes(26)), odd.png(2, 2, 16, 0, bytes(10))]
    frames = [odd.picture().rotate(90)] * 2
    found += [
        odd.saved(odd.picture(), format, save_all=True, append_images=frames) for format in ("GIF", "PNG")
    ]
    return tuple(found)


def mutated(data: bytes, chance: random.Random, block: int) -> bytes:
    """``data`` after one to four accidents; ``block`` is what its format is made of (bytes)."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        size = len(data)
        at = chance.randrange(size + 1)
        aligned = at // block * block
        length = chance.choice((1, 2, 8, block, chance.randrange(1, 2 * block)))
        how = chance.randrange(10)
        if how < 3 and size:
            bit = chance.randrange(8 * size)
            data = data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        elif how == 3:
            data = data[:at]
        elif how == 4:
            data = data[:aligned]
        elif how == 5:
            data = data[:aligned] + bytes(block) + data[aligned + block :]
        elif how == 6:
            data = data[:aligned] + data[aligned + length :]
        elif how == 7:
            data = data[:aligned] + data[aligned : aligned + length] * 2 + data[aligned + length :]
        elif how == 8:
            data = (
                data[:at]
                + chance.choice((chance.randbytes(length), chance.choice(_WORDS)))
                + data[at + length :]
            )
        else:
            word = chance.choice(_WORDS)
            data = data[:at] + word + data[at + len(word) :]
    return data


def _resummed(data: bytes, chance: random.Random) -> bytes:
    """One header changed and its checksum put right: a lie that only its meaning tells."""
    headers = [
        at for at in range(0, len(data) - tar.BLOCK, tar.BLOCK) if data[at + 257 : at + 262] == b"ustar"
    ]
    if not headers:
        return data
    at = chance.choice(headers)
    header = bytearray(data[at : at + tar.BLOCK])
    start, end = chance.choice(((0, 100), (124, 136), (156, 157), (157, 257), (257, 265), (345, 500)))
    for _ in range(chance.randrange(1, 6)):
        header[chance.randrange(start, end)] = chance.choice(
            (0, 0x20, 0x2E, 0x2F, 0x37, 0x80, 0xFF, chance.randrange(256))
        )
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + tar.BLOCK :]


# --- what must hold ---------------------------------------------------------------------------


def check_tar(seed: int, number: int) -> None:
    """Every sample is accounted for, in order; without damage the shard is what webdataset reads in it."""
    chance = random.Random(f"{seed}/tar/{number}")
    data = chance.choice(_archives())
    if chance.random() < 0.4:
        data = _resummed(data, chance)
    if chance.random() < 0.7:
        data = mutated(data, chance, tar.BLOCK)
    found = read(data, max_sample_bytes=1 << 20)
    places = [item.offset for item in found]
    assert places == sorted(places), "out of order"
    for item in found[:-1]:
        assert not isinstance(item, Damage), "something comes after the damage"
    for item in found:
        if isinstance(item, Sample):
            assert item.members
            _READER.read(item)
        assert isinstance(item, (Sample, Unreadable, Damage))
        (item.detail if not isinstance(item, Sample) else item.key).encode()  # a ledger can hold it
    if not found or not isinstance(found[-1], Damage):
        _same_as_webdataset(data, found)


def _same_as_webdataset(data: bytes, found: Sequence[Sample | Unreadable | Damage]) -> None:
    """No damage was told: then all that Python's tarfile can see in it has its row, and no more."""
    raw = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    theirs: dict[str, Content] = {}
    with suppress(
        ValueError, tarfile.TarError, UnicodeError
    ):  # it raises at duplicates; what came before counts
        source = [{"url": "memory.tar", "stream": io.BytesIO(raw)}]
        for sample in tariterators.group_by_keys(tariterators.tar_file_expander(source)):
            key = sample["__key__"]
            members = [(n, d) for n, d in sample.items() if n not in ("__key__", "__url__")]
            theirs.setdefault(key.encode("utf-8", "backslashreplace").decode(), (key, members))
    told = {item.key for item in found if not isinstance(item, Damage)}
    assert set(theirs) <= told, f"without a row: {set(theirs) - told}"
    for key, members in contents(found):
        assert theirs.get(key, (key, members)) == (key, members), f"{key!r} reads differently"


def check_image(seed: int, number: int) -> None:
    """An image, or a reason; nothing else, and no pixels that its header did not say."""
    chance = random.Random(f"{seed}/image/{number}")
    data = mutated(chance.choice(_pictures()), chance, 64)
    with suppress(BadImage):
        said = images.header(data, max_pixels=MAX_PIXELS)
        assert said.width * said.height <= MAX_PIXELS
    with suppress(BadImage):
        image = images.decode(data, max_pixels=MAX_PIXELS)
        assert image.mode == "RGB"
        assert image.width * image.height <= MAX_PIXELS


CHECKS: dict[str, Callable[[int, int], None]] = {"tar": check_tar, "image": check_image}


# --- running them -----------------------------------------------------------------------------


def run(seed: int, first: int, cases: int, at: Any = None) -> None:
    """Cases ``first`` and so on, of both kinds in turn; ``at.value`` is the one in hand. Raises AssertionError."""
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)
    kinds = [*CHECKS]
    for number in range(first, first + cases):
        if at is not None:
            at.value = number
        kind = kinds[number % len(kinds)]
        try:
            CHECKS[kind](seed, number)
        except Exception as error:
            raise AssertionError(f"{kind}, --seed {seed} --first {number} --cases 1: {error!r}") from error


def watched(seed: int, first: int, cases: int) -> tuple[str, int]:
    """The same in a process of its own: what went wrong, empty for nothing, and the first case that was not tried."""
    context = get_context("spawn")
    not_begun = first - 1
    at = context.Value("q", not_begun)
    child = context.Process(target=run, args=(seed, first, cases, at))
    child.start()
    last, since = not_begun, time.monotonic()
    while child.is_alive():
        child.join(0.5)
        if at.value != last or at.value == not_begun:
            last, since = at.value, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            child.kill()
            child.join()
            return f"--seed {seed} --first {last}: no end after {PATIENCE} s", last + 1
    if child.exitcode:
        return f"--seed {seed} --first {at.value}: exit code {child.exitcode}", max(first, at.value) + 1
    return "", first + cases


def main() -> int:
    """Exit code 1 where something went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failures = []
    began = time.monotonic()
    end = options.first + options.cases
    first = options.first
    while first < end:
        wrong, first = watched(options.seed, first, min(_PER_CHILD, end - first))
        if wrong:
            failures.append(wrong)
            print(wrong, flush=True)
    rate = options.cases / (time.monotonic() - began)
    print(f"{options.cases} cases of seed {options.seed}: {len(failures)} failures, {rate:.0f} cases/s")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
