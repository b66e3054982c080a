"""The promises of storage against servers of others: Azure's and Google's stores, nginx."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec
import pytest

from tests.emulators import azurite, fake_gcs, nginx
from tests.gcs import conditional_gcs
from tests.runs import environment, finished, make_shards, start, tree, write_recipe
from tests.test_object_output import arguments_of_run, race, race_once, stored_tree
from wdsfilter import objects, readahead, remote, retry, storage
from wdsfilter.cli import main
from wdsfilter.errors import OutputError, ReadError
from wdsfilter.output import OutputFolder
from wdsfilter.ranges import Range, read_ranges

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.filterwarnings(
        "ignore:Sending a large body:ResourceWarning"
    ),  # Azure's and Google's libraries do
]

UPLOAD = """
import os, sys, threading, time
from pathlib import Path
from wdsfilter.objects import ObjectPath
threading.Timer(float(sys.argv[3]), lambda: os.kill(os.getpid(), 9)).start()
ObjectPath(sys.argv[1]).put_if_absent(Path(sys.argv[2]))
time.sleep(60)
"""


@pytest.fixture(scope="module", params=["az", "gs"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``az://bucket`` or ``gs://bucket``, empty at first, on a server that this process and its children speak to."""
    server = {"az": azurite, "gs": conditional_gcs}[request.param]
    with server(tmp_path_factory.mktemp(request.param)) as variables:
        yield from bucket_of(request.param, variables)


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``gs://bucket`` on a server that forgets conditions of large objects."""
    with fake_gcs(tmp_path_factory.mktemp("gcs")) as variables:
        yield from bucket_of("gs", variables)


def bucket_of(scheme: str, variables: Mapping[str, str]) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(retry, "FIRST_PAUSE", 0.0)
        fsspec.filesystem(scheme, skip_instance_cache=True).mkdir("bucket")
        yield f"{scheme}://bucket"


def test_googles_small_objects_are_given_once_and_the_probe_sees_the_large_ones(
    google: str, tmp_path: Path
) -> None:
    """Small objects keep the condition; this server forgets it of uploads in parts, and the probe refuses it so."""
    files = [tmp_path / "0", tmp_path / "1"]
    for file in files:
        file.write_text(file.name)
    for number in range(100):
        race_once(files, objects.ObjectPath(f"{google}/race/{number}"))
    assert len(storage.below(f"{google}/race/")) == 100
    with pytest.raises(OutputError, match="does not refuse to overwrite"):
        OutputFolder(f"{google}/out").probe()


def test_a_run_from_store_to_store(place: str, tmp_path: Path) -> None:
    """Three launches, one of them killed, give the bytes of a local run; so does a selection of it."""
    arguments = arguments_of_run(tmp_path, f"{place}/a")
    assert main([*arguments, str(tmp_path / "run")]) == 0
    out = f"{place}/a/run"
    launches = [
        start(*arguments, out, WDSFILTER_FAILPOINT="shard.written:2"),
        *(start(*arguments, out) for _ in range(2)),
    ]
    ended = [finished(launch, 300) for launch in launches]
    assert sorted(code for code, _, _ in ended) in ([-9, 0, 0], [0, 0, 0]), ended
    assert main([*arguments, out]) == 0
    assert stored_tree(out) == tree(tmp_path / "run")
    assert main(["verify", out, "--shards", f"{place}/a/in/"]) == 0
    question = ["--shards", f"{place}/a/in/", "--top", "60%", "--workers", "1"]
    assert main(["select", str(tmp_path / "run"), *question, "-o", str(tmp_path / "best")]) == 0
    assert main(["select", out, *question, "-o", f"{place}/a/best"]) == 0
    assert stored_tree(f"{place}/a/best") == tree(tmp_path / "best")


def test_a_name_is_given_once(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two writers who race one wins each time, and its bytes stay."""
    monkeypatch.setattr(objects, "_PART", 5 << 20)
    race(f"{place}/b", tmp_path, 100)


def test_a_kill_during_an_upload_leaves_nothing(place: str, tmp_path: Path) -> None:
    """An upload that stops in its middle is not there, and the name can still be given."""
    (tmp_path / "file").write_bytes(bytes(64 << 20))
    target = f"{place}/c/file"
    for delay in (2.0, 2.5, 3.0):
        done = subprocess.run(
            [sys.executable, "-c", UPLOAD, target, str(tmp_path / "file"), str(delay)],
            env=environment(),
        )
        assert done.returncode == -9
        path = objects.ObjectPath(target)
        assert not path.exists() or path.stat().st_size == 64 << 20
        path.unlink(missing_ok=True)
    assert objects.ObjectPath(target).put_if_absent(tmp_path / "file")


def test_an_object_is_read_whole_or_not_at_all(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges and streams bring its bytes; what is replaced while it is read is an error."""
    monkeypatch.setattr(readahead, "_FIRST_BLOCK", 1 << 16)
    monkeypatch.setattr(readahead, "_BLOCK", 1 << 16)
    store, root = fsspec.core.url_to_fs(f"{place}/d/x.tar")
    data = bytes(range(256)) * 4096
    store.pipe_file(root, data)
    location = f"{place}/d/x.tar"
    assert storage.stat(location).etag
    with storage.open_read(location) as stream:
        assert stream.read() == data
    assert read_ranges([Range(location, 1000, 10), Range(location, 0, 3)]) == [data[1000:1010], data[:3]]
    with storage.open_read(location) as stream:
        stream.read(1 << 16)
        store.pipe_file(root, data[::-1])
        with pytest.raises(ReadError):
            stream.read()
    with pytest.raises(ReadError, match="No such file"):
        storage.stat(f"{place}/d/none.tar")


def test_a_run_over_nginx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards behind nginx, which is slow, give the bytes of the local run; ranges come, and a change is noticed."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "SILENCE", 5.0)
    pattern = make_shards(tmp_path / "in", 3)
    recipe = str(write_recipe(tmp_path))
    assert main(["run", recipe, "--shards", pattern, "-o", str(tmp_path / "local")]) == 0
    with nginx(tmp_path / "in", "limit_rate 100k;") as address:
        shards = ["--shards", f"{address}/s-{{0000..0002}}.tar"]
        assert main(["run", recipe, *shards, "-o", str(tmp_path / "out")]) == 0
        local = {name: sha for name, sha in tree(tmp_path / "local").items() if name.endswith(".tar")}
        assert {n: s for n, s in tree(tmp_path / "out").items() if n.endswith(".tar")} == local
        question = [*shards, "--top", "50%", "--workers", "1", "-o", str(tmp_path / "best")]
        assert main(["select", str(tmp_path / "out"), *question]) == 0
        path = tmp_path / "in/s-0000.tar"
        data = path.read_bytes()
        assert read_ranges([Range(f"{address}/s-0000.tar", 600, 5)]) == [data[600:605]]
        then = storage.stat(f"{address}/s-0000.tar")
        assert (then.size, bool(then.etag)) == (len(data), True)
        path.write_bytes(data + bytes(512))
        with (
            pytest.raises(ReadError, match="when reading began"),
            storage.open_read(f"{address}/s-0000.tar", then) as s,
        ):
            s.read()
    fsspec.get_filesystem_class("http").clear_instance_cache()
