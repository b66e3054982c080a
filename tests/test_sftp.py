"""Reading over SFTP, from a server of paramiko's on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.proxy import NO_ANSWER, Fault, Proxy
from tests.runs import make_shards, tree, write_recipe
from wdsfilter import retry, storage
from wdsfilter.cli import main
from wdsfilter.errors import ReadError
from wdsfilter.shards.source import Pattern, find_shards

pytest.importorskip("paramiko", reason="the extra sftp is not installed")
from tests.sftp import PASSWORD, USER, sftp_server


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """What the server is told to do, at its ``url``, where three shards lie in the folder ``in``."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.0)
    monkeypatch.setitem(fsspec.config.conf, "sftp", {"username": USER, "password": PASSWORD})
    make_shards(tmp_path / "in", 3)
    told = Proxy("", name_of=lambda asked, path: path if asked == "OPEN" else None)
    with sftp_server(tmp_path, told.fault) as host:
        told.url = f"sftp://{host}"
        yield told
    fsspec.get_filesystem_class("sftp").clear_instance_cache()


def test_a_run_over_sftp(told: Proxy, tmp_path: Path) -> None:
    """Folders and patterns are listed, and shards bring the bytes of a local run, breaks or not."""
    names = [f"s-{number:04d}.tar" for number in range(3)]
    for pattern in ("in/", "in/s-*.tar", "in/s-{0000..0002}.tar"):
        assert [shard.name for shard in find_shards([Pattern(f"{told.url}/{pattern}")])] == names
    recipe = str(write_recipe(tmp_path))
    assert main(["run", recipe, "--shards", f"{tmp_path}/in/", "-o", str(tmp_path / "local")]) == 0
    told.faults = {f"/in/{name}": [Fault(NO_ANSWER), Fault(cut=1536)] for name in names}
    assert main(["run", recipe, "--shards", f"{told.url}/in/", "-o", str(tmp_path / "out")]) == 0
    assert not any(told.faults.values())
    local, out = (
        {n: sha for n, sha in tree(tmp_path / f).items() if n.endswith(".tar")} for f in ("local", "out")
    )
    assert out == local


def test_nothing_is_pieced_together(told: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no entity tag: what breaks after its first byte is read again from its start by the run, not here."""
    monkeypatch.setattr(storage, "READ_BUFFER", 4096)
    told.faults = {"/in/s-0000.tar": [Fault(cut=40960)]}
    with pytest.raises(ReadError), storage.open_read(f"{told.url}/in/s-0000.tar") as stream:
        stream.read()
    with storage.open_read(f"{told.url}/in/s-0000.tar") as stream:
        assert stream.read() == (tmp_path / "in/s-0000.tar").read_bytes()


def test_a_wrong_password_is_told_in_a_line(
    told: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is tried once, since who tries again may be locked out; and it is in no message, wherever it came from."""
    fsspec.get_filesystem_class("sftp").clear_instance_cache()
    for conf, url in (
        ({"username": USER, "password": "hush-wrong"}, told.url),
        ({}, told.url.replace("//", f"//{USER}:hush-wrong@")),
    ):
        monkeypatch.setitem(fsspec.config.conf, "sftp", conf)
        recipe = str(write_recipe(tmp_path))
        told.requests.clear()
        assert main(["run", recipe, "--shards", f"{url}/in/", "-o", str(tmp_path / "out")]) == 1
        assert told.requests == [("LOGIN", "")]
        said = capsys.readouterr()
        assert said.err == f"wdsfilter: {told.url}/in: Authentication failed.\n"
        assert "hush" not in said.out
