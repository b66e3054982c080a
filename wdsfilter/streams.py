"""A remote object's bytes from the first to the last, however often the connection breaks.

A break is made up for at the byte where it came. That is safe only where the object can be told
from another one of the same name, by an entity tag; without one, a break after the first byte is
an error, and whoever reads has to begin again. What begins as one object never ends as another.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wdsfilter import retry
from wdsfilter.background import Later
from wdsfilter.readahead import ReadAhead
from wdsfilter.remote import filesystem, forget, within
from wdsfilter.retry import persist


@dataclass(frozen=True, slots=True)
class Stat:
    """Size (bytes) and entity tag of a stored object; None where the store does not tell."""

    size: int | None
    etag: str | None = None


def stat_of(info: Mapping[str, Any]) -> Stat:
    """What fsspec's file systems tell of an object, each under a name of its own."""
    etag = info.get("ETag") or info.get("etag") or info.get("blob_id")
    return Stat(info.get("size"), str(etag).strip('"') if etag else None)


def fresh_info(filesystem: Any, path: str) -> Mapping[str, Any]:
    """What a file system tells of an object now."""
    filesystem.invalidate_cache(path)
    # The hub's goes by its listings otherwise, and leaves out the hash.
    again = {"refresh": True, "expand_info": True} if "hf" in filesystem.protocol else {}
    found: Mapping[str, Any] = filesystem.info(path, **again)
    return found


def changed(then: Stat, now: Stat) -> str | None:
    """What tells that an object is another one now, as a phrase that goes on with *when ...*; None for nothing."""
    if None not in (then.size, now.size) and then.size != now.size:
        return f"has {now.size} bytes, and had {then.size}"
    if None not in (then.etag, now.etag) and then.etag != now.etag:
        return f"has the entity tag {now.etag}, and had {then.etag}"
    return None


class Changed(ValueError):
    """The object is another one than it was when reading it began."""

    def __init__(self, how: str) -> None:
        super().__init__(f"{how} when reading began")


class ResumedStream(io.RawIOBase):
    """Reads ``connect(position)``, and connects again where that breaks; ``expected`` is the object's Stat.

    ``connect`` gives a raw stream from that byte on, and raises Changed where it would be another
    object's. ``check`` is called at the end and may raise Changed too; ``forget`` after a break.
    """

    def __init__(
        self,
        connect: Callable[[int], Any],
        expected: Stat,
        check: Callable[[], None] = lambda: None,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._size = expected.size
        self._resumable = is_strong(expected.etag)
        self._check = check
        self._forget = forget
        self._position = 0
        self._failures = 0
        self._raw: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                if self._raw is None:
                    self._raw = self._connect(self._position)
                got = int(self._raw.readinto(buffer) or 0)
                if not got and self._size is not None and self._position != self._size:
                    raise EOFError(f"ended after {self._position} of {self._size} bytes")
                if not got:
                    self._check()
                self._position += got
                self._failures = 0
                return got
            except Exception as error:
                self._disconnect()
                self._failures += 1
                hopeless = self._failures >= retry.ATTEMPTS or not retry.may_pass(error)
                if hopeless or (self._position and not self._resumable):
                    raise
                self._forget()
                retry.pause(self._failures, error)

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _disconnect(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            with suppress(Exception):
                raw.close()


def is_strong(etag: str | None) -> bool:
    """Whether equal entity tags mean equal bytes (RFC 9110, 8.8.1)."""
    return etag is not None and not etag.startswith("W/")


def open_object(location: str, expected: Stat) -> io.RawIOBase:
    """An object of any fsspec file system; its entity tag is looked at before a resume and at the end.

    It is read ahead, by several requests at once, where the store takes any range at any time.
    """
    from fsspec.spec import AbstractBufferedFile

    def check() -> None:
        now = within(lambda: stat_of(fresh_info(*filesystem(location))))
        if how := changed(expected, now):
            raise Changed(how)

    def connect(position: int) -> Any:
        if not position and opened:
            return _Timed(opened.pop())
        if position:
            check()
        return _Timed(within(lambda: _opened(location, position)))

    opened = [persist(lambda: within(lambda: _opened(location)), lambda: forget(location))]
    if isinstance(opened[0], AbstractBufferedFile) and expected.size is not None:
        return ReadAhead(opened[0], expected.size, lambda: persist(check))
    return ResumedStream(connect, expected, lambda: persist(check), lambda: forget(location))


def _opened(location: str, position: int = 0) -> Any:
    store, path = filesystem(location)
    file = store.open(path, "rb", cache_type="none")
    if position:
        file.seek(position)
    return file


class _Timed(io.RawIOBase):
    """A file whose silence is an error."""

    def __init__(self, file: Any) -> None:
        self._file = file
        if hasattr(file, "prefetch"):  # paramiko's, which otherwise asks for 32 kB after 32 kB
            within(file.prefetch)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = within(lambda: self._file.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            Later(self._file.close, "close")  # nobody waits for a store that hangs
        super().close()


def open_http(location: str, expected: Stat) -> ResumedStream:
    """An object behind HTTP: one request, and one more for what is missing after a break (RFC 9110, 13.1.5)."""

    def connect(position: int) -> Any:
        headers = {"Accept-Encoding": "identity"}
        if position:
            headers |= {"Range": f"bytes={position}-", "If-Range": f'"{expected.etag}"'}
        # block_size=0 streams one response; a size keeps fsspec from asking for it once more.
        store, url = filesystem(location)
        file = store.open(url, "rb", block_size=0, size=1, headers=headers)
        try:
            _skip(file, position - _begin(file.r, expected))
        except BaseException:
            file.close()
            raise
        return file

    return ResumedStream(connect, expected)


def _begin(response: Any, expected: Stat) -> int:
    """The byte that a response begins with. Raises Changed where it is another object's."""
    headers = response.headers
    begin, size = 0, headers.get("Content-Length")
    if response.status == 206:
        span, _, size = headers["Content-Range"].removeprefix("bytes ").partition("/")
        begin = int(span.partition("-")[0])
    now = stat_of({"ETag": headers.get("ETag"), "size": int(size) if size and size.isdigit() else None})
    if how := changed(expected, now):
        raise Changed(how)
    return begin


def _skip(file: Any, count: int) -> None:
    """Read past so many bytes: of a server that gives no part of an object, only all of it."""
    while count > 0:
        got = len(file.read(min(count, 1 << 20)))
        if not got:
            raise EOFError(f"ended {count} bytes before the place where it broke")
        count -= got
