"""`wdsfilter select`: another selection from ledgers and input shards, byte for byte and without a model."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.runs import command, environment, finished, forgetful, members, start, tree, write_shard
from tests.selections import chosen, json_of, rows_of, run_here, select
from wdsfilter.cli import main
from wdsfilter.select import selection
from wdsfilter.shards.source import Pattern
from wdsfilter.whereabouts import as_noted


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with input shards ``in`` and a run over them, ``run``. Nothing may change it."""
    folder = tmp_path_factory.mktemp("select")
    run_here(folder)
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    """Members of all shards of a folder."""
    return {name: data for path in sorted(folder.glob("*.tar")) for name, data in members(path).items()}


def test_without_a_condition_it_takes_what_the_run_kept(here: Path, tmp_path: Path) -> None:
    """The run's kept samples come again, with the very members that the run wrote, in even shards without gaps."""
    assert (
        select(here / "run", "--shards", here / "in", "-o", tmp_path / "out", "--samples-per-shard", 10) == 0
    )
    assert everything(tmp_path / "out") == everything(here / "run")
    sizes = json_of(tmp_path / "out/sizes.json")
    kept = sum(json_of(here / "run/sizes.json").values())
    assert list(sizes) == [f"{n:05d}.tar" for n in range(len(sizes))]
    assert set(list(sizes.values())[:-1]) == {10}
    assert sum(sizes.values()) == kept == json_of(tmp_path / "out/wdsfilter/summary.json")["counts"]["kept"]


def test_dropped_samples_come_back_with_all_their_bytes(here: Path, tmp_path: Path) -> None:
    """Under a lower threshold samples are there that the run dropped, their members identical to the input's."""
    out = tmp_path / "out"
    assert select(here / "run", "--shards", here / "in", "-o", out, "--where", "scripted.score >= 2") == 0
    due = [
        (r["shard"], r["key"]) for r in rows_of(here / "run") if (r["scripted"] or {"score": 0})["score"] >= 2
    ]
    assert chosen(out) == due
    assert {row["source_status"] for row in rows_of(out)} == {"kept", "dropped"}
    before, after = everything(here / "in"), everything(out)
    assert len(after) == 5 * len(due)
    assert all(after[name] == before[name] for name in after if not name.endswith(".score.json"))


def test_ledgers_say_where_each_sample_came_from(here: Path, tmp_path: Path) -> None:
    """A row of a selection holds source shard, key, offset, length and all that the run's judges measured."""
    out = tmp_path / "out"
    assert select(here / "run", "--shards", here / "in", "-o", out) == 0
    known = {(row["shard"], row["key"]): row for row in rows_of(here / "run")}
    for row in rows_of(out):
        source = known[row["source_shard"], row["source_key"]]
        for name in ("offset", "length", "rules", "scripted", "url", "uid", "image_sha256"):
            assert row[name] == source[name]


@pytest.mark.filterwarnings("ignore")
def test_webdataset_reads_it(here: Path, tmp_path: Path) -> None:
    """webdataset finds image, caption, json and scores in every sample of the new shards."""
    import webdataset

    out = tmp_path / "out"
    assert (
        select(here / "run", "--shards", here / "in", "-o", out, "--samples-per-shard", 7, "--shuffle") == 0
    )
    names = [str(out / name) for name in (out / "shards.txt").read_text().split()]
    samples = list(webdataset.WebDataset(names, shardshuffle=False, empty_check=False).decode("pil"))
    assert len(samples) == sum(json_of(out / "sizes.json").values()) == len(rows_of(out))
    assert all({"jpg", "txt", "json", "bin", "score.json"} <= set(sample) for sample in samples)


@pytest.mark.parametrize("more", [[], ["--shuffle", "--seed", "3"]], ids=["in order", "shuffled"])
def test_the_same_question_gives_the_same_bytes(here: Path, tmp_path: Path, more: list[str]) -> None:
    """Neither the number of workers nor where things lie leaves a trace."""
    question = ["--where", "scripted.score >= 3", "--samples-per-shard", "5", *more]
    assert select(here / "run", "--shards", here / "in", "-o", tmp_path / "one", *question) == 0
    shutil.copytree(here, tmp_path / "moved")
    moved = ["select", str(tmp_path / "moved/run"), "--shards", str(tmp_path / "moved/in"), *question]
    assert main([*moved, "-o", str(tmp_path / "two"), "--workers", "2"]) == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_shuffling_changes_the_order_alone(here: Path, tmp_path: Path) -> None:
    """A shuffled selection holds the same samples in another order, and another seed in yet another one."""
    found = []
    for number, more in enumerate(([], ["--shuffle"], ["--shuffle", "--seed", "1"])):
        out = tmp_path / str(number)
        assert select(here / "run", "--shards", here / "in", "-o", out, *more) == 0
        found.append(chosen(out))
    assert sorted(found[0]) == sorted(found[1]) == sorted(found[2])
    assert found[0] == sorted(found[0])
    assert len({tuple(order) for order in found}) == 3


KILLS = [
    "run.committed:1",
    "shard.begun:2",
    "shard.written:2",
    "ledger.written:1",
    "ledger.linked:2",
    "shard.linked:3",
    "temporaries.removed:1",
    "index.replaced:2",
    "summary.replaced:1",
]


@pytest.mark.parametrize("kill", KILLS)
def test_kill_and_run_again(here: Path, tmp_path: Path, kill: str) -> None:
    """A selection that is killed anywhere and started again gives the undisturbed tree and leaves nothing behind."""
    question = [here / "run", "--shards", here / "in", "--samples-per-shard", 8, "--workers", 1]
    out = tmp_path / "out"
    code, _, err = finished(start("select", *map(str, question), "-o", out, WDSFILTER_FAILPOINT=kill))
    assert code == -signal.SIGKILL, err
    assert all((out / f"wdsfilter/ledger/{tar.stem}.parquet").exists() for tar in out.glob("*.tar"))
    assert select(*map(str, question), "-o", out) == 0
    assert select(*map(str, question), "-o", tmp_path / "undisturbed") == 0
    assert tree(out) == tree(tmp_path / "undisturbed")
    assert list((out / "wdsfilter/tmp").iterdir()) == []


def test_status_and_verify_take_a_selection(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A selection is done when it is, every promise of it is looked after, and tampering is named."""
    out = tmp_path / "out"
    question = ["--shards", here / "in", "--samples-per-shard", 8, "-o", out]
    assert select(here / "run", *question, "--where", "scripted.score >= 2", "--shuffle") == 0
    assert main(["status", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    assert "every promise holds; " in capsys.readouterr().out
    assert main(["verify", str(out), "--shards", str(here / "in")]) == 1
    assert "is a selection" in capsys.readouterr().err
    data = bytearray((out / "00000.tar").read_bytes())
    data[600] ^= 1
    (out / "00000.tar").write_bytes(data)
    (out / "00002.tar").unlink()
    assert main(["verify", str(out)]) == 3
    told = capsys.readouterr().out
    assert "00000.tar: its bytes are not those" in told
    assert "00002.tar: missing" in told
    assert "3 broken promises" in told  # the image that was changed is the third


def test_a_shard_that_is_missing_is_made_again(here: Path, tmp_path: Path) -> None:
    """A shard whose ledger is there comes back with its own bytes."""
    question = [here / "run", "--shards", here / "in", "--samples-per-shard", 8, "-o", tmp_path / "out"]
    assert select(*question) == 0
    before = tree(tmp_path / "out")
    (tmp_path / "out/00001.tar").unlink()
    assert select(*question) == 0
    assert tree(tmp_path / "out") == before


def test_another_selections_folder_is_refused(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another question into the same folder is refused with what differs, and nothing changes."""
    arguments = [here / "run", "--shards", here / "in", "-o", tmp_path / "out"]
    assert select(*arguments, "--where", "scripted.score >= 3") == 0
    before = tree(tmp_path / "out")
    assert select(*arguments, "--where", "scripted.score >= 4") == 1
    assert 'question.where: "scripted.score >= 3" there, "scripted.score >= 4" now' in capsys.readouterr().err
    assert tree(tmp_path / "out") == before
    for inside in (here / "run", here / "run/new"):
        assert select(here / "run", "--shards", here / "in", "-o", inside) == 1
        assert "is selected from; choose a folder that is not in it" in capsys.readouterr().err


def test_keys_of_several_shards_become_unique(tmp_path: Path) -> None:
    """Keys that two shards share get their shard's name in front, others stay; bytes and extensions stay too."""
    write_shard(tmp_path / "in/a.v1.tar", ["same", "one"])
    write_shard(tmp_path / "in/b.tar", ["same", "two"], "another picture, number {}")
    (tmp_path / "r.yaml").write_text("judges: [scripted]\nguard: off\n")
    run = ["run", str(tmp_path / "r.yaml"), "--shards", str(tmp_path / "in"), "-o", str(tmp_path / "run")]
    assert main(run) == 0
    assert select(tmp_path / "run", "--shards", tmp_path / "in", "-o", tmp_path / "out") == 0
    assert [row["key"] for row in rows_of(tmp_path / "out")] == ["a.v1/same", "one", "b/same", "two"]
    found = members(tmp_path / "out/00000.tar")
    assert found["b/same.txt"] == members(tmp_path / "in/b.tar")["same.txt"]
    assert {"a.v1/same.jpg", "a.v1/same.score.json", "one.jpg"} <= set(found)


def test_inputs_that_changed_or_are_gone_are_refused(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An input of another size, with other content, missing or compressed costs one line that names it."""
    arguments = [here / "run", "-o", tmp_path / "out", "--shards", tmp_path / "in"]

    def said() -> str:
        assert select(*arguments) == 1
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wdsfilter")]
        return line

    shutil.copytree(here / "in", tmp_path / "in")
    path = tmp_path / "in/s-0000.tar"
    data = path.read_bytes()
    path.unlink()
    assert "s-0000.tar: not among the input shards" in said()
    path.write_bytes(data + bytes(512))
    assert f"has {len(data) + 512} bytes, and had {len(data)} when it was judged" in said()
    path.write_bytes(b"\x1f\x8b" + data[2:])
    assert "is compressed" in said()
    path.write_bytes(data[:2048].replace(b"0000", b"9999") + data[2048:])
    assert "is not the file that its ledger was made of" in said()
    assert list((tmp_path / "out").glob("*.tar")) == []


def test_a_compressed_input_can_be_replaced_by_its_content(tmp_path: Path) -> None:
    """A shard that was judged compressed is refused, until a remap of its whole name says where its content lies."""
    plain = write_shard(tmp_path / "plain.tar", ["a", "b"])
    (tmp_path / "in").mkdir()
    (tmp_path / "in/s.tar.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    (tmp_path / "r.yaml").write_text("judges: [scripted]\nguard: off\n")
    run = ["run", str(tmp_path / "r.yaml"), "--shards", str(tmp_path / "in"), "-o", str(tmp_path / "run")]
    assert main(run) == 0
    assert select(tmp_path / "run", "--shards", tmp_path / "in", "-o", tmp_path / "out") == 1
    assert select(tmp_path / "run", "--remap", f"s.tar={plain}", "-o", tmp_path / "out") == 0
    assert everything(tmp_path / "out").items() >= members(plain).items()


def test_inputs_are_found_where_the_run_read_them(here: Path, tmp_path: Path) -> None:
    """The run noted where its shards lay: nobody has to say so again, as long as they lie there."""
    assert select(here / "run", "--shards", here / "in", "-o", tmp_path / "named") == 0
    assert select(here / "run", "-o", tmp_path / "noted") == 0
    assert tree(tmp_path / "noted") == tree(tmp_path / "named")


def test_inputs_that_nobody_noted_have_to_be_named(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has ledgers and no more is told which option says where the shards lie."""
    assert select(forgetful(here / "run", tmp_path / "run"), "-o", tmp_path / "out") == 1
    assert "--shards PATTERN" in capsys.readouterr().err


def test_no_secret_is_noted() -> None:
    """A pattern that may hold one, or cannot be read twice, is left out of what a run notes."""
    paths = [
        "https://me:secret@host/{0..9}.tar",
        "https://host/a.tar?X-Signature=secret",
        "-",
        "s3://b/*.tar",
        "in",
    ]
    noted = as_noted(Pattern(path, "new") for path in paths)
    assert noted == [{"path": path, "as": "new"} for path in ("s3://b/*.tar", str(Path("in").absolute()))]


def test_inputs_that_moved_are_found_by_remap(here: Path, tmp_path: Path) -> None:
    """Shards whose names begin with OLD are read where NEW begins; no pattern is needed then."""
    shutil.copytree(here / "in", tmp_path / "new")
    assert select(here / "run", "--remap", f"s-={tmp_path}/new/s-", "-o", tmp_path / "out") == 0
    assert everything(tmp_path / "out") == everything(here / "run")


def test_inputs_that_moved_are_found_by_the_place_where_they_lay(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OLD may be the beginning of what the run was told to read, or of --shards; one that fits nothing is refused."""
    shutil.copytree(here, tmp_path / "old")
    run = ["run", str(tmp_path / "old/recipe.yaml"), "-o", str(tmp_path / "run"), "--shards"]
    assert main([*run, f"{tmp_path}/old/in/*.tar"]) == 0
    (tmp_path / "old").rename(tmp_path / "new")
    remap = ["--remap", f"{tmp_path}/old={tmp_path}/new"]
    assert select(tmp_path / "run", *remap, "-o", tmp_path / "out") == 0
    assert everything(tmp_path / "out") == everything(here / "run")
    assert select(tmp_path / "run", *remap, "-o", tmp_path / "o2", "--shards", f"{tmp_path}/old/in") == 0
    capsys.readouterr()
    assert select(tmp_path / "run", "--remap", f"/else={tmp_path}/new", "-o", tmp_path / "o3") == 1
    told = capsys.readouterr().err
    assert (
        f"nothing begins with /else; the shards are called s-0000.tar and so on, and lay at {tmp_path}/old/"
        in told
    )


def test_scores_stay_at_home(here: Path, tmp_path: Path) -> None:
    """With --scores none samples leave with their own members alone."""
    assert select(here / "run", "--shards", here / "in", "-o", tmp_path / "out", "--scores", "none") == 0
    assert everything(tmp_path / "out").items() <= everything(here / "in").items()


def test_one_tar_to_standard_output(here: Path, tmp_path: Path) -> None:
    """--to - streams a whole tar of the chosen samples and prints nothing else there."""
    arguments: list[str | Path] = ["select", here / "run", "--shards", here / "in", "--to", "-"]
    done = subprocess.run(command(*arguments), env=environment(), capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert set(tar.getnames()) == set(everything(here / "run"))
    assert done.stdout.endswith(bytes(1024))


def test_a_closed_pipe_ends_cleanly(here: Path, tmp_path: Path) -> None:
    """Whoever reads the stream may stop: no traceback, exit code 0."""
    many = write_shard(tmp_path / "in/many.tar", [f"{n:05d}" for n in range(300)])
    (tmp_path / "r.yaml").write_text("judges: [scripted]\nguard: off\n")
    assert main(["run", str(tmp_path / "r.yaml"), "--shards", str(many), "-o", str(tmp_path / "run")]) == 0
    arguments: list[str | Path] = ["select", tmp_path / "run", "--shards", many, "--to", "-"]
    process = subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(100)
    process.stdout.close()
    told = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 0, told
    assert "Error" not in told


def test_where_to_is_said_once(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a goal, or with two, one line says which there are."""
    assert select(here / "run") == 1
    assert select(here / "run", "-o", tmp_path / "out", "--to", "-") == 1
    assert capsys.readouterr().err.count("one of --output FOLDER, --to - and --export FILE") == 2


def test_a_question_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during a long question ends it at once; nothing stays, and the same command goes on from there."""
    pattern = run_here(tmp_path, 2)
    arguments = [tmp_path / "run", "--shards", pattern, "-o", tmp_path / "out"]

    def interrupted(*asked: object, **how: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the question went on")

    with monkeypatch.context() as patched:
        patched.setattr(selection, "ask", interrupted)
        assert select(*arguments) == 75
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert select(*arguments) == 0
