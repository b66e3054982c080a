"""An S3 server that holds nothing but names: so many shards in ``s3://bucket/full/``, a thousand on each page.

moto sorts all of them for each page, and would be all that is measured.

python -m benchmarks.crowded COUNT      # prints its address, and ends with its input
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = 1000
_FOLDER = "full/"


class Handler(BaseHTTPRequestHandler):
    """Listings of version 2; nothing else is there."""

    count = 0
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        first = int(query.get("continuation-token", 0))
        wanted = self.count if _FOLDER.startswith(query.get("prefix", "")) else 0
        last = min(first + int(query.get("max-keys", PAGE)), wanted)
        contents = "".join(
            f"<Contents><Key>{_FOLDER}cc12m-train-{number:06d}.tar</Key><Size>1</Size><ETag>x</ETag></Contents>"
            for number in range(first, last)
        )
        more = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < wanted else ""
        cut = f"<IsTruncated>{str(last < wanted).lower()}</IsTruncated>"
        self._say(200, f"<ListBucketResult>{cut}{more}{contents}</ListBucketResult>".encode())

    def do_HEAD(self) -> None:
        self._say(404, b"")

    def _say(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    Handler.count = int(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()
