"""The one seam to bytes that lie somewhere: reading from anywhere, committing to a local folder.

Reading takes local paths and every URL that fsspec knows. An error on the way raises
:class:`~wdsfilter.errors.ReadError`, and so does a stream that ends before the size that was
announced: whoever reads can rely on an ordinary end of file meaning the end of the file.
"""

from __future__ import annotations

import glob as _glob
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from wdsfilter import objects, remote
from wdsfilter.errors import OutputError, ReadError
from wdsfilter.locations import protocol as protocol
from wdsfilter.locations import shown as shown
from wdsfilter.objects import ObjectPath
from wdsfilter.remote import transport
from wdsfilter.streams import Stat, fresh_info, open_http, open_object, stat_of

READ_BUFFER = 128 << 10
STDIN = "-"


def exists(location: str) -> bool:
    """Whether there is such an object; for a local path only, anything else is taken on trust."""
    return protocol(location) is not None or location == STDIN or os.path.exists(location)


def is_folder(location: str) -> bool:
    """Whether ``location`` is a folder; a URL that ends in ``/`` always is."""
    if protocol(location) is None:
        return os.path.isdir(location)
    return location.endswith("/") or remote.asked(location, lambda store, path: bool(store.isdir(path)))


def absolute(location: str) -> str:
    """``location`` as it is called from any folder of this machine."""
    return os.path.abspath(location) if protocol(location) is None else location


def escaped(path: str) -> str:
    """A local path as a pattern that matches nothing but itself."""
    return _glob.escape(path)


def glob(pattern: str) -> list[str]:
    """Locations that match, sorted; ``**`` crosses folders. Raises ReadError, InputError."""
    if protocol(pattern) is None:
        return sorted(path for path in _glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    return _listed(pattern, lambda store, path: store.glob(path))


def below(folder: str) -> list[str]:
    """Locations of all files in a folder and its folders, sorted. Raises ReadError, InputError."""
    if protocol(folder) is None:
        return glob(f"{escaped(folder)}/**/*")
    return _listed(folder, lambda store, path: store.find(path))


def _listed(location: str, names: Callable[[Any, str], Iterable[str]]) -> list[str]:
    def urls(store: Any, path: str) -> list[str]:
        return remote.urls(location, store, path, names(store, path))

    return remote.asked(location, urls, timeout=remote.LISTING)


def stat(location: str) -> Stat:
    """Raises ReadError where the object is not there or cannot be asked for. Of standard input nothing is known."""
    if location == STDIN:
        return Stat(None)
    if protocol(location) is None:
        with transport(location):
            return Stat(os.stat(location).st_size)
    return remote.asked(location, lambda store, path: stat_of(fresh_info(store, path)))


@contextmanager
def open_read(location: str, expected: Stat | None = None) -> Iterator[BinaryIO]:
    """A buffered stream over the whole object. Raises ReadError, when it opens and while it is read.

    Also where the object is not (or while it is read no longer is) the one of ``expected``, which is
    asked for here if it is not given.
    """
    if location == STDIN:
        yield _buffered(sys.stdin.buffer, "standard input")
        return
    expected = expected or stat(location)
    check: Callable[[], None] = lambda: None  # noqa: E731
    with transport(location):
        if protocol(location) is None:
            raw: Any = open(location, "rb", buffering=0)  # noqa: SIM115  # closed below
            check = partial(_check_unchanged, raw.fileno(), os.fstat(raw.fileno()))
        else:
            raw = (open_http if protocol(location) in ("http", "https") else open_object)(location, expected)
    try:
        yield _buffered(raw, location, expected.size, check)
    finally:
        with suppress(Exception):
            raw.close()


def _buffered(
    raw: Any, location: str, size: int | None = None, check: Callable[[], None] = lambda: None
) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Checked(raw, location, size, check), READ_BUFFER))


def _check_unchanged(descriptor: int, before: os.stat_result) -> None:
    now = os.fstat(descriptor)
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise OSError("was written to while it was read")


class _Checked(io.RawIOBase):
    """Turns every transport error, and an end that comes too early, into ReadError; ``check`` is asked at the end."""

    def __init__(self, raw: Any, location: str, size: int | None, check: Callable[[], None]) -> None:
        self._raw = raw
        self._location = location
        self._size = size
        self._check = check
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with transport(self._location):
            got = int(self._raw.readinto(buffer) or 0)
            if not got:
                self._check()
        self._position += got
        if not got and self._size is not None and self._position != self._size:
            raise ReadError(f"{shown(self._location)}: ended after {self._position} of {self._size} bytes")
        return got


# --- committing ------------------------------------------------------------------------------

StoredPath: TypeAlias = "Path | ObjectPath"
"""A file of an output folder: on a local or network file system, or in an object store."""


def stored_path(location: str | StoredPath) -> StoredPath:
    """Where an output folder is to lie. Raises OutputError where commits are not possible."""
    scheme = protocol(location) if isinstance(location, str) else None
    if not isinstance(location, str):
        return location
    if scheme is None:
        return Path(location)
    if scheme not in objects.PROTOCOLS:
        known = ", ".join(f"{name}://" for name in objects.PROTOCOLS)
        raise OutputError(
            f"{shown(location)}: the output has to be a local or network folder, or an object store ({known}); "
            "write to a local folder, and copy it there when it is done"
        )
    return ObjectPath(location.rstrip("/"))


def put_if_absent(temporary: Path, final: StoredPath) -> bool:
    """Give the finished ``temporary`` its final name, unless that is taken: then False, and nothing changed.

    ``temporary`` must have been flushed to the disk (fsync) and keeps its own name, for its owner
    to remove. False does not mean that other bytes are there: an answer may have got lost.
    """
    if isinstance(final, ObjectPath):
        return final.put_if_absent(temporary)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(temporary, final)
    except FileExistsError:
        # A network file system that lost its answer asks again, and meets the link that it made itself.
        if not final.exists() or not os.path.samefile(
            temporary, final
        ):  # a link to nowhere takes a name, too
            return False
    sync_folder(final.parent)
    return True


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(temporary: Path, final: StoredPath) -> None:
    """Atomically put ``temporary`` (flushed) in the place of ``final``. For derived files only."""
    if isinstance(final, ObjectPath):
        final.replace(temporary)
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temporary, final)
    sync_folder(final.parent)


def replace_file(data: bytes, final: Path) -> None:
    """Atomically put ``data`` in the place of ``final``, wherever that is: a temporary stands beside it meanwhile."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        write_synced(temporary, data)
        replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a new name outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot, and need not
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Raise OutputError where this user cannot make files in ``folder``, unless it is not there yet."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is no folder; remove it, or use another output folder")
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise OutputError(
            f"{folder} cannot be written to by user {os.geteuid()} (its owner is {folder.stat().st_uid}, "
            f"its mode {folder.stat().st_mode & 0o7777:o}); change that, or use another output folder"
        )


def probe(folder: Path, token: str) -> None:
    """Raise OutputError unless ``folder`` can be written to and honours put-if-absent."""
    first, second, final = (folder / f"{token}.probe{suffix}" for suffix in ("1", "2", ""))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_synced(first, b"first")
        write_synced(second, b"second")
        if not put_if_absent(first, final) or put_if_absent(second, final):
            raise OutputError(f"{folder}: this file system does not refuse to overwrite a link")
    except OSError as error:
        raise OutputError(
            f"{folder}: {error.strerror}; the output has to be a folder that can be written to, "
            "on a file system with hard links"
        ) from error
    finally:
        for path in (first, second, final):
            with suppress(OSError):
                path.unlink()
