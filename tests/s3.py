"""An S3 server on loopback for tests: moto's, one for the session, which answers one writing request at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from wdsfilter import retry

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "hush-hush",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Gate:
    """Stands before moto: makes its writes atomic, as a store's are, and fails where it is told to.

    ``requests`` are all methods and paths so far, ``sent`` the bytes of answers to GET; ``deaf`` drops
    conditions, as some stores do; ``lost`` writes are carried out and answered with an error; ``failing``
    requests are not carried out, nor those whose path has ``closed`` in it.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        self.deaf = False
        self.lost = 0
        self.failing = 0
        self.closed = ""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if self.deaf:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if self.failing or (self.closed and self.closed in path):
            self.failing = max(self.failing - 1, 0)
            start_response("503 Slow Down", [("Content-Length", "0")])
            return []
        if method not in ("PUT", "POST", "DELETE"):
            answer = list(self._application(environ, start_response))
            self.sent += sum(map(len, answer)) if method == "GET" else 0
            return answer
        with self._lock:
            answer = list(self._application(environ, start_response if not self.lost else lambda *_: None))
        if self.lost:
            self.lost -= 1
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []
        return answer


@contextmanager
def s3_server() -> Iterator[tuple[str, Gate]]:
    """Its address, and the gate before it."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto.moto_server.werkzeug_app", reason="moto's server is not installed")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            """Nothing."""

    gate = Gate(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, gate, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", gate
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def speak_to(address: str, patch: pytest.MonkeyPatch) -> None:
    """Have this process and its children use that server, without pauses between tries."""
    import s3fs

    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": address}.items():
        patch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # those that were made without these
    patch.setattr(retry, "FIRST_PAUSE", 0.0)


def new_bucket() -> str:
    """``s3://NAME`` of an empty bucket."""
    import s3fs

    name = f"test-{uuid4().hex}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"
