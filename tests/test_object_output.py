"""An output folder in an object store: the promises of a local one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

import wdsfilter
from tests.runs import OUTSIDE, environment, finished, make_shards, start, tree, write_recipe
from tests.s3 import Gate, new_bucket, speak_to
from tests.selections import exported, run_here, select
from tests.shards import jpeg, pairs, tar_bytes
from wdsfilter import objects
from wdsfilter.claims import Claims
from wdsfilter.cli import main
from wdsfilter.errors import OutputError
from wdsfilter.objects import ObjectPath
from wdsfilter.output import OutputFolder
from wdsfilter.select import selection
from wdsfilter.select.cut import claim_folder


def stored_tree(output: str) -> dict[str, str]:
    """As :func:`tests.runs.tree`, of a folder in a store."""
    store, root = fsspec.core.url_to_fs(output, use_listings_cache=False)
    names = {path.removeprefix(f"{root}/"): path for path in store.find(root)}
    outside = tuple(f"wdsfilter/{folder}/" for folder in OUTSIDE)
    return {
        name: hashlib.sha256(store.cat_file(path)).hexdigest()
        for name, path in sorted(names.items())
        if not name.startswith(outside)
    }


def upload(folder: Path, url: str) -> None:
    store, root = fsspec.core.url_to_fs(url)
    for path in folder.iterdir():
        store.put_file(str(path), f"{root}/{path.name}")


def upload_tree(folder: Path, url: str) -> None:
    store, root = fsspec.core.url_to_fs(url)
    for name in tree(folder):
        store.put_file(str(folder / name), f"{root}/{name}")


def arguments_of_run(folder: Path, bucket: str) -> list[str]:
    """A run over three shards in a bucket, but for its output."""
    make_shards(folder / "in", 3)
    upload(folder / "in", f"{bucket}/in")
    return ["run", str(write_recipe(folder)), "--shards", f"{bucket}/in/s-*.tar", "-o"]


@pytest.fixture
def arguments(tmp_path: Path, bucket: str) -> list[str]:
    return arguments_of_run(tmp_path, bucket)


@pytest.fixture(scope="module")
def expected(s3_address: tuple[str, Gate], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tree of such a run into a local folder."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        speak_to(s3_address[0], patch)
        assert main([*arguments_of_run(folder, new_bucket()), str(folder / "out")]) == 0
    return tree(folder / "out")


def test_a_run_from_store_to_store(arguments: list[str], expected: dict[str, str], bucket: str) -> None:
    """A run into a store gives the names and bytes of one into a folder, and can be looked at like that one."""
    out = f"{bucket}/deep/out"
    assert main([*arguments, out]) == 0
    assert stored_tree(out) == expected
    assert main(["status", out]) == 0
    assert main(["verify", out, "--shards", f"{bucket}/in/"]) == 0
    assert main([*arguments, out]) == 0
    assert stored_tree(out) == expected
    assert main(["report", out]) == 0
    assert ObjectPath(f"{out}/wdsfilter/report.html").exists()


def test_a_selection_from_store_to_store(
    arguments: list[str], bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A selection of a run in a store is the same in a store and in a folder; one that was stopped goes on."""
    question = ["--shards", f"{bucket}/in/", "--top", "60%", "--samples-per-shard", "9", "--workers", "1"]
    assert main([*arguments, f"{bucket}/run"]) == 0
    assert main(["select", f"{bucket}/run", *question, "-o", str(tmp_path / "out")]) == 0
    again = ["select", f"{bucket}/run", *question, "-o", f"{bucket}/out"]
    assert main(again) == 0
    assert stored_tree(f"{bucket}/out") == tree(tmp_path / "out")
    lost = ObjectPath(f"{bucket}/out/00001.tar")
    lost.unlink()
    assert main(again) == 0
    assert lost.exists()
    assert main(["verify", f"{bucket}/out"]) == 0
    capsys.readouterr()
    assert main([*again[:-1], f"{bucket}/run"]) == 1
    assert "is selected from; choose a folder that is not in it" in capsys.readouterr().err


def test_a_selection_of_a_selection_in_a_store(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies in a store is selected from like what lies here, out of its own shards; a changed one is refused."""
    pattern = run_here(tmp_path, shards=2)
    first = ["--shards", pattern, "--where", "scripted.score >= 2", "--shuffle", "--samples-per-shard", "9"]
    for place in (bucket, str(tmp_path)):
        assert select(tmp_path / "run", *first, "-o", f"{place}/first") == 0
        question = [f"{place}/first", "--where", "scripted.score >= 6", "-o"]
        assert select(*question, tmp_path / f"from-{place[:2]}") == 0
    assert tree(tmp_path / "from-s3") == tree(tmp_path / f"from-{str(tmp_path)[:2]}")
    store, root = fsspec.core.url_to_fs(f"{bucket}/first/00000.tar")
    store.pipe_file(root, store.cat_file(root) + bytes(512))
    capsys.readouterr()
    assert select(f"{bucket}/first", "-o", tmp_path / "more") == 1
    assert "00000.tar has" in capsys.readouterr().err


def test_a_fill_in_a_store(bucket: str, tmp_path: Path) -> None:
    """A run in a store is filled there, with the bytes of a local fill, and selected from with what was filled."""
    pattern = run_here(tmp_path, shards=2)
    arguments = ["run", str(tmp_path / "recipe.yaml"), "--shards", pattern, "--fill", "-o"]
    upload_tree(tmp_path / "run", f"{bucket}/run")
    for out in (str(tmp_path / "run"), f"{bucket}/run"):
        assert main([*arguments, out]) == 0
    filled = stored_tree(f"{bucket}/run")
    assert tree(tmp_path / "run") == {name: sha for name, sha in filled.items() if "/events/" not in name}
    keys = exported([f"{bucket}/run"], tmp_path / "keys.txt", "--where", "scripted.score >= 1")
    assert len(keys) == 24
    table = wdsfilter.read_ledger(f"{bucket}/run", columns=["key", "scripted.score"])
    assert (len(table), table["scripted.score"].null_count) == (24, 0)


def test_a_selection_reads_what_it_wants(bucket: str, s3: Gate, tmp_path: Path) -> None:
    """With 18 % kept at most 25 % of a store's bytes come, whatever the size of samples, and few requests do."""
    recipe = str(write_recipe(tmp_path))
    for size in (20_000, 60_000):
        shard = tmp_path / f"{size}/s.tar"
        samples = 9_000_000 // size
        shard.parent.mkdir()
        shard.write_bytes(tar_bytes(pairs(samples, image=jpeg() + bytes(size))))
        total = shard.stat().st_size
        upload(shard.parent, f"{bucket}/{size}")
        out = tmp_path / f"run{size}"
        patterns = ["--shards", f"{bucket}/{size}/"]
        assert main(["run", recipe, *patterns, "-o", str(out), "--set", "output.shards=false"]) == 0
        s3.clear()
        assert (
            main(["select", str(out), *patterns, "-o", f"{out}-best", "--top", "18%", "--workers", "1"]) == 0
        )
        assert s3.sent <= 0.25 * total, size
        assert len(s3.requests) < 0.16 * samples, size


def test_an_input_that_changes_while_it_is_selected_from(
    arguments: list[str], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is committed of a shard whose pictures were replaced under a selection, at the same places."""
    assert main([*arguments, str(tmp_path / "run")]) == 0
    store, root = fsspec.core.url_to_fs(f"{bucket}/in/s-0002.tar")

    def replaced(*given: Any) -> None:
        claim_folder(*given)
        store.pipe_file(root, store.cat_file(root).replace(b"JFIF", b"jfif"))

    monkeypatch.setattr(selection, "claim_folder", replaced)
    question = ["select", str(tmp_path / "run"), "--shards", f"{bucket}/in/", "--workers", "1"]
    assert main([*question, "-o", f"{bucket}/out"]) == 1
    assert not [name for name in stored_tree(f"{bucket}/out") if name.endswith((".tar", ".parquet"))]


def test_three_launches_share_a_folder_in_a_store(
    arguments: list[str], expected: dict[str, str], bucket: str
) -> None:
    """Three processes at once, one of them killed as its first ledger is there, give the bytes of one local run."""
    out = f"{bucket}/out"
    killed = start(*arguments, out, WDSFILTER_FAILPOINT="ledger.linked")
    launches = [killed, start(*arguments, out), start(*arguments, out)]
    codes = sorted(finished(launch)[0] for launch in launches)
    assert codes in ([-9, 0, 0], [0, 0, 0]), "the others may leave it nothing to do"
    assert main([*arguments, out]) == 0
    assert stored_tree(out) == expected


def test_kill_and_run_again(arguments: list[str], expected: dict[str, str], bucket: str) -> None:
    """After a kill nothing half-done is visible, and the same command gives the undisturbed tree."""
    out = f"{bucket}/out"
    code, _, err = finished(start(*arguments, out, WDSFILTER_FAILPOINT="shard.written:2"))
    assert code == -9, err
    assert {
        n: s for n, s in stored_tree(out).items() if n.endswith((".tar", ".parquet"))
    }.items() <= expected.items()
    assert main([*arguments, out]) == 0
    assert stored_tree(out) == expected


def test_a_name_is_given_once(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two writers who race one wins each time, in one piece or in parts, and its bytes stay."""
    monkeypatch.setattr(objects, "_PART", 5 << 20)
    race(bucket, tmp_path, 20)


@pytest.mark.nightly
def test_a_name_is_given_once_a_thousand_times(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, as often as the promise says."""
    monkeypatch.setattr(objects, "_PART", 5 << 20)
    race(bucket, tmp_path, 1000)


def race(bucket: str, folder: Path, times: int) -> None:
    """So many races of two writers, every twentieth with objects that go up in parts."""
    sizes = (10, objects._PART * 2 + 1)  # one piece, three parts
    files = [[folder / f"{size}.{writer}" for writer in range(2)] for size in sizes]
    for size, pair in zip(sizes, files, strict=True):
        for writer, path in enumerate(pair):
            path.write_bytes(b"%d" % writer * size)
    for number in range(times):
        race_once(files[number % 20 == 0], ObjectPath(f"{bucket}/race/{number}"))


def race_once(files: Sequence[Path], name: ObjectPath) -> None:
    """All put their file there at once: one of them wins, and what lies there is its file."""
    gate = threading.Barrier(len(files))
    won: list[Path] = []

    def write(file: Path) -> None:
        gate.wait()
        if name.put_if_absent(file):
            won.append(file)

    threads = [threading.Thread(target=write, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert name.read_bytes() == won[0].read_bytes()


UPLOAD = """
import sys
from pathlib import Path
from wdsfilter import objects
objects._PART = 5 << 20
objects.ObjectPath(sys.argv[1]).put_if_absent(Path(sys.argv[2]))
"""


def test_a_kill_between_the_parts_of_an_upload_leaves_nothing(bucket: str, tmp_path: Path) -> None:
    """What went up in parts is not there before all of it is, and the name can be given by the next."""
    file, target = tmp_path / "file", ObjectPath(f"{bucket}/file")
    with file.open("wb") as sparse:
        sparse.truncate(100 << 20)
    store, name = fsspec.core.url_to_fs(bucket)
    process = subprocess.Popen([sys.executable, "-c", UPLOAD, str(target), str(file)], env=environment())
    parts: list[Any] = []
    while not parts:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
        for upload in store.call_s3("list_multipart_uploads", Bucket=name).get("Uploads", []):
            known = {"Bucket": name, "Key": "file", "UploadId": upload["UploadId"]}
            parts = store.call_s3("list_parts", **known).get("Parts", [])
    process.kill()
    process.wait()
    assert not target.exists()
    assert stored_tree(bucket) == {}
    os.truncate(file, 10)
    assert target.put_if_absent(file)
    assert target.stat().st_size == 10


def test_a_store_that_overwrites_is_refused(bucket: str, s3: Gate, tmp_path: Path) -> None:
    """The probe finds out that conditions are ignored, and says what to do instead; nothing is left there."""
    folder = OutputFolder(f"{bucket}/out")
    folder.probe()
    s3.deaf = True
    with pytest.raises(OutputError, match=r"does not refuse to overwrite.*copy it there"):
        folder.probe()
    assert stored_tree(bucket) == {}


def test_an_answer_that_got_lost_is_no_second_write(bucket: str, s3: Gate, tmp_path: Path) -> None:
    """A write that was carried out and answered with an error is not done again, and a claim made so is held."""
    folder = OutputFolder(f"{bucket}/out")
    (tmp_path / "file").write_bytes(b"x")
    s3.lost = 1
    assert not ObjectPath(f"{bucket}/file").put_if_absent(tmp_path / "file")
    assert ObjectPath(f"{bucket}/file").read_bytes() == b"x"
    s3.lost = 1
    with Claims(folder) as claims:
        assert claims.take("s.tar")
        assert not Claims(folder).take("s.tar")
    assert not (folder.claims / "s.tar.json").exists()


def test_a_store_that_does_not_answer_is_no_damage(
    arguments: list[str], bucket: str, s3: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither is its ledger called none, nor a run done of which the list of shards cannot be read."""
    out = f"{bucket}/out"
    assert main([*arguments, out]) == 0
    capsys.readouterr()
    for command, closed in (("verify", "/ledger/s"), ("status", "/ledger/s"), ("status", "/events/shards-")):
        s3.closed = closed
        assert main([command, out]) == 1
        said = capsys.readouterr()
        assert "Service Unavailable" in said.err
        assert "remove" not in said.err + said.out


def test_a_stale_claim_in_a_store_is_taken_over(bucket: str) -> None:
    """A claim whose counter stands still is free after a while; a beating one is not."""
    folder = OutputFolder(f"{bucket}/out")
    dead, alive = Claims(folder, stale_after=0.6), Claims(folder, stale_after=0.6)
    assert dead.take("dead.tar")  # never entered: it does not beat
    with alive, Claims(folder, stale_after=0.6) as observer:
        assert alive.take("alive.tar")
        deadline = time.monotonic() + 30
        while not observer.take("dead.tar"):
            assert not observer.take("alive.tar")
            assert time.monotonic() < deadline


def test_a_claim_has_one_owner(bucket: str) -> None:
    """Of two who reach for a shard one gets it each time, and its heartbeats stay its own."""
    race_for_claims(f"{bucket}/out", 20)


@pytest.mark.nightly
def test_a_claim_has_one_owner_a_thousand_times(bucket: str) -> None:
    """The same, as often as the promise says."""
    race_for_claims(f"{bucket}/out", 1000)


def race_for_claims(output: str, times: int) -> None:
    """So many races of two owners for a claim: free, or left by one who beats no more; the winner's heart beats on."""
    owners = [Claims(OutputFolder(output), stale_after=0.0) for _ in range(2)]
    dead = Claims(OutputFolder(output))
    for number in range(times):
        name = f"s-{number:04d}.tar"
        if number % 4 == 3:
            assert dead.take(name)
            assert not any(owner.take(name) for owner in owners), "seen for the first time, it may be alive"
        taken = raced([partial(owner.take, name) for owner in owners])
        holder = ObjectPath(f"{output}/wdsfilter/claims/{name}.json")
        owned = [json.loads(holder.read_bytes())["token"] == owner._token for owner in owners]
        if number % 4 == 3:
            assert any(taken), "nobody took what nobody holds"
        else:
            assert taken == owned
            assert sorted(owned) == [False, True]
        [at] = [position for position, owns in enumerate(owned) if owns]
        late = partial(owners[1 - at].release, name)
        raced([owners[at].beat_once, late])
        token, beat = owners[1 - at].beat(name)
        assert (token, beat > 0) == (owners[at]._token, True), "who lost touches nothing"
        for owner in owners:
            owner.release(name)
        assert not holder.exists()


def raced(calls: Sequence[Callable[[], object]]) -> list[object]:
    """What each call gives, all of which begin at once."""
    gate = threading.Barrier(len(calls))

    def one(call: Callable[[], object]) -> object:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


@pytest.mark.parametrize(
    "output", ["hf://datasets/a/b", "sftp://host/out", "http://host/out", "memory://out"]
)
def test_a_place_without_conditions_is_refused(output: str) -> None:
    """Where no commit is possible, the message says where it is, and what to do."""
    with pytest.raises(OutputError, match=r"s3://.*copy it there"):
        OutputFolder(output)
