"""A web server behind a slow line: every answer begins after 20 ms, and all of them share 30 MB/s.

python -m benchmarks.link FOLDER        # prints its address, and ends with its input
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LATENCY = 0.020
RATE = 30e6  # bytes a second
_PIECE = 64 << 10


class Line:
    """Tells each of those who send when the line has room for its bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0.0

    def wait(self, count: int) -> None:
        with self._lock:
            self._free = max(self._free, time.monotonic()) + count / RATE
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


class Handler(SimpleHTTPRequestHandler):
    """Whole files only."""

    line = Line()
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # who looks at the first samples only reads no further
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def send_head(self) -> Any:
        time.sleep(LATENCY)
        return super().send_head()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        while data := source.read(_PIECE):
            self.line.wait(len(data))
            outputfile.write(data)


@contextmanager
def serving(module: str, argument: str) -> Iterator[str]:
    """The address of a server, which is a process of its own: ``python -m MODULE ARGUMENT``."""
    command = [sys.executable, "-m", module, argument]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=sys.argv[1]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()
