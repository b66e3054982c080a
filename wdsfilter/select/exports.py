"""An answer as a list of what was chosen: keys, uids, rows."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wdsfilter import storage
from wdsfilter.errors import OutputError, QuestionError

SUFFIXES = (".txt", ".npy", ".parquet")
_UID = r"^[0-9a-fA-F]{32}$"
_PAIR = np.dtype("u8,u8")


def check_export(path: Path) -> None:
    """Raise QuestionError unless an export can be written there; before the work, not after it."""
    if path.suffix not in SUFFIXES:
        raise QuestionError(f"--export {path}: expected a name that ends in {', '.join(SUFFIXES)}")
    if path.exists():
        raise OutputError(f"{path} is there already")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path.parent} is no folder")


def needed(path: Path) -> tuple[str, ...]:
    """Columns of an answer that an export of this name is made of; none means all."""
    return {".txt": ("source_shard", "source_key"), ".npy": ("uid", "source_key"), ".parquet": ()}[
        path.suffix
    ]


def export(answer: Path, path: Path) -> None:
    """Write the answer as its name asks for: appears whole or not at all. Raises QuestionError, OutputError.

    ``.txt``: source shard, tab, key, a line each, as ``--keys`` reads it; ``.parquet``: the rows;
    ``.npy``: sorted pairs of the halves of 128-bit uids (``u8,u8``), as DataComp's resharder reads it.
    """
    writers: dict[str, Callable[[Path, BinaryIO], None]] = {
        ".txt": _write_keys,
        ".npy": _write_uids,
        ".parquet": _write_rows,
    }
    with _put(path) as file:
        writers[path.suffix](answer, file)


@contextmanager
def _put(path: Path) -> Iterator[BinaryIO]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not storage.put_if_absent(temporary, path):
            raise OutputError(f"{path} is there already")
    finally:
        temporary.unlink(missing_ok=True)


def _write_keys(answer: Path, file: BinaryIO) -> None:
    for table in _groups(answer):
        lines = pc.binary_join_element_wise(table["source_shard"], table["source_key"], "\t")
        file.writelines(f"{line}\n".encode() for line in lines.to_pylist())


def _write_rows(answer: Path, file: BinaryIO) -> None:
    with answer.open("rb") as rows:
        shutil.copyfileobj(rows, file, 1 << 20)


def _write_uids(answer: Path, file: BinaryIO) -> None:
    """Holds 16 bytes a sample: the format is one sorted array."""
    if "uid" not in pq.read_schema(answer).names:
        raise QuestionError("no column uid in these ledgers: a subset of DataComp's names samples by it")
    count = pq.read_metadata(answer).num_rows
    halves = np.empty((count, 2), dtype=np.uint64)
    begin = 0
    for table in _groups(answer):
        column = table["uid"].combine_chunks()
        valid = pc.fill_null(pc.match_substring_regex(column, _UID), False)
        if not pc.all(valid).as_py():
            bad = table.filter(pc.invert(valid)).slice(0, 1).to_pylist()[0]
            if bad["uid"] is None:
                raise QuestionError(
                    f"sample {bad['source_key']!r} has no uid: a subset of DataComp's names samples by it"
                )
            raise QuestionError(
                f"sample {bad['source_key']!r}: its uid {bad['uid']!r} is no 128-bit hexadecimal"
            )
        raw = bytes.fromhex("".join(column.to_pylist()))
        halves[begin : begin + len(column)] = np.frombuffer(raw, dtype=">u8").reshape(-1, 2)
        begin += len(column)
    pairs = halves.view(_PAIR).reshape(-1)
    np.lib.format.write_array(file, np.sort(pairs), allow_pickle=False)


def _groups(answer: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(answer) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)
