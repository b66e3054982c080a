"""A gate before fake-gcs-server, which forgets the condition of what is uploaded in parts: Google's store keeps it.

The condition is looked at when the last part comes, one request at a time (Cloud Storage, "Request preconditions").
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from tests.emulators import fake_gcs
from tests.proxy import Answer, Forwarder, proxied

_CONDITION_NOT_MET = b'{"error": {"code": 412, "message": "conditionNotMet"}}'


@contextmanager
def conditional_gcs(folder: Path) -> Iterator[Mapping[str, str]]:
    """Google's store; the environment in which a process speaks to it."""
    one_at_a_time = threading.Lock()
    absent: dict[str, tuple[str, str]] = {}  # upload -> bucket and name that must not be there

    class Gate(Forwarder):
        def ask(self, body: bytes) -> Answer:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            upload = query.get("upload_id", "")
            with one_at_a_time:
                if upload in absent and self._is_last_part() and self._is_there(*absent[upload]):
                    return 412, [("Content-Type", "application/json")], _CONDITION_NOT_MET
                status, headers, data = super().ask(body)
            named = {name.lower(): value for name, value in headers}
            if query.get("uploadType") == "resumable" and "location" in named:
                begun = parse_qs(urlsplit(named["location"]).query)["upload_id"][0]
                if query.get("ifGenerationMatch") == "0":
                    absent[begun] = urlsplit(self.path).path.split("/")[-2], query["name"]
                here = named["location"].replace(self.told.upstream, self.told.url)
                headers = [(k, v) for k, v in headers if k.lower() != "location"] + [("Location", here)]
            return status, headers, data

        def _is_last_part(self) -> bool:
            return self.headers.get("Content-Range", "/*").rpartition("/")[2] != "*"

        def _is_there(self, bucket: str, name: str) -> bool:
            connection = http.client.HTTPConnection(urlsplit(self.told.upstream).netloc, timeout=60)
            with closing(connection):
                connection.request("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}")
                return connection.getresponse().status == 200

    with fake_gcs(folder) as variables, proxied(variables["STORAGE_EMULATOR_HOST"], Gate) as proxy:
        yield {**variables, "STORAGE_EMULATOR_HOST": proxy.url}
