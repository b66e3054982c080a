"""A ledger row -> its sample, wherever it lies: in the input shard, or kept in an output shard."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast

from wdsfilter import storage
from wdsfilter.errors import ReadError
from wdsfilter.ledger import Row
from wdsfilter.ranges import Range, read_ranges
from wdsfilter.samples import Sample
from wdsfilter.shards import tar
from wdsfilter.shards.compression import decompressed, is_compressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.storage import StoredPath

MOST_BYTES = 64 << 20
"""A larger sample is not looked at."""


@dataclass(frozen=True, slots=True)
class Found:
    """A row's sample, or ``why`` there is none."""

    row: Row
    sample: Sample | None
    why: str = ""


def from_input(url: str, size: int | None, rows: Collection[Row]) -> Iterator[Found]:
    """The samples of ``rows`` (of one shard, by offset) from its input shard, in any order.

    ``size`` is what the shard had when its ledger was made. A shard that cannot be read, or is another one
    now, gives rows without samples.
    """
    try:
        now = storage.stat(url).size
        if size is not None and now is not None and now != size:
            yield from _none(rows, f"the input shard has {now} bytes now, {size} when it was judged")
            return
        [start] = read_ranges([Range(url, 0, min(8, now or 8))])
        if is_compressed(start):
            yield from _streamed(url, rows)
            return
        for row in rows:
            yield _at(url, row)
    except ReadError as error:
        yield from _none(rows, str(error))


def from_output(path: StoredPath, rows: Collection[Row], column: str = "key") -> Iterator[Found]:
    """The samples of those of ``rows`` that were kept, from their output shard; only headers are read beside them.

    ``column`` holds the keys that they have there.
    """
    wanted = {row[column]: row for row in rows if row["status"] == "kept"}
    yield from _none(
        [r for r in rows if r["status"] != "kept"], "only in the input shards: give them with --shards"
    )
    try:
        if not wanted:
            return
        spans: dict[str, tuple[int, int]] = {}
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                key = _key(info.name, wanted)
                end = info.offset_data + -(-info.size // tar.BLOCK) * tar.BLOCK
                if key is not None:
                    spans[key] = (spans.get(key, (info.offset, 0))[0], end)
                elif len(spans) == len(wanted):
                    break
        for key, row in wanted.items():
            start, end = spans.get(key, (-1, 0))
            yield _at(str(path), {"key": key, "offset": start, "length": end - start}, row)
    except (OSError, ReadError, tarfile.TarError) as error:
        yield from _none(wanted.values(), f"the output shard cannot be read: {error}")


def _key(name: str, wanted: Mapping[str, Row]) -> str | None:
    folder, slash, base = name.rpartition("/")
    key = f"{folder}{slash}{base.partition('.')[0]}"
    return key if key in wanted else None


def _at(url: str, place: Row, row: Row | None = None) -> Found:
    """What lies at a row's offset, read by the strict reader."""
    row = place if row is None else row
    if place["offset"] < 0 or not place["length"]:
        return Found(row, None, "the ledger does not say where it lies")
    if place["length"] > MOST_BYTES:
        return Found(row, None, f"more than {MOST_BYTES >> 20} MiB")
    [data] = read_ranges([Range(url, place["offset"], place["length"])])
    stream = cast(BinaryIO, io.BytesIO(data + bytes(tar.RECORD)))
    sample = next(read_samples(stream), None)
    return _checked(row, sample, place["key"])


def _streamed(url: str, rows: Collection[Row]) -> Iterator[Found]:
    """From a compressed shard, in which nothing can be found but by reading all before it."""
    wanted = {row["offset"]: row for row in rows}
    with storage.open_read(url) as raw:
        for sample in read_samples(decompressed(raw)):
            if wanted and sample.offset in wanted:
                row = wanted.pop(sample.offset)
                yield _checked(row, sample, row["key"])
            if not wanted:
                return
    yield from _none(wanted.values(), "the input shard ends before it")


def _checked(row: Row, sample: object, key: str) -> Found:
    if not isinstance(sample, Sample):
        return Found(row, None, str(row["detail"] or "not a whole sample"))
    if sample.key != key:
        return Found(row, None, "the input shard is not the one that was judged")
    return Found(row, sample)


def _none(rows: Collection[Row], why: str) -> Iterator[Found]:
    for row in rows:
        yield Found(row, None, why)
