"""Asking a store through fsspec: with time-outs, again while a failure may pass, its errors in one line.

Credentials are found by each store's own library, in its own places; nothing of them goes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from wdsfilter.background import Later
from wdsfilter.errors import InputError, MissingExtra, ReadError, WdsfilterError
from wdsfilter.locations import protocol, shown, without_secrets
from wdsfilter.own_retries import hub_range, without_retries
from wdsfilter.retry import cause, persist, status_of

T = TypeVar("T")

SILENCE = 60.0
"""Seconds after which a store that says nothing is given up."""
LISTING = 900.0
"""Seconds that a listing may take, which is made of many requests."""

_EXTRA_OF_PROTOCOL = {
    "http": "http",
    "https": "http",
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "sftp": "sftp",
    "ssh": "sftp",
}


def filesystem(location: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it. Raises MissingExtra, InputError."""
    import fsspec

    scheme = protocol(location) or ""
    try:
        # What fsspec's own configuration says of a protocol comes before what is said here.
        options = {**_options(scheme), **fsspec.config.conf.get(scheme, {})}
        found, path = fsspec.core.url_to_fs(location, **options)
    except ImportError as error:
        if scheme in _EXTRA_OF_PROTOCOL:
            raise MissingExtra(f"{scheme}://", _EXTRA_OF_PROTOCOL[scheme]) from error
        raise InputError(f"{shown(location)}: {without_secrets(str(error))}") from error
    except ValueError as error:
        raise InputError(f"{shown(location)}: {without_secrets(str(error))}") from error
    return without_retries(found), path


def _options(scheme: str) -> dict[str, Any]:
    """No listing is remembered, for others write too; and retries are this package's, for all stores alike."""
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(None, sock_connect=SILENCE, sock_read=SILENCE)
        return {"client_kwargs": {"timeout": timeout}}
    if scheme in ("s3", "s3a"):
        config = {"connect_timeout": 15, "read_timeout": SILENCE, "retries": {"total_max_attempts": 1}}
        return {"config_kwargs": config, "use_listings_cache": False}
    if scheme in ("sftp", "ssh"):
        return {"timeout": SILENCE, "banner_timeout": SILENCE, "auth_timeout": SILENCE}
    if scheme in _EXTRA_OF_PROTOCOL:
        return {"use_listings_cache": False}
    return {}


def asked(location: str, request: Callable[[Any, str], T], *, timeout: float | None = None) -> T:
    """What ``request(file system, path)`` gives. Raises ReadError, MissingExtra, InputError."""
    with transport(location):
        return persist(
            lambda: within(lambda: request(*filesystem(location)), timeout), lambda: forget(location)
        )


def read_range(store: Any, path: str, start: int, end: int) -> bytes:
    """Bytes ``start`` to ``end`` of an object, or fewer where it ends before: one request, in one try."""
    if "hf" in store.protocol:
        return hub_range(store, path, start, end, SILENCE)
    return bytes(store.cat_file(path, start=start, end=end))


def urls(location: str, store: Any, path: str, names: Iterable[str]) -> list[str]:
    """URLs of what a store lists, sorted, spelled as ``location`` is, whose path in the store is ``path``.

    A file system knows neither which of its protocols it was asked by nor, some of them, which host it speaks to.
    """
    start, found = location.rstrip("/"), path.rstrip("/")
    if not start.endswith(found):
        return sorted(store.unstrip_protocol(name) for name in names)
    return sorted(f"{start.removesuffix(found)}{name}" for name in names)


def within(call: Callable[[], T], timeout: float | None = None) -> T:
    """What ``call`` gives, for which it has ``timeout`` seconds (:data:`SILENCE` by default). Raises TimeoutError."""
    return Later(call, "ask").result(SILENCE if timeout is None else timeout)


def forget(location: str) -> None:
    """Have the next request connect anew, where a store is spoken to over one lasting connection."""
    found, _ = filesystem(location)
    if not found.async_impl:
        type(found).clear_instance_cache()


@contextmanager
def transport(location: str) -> Iterator[None]:
    """Every error of a file system's comes out as ReadError, in one line and without secrets."""
    try:
        yield
    except WdsfilterError:
        raise
    except Exception as error:  # every file system of fsspec's has exceptions of its own
        raise ReadError(f"{shown(location)}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What went wrong, as a phrase that may be printed and stored."""
    what = cause(error)
    if isinstance(what, FileNotFoundError) or status_of(what) == 404:
        return "No such file or directory"
    said = what.strerror if isinstance(what, OSError) and what.strerror else str(what)
    return " ".join(without_secrets(said).split()) or type(what).__name__
