"""A server on loopback that stands before a store's, and spoils those answers that it is told to."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TypeAlias
from urllib.parse import urlsplit

from tests.flaky import body_of, on_loopback

NO_ANSWER = 0
_OF_A_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer; nothing does where nothing is said.

    It is an error's of this ``status`` with this ``page`` and ``retry_after`` (or the connection is closed,
    with NO_ANSWER), ``carried_out`` or not. Its body breaks off after ``cut`` bytes. It tells a length that is
    ``longer`` than its body; with less than 0 as much of the body's end is missing, too. ``stall`` seconds pass
    before it.
    ``meanwhile`` is called when the store has answered, and before anybody hears of it.
    """

    status: int = 200
    page: bytes = b""
    retry_after: str = ""
    carried_out: bool = False
    cut: int | None = None
    longer: int = 0
    stall: float = 0.0
    meanwhile: Callable[[], None] = lambda: None


@dataclass
class Proxy:
    """Lets everything through to ``upstream``, an address; ``url`` is its own.

    ``name_of`` a method and path (with its query) is a name, and each request of that name takes the next of
    its ``faults``; None for what is let through. ``always`` is what every request gets while it is there.
    """

    upstream: str
    url: str = ""
    name_of: Callable[[str, str], str | None] = lambda method, path: None
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: Fault | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of all requests so far."""

    def fault(self, method: str, path: str) -> Fault:
        self.requests.append((method, path))
        waiting = self.faults.get(self.name_of(method, path) or "")
        return self.always or (waiting.pop(0) if waiting else Fault())


Answer: TypeAlias = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body."""


class Forwarder(BaseHTTPRequestHandler):
    """Asks the store, and answers as it does where nothing is to go wrong."""

    told: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def _any(self) -> None:
        body = body_of(self)
        fault = self.told.fault(self.command, self.path)
        refused = fault.status != 200
        status, headers, data = fault.status, [("Content-Type", "text/plain")], fault.page
        headers += [("Retry-After", fault.retry_after)] if fault.retry_after else []
        if not refused or fault.carried_out:
            answer = self.ask(body)
            status, headers, data = (status, headers, data) if refused else answer
            fault.meanwhile()
        time.sleep(fault.stall)
        if status == NO_ANSWER:
            self.close_connection = True
            return
        self._answer(status, headers, data, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = _any

    def ask(self, body: bytes) -> Answer:
        """The store's own answer; of one to HEAD the length is among the headers."""
        connection = http.client.HTTPConnection(urlsplit(self.told.upstream).netloc, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "expect"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _OF_A_CONNECTION]
            if self.command == "HEAD" and (length := answer.headers["Content-Length"]):
                headers.append(("Content-Length", length))
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, fault: Fault) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            data = data[: len(data) + min(fault.longer, 0)]
            self.send_header("Content-Length", str(len(data) + max(fault.longer, 0)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: fault.cut])
        if fault.cut is not None or fault.longer > 0:
            self.close_connection = True


@contextmanager
def proxied(upstream: str, forwarder: type[Forwarder] = Forwarder) -> Iterator[Proxy]:
    """A proxy before the server at ``upstream``, such as ``http://127.0.0.1:8000``."""
    proxy = Proxy(upstream)
    with on_loopback(type("Handler", (forwarder,), {"told": proxy})) as proxy.url:
        yield proxy
