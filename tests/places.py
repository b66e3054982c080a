"""Kinds of stores on loopback, each with a folder of shards behind a proxy that can spoil every answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec
import pytest

from tests.emulators import azurite, fake_gcs
from tests.flaky import FlakyServer, serving
from tests.hub import hub_server, speak_to_hub
from tests.proxy import Fault, Proxy, proxied
from tests.s3 import Gate, new_bucket, speak_to

WRITING = "writing"
"""The name of all requests that write into a folder ``out``."""


@dataclass(frozen=True)
class Place:
    """Where shards lie (``shards`` is the URL of their folder), and ``put`` them there by name.

    ``proxy`` takes faults by a shard's name, for requests for its bytes. ``output`` is where a run may write
    to (a local path for stores that cannot be written to), ``expired`` what the store says to old credentials.
    """

    shards: str
    output: str
    put: Callable[[str, bytes], None]
    proxy: Proxy
    expired: Fault

    @property
    def can_be_written(self) -> bool:
        return "://" in self.output


Maker = Callable[[Path, pytest.MonkeyPatch, pytest.FixtureRequest], AbstractContextManager[Place]]


@contextmanager
def s3_place(folder: Path, patch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Place]:
    found: tuple[str, Gate] = request.getfixturevalue("s3_address")
    with proxied(found[0]) as proxy:
        speak_to(proxy.url, patch)
        page = b"<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message><Token>hush</Token></Error>"
        yield _bucket(new_bucket(), proxy, r"GET /[\w-]+/in/([^?]+)", Fault(400, page))


@contextmanager
def http_place(folder: Path, patch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Place]:
    fsspec.get_filesystem_class("http").clear_instance_cache()
    with serving(FlakyServer({})) as server, proxied(server.url) as proxy:
        proxy.name_of = by_pattern(r"GET /([^?]+)")
        expired = Fault(403, b"Signature hush expired")
        yield Place(f"{proxy.url}/", str(folder / "out"), server.files.__setitem__, proxy, expired)
    fsspec.get_filesystem_class("http").clear_instance_cache()


@contextmanager
def hub_place(folder: Path, patch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Place]:
    names: dict[str, str] = {}
    with hub_server() as hub, proxied(hub.url) as proxy:
        hub.url = proxy.url
        speak_to_hub(hub, patch)

        def put(name: str, data: bytes) -> None:
            names[hashlib.sha256(data).hexdigest()] = name
            hub.commit("somebody/pictures", {f"in/{name}": data})

        def name_of(method: str, path: str) -> str | None:
            found = re.fullmatch(r"GET /cdn/(\w+)\?.*", f"{method} {path}")
            return names.get(found[1]) if found else None

        proxy.name_of = name_of
        expired = Fault(401, b'{"error": "Invalid token hf_hushhushhush"}')
        yield Place("hf://datasets/somebody/pictures/in/", str(folder / "out"), put, proxy, expired)


@contextmanager
def azure_place(folder: Path, patch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Place]:
    with azurite(folder / "azurite") as variables:
        known = variables["AZURE_STORAGE_CONNECTION_STRING"]
        address = re.findall(r"http://127\.0\.0\.1:\d+", known)[0]
        with proxied(address) as proxy:
            patch.setenv("AZURE_STORAGE_CONNECTION_STRING", known.replace(address, proxy.url))
            fsspec.get_filesystem_class("az").clear_instance_cache()
            fsspec.filesystem("az", skip_instance_cache=True).mkdir("bucket")
            old = b"<Code>AuthenticationFailed</Code><Message>https://a.blob.net/c?sig=hush is too old</Message>"
            page = b"<Error>" + old + b"</Error>"
            yield _bucket("az://bucket", proxy, r"GET /\w+/bucket/in/([^?]+)", Fault(403, page))
    fsspec.get_filesystem_class("az").clear_instance_cache()


@contextmanager
def gcs_place(folder: Path, patch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Place]:
    with fake_gcs(folder / "gcs") as variables, proxied(variables["STORAGE_EMULATOR_HOST"]) as proxy:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        fsspec.get_filesystem_class("gs").clear_instance_cache()
        fsspec.filesystem("gs", skip_instance_cache=True).mkdir("bucket")
        page = b'{"error": {"code": 401, "message": "Invalid Credentials: Bearer ya29.hush"}}'
        found = _bucket("gs://bucket", proxy, r"GET .*/in(?:%2F|/)([^?]+)\?.*alt=media.*", Fault(401, page))
        yield replace(found, output=str(folder / "out"))  # this server forgets conditions
    fsspec.get_filesystem_class("gs").clear_instance_cache()


@contextmanager
def sftp_place(folder: Path, patch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Place]:
    pytest.importorskip("paramiko", reason="the extra sftp is not installed")
    from tests.sftp import PASSWORD, USER, sftp_server

    there = folder / "there/in"
    there.mkdir(parents=True)
    told = Proxy("", name_of=by_pattern(r"OPEN /in/(.*)"))
    with sftp_server(folder / "there", told.fault) as host:
        patch.setitem(fsspec.config.conf, "sftp", {"username": USER, "password": PASSWORD})

        def put(name: str, data: bytes) -> None:
            (there / name).write_bytes(data)

        yield Place(f"sftp://{host}/in/", str(folder / "out"), put, told, Fault(401))
    fsspec.get_filesystem_class("sftp").clear_instance_cache()


def _bucket(url: str, proxy: Proxy, data: str, expired: Fault) -> Place:
    store, root = fsspec.core.url_to_fs(f"{url}/in")
    reading = by_pattern(data)

    def name_of(method: str, path: str) -> str | None:
        writes = method in ("PUT", "POST", "DELETE") and re.search(r"\bout(%2F|/)", path)
        return WRITING if writes else reading(method, path)

    proxy.name_of = name_of
    return Place(
        f"{url}/in/", f"{url}/out", lambda name, data: store.pipe_file(f"{root}/{name}", data), proxy, expired
    )


def by_pattern(pattern: str) -> Callable[[str, str], str | None]:
    """Names a method and path by the first group of ``pattern``, which knows both."""

    def name_of(method: str, path: str) -> str | None:
        found = re.match(pattern, f"{method} {path}")
        return found[1] if found else None

    return name_of


PLACES: dict[str, Maker] = {
    "s3": s3_place,
    "http": http_place,
    "hub": hub_place,
    "azure": azure_place,
    "gcs": gcs_place,
    "sftp": sftp_place,
}
