"""A web server on loopback that fails as it is told to: cuts, hides lengths, is slow, turns away, changes objects."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal


@dataclass
class Fault:
    """What goes wrong with one GET: an error ``status``, or a body that breaks off after ``cut`` bytes.

    ``stall`` seconds pass before the break. ``becomes`` is what the object is from then on.
    """

    status: int = 200
    cut: int | None = None
    stall: float = 0.0
    retry_after: str = ""
    becomes: bytes | None = None


@dataclass
class FlakyServer:
    """Serves ``files``; each GET of one takes the next of its ``faults``, and none when they are used up.

    ``length`` says how a body's end is told: by its announced length, by chunks, or by closing.
    """

    files: dict[str, bytes]
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    length: Literal["announced", "chunked", "none"] = "announced"
    ranges: bool = True
    etags: bool = True
    head: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and ``Range`` of all requests so far."""
    url: str = ""


@contextmanager
def serving(server: FlakyServer) -> Iterator[FlakyServer]:
    """``server`` at its ``url``, which ends in ``/``."""

    class Handler(_Handler):
        told = server

    with on_loopback(Handler) as url:
        server.url = f"{url}/"
        yield server


@contextmanager
def on_loopback(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server, whose requests ``handler`` answers, each in a thread of its own."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    """What came with a request, in one piece or in chunks."""
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    found = b""
    while size := int(request.rfile.readline(), 16):
        found += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return found


class _Handler(BaseHTTPRequestHandler):
    told: FlakyServer
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # nobody waits for the end of an answer that broke off
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.told.requests.append(("HEAD", ""))
        data = self.told.files.get(self.path[1:].partition("?")[0])
        if data is None or not self.told.head:
            self._refuse(404 if data is None else 405)
            return
        self.send_response(200)
        self._describe(data)
        if self.told.length == "announced":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.told.requests.append(("GET", asked))
        name = self.path[1:].partition("?")[0]
        data = self.told.files.get(name)
        waiting = self.told.faults.get(name)
        fault = waiting.pop(0) if waiting else Fault()
        if data is None or fault.status != 200:
            self._refuse(404 if data is None else fault.status, fault.retry_after)
            return
        if fault.becomes is not None:
            self.told.files[name] = fault.becomes
        self._answer(data, asked, fault)

    def _answer(self, data: bytes, asked: str, fault: Fault) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        same = self.headers.get("If-Range") in (None, _etag(data))
        begin, end = 0, len(data)
        if span and same and self.told.ranges:
            begin, end = int(span[1]), min(len(data), int(span[2] or len(data)) + bool(span[2]))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        else:
            self.send_response(200)
        self._describe(data)
        body = data[begin:end]
        chunked = self.told.length == "chunked"
        if self.told.length == "announced":
            self.send_header("Content-Length", str(len(body)))
        elif chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = body if fault.cut is None else body[: fault.cut]
        if chunked:
            self.wfile.write(b"%x\r\n" % len(sent) + sent + b"\r\n" if sent else b"")
        else:
            self.wfile.write(sent)
        self.wfile.flush()
        if fault.stall:
            time.sleep(fault.stall)
        if chunked and len(sent) == len(body):
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def _describe(self, data: bytes) -> None:
        if self.told.etags:
            self.send_header("ETag", _etag(data))
        self.send_header("Connection", "close")

    def _refuse(self, status: int, retry_after: str = "") -> None:
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
