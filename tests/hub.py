"""A server on loopback that speaks the hub's protocol: listing, resolve with redirects and ranges, uploads, commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.flaky import Fault, body_of, on_loopback
from wdsfilter import retry

TOKEN = "hf_testingtestingtesting"
PAGE = 3  # entries of a listing


@dataclass
class HubServer:
    """Data sets as branches and commits; each request to a path takes the next of its ``faults``.

    Large files (``large`` bytes and more, and all tars) are known by their SHA-256 and lie behind a redirect.
    """

    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    large: int = 2000
    stored: dict[str, bytes] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and ``Range`` of all requests so far."""
    url: str = ""

    def files(self, repo: str, branch: str = "main") -> Mapping[str, bytes]:
        return self.commits[self.branches[repo, branch]]

    def commit(self, repo: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add files to a branch, which is made where it is not there; the commit."""
        old = self.commits.get(self.branches.get((repo, branch), ""), {})
        sha = hashlib.sha1(repr((repo, branch, len(self.commits))).encode()).hexdigest()
        self.commits[sha] = {**old, **files}
        self.branches[repo, branch] = sha
        self.private.setdefault(repo, False)
        return sha

    def is_large(self, path: str, data: bytes) -> bool:
        return len(data) >= self.large or path.endswith(".tar")

    def sent(self, start: str) -> list[str]:
        """Paths of the PUTs and POSTs so far that begin so."""
        return [path for method, path, _ in self.requests if method != "GET" and path.startswith(start)]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()

    class Handler(_Handler):
        hub = server

    with on_loopback(Handler) as server.url:
        yield server


def speak_to_hub(server: HubServer, patch: pytest.MonkeyPatch) -> None:
    """Have this process use that server, with a token, without the hub's own way for large files and without pauses."""
    from huggingface_hub import HfFileSystem, constants, file_download

    patch.setattr(constants, "ENDPOINT", server.url)
    for module in (constants, file_download):  # before 1.0 the second one has a copy
        name = "HUGGINGFACE_CO_URL_TEMPLATE"
        patch.setattr(
            module, name, f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}", raising=False
        )
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setenv("HF_TOKEN", TOKEN)
    patch.setattr(retry, "FIRST_PAUSE", 0.0)
    HfFileSystem.clear_instance_cache()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_HEAD(self) -> None:
        self._any("HEAD")

    def do_GET(self) -> None:
        self._any("GET")

    def do_PUT(self) -> None:
        self._any("PUT")

    def do_POST(self) -> None:
        self._any("POST")

    def _any(self, method: str) -> None:
        split = urlsplit(self.path)
        self._query = parse_qs(split.query)
        path = split.path
        body = body_of(self)
        self.hub.requests.append((method, unquote(path), self.headers.get("Range", "")))
        waiting = self.hub.faults.get(unquote(path))
        self._fault = waiting.pop(0) if waiting and method != "HEAD" else Fault()
        if self._fault.status != 200:
            self._say({"error": "as told"}, self._fault.status)
            return
        if path.startswith("/api/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say({"error": "Invalid username or password."}, 401)
            return
        for pattern, answer in _ROUTES:
            if match := re.fullmatch(pattern, path):
                answer(self, body, *(unquote(group or "") for group in match.groups()))
                return
        self._say({"error": f"no {path}"}, 404)

    def _say(self, value: Any, status: int = 200, headers: Mapping[str, str] = {}) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})

    def _send(self, data: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if self._fault.cut is None else data[: self._fault.cut])
        if self._fault.cut is not None:
            self.close_connection = True

    def _commit_of(self, repo: str, revision: str) -> str | None:
        if repo not in self.hub.private:
            self._say({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        sha = self.hub.branches.get((repo, revision or "main"), revision)
        if sha not in self.hub.commits:
            self._say({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return sha

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        self.hub.private[repo] = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.commit(repo, {".gitattributes": b"*.tar filter=lfs\n"})
        self._say({"url": f"{self.hub.url}/datasets/{repo}"})

    def branch(self, body: bytes, repo: str, name: str) -> None:
        if (repo, name) in self.hub.branches:
            self._say({"error": "exists"}, 409)
            return
        self.hub.branches[repo, name] = self.hub.branches[repo, "main"]
        self._say({})

    def info(self, body: bytes, repo: str, revision: str) -> None:
        if sha := self._commit_of(repo, revision):
            self._say({"id": repo, "sha": sha, "private": self.hub.private[repo], "tags": [], "siblings": []})

    def tree(self, body: bytes, repo: str, revision: str, folder: str) -> None:
        if not (sha := self._commit_of(repo, revision)):
            return
        start = f"{folder}/" if folder else ""
        files = {path: data for path, data in self.hub.commits[sha].items() if path.startswith(start)}
        if not files:
            self._say({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        recursive = self._query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries: dict[str, Any] = {}
        for path, data in sorted(files.items()):
            parts = path.removeprefix(start).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                at = start + "/".join(parts[:depth])
                entries[at] = {"type": "directory", "path": at, "oid": "0" * 40}
            if recursive or len(parts) == 1:
                entries[path] = self._entry(path, data)
        first = int(self._query.get("cursor", ["0"])[0])
        listed = list(entries.values())
        more: dict[str, str] = {}
        if first + PAGE < len(listed):
            base = f"{self.hub.url}{urlsplit(self.path).path}"
            query = f"recursive={recursive}&cursor={first + PAGE}"
            more = {"Link": f'<{base}?{query}>; rel="next"'}
        self._say(listed[first : first + PAGE], headers=more)

    def paths(self, body: bytes, repo: str, revision: str) -> None:
        if not (sha := self._commit_of(repo, revision)):
            return
        form = parse_qs(body.decode())
        wanted = form.get("paths") or json.loads(body)["paths"]
        files = self.hub.commits[sha]
        found = [self._entry(path, files[path]) for path in wanted if path in files]
        folders = [p for p in wanted if any(name.startswith(f"{p}/") for name in files)]
        self._say([*found, *({"type": "directory", "path": p, "oid": "0" * 40} for p in folders)])

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
        if self.hub.is_large(path, data):
            found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return found

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        if not (sha := self._commit_of(repo, revision)):
            return
        data = self.hub.commits[sha].get(path)
        if data is None:
            self._say({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        large = self.hub.is_large(path, data)
        digest = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": sha, "ETag": f'"{digest if large else _blob(data)}"'}
        if large:
            self.hub.stored[digest] = data
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{digest}"'}
            self._send(b"", 302, {**headers, "Location": f"{self.hub.url}/cdn/{digest}?Signature=hush"})
            return
        self._part(data, headers)

    def cdn(self, body: bytes, digest: str) -> None:
        self._part(self.hub.stored[digest], {"ETag": f'"{digest}"'})

    def _part(self, data: bytes, headers: dict[str, str]) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not span:
            self._send(data, 200, {**headers, "Accept-Ranges": "bytes"})
            return
        begin, end = int(span[1]), min(int(span[2] or len(data)), len(data) - 1) + 1
        self._send(data[begin:end], 206, {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{len(data)}"})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        if not (sha := self._commit_of(repo, revision)):
            return
        there = self.hub.commits[sha]
        self._say({"files": [self._mode(file, there) for file in json.loads(body)["files"]]})

    def _mode(self, file: Mapping[str, Any], there: Mapping[str, bytes]) -> dict[str, Any]:
        large = file["size"] >= self.hub.large or file["path"].endswith(".tar")
        found: dict[str, Any] = {
            "path": file["path"],
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
        }
        if (data := there.get(file["path"])) is not None:
            found["oid"] = hashlib.sha256(data).hexdigest() if large else _blob(data)
        return found

    def batch(self, body: bytes, repo: str) -> None:
        objects = []
        for asked in json.loads(body)["objects"]:
            upload = {"href": f"{self.hub.url}/upload/{asked['oid']}"}
            actions = {} if asked["oid"] in self.hub.stored else {"actions": {"upload": upload}}
            objects.append({**asked, **actions})
        self._say({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, digest: str) -> None:
        if hashlib.sha256(body).hexdigest() != digest:
            self._say({"error": "another hash"}, 400)
            return
        self.hub.stored[digest] = body
        self._say({})

    def valid(self, body: bytes) -> None:
        self._say({"errors": [], "warnings": []})

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        if not (sha := self._commit_of(repo, revision)):
            return
        header, *operations = [json.loads(line) for line in body.splitlines()]
        if header["value"].get("parentCommit", sha) != sha:
            self._say({"error": "the branch has moved"}, 412)
            return
        files = {}
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        self.hub.messages.append(header["value"]["summary"])
        new = self.hub.commit(repo, files, revision)
        self._say(
            {"commitOid": new, "commitUrl": f"{self.hub.url}/datasets/{repo}/commit/{new}", "success": True}
        )


def _blob(data: bytes) -> str:
    """The name that git gives these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_REPO = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, Any]] = [
    (r"/api/repos/create", _Handler.create),
    (r"/api/validate-yaml", _Handler.valid),
    (rf"/api/datasets/{_REPO}/branch/([^/]+)", _Handler.branch),
    (rf"/api/datasets/{_REPO}(?:/revision/([^/]+))?", _Handler.info),
    (rf"/api/datasets/{_REPO}/tree/([^/]+)(?:/(.*))?", _Handler.tree),
    (rf"/api/datasets/{_REPO}/paths-info/([^/]+)", _Handler.paths),
    (rf"/datasets/{_REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (r"/cdn/(\w+)", _Handler.cdn),
    (rf"/api/datasets/{_REPO}/preupload/([^/]+)", _Handler.preupload),
    (rf"/datasets/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"/upload/(\w+)", _Handler.upload),
    (rf"/api/datasets/{_REPO}/commit/([^/]+)", _Handler.commit),
]
