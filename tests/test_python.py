"""What `import wdsfilter` offers: every example of docs/python.md is run, and its promises are kept."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds
from torch.utils.data import DataLoader

import wdsfilter
from tests.runs import ROOT, jpeg, make_shards, members, write_recipe, write_shard
from wdsfilter import kept as kept_stream
from wdsfilter import panel
from wdsfilter.cli import main
from wdsfilter.demo.world import write_world
from wdsfilter.errors import GuardTripped, InputError, JudgeError, ReadError, RecipeError
from wdsfilter.python import samples
from wdsfilter.stages import ShardEnds, read_items

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

DOCUMENT = (ROOT / "docs/python.md").read_text()
EXAMPLES = dict(re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)```$", DOCUMENT, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the demo was run, and a picture; to be quick, without workers, and checked on two pairs."""
    folder = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(panel, "CHECKED_PAIRS", 2)
        patch.setattr(samples, "default_count", lambda ranks: 0)
        quick = ["--set", "judges.vlm.check.first=2", "--set", "run.workers=0"]
        (folder / "wdsfilter").write_text(
            f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m wdsfilter "$@" {" ".join(quick)}\n'
        )
        (folder / "wdsfilter").chmod(0o755)
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        write_world(Path("demo/shards"), samples=36, samples_per_shard=12, seed=5)
        assert main(["run", "demo", "-o", "demo/out", "--set", "run.workers=0"]) == 0
        (folder / "picture.jpg").write_bytes(jpeg(3, 64))
        yield folder


@pytest.fixture(scope="module")
def kept(demo: Path) -> list[str]:
    """Keys that the run kept."""
    table = wdsfilter.read_ledger(demo / "demo/out", columns=["key", "status"])
    keys = [row["key"] for row in table.to_pylist() if row["status"] == "kept"]
    assert keys
    return sorted(keys)


def run_example(title: str) -> Mapping[str, Any]:
    """The example's names after it was run."""
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[title], f"docs/python.md: {title}", "exec"), names)
    return names


def test_every_public_name_is_documented_and_no_other() -> None:
    """``__all__`` is what the document promises to keep, and what an example shows."""
    promised = set(re.findall(r"^`(\w+)\(", DOCUMENT, re.MULTILINE)) | {"WdsfilterError", "__version__"}
    assert set(wdsfilter.__all__) == promised
    assert all(hasattr(wdsfilter, name) and name in dir(wdsfilter) for name in promised)
    assert not hasattr(wdsfilter, "strem")


def test_examples_take_ten_lines() -> None:
    """Each of the six is short enough to be remembered."""
    assert len(EXAMPLES) == DOCUMENT.count("```python") == 6
    assert all(len([line for line in code.splitlines() if line]) <= 10 for code in EXAMPLES.values())


def test_judge_a_pair_or_a_batch(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdicts come in order, and a picture that cannot be read is one."""
    run_example("Judge a pair, or a batch")
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3
    assert re.match(r"(kept|dropped) ", told[0])
    assert told[2].startswith("unreadable starts with b'no pict")


def test_kept_samples_as_a_stream(demo: Path, kept: list[str]) -> None:
    """The stream gives what a run keeps, and the very members that it writes."""
    found = run_example("Kept samples as a stream")["kept"]
    assert sorted(found) == kept
    written = {n: d for path in Path("demo/out").glob("*.tar") for n, d in members(path).items()}
    assert all(written[f"{key}.jpg"] == data for key, data in found.items())


@pytest.mark.parametrize(
    "title",
    ["In a DataLoader, with workers and ranks", "As a stage of a webdataset pipeline", "From a pipe"],
)
def test_loaders_get_what_a_run_keeps(title: str, demo: Path, kept: list[str]) -> None:
    """Each way into a training loop gives the samples that a run keeps, each once."""
    assert sorted(run_example(title)["keys"]) == kept


def test_a_runs_ledger_as_a_table(demo: Path, kept: list[str]) -> None:
    """A row for every sample, its shard in front, columns and fields of judges as wanted."""
    names = run_example("A run's ledger as a table")
    assert names["table"].column_names == ["shard", "key", "status", "vlm.score"]
    assert names["table"].num_rows == 36
    assert sorted(names["kept"]["key"].to_pylist()) == kept
    assert set(names["table"]["shard"].to_pylist()) == {f"world-{n:04d}.tar" for n in range(3)}
    assert wdsfilter.read_ledger("demo/out", columns=["shard"]).num_rows == 36
    for wrong in ("vlm.scor", "vlmm.score", "grade"):
        with pytest.raises(wdsfilter.WdsfilterError, match="has no column"):
            wdsfilter.read_ledger("demo/out", columns=["key", wrong])
    everything = wdsfilter.read_ledger("demo/out")
    assert {"shard", "offset", "vlm", "rules", "image_sha256"} <= set(everything.column_names)


def test_a_folder_without_ledgers_is_no_table(tmp_path: Path) -> None:
    """An empty folder is an error of ours."""
    with pytest.raises(wdsfilter.WdsfilterError, match="no ledgers"):
        wdsfilter.read_ledger(tmp_path)


# --- shares, with the scripted judge ---------------------------------------------------------------


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, list[str]]:
    """A recipe, the folder of five shards, and the keys that a run over them keeps."""
    folder = tmp_path_factory.mktemp("shares")
    make_shards(folder / "in", 5, 12)
    recipe = str(write_recipe(folder))
    assert main(["run", recipe, "--shards", str(folder / "in"), "-o", str(folder / "out")]) == 0
    rows = wdsfilter.read_ledger(folder / "out", columns=["key", "status"]).to_pylist()
    return recipe, str(folder / "in"), sorted(row["key"] for row in rows if row["status"] == "kept")


@pytest.mark.parametrize("way", ["stream", "stage"])
def test_two_ranks_with_two_workers_each_get_every_sample_once(
    way: str, scripted: tuple[str, str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all ranks and worker processes each kept sample comes exactly once."""
    recipe, folder, kept = scripted
    found: list[str] = []
    readers = set()
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        if way == "stream":
            kept_samples: Any = wdsfilter.stream(recipe, shards=folder)
        else:
            shards = sorted(map(str, Path(folder).glob("*.tar")))
            kept_samples = wds.WebDataset(
                shards, shardshuffle=False, nodesplitter=wds.split_by_node, empty_check=False
            ).compose(wdsfilter.keep(recipe))
        pipeline = wds.DataPipeline(kept_samples, with_reader)
        for pid, key in DataLoader(pipeline, batch_size=None, num_workers=2):
            found.append(key)
            readers.add((rank, pid))
    assert sorted(found) == kept
    assert len(readers) > 2
    assert all(pid != os.getpid() for _, pid in readers)


def with_reader(found: Iterator[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    for sample in found:
        yield os.getpid(), sample["__key__"]


def test_a_stream_can_be_iterated_over_again(scripted: tuple[str, str, list[str]]) -> None:
    """Every pass judges anew and gives the same samples; one that is left early costs nothing."""
    recipe, folder, kept = scripted
    stream = wdsfilter.stream(recipe, shards=[folder])
    assert next(iter(stream))["__url__"].startswith(folder)
    assert sorted(s["__key__"] for s in stream) == sorted(s["__key__"] for s in stream) == kept


def test_scores_go_along_as_the_recipe_says(scripted: tuple[str, str, list[str]]) -> None:
    """A member of its own, or a field of the sample's json; other members are as they were."""
    recipe, folder, _ = scripted
    first = next(iter(wdsfilter.stream(recipe, shards=folder)))
    assert json.loads(first["score.json"])["scripted"]["grade"] >= 5
    merged = next(iter(wdsfilter.stream(recipe, shards=folder, overrides=["output.scores=json"])))
    assert json.loads(merged["json"])["wdsfilter"] == json.loads(first["score.json"])
    assert {**merged, "json": b""} == {**{n: d for n, d in first.items() if n != "score.json"}, "json": b""}


def test_keys_that_meet_are_told_apart(tmp_path: Path) -> None:
    """Where two shards' neighbours have one key, the second one's shard stands in front: a tar of both is sound."""
    for name in ("a", "b"):
        write_shard(tmp_path / f"in/{name}.tar", ["same"])
    (tmp_path / "r.yaml").write_text("judges: [scripted]\nguard: off\n")
    found = [s["__key__"] for s in wdsfilter.stream(str(tmp_path / "r.yaml"), shards=str(tmp_path / "in"))]
    assert found[0] == "same"
    assert found[1] in ("a/same", "b/same")


def test_a_shard_that_fails_goes_on_where_it_was(
    scripted: tuple[str, str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transport error costs a second try, and no sample comes twice; in the end it is raised."""
    recipe, folder, kept = scripted
    failures = iter([7, 20])

    def failing(shards: list[Any], recipe: Any) -> Iterator[Any]:
        last = next(failures, None)
        for number, item in enumerate(read_items(shards, recipe)):
            if number == last:
                yield ShardEnds(shards[0], error=ReadError("the line went dead"))
                return
            yield item

    monkeypatch.setattr(kept_stream, "read_items", failing)
    monkeypatch.setattr(kept_stream, "_FIRST_PAUSE", 0.01)
    assert sorted(s["__key__"] for s in wdsfilter.stream(recipe, shards=folder)) == kept
    failures = iter([3] * 9)
    with pytest.raises(ReadError, match="the line went dead"):
        list(wdsfilter.stream(recipe, shards=folder))


# --- what is refused -------------------------------------------------------------------------------


def test_mistakes_are_told_before_anything_is_loaded(scripted: tuple[str, str, list[str]]) -> None:
    """A recipe that is none, options that a judge does not have, and shards that are not there."""
    recipe, folder, _ = scripted
    with pytest.raises(RecipeError, match=r"no recipe 'demmo'; did you mean demo\?"):
        wdsfilter.stream("demmo")
    with pytest.raises(RecipeError, match=r"judges.scripted.at_most: unknown key"):
        wdsfilter.load_judge("scripted", at_most=3)
    with pytest.raises(RecipeError, match="no judge 'scriptd'"):
        wdsfilter.load_judge("scriptd")
    with pytest.raises(InputError, match="no shard"):
        wdsfilter.stream(recipe, shards=folder + "/none-*.tar")


def test_samples_that_are_no_pairs_are_told(scripted: tuple[str, str, list[str]]) -> None:
    """Captions that are not there, and samples that were decoded too early, are errors that say what to do."""
    recipe, folder, _ = scripted
    with pytest.raises(InputError, match=r"none of the first .* samples is an image with a caption"):
        list(wdsfilter.stream(recipe, shards=folder, overrides=["input.caption=cap"]))
    with pytest.raises(InputError, match="before they are decoded"):
        list(wdsfilter.keep(recipe)([{"__key__": "a", "jpg": object(), "txt": b"a caption"}]))


def test_the_guard_holds(scripted: tuple[str, str, list[str]]) -> None:
    """A stream that keeps other shares than its recipe expects ends with GuardTripped."""
    recipe, folder, _ = scripted
    with pytest.raises(GuardTripped, match="are kept"):
        list(wdsfilter.stream(recipe, shards=folder, overrides=["guard={after: 20, kept: [0, 1%]}"]))


def test_a_checkpoint_can_be_checked(score_last_checkpoint: Path) -> None:
    """A judge whose answers end with their score is not to be trusted by its forced start."""
    judge = wdsfilter.load_judge("vlm", model=str(score_last_checkpoint))
    with pytest.raises(JudgeError):
        judge.check([(jpeg(n, 32), f"a picture of number {n}") for n in range(12)])
