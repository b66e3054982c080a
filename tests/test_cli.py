"""The command line: exit codes, and one line for a user's mistake."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import fsspec
import pytest

from tests.runs import (
    ROOT,
    command,
    environment,
    finished,
    make_shards,
    members,
    sleepless,
    start,
    tree,
    write_recipe,
    write_shard,
)
from wdsfilter import storage
from wdsfilter.cli import main
from wdsfilter.errors import ReadError
from wdsfilter.streams import Stat


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture
def shards(tmp_path: Path) -> str:
    return make_shards(tmp_path / "in", 3)


def test_run_writes_shards_ledgers_and_indexes(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run leaves one shard and one ledger per input shard that keeps something, and says what it kept."""
    out = tmp_path / "out"
    assert main(["run", str(recipe), "--shards", shards, "-o", str(out)]) == 0
    assert set(tree(out)) == {
        *("s-0000.tar", "s-0002.tar"),
        *("shards.txt", "sizes.json", "_info.json", "index.json"),
        *(f"wdsfilter/ledger/s-000{i}.parquet" for i in range(3)),
        *("wdsfilter/run.json", "wdsfilter/readout.json", "wdsfilter/summary.json"),
    }
    assert (out / "shards.txt").read_text() == "s-0000.tar\ns-0002.tar\n"
    assert "36" in capsys.readouterr().out


def test_members_of_kept_samples_leave_byte_identical(recipe: Path, shards: str, tmp_path: Path) -> None:
    """Every member of a kept sample is in the output as it was; only KEY.score.json is new."""
    out = tmp_path / "out"
    assert main(["run", str(recipe), "--shards", shards, "-o", str(out)]) == 0
    before, after = members(tmp_path / "in/s-0000.tar"), members(out / "s-0000.tar")
    new = {name for name in after if name not in before}
    assert new == {name for name in after if name.endswith(".score.json")}
    assert len(after) == 5 * len(new), "four members of each kept sample, and its scores"
    assert all(after[name] == before[name] for name in after if name not in new)


def test_run_again_does_nothing(recipe: Path, shards: str, tmp_path: Path) -> None:
    """A finished run that is started again exits 0 and touches nothing."""
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.*") if "events" not in p.parts}
    assert main(arguments) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_limited_run_goes_on_with_all_shards(recipe: Path, shards: str, tmp_path: Path) -> None:
    """--limit-shards is the beginning of the whole run, and the whole run goes on from it."""
    arguments = ["run", str(recipe), "--shards", shards]
    assert main([*arguments, "-o", str(tmp_path / "a"), "--limit-shards", "1"]) == 0
    assert len(list((tmp_path / "a/wdsfilter/ledger").iterdir())) == 1
    assert main([*arguments, "-o", str(tmp_path / "a")]) == 0
    assert main([*arguments, "-o", str(tmp_path / "b")]) == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_scores_as_a_field_of_the_json(recipe: Path, shards: str, tmp_path: Path) -> None:
    """With `scores: json` nothing is added but one field, at the end of the sample's own .json."""
    out = tmp_path / "out"
    assert main(["run", str(recipe), "--shards", shards, "-o", str(out), "--set", "output.scores=json"]) == 0
    before, after = members(tmp_path / "in/s-0000.tar"), members(out / "s-0000.tar")
    assert set(after) <= set(before)
    for name, data in after.items():
        if name.endswith(".json"):
            assert data.startswith(before[name][:-1])
            assert json.loads(data)["wdsfilter"]["scripted"]["grade"] >= 5
        else:
            assert data == before[name]
    assert main(["verify", str(out), "--shards", shards]) == 0


def test_ledgers_only(recipe: Path, shards: str, tmp_path: Path) -> None:
    """With `shards: false` every sample has its row, and no tar is written."""
    out = tmp_path / "out"
    assert main(["run", str(recipe), "--shards", shards, "-o", str(out), "--set", "output.shards=false"]) == 0
    assert not list(out.rglob("*.tar"))
    assert json.loads((out / "wdsfilter/summary.json").read_text())["counts"]["samples"] == 36
    assert main(["verify", str(out)]) == 0


def test_standard_input(recipe: Path, shards: str, tmp_path: Path) -> None:
    """A tar on standard input is judged like any other, once."""
    out = tmp_path / "out"
    with (tmp_path / "in/s-0000.tar").open("rb") as tar:
        done = subprocess.run(
            command("run", recipe, "--shards", "-", "-o", out),
            stdin=tar,
            env=environment(),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert "cannot be resumed" in done.stderr
    assert main(["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "file")]) == 0
    assert list((out / "wdsfilter/tmp").iterdir()) == [], "the copy of the stream is removed"
    assert (out / "stdin.tar").read_bytes() == (tmp_path / "file/s-0000.tar").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["cc12mm"], "did you mean cc12m?", id="unknown-recipe"),
        pytest.param(
            ["RECIPE", "--shards", "nothing-*.tar"], "no shard matches nothing-*.tar", id="no-shard"
        ),
        pytest.param(["RECIPE"], "no shards given", id="no-shards-given"),
        pytest.param(["RECIPE", "--set", "judges.scripted.sed=1"], "did you mean seed?", id="unknown-key"),
        pytest.param(["RECIPE", "--set", "judges.vlm.model=x"], "no judge 'vlm', only", id="unknown-judge"),
        pytest.param(["RECIPE", "--set", "x"], "expected PATH=VALUE", id="no-value"),
        pytest.param(
            ["RECIPE", "--shards", "SHARDS", "--set", "input.caption=caption"],
            "no .caption among",
            id="no-caption",
        ),
        pytest.param(
            ["RECIPE", "--shards", "SHARDS", "--set", "input.image=[tiff]"],
            "none of tiff among",
            id="no-image",
        ),
        pytest.param(["RECIPE", "--shards", "pipe:cat x"], "commands are not run", id="pipe"),
    ],
)
def test_a_users_mistake_is_one_line(
    arguments: list[str],
    said: str,
    recipe: Path,
    shards: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mistake exits 1, says what was found and what is accepted, and shows no traceback."""
    known = {"RECIPE": str(recipe), "SHARDS": shards}
    code = main(["run", *[known.get(a, a) for a in arguments], "-o", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert code == 1
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_a_missing_extra_is_named_with_its_command(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shards in a store whose library is not installed cost one line, which says how to install it."""

    def not_there(url: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", not_there)
    assert main(["run", str(recipe), "--shards", "s3://b/x.tar", "-o", str(tmp_path / "out")]) == 1
    assert "pip install 'wdsfilter[s3]'" in capsys.readouterr().err
    assert not (tmp_path / "out/wdsfilter/run.json").exists()


def test_no_output_folder_is_a_mistake(recipe: Path, shards: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without an output folder says how to name one."""
    assert main(["run", str(recipe), "--shards", shards]) == 1
    assert "--output FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        pytest.param(
            "judges.scripted.seed=8", "scoring.judges.scripted.options.seed: 7 there, 8 now", id="scoring"
        ),
        pytest.param("judges.scripted.at_least=6", "at_least: 5 there, 6 now", id="decision"),
        pytest.param("output.scores=none", 'output.scores: "member" there, "none" now', id="output"),
    ],
)
def test_another_runs_folder_is_refused(
    override: str, said: str, recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of a run that scores, decides or writes otherwise is refused, with the difference.

    Where that is a threshold alone, `select` is named.
    """
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    before = tree(tmp_path / "out")
    assert main([*arguments, "--set", override]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert (f"wdsfilter select {tmp_path}/out --where" in told) == said.startswith("at_least")
    assert tree(tmp_path / "out") == before


def test_more_shards_are_no_conflict(recipe: Path, tmp_path: Path) -> None:
    """A run goes on when shards were added to its input."""
    arguments = ["run", str(recipe), "-o", str(tmp_path / "out"), "--shards"]
    assert main([*arguments, make_shards(tmp_path / "in", 2)]) == 0
    assert main([*arguments, make_shards(tmp_path / "in", 4)]) == 0
    assert len(list((tmp_path / "out/wdsfilter/ledger").iterdir())) == 4


def test_a_changed_input_shard_is_refused(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard that is not the one its ledger was made of stops the run before any work."""
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    write_shard(tmp_path / "in/s-0002.tar", [f"k{i}" for i in range(99)])
    assert main(arguments) == 1
    assert "s-0002.tar has" in capsys.readouterr().err


def test_filtering_filtered_shards_names_the_way_out(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A score member that is there already is refused, and the named option works."""
    assert main(["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]) == 0
    again = ["run", str(recipe), "--shards", str(tmp_path / "out/s-*.tar"), "-o", str(tmp_path / "again")]
    assert main(again) == 1
    assert "--set output.score_extension=score2.json" in capsys.readouterr().err
    assert main([*again, "--set", "output.score_extension=score2.json"]) == 0


def test_a_damaged_shard_gives_its_samples_and_exit_code_3(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cut shard's complete samples are judged, the run goes on, and summary, status and exit code tell."""
    cut = tmp_path / "in/s-0002.tar"
    cut.write_bytes(cut.read_bytes()[:20000])
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main(arguments) == 3
    captured = capsys.readouterr()
    assert "s-0002.tar: damaged" in captured.err
    assert "incomplete" in captured.out
    assert main(["status", str(tmp_path / "out")]) == 3
    assert main(["verify", str(tmp_path / "out"), "--shards", shards]) == 0
    tolerant = ["--set", "input.tolerate.damaged_shards=1", "--set", "input.tolerate.unreadable=50%"]
    assert main([*arguments, *tolerant]) == 0


def test_a_vanished_shard_commits_nothing_and_is_tried_again(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard that cannot be read has no ledger, gives exit code 3, and the next run takes it up."""
    shard = tmp_path / "in/s-0001.tar"
    content = shard.read_bytes()
    shard.unlink()
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main([*arguments, "--set", "run.read_attempts=1"]) == 3
    assert "not read" in capsys.readouterr().err
    assert not (tmp_path / "out/wdsfilter/ledger/s-0001.parquet").exists()
    assert main(["status", str(tmp_path / "out")]) == 3
    assert "s-0001.tar" in capsys.readouterr().out
    shard.write_bytes(content)
    assert main(arguments) == 0
    assert main(["status", str(tmp_path / "out")]) == 0


def test_a_source_that_cannot_be_read_at_all_is_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When no shard can be read, the run says why before it loads anything."""
    arguments = [
        "run",
        str(recipe),
        "--shards",
        "memory://nowhere/s-{0000..0099}.tar",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 1
    assert "memory://nowhere/s-00" in capsys.readouterr().err
    assert not (tmp_path / "out/wdsfilter/run.json").exists()


def test_input_and_output_must_not_meet(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shards in the output folder are not taken for input, and files in the way are refused before any work."""
    assert main(["run", str(recipe), "--shards", str(tmp_path / "in"), "-o", str(tmp_path / "in")]) == 1
    assert "lies in the output folder" in capsys.readouterr().err
    inside = ["run", str(recipe), "--shards", str(tmp_path / "in"), "-o", str(tmp_path / "in/out")]
    assert main(inside) == 0
    before = tree(tmp_path / "in/out")
    assert main(inside) == 1, "its own output is below the input folder now"
    assert tree(tmp_path / "in/out") == before
    other = write_shard(tmp_path / "other/s-0000.tar", ["somebody's"])
    for _ in range(2):
        assert main(["run", str(recipe), "--shards", shards, "-o", str(other.parent)]) == 1
        assert "is in the way" in capsys.readouterr().err
    assert not (tmp_path / "other/wdsfilter").exists()


def test_a_cut_output_shard_is_not_done(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An output shard of another size than its ledger says is neither done nor silently replaced."""
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    shard = tmp_path / "out/s-0000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:1000])
    assert main(["status", str(tmp_path / "out")]) == 75
    assert main(arguments) == 1
    assert "remove it, and run again" in capsys.readouterr().err
    shard.unlink()
    assert main(arguments) == 0
    assert shard.read_bytes() == content


def test_a_shard_that_can_be_neither_rebuilt_nor_judged_is_told(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing output shard whose input is gone too is unread: exit code 3, and status names it."""
    arguments = [
        "run",
        str(recipe),
        "--shards",
        shards,
        "-o",
        str(tmp_path / "out"),
        "--set",
        "run.read_attempts=1",
    ]
    assert main(arguments) == 0
    (tmp_path / "in/s-0000.tar").unlink()
    (tmp_path / "out/s-0000.tar").unlink()
    capsys.readouterr()
    assert main(arguments) == 3
    assert "not read: s-0000.tar" in capsys.readouterr().out


def test_one_sample_without_room_for_scores_costs_itself(recipe: Path, tmp_path: Path) -> None:
    """A stray score member in the middle of a data set is one unreadable sample, not the end of the run."""
    write_shard(tmp_path / "in/a.tar", [f"a{i}" for i in range(8)])
    with tarfile.open(tmp_path / "in/a.tar", "a") as tar:
        for name, data in (("z.jpg", b"x"), ("z.txt", b"two words"), ("z.score.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert main(["run", str(recipe), "--shards", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 3
    counts = json.loads((tmp_path / "out/wdsfilter/summary.json").read_text())["counts"]
    assert (counts["samples"], counts["unreadable"], counts["reasons"]["score_name_taken"]) == (9, 1, 1)


def test_names_with_brackets_and_braces(recipe: Path, tmp_path: Path) -> None:
    """A path that exists is itself, whatever a pattern could make of it."""
    write_shard(tmp_path / "br[1]{a}/x{0..1}.tar", ["a"])
    for number, path in enumerate(("br[1]{a}", "br[1]{a}/x{0..1}.tar")):
        out = tmp_path / f"out{number}"
        assert main(["run", str(recipe), "--shards", str(tmp_path / path), "-o", str(out)]) == 0
        assert (out / "wdsfilter/ledger/x{0..1}.parquet").exists()


def test_a_device_that_is_not_there_is_one_line(
    shards: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that torch does not know, or that this machine lacks, is a mistake told in one line."""
    for device in ("foo", "cuda:77"):
        overrides = ["--set", f"run.device={device}", "--set", f"judges.vlm.model={tiny_checkpoint}"]
        assert main(["run", "demo", "--shards", shards, "-o", str(tmp_path / "out"), *overrides]) == 1
        captured = capsys.readouterr().err
        assert f"run.device: '{device}' is no device" in captured
        assert captured.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_while_loading_is_an_interruption_too(number: int, shards: str, tmp_path: Path) -> None:
    """Before the first batch a signal stops at once, with the same exit code 75."""
    process = start(
        "run", "demo", "--shards", shards, "-o", tmp_path / "out", "--set", "judges.vlm.model=nobody/nothing"
    )
    assert process.stderr is not None
    deadline = time.monotonic() + 60
    while not _catches(process.pid, signal.SIGTERM) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    code, _, err = finished(process)
    assert code == 75, err
    assert "Run the same command again" in err


def _catches(pid: int, number: int) -> bool:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) & 1 << (number - 1))


def test_a_shard_that_reads_at_the_second_try_is_done(
    recipe: Path, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read error that passes is tried again in the same run, and leaves no trace in the exit code."""
    real = storage.open_read
    failed: list[str] = []

    @contextmanager
    def flaky(location: str, *expected: Stat) -> Iterator[BinaryIO]:
        under_way = (tmp_path / "out/wdsfilter/run.json").exists()  # planning and checking read it too
        if under_way and location.endswith("s-0002.tar") and len(failed) < 2:
            failed.append(location)
            raise ReadError(f"{location}: connection reset")
        with real(location, *expected) as stream:
            yield stream

    monkeypatch.setattr(storage, "open_read", flaky)
    assert main(["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]) == 0
    assert len(failed) == 2
    assert main(["verify", str(tmp_path / "out"), "--shards", shards]) == 0


def test_old_read_failures_are_forgotten(recipe: Path, shards: str, tmp_path: Path) -> None:
    """What an earlier launch could not read, and this one is not asked for, counts no more."""
    hidden = (tmp_path / "in/s-0001.tar").rename(tmp_path / "hidden.tar")
    arguments = ["run", str(recipe), "-o", str(tmp_path / "out"), "--set", "run.read_attempts=1", "--shards"]
    assert main([*arguments, shards]) == 3
    assert main([*arguments, str(tmp_path / "in/s-*.tar")]) == 0
    assert main(["status", str(tmp_path / "out")]) == 0
    assert hidden.exists()


@pytest.mark.parametrize(("share", "code"), [("1%", 3), ("60%", 0)])
def test_tolerate_decides_about_unreadable_samples(
    share: str, code: int, recipe: Path, tmp_path: Path
) -> None:
    """More unreadable samples than the recipe tolerates give exit code 3, fewer 0."""
    write_shard(tmp_path / "in/a.tar", ["a", "b", "img.1", "img.2"])
    arguments = ["run", str(recipe), "--shards", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--set", f"input.tolerate.unreadable={share}"]) == code


def test_the_guard_sees_what_others_judged(shards: str, tmp_path: Path) -> None:
    """The guard counts the samples of all processes: one that starts on a bad run stops before its first shard."""
    recipe = write_recipe(tmp_path, "judges: [scripted: {grade: 1}]\nguard: {after: 30, kept: [1%, 95%]}\n")
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main([*arguments, "--set", "guard=off", "--limit-shards", "2"]) == 0
    assert main([*arguments, "--set", "guard.after=20"]) == 4
    assert len(list((tmp_path / "out/wdsfilter/ledger").iterdir())) == 2


def test_derived_files_are_whole_after_an_interruption(recipe: Path, tmp_path: Path) -> None:
    """Indexes and summary speak of everything that was committed when a run was stopped."""
    shards = make_shards(tmp_path / "in", 6, 20)
    slow = ["--set", "judges.scripted.seconds_per_pair=0.02"]
    process = start("run", recipe, "--shards", shards, "-o", tmp_path / "out", *slow)
    while len(list((tmp_path / "out").glob("wdsfilter/ledger/*"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert finished(process)[0] == 75
    assert main(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("cut", [20000, 700], ids=["late", "in-the-first-member"])
def test_damage_in_a_name_that_is_no_utf8(cut: int, recipe: Path, tmp_path: Path) -> None:
    """A cut inside a member whose name no ledger could hold is damage like any other."""
    write_shard(tmp_path / "in/a.tar", [f"caf\udce9{i}" for i in range(10)])
    write_shard(tmp_path / "in/b.tar", ["a", "b"])
    data = (tmp_path / "in/a.tar").read_bytes()
    (tmp_path / "in/a.tar").write_bytes(data[:cut])
    arguments = ["run", str(recipe), "--shards", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main(arguments) == 3
    assert main(["verify", str(tmp_path / "out"), "--shards", str(tmp_path / "in")]) == 0


def test_a_changed_remote_shard_is_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A remote shard of another size than its ledger says is refused like a local one."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for number, keys in enumerate((["a", "b"], ["a", "b", "c"] * 9)):
        name = write_shard(tmp_path / f"{number}.tar", [f"{key}{i}" for i, key in enumerate(keys)])
        memory.pipe("/changing/s.tar", name.read_bytes())
        code = main(["run", str(recipe), "--shards", "memory://changing/s.tar", "-o", str(tmp_path / "out")])
        assert code == number
    assert "when it was judged" in capsys.readouterr().err


def test_a_stalled_read_does_not_hold_up_a_stop(recipe: Path, tmp_path: Path) -> None:
    """A run that waits for a stream that gives nothing ends soon after it is asked to."""
    shards = make_shards(tmp_path / "in", 2)
    script = (
        "import sys, time, contextlib\n"
        "from wdsfilter import cli, stages, storage\n"
        "real = storage.open_read\n"
        "@contextlib.contextmanager\n"
        "def stall(*asked):\n"
        "    with real(*asked) as stream:\n"
        "        yield stream\n"
        "        print('stalled', flush=True); time.sleep(60)\n"
        "stages.storage = type('S', (), {**vars(storage), 'open_read': staticmethod(stall)})\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "stalled")]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stalled\n"
    time.sleep(0.5)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert finished(process)[0] == 75
    assert time.monotonic() - asked < 20


def test_the_guard_stops_a_run_that_keeps_nothing(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A share outside the guard's bounds stops the run with exit code 4, and it can go on without the guard."""
    recipe = write_recipe(tmp_path, "judges: [scripted: {grade: 1}]\nguard: {after: 10, kept: [1%, 95%]}\n")
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main(arguments) == 4
    assert "0.00% of" in capsys.readouterr().err
    assert main(["status", str(tmp_path / "out")]) == 4
    assert main([*arguments, "--set", "guard=off"]) == 0
    assert main(["status", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_ends_the_run_in_a_resumable_state(number: int, recipe: Path, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM end after the batch in hand with exit code 75, say how to go on, and it goes on."""
    shards = make_shards(tmp_path / "in", 6, 20)
    slow = ["--set", "judges.scripted.seconds_per_pair=0.05"]
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out"), *slow]
    process = start(*arguments)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("wdsfilter/ledger/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    code, _, err = finished(process)
    assert code == 75, err
    assert "Run the same command again" in err
    assert main(["status", str(tmp_path / "out")]) == 75
    assert list((tmp_path / "out/wdsfilter/tmp").iterdir()) == []
    with sleepless():
        assert main(arguments) == 0
    assert main(["verify", str(tmp_path / "out"), "--shards", shards]) == 0


def test_a_full_disk_is_one_line(recipe: Path, tmp_path: Path) -> None:
    """No space left is a user's error that names the folder, and what is committed stays whole."""
    shards = make_shards(tmp_path / "in", 4, 50)
    script = (
        "import os, sys, errno\n"
        "from wdsfilter import cli\n"
        "from wdsfilter.shards import writer\n"
        "count = 0\n"
        "def full(descriptor, data):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count > 2: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    return real(descriptor, data)\n"
        "real, writer.os.write = os.write, full\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out/wdsfilter/tmp").iterdir()) == []
    assert main(arguments) == 0
    assert main(["verify", str(tmp_path / "out"), "--shards", shards]) == 0


def test_status_as_json(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """status --json prints counts and state for machines."""
    assert main(["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(["status", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["done"], found["total"], found["counts"]["samples"]) == ("done", 3, 3, 36)


@pytest.mark.parametrize("name", ["status", "verify"])
def test_a_folder_that_is_no_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """status and verify of some other folder say so."""
    assert main([name, str(tmp_path)]) == 1
    assert "not the output folder of a run" in capsys.readouterr().err


def test_recipes_are_listed_shown_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """recipes list names every recipe with its purpose, show prints it, check validates it."""
    assert main(["recipes", "list"]) == 0
    listed = capsys.readouterr().out
    assert "cc12m" in listed
    assert "11 M web pairs" in listed
    assert main(["recipes", "show", "cc12m"]) == 0
    assert "judges:" in capsys.readouterr().out
    assert main(["recipes", "check", "cc12m", "--set", "judges.vlm.at_least=8"]) == 0
    assert main(["recipes", "check", "cc12m", "--set", "judges.vlm.at_least=eleven"]) == 1


def test_an_output_url_is_refused(recipe: Path, shards: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A URL that is not of an object store is not taken for a folder of that name."""
    assert main(["run", str(recipe), "--shards", shards, "-o", "https://example.org/kept"]) == 1
    assert "has to be a local or network folder" in capsys.readouterr().err


def test_a_broken_ledger_is_named(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ledger that cannot be read stops the run with its name and the way out."""
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    ledger = tmp_path / "out/wdsfilter/ledger/s-0000.parquet"
    ledger.write_bytes(ledger.read_bytes()[:-1])
    assert main(arguments) == 1
    assert f"{ledger} is no ledger" in capsys.readouterr().err
    ledger.unlink()
    assert main(arguments) == 1, "the shard is in the way: nothing tells whose it is"
    (tmp_path / "out/s-0000.tar").unlink()
    assert main(arguments) == 0


def test_other_versions_are_warned_about(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that goes on with another version of a library says so, and goes on."""
    arguments = ["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]
    assert main([*arguments, "--limit-shards", "1"]) == 0
    (log,) = (tmp_path / "out/wdsfilter/events").glob("*.jsonl")
    log.write_text(log.read_text().replace('"pillow": "', '"pillow": "0.'))
    assert main(arguments) == 0
    assert "warning: scores may differ" in capsys.readouterr().err


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that does not exist is a usage error."""
    assert main(["run", "--no-such-flag"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_help_and_import_load_no_torch() -> None:
    """`import wdsfilter` and `--help` load neither torch nor transformers (promise 10)."""
    script = (
        "import sys, wdsfilter, wdsfilter.cli\n"
        "for a in (['--help'], ['run', '--help'], ['recipes', 'list'], ['recipes', 'check', 'cc12m']):\n"
        "    assert wdsfilter.cli.main(a) == 0\n"
        "assert not {'torch', 'transformers', 'accelerate'} & set(sys.modules), 'loaded'\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], env=environment(), check=True, stdout=subprocess.DEVNULL, cwd=ROOT
    )


def test_output_survives_a_closed_pipe(recipe: Path, shards: str, tmp_path: Path) -> None:
    """`wdsfilter recipes show ... | head -1` ends without a traceback."""
    with start("recipes", "show", "cc12m") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
