"""`wdsfilter run RECIPE --output -`: one tar of kept samples on standard output, and nothing else there."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.runs import command, environment, make_shards, members, write_recipe, write_shard
from wdsfilter.cli import main


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, shards ``in`` and a run over them, ``run``."""
    folder = tmp_path_factory.mktemp("pipe")
    make_shards(folder / "in", 4)
    write_recipe(folder)
    run = ["run", str(folder / "recipe.yaml"), "--shards", str(folder / "in"), "-o", str(folder / "run")]
    assert main(run) == 0
    return folder


def piped(
    here: Path, capfdbinary: pytest.CaptureFixture[bytes], *more: str, shards: str | None = None
) -> tuple[int, bytes, str]:
    """Exit code, standard output and what was told of a run into the pipe."""
    capfdbinary.readouterr()
    code = main(
        ["run", str(here / "recipe.yaml"), "--shards", shards or str(here / "in"), "--output", "-", *more]
    )
    out, err = capfdbinary.readouterr()
    return code, out, err.decode()


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def test_it_is_what_a_run_keeps(here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The members that a run writes, in its seeded order of shards; counts on stderr; no file anywhere."""
    before = sorted(here.rglob("*"))
    code, data, told = piped(here, capfdbinary)
    written = {n: d for path in (here / "run").glob("*.tar") for n, d in members(path).items()}
    assert code == 0
    assert unpacked(data) == written
    assert "samples in 4 of 4 shards" in told
    assert "scripted.at_least" in told
    assert sorted(here.rglob("*")) == before
    assert piped(here, capfdbinary, "--limit-shards", "2")[1][:-10240] in data


def test_gnu_tar_reads_it_while_it_comes(here: Path) -> None:
    """``wdsfilter run ... --output - | tar tf -`` lists every kept member, in a shell's pipe."""
    run = command("run", here / "recipe.yaml", "--shards", here / "in", "--output", "-")
    with subprocess.Popen(run, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        listed = subprocess.run(["tar", "tf", "-"], stdin=process.stdout, capture_output=True, check=True)
        assert process.wait(60) == 0
    assert len(listed.stdout.splitlines()) == sum(len(members(p)) for p in (here / "run").glob("*.tar"))


def test_a_closed_pipe_ends_it(here: Path, tmp_path: Path) -> None:
    """Whoever reads may stop: no traceback, exit code 0."""
    many = write_shard(tmp_path / "many.tar", [f"{n:05d}" for n in range(300)])
    run = command("run", here / "recipe.yaml", "--shards", many, "--output", "-")
    with subprocess.Popen(run, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        told = process.stderr.read().decode()
        assert process.wait(60) == 0, told
    assert told == "whoever reads the tar has closed it\n"


def test_standard_input_to_standard_output(
    here: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter in the middle of a pipe: a tar in, a tar out."""
    name = "s-0000.tar"
    with (here / "in" / name).open("rb") as file, io.TextIOWrapper(file) as text:
        monkeypatch.setattr("sys.stdin", text)
        code, data, _ = piped(here, capfdbinary, shards="-")
    assert code == 0
    assert unpacked(data) == dict(members(here / "run" / name))


def test_several_ranks_are_refused_in_one_line(
    here: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tar has one writer; the first rank says so, the others are silent."""
    monkeypatch.setattr("wdsfilter.launch.exit_with_parent", lambda: None)
    for rank, lines in (("0", 1), ("1", 0)):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        code, data, told = piped(here, capfdbinary)
        assert (code, data, len(told.splitlines())) == (1, b"", lines)


def test_exit_codes_are_a_runs(here: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """3 where a shard is damaged or not there, with what came before it; 4 where the guard stops it."""
    whole = (here / "in/s-0000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "gone.tar").symlink_to(tmp_path / "nowhere")
    code, data, told = piped(here, capfdbinary, "--set", "run.read_attempts=1", shards=f"{tmp_path}/*.tar")
    assert code == 3
    assert unpacked(data)
    assert "cut.tar: damaged" in told
    assert "not read: " in told
    code, _, told = piped(here, capfdbinary, "--set", "guard={after: 10, kept: [0, 1%]}")
    assert code == 4
    assert "stopped by the guard" in told
