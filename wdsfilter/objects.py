"""Objects of a store that can be committed to, as paths: a run's folder there is read and written like a local one.

What makes a commit is the store's own condition (``If-None-Match: *`` and its like), on a whole object as
on the completion of one in parts: an object is there in full or not at all, and the first one stays.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

from wdsfilter import remote, retry
from wdsfilter.errors import OutputError, StoreError
from wdsfilter.locations import protocol, shown

T = TypeVar("T")

PROTOCOLS = ("s3", "gs", "az")
"""Stores whose conditions fsspec can ask for."""

_PART = 16 << 20  # bytes; what is larger than two of them goes up in parts
_PARTS_AT_ONCE = 2
_RESUMABLE = 5 << 20  # bytes from which on gcsfs uploads in parts
_UPLOAD = 3600.0  # seconds for all of an object; each of its requests has its own time-out
_BUFFER = 256 << 10
_NO_CONDITION = frozenset({400, 405, 501})


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What :meth:`ObjectPath.stat` tells; the size in bytes."""

    st_size: int


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """A name in a store, with those of :class:`pathlib.Path`'s methods that an output folder needs.

    Raises FileNotFoundError as Path's methods do, and StoreError where the store cannot be asked.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def relative_to(self, root: ObjectPath) -> PurePosixPath:
        return PurePosixPath(self.url.removeprefix(f"{root.url.rstrip('/')}/"))

    def exists(self) -> bool:
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def stat(self) -> ObjectStat:
        return ObjectStat(self._asked(_size))

    def read_bytes(self) -> bytes:
        return self._asked(lambda store, path: bytes(store.cat_file(path)))

    def read_text(self, encoding: str, errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def open(self, mode: str = "rb") -> BinaryIO:
        """To read, from anywhere in it; in memory is what was asked for last."""
        assert mode == "rb", "objects are written whole"
        return cast(BinaryIO, io.BufferedReader(_Object(self, self.stat().st_size), _BUFFER))

    def read_range(self, start: int, end: int) -> bytes:
        return self._asked(lambda store, path: remote.read_range(store, path, start, end))

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """Objects below this name, in any folder, whose own name matches; sorted."""

        def find(store: Any, path: str) -> list[str]:
            return remote.urls(self.url, store, path, store.find(path))

        for url in self._asked(find, remote.LISTING):
            found = ObjectPath(url)
            if fnmatch(found.name, pattern):
                yield found

    def sizes(self) -> dict[str, int]:
        """Sizes of all objects below this name, in any folder, by their URLs."""

        def find(store: Any, path: str) -> dict[str, int]:
            found = store.find(path, detail=True)
            urls = remote.urls(self.url, store, path, found)
            return dict(zip(urls, (int(found[name]["size"]) for name in sorted(found)), strict=True))

        return self._asked(find, remote.LISTING)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._asked(lambda store, path: store.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def put_if_absent(self, file: Path) -> bool:
        """Upload ``file`` to this name, unless that is taken: then False, and nothing changed.

        A store that did it and could not say so is asked again, and says that the name is taken: False
        does not mean that the bytes there are another's.
        """
        try:
            self._upload(file, mode="create")
        except FileExistsError:
            return False
        return True

    def replace(self, file: Path) -> None:
        """Upload ``file`` in the place of what is there."""
        self._upload(file, mode="overwrite")

    def _upload(self, file: Path, mode: str) -> None:
        options = {"chunksize": _PART, "max_concurrency": _PARTS_AT_ONCE} if self._is_s3 else {}
        self._asked(lambda store, path: store.put_file(str(file), path, mode=mode, **options), _UPLOAD)

    def probe(self, first: Path, second: Path) -> None:
        """Raise OutputError unless objects can be written here, and the first one of a name stays."""
        try:
            self.put_if_absent(
                first
            )  # a fresh name: it may say that it is taken where its first answer got lost
            honoured = not self.put_if_absent(second) and self.read_bytes() == first.read_bytes()
            honoured = honoured and not (self._is_s3 and self._asked(_completes_over))
            if honoured and protocol(self.url) == "gs":
                os.truncate(second, _RESUMABLE)
                honoured = not self.put_if_absent(second)
        except StoreError as error:
            if retry.status_of(error) not in _NO_CONDITION:
                raise StoreError(f"{error}; the output cannot be written") from error
            honoured = False
        finally:
            with suppress(OSError):
                self.unlink(missing_ok=True)
        if not honoured:
            raise OutputError(
                f"{self}: this store does not refuse to overwrite an object (If-None-Match), so that processes could "
                "undo each other's work; write to a local folder, and copy it there when it is done"
            )

    @property
    def _is_s3(self) -> bool:
        return protocol(self.url) == "s3"

    def _asked(self, request: Callable[[Any, str], T], timeout: float | None = None) -> T:
        def once() -> T:
            try:
                return remote.within(lambda: request(*remote.filesystem(self.url)), timeout)
            except OSError as error:
                if not isinstance(error, FileExistsError) and retry.status_of(error) == 412:
                    raise FileExistsError(errno.EEXIST, "the name is taken", str(self)) from error
                raise

        try:
            return retry.persist(once)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # every store has exceptions of its own
            raise StoreError(f"{shown(self.url)}: {remote.reason(error)}") from error


def _size(store: Any, path: str) -> int:
    """An object's size. Raises FileNotFoundError, of S3 without listing what else might be meant by that name."""
    if "s3" not in store.protocol:
        return int(store.info(path)["size"])
    bucket, key, _ = store.split_path(path)
    return int(store.call_s3("head_object", Bucket=bucket, Key=key)["ContentLength"])


def _completes_over(store: Any, path: str) -> bool:
    """Whether the completion of an object in parts overwrites the one that is there, although told not to."""
    bucket, key, _ = store.split_path(path)
    name = {"Bucket": bucket, "Key": key}
    upload = {**name, "UploadId": store.call_s3("create_multipart_upload", **name)["UploadId"]}
    try:
        part = store.call_s3("upload_part", **upload, PartNumber=1, Body=b"in parts")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        store.call_s3("complete_multipart_upload", **upload, MultipartUpload=parts, IfNoneMatch="*")
    except OSError as error:
        if not isinstance(error, FileExistsError) and retry.status_of(error) != 412:
            raise
        with suppress(OSError):  # it may be gone already, where an answer got lost
            store.call_s3("abort_multipart_upload", **upload)
        return False
    return True


class _Object(io.RawIOBase):
    """An object's bytes, asked for as they are read."""

    def __init__(self, path: ObjectPath, size: int) -> None:
        self._path = path
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        data = self._path.read_range(self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
