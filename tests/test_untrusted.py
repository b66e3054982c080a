"""Nothing in the data is run, and nothing secret comes out: payloads in every place that somebody might evaluate."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.runs import write_recipe
from tests.shards import jpeg, write_shard
from wdsfilter.cli import main
from wdsfilter.engine.checkpoint import Checkpoint, model_config
from wdsfilter.errors import JudgeError

SECRET = "s3cr3t-t0ken"
HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>"

_DEEDS = ("os.system", "subprocess.Popen", "os.exec", "os.spawn", "os.posix_spawn", "pickle.find_class")
_watched: list[tuple[str, tuple[Any, ...]]] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event in _DEEDS:
        _watched.append((event, arguments))


sys.addaudithook(_hook)  # for good: it cannot be taken away, only told to be quiet


@pytest.fixture
def deeds() -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """Commands that this process starts, and classes that it unpickles, from now on."""
    global _watched
    _watched = []
    yield _watched
    _watched = None


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def run(tmp_path: Path, *arguments: str) -> int:
    return main(["run", str(write_recipe(tmp_path)), "-o", str(tmp_path / "out"), *arguments])


def test_pickled_members_stay_bytes(tmp_path: Path, deeds: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Members that webdataset would unpickle, decompress or import are copied, and nothing of them runs."""
    canary = tmp_path / "canary"
    payload = pickle.dumps(Payload(canary))
    extensions = {"pyd": payload, "pickle": payload, "pkl": payload, "pkl.gz": gzip.compress(payload)}
    extensions |= {"pth": payload, "pt": payload, "npy": b"\x93NUMPY" + payload, "py": b"raise SystemExit"}
    extensions |= {"yaml": b"!!python/object/apply:os.system ['true']", "exe": b"MZ", "sh": b"touch canary"}
    members = [
        ("a.jpg", jpeg()),
        ("a.txt", b"a picture of a cat"),
        *((f"a.{e}", d) for e, d in extensions.items()),
    ]
    hostile = [("b.jpg", payload), ("b.txt", b"a picture"), ("c.jpg", jpeg()), ("c.txt", payload)]
    write_shard(tmp_path / "in/s.tar", [*members, *hostile])
    assert run(tmp_path, "--shards", f"{tmp_path}/in/s.tar", "--set", "input.tolerate.unreadable=1.0") == 0
    assert not canary.exists()
    assert deeds == []


@pytest.mark.parametrize("url", ["pipe:touch CANARY", "pipe:cat s.tar; touch CANARY", "reference://::CANARY"])
@pytest.mark.parametrize("where", ["option", "recipe", "list"])
def test_a_list_runs_no_command(
    tmp_path: Path,
    url: str,
    where: str,
    deeds: list[tuple[str, tuple[Any, ...]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What webdataset would hand to a shell, and what fsspec would render as a template, is refused."""
    canary = tmp_path / "canary"
    url = url.replace("CANARY", str(canary))
    arguments = ["--shards", url]
    if where != "option":
        listed = [url] if where == "list" else url
        (tmp_path / "other.yaml").write_text(
            json.dumps({"input": {"shards": listed}, "judges": ["scripted"]})
        )
        arguments = []
    recipe = tmp_path / "other.yaml" if where != "option" else write_recipe(tmp_path)
    assert main(["run", str(recipe), "-o", str(tmp_path / "out"), *arguments]) == 1
    assert not canary.exists()
    assert deeds == []
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "judges: !!python/object/apply:os.system ['touch CANARY']",
        "judges: [!!python/object/new:os.system ['touch CANARY']]",
        "judges: [!!python/name:os.system ]",
        "judges: [!!python/module:antigravity ]",
        "judges: [os.system: {command: touch CANARY}]",
        "judges: [tests.prepares: {}]",
        "judges: [../../evil: {}]",
        "judges: [vlm: {model: built-in, trust_remote_code: true}]",
        "judges: [rules: {pattern: '(?P<x>'}]",
        "input: {shards: '$(touch CANARY)'}\njudges: [scripted]",
        "input: {shards: '`touch CANARY`'}\njudges: [scripted]",
    ],
)
def test_a_recipe_runs_nothing(tmp_path: Path, text: str, deeds: list[tuple[str, tuple[Any, ...]]]) -> None:
    """YAML tags, dotted names and shell quotes are mistakes in a recipe, and nothing else."""
    canary = tmp_path / "canary"
    recipe = tmp_path / "evil.yaml"
    recipe.write_text(text.replace("CANARY", str(canary)))
    assert main(["run", str(recipe), "-o", str(tmp_path / "out")]) == 1
    assert not canary.exists()
    assert deeds == []


@pytest.mark.parametrize(
    ("config", "weights", "told"),
    [
        pytest.param(
            {"auto_map": {"AutoModel": "evil.Model"}}, "model.safetensors", "auto_map", id="auto-map"
        ),
        pytest.param({}, "pytorch_model.bin", "pickles are never loaded", id="bin"),
        pytest.param({}, "model.pth", "pickles are never loaded", id="pth"),
        pytest.param({"architectures": ["Evil"]}, "model.safetensors", "architecture", id="architecture"),
    ],
)
def test_a_checkpoint_brings_no_code(
    tmp_path: Path, config: dict[str, Any], weights: str, told: str, deeds: list[tuple[str, tuple[Any, ...]]]
) -> None:
    """Pickled weights and modules beside them are not looked into; what asks for them is refused."""
    canary = tmp_path / "canary"
    whole = {"architectures": ["Qwen2VLForConditionalGeneration"], "trust_remote_code": True, **config}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    (tmp_path / weights).write_bytes(pickle.dumps(Payload(canary)))
    (tmp_path / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    with pytest.raises(JudgeError, match=told):
        model_config(Checkpoint(tmp_path))
    assert not canary.exists()
    assert deeds == []


@pytest.mark.parametrize("kind", ["report", "label", "compare"])
def test_a_page_shows_html_as_text(kind: str, tmp_path: Path) -> None:
    """Tags in keys, captions and json fields are text on every page, wherever they are shown."""
    members = []
    for number in range(6):
        key = f"{HTML.replace('/', '')}{number}"
        fields = json.dumps({"uid": HTML, "url": "javascript:alert(3)"}).encode()
        members += [
            (f"{key}.jpg", jpeg(number)),
            (f"{key}.txt", f"a {HTML}".encode()),
            (f"{key}.json", fields),
        ]
    write_shard(tmp_path / "in/s.tar", members)
    shards = f"{tmp_path}/in/s.tar"
    assert run(tmp_path, "--shards", shards) == 0
    options = {"report": [], "label": ["--label", "6"], "compare": ["--compare", str(tmp_path / "other")]}[
        kind
    ]
    if kind == "compare":
        recipe = write_recipe(tmp_path, "judges: [scripted: {seed: 8, at_least: 5}]\nguard: off")
        assert main(["run", str(recipe), "-o", str(tmp_path / "other"), "--shards", shards]) == 0
    assert main(["report", str(tmp_path / "out"), "--shards", shards, *options]) == 0
    page = (tmp_path / f"out/wdsfilter/{kind}.html").read_text()
    assert "alert(1)" in page, "it is shown"
    for tag in ("<script>alert", "<script>alert(1)", "<img src=x", 'href="javascript:'):
        assert tag not in page


class _Store(BaseHTTPRequestHandler):
    """Gives one shard to whoever knows the secret."""

    def __init__(self, data: bytes, *arguments: Any) -> None:
        self.data = data
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        known = SECRET in self.path and "missing" not in self.path
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(self.data) if known else 0))
        self.end_headers()
        if body and known:
            self.wfile.write(self.data)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    shard = write_shard(tmp_path / "in/s.tar", [("a.jpg", jpeg()), ("a.txt", b"a picture of a cat")])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Store, shard.read_bytes()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_secrets_stay_where_they_are(store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The token of a signed URL is in no output, log or event, whether the shard is read or not."""
    urls = [f"{store}/s.tar?token={SECRET}", f"{store}/missing.tar?token={SECRET}"]
    assert run(tmp_path, "--shards", urls[0], "--shards", urls[1], "--set", "run.read_attempts=1") == 3
    main(["status", str(tmp_path / "out")])
    assert main(["verify", str(tmp_path / "out")]) == 0
    printed = "".join(capfd.readouterr())
    assert "missing.tar" in printed
    assert SECRET not in printed
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) > 5
    assert [path for path in written if SECRET.encode() in _content(path)] == []


def _content(path: Path) -> bytes:
    """A file's bytes; of a ledger, its columns, which are compressed on the disk."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    text = io.StringIO()
    print(table.to_pylist(), table.schema.metadata, file=text)
    return text.getvalue().encode()
