"""What comes out is read by the loaders that people train with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.runs import make_shards, members, write_recipe
from wdsfilter.cli import main


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run over three shards, one of which kept nothing."""
    folder = tmp_path_factory.mktemp("loaders")
    pattern = make_shards(folder / "in", 3)
    assert main(["run", str(write_recipe(folder)), "--shards", pattern, "-o", str(folder / "out")]) == 0
    return folder / "out"


def test_gnu_tar_reads_it(output: Path) -> None:
    """GNU tar lists every member without a complaint."""
    done = subprocess.run(["tar", "tf", str(output / "s-0000.tar")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == list(members(output / "s-0000.tar"))


@pytest.mark.filterwarnings("ignore")
def test_webdataset_reads_it(output: Path) -> None:
    """webdataset streams the shards of shards.txt and finds image, caption, json and scores in each sample."""
    import webdataset

    shards = [str(output / name) for name in (output / "shards.txt").read_text().split()]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil"))
    assert len(samples) == sum(json.loads((output / "sizes.json").read_text()).values())
    for sample in samples:
        assert {"jpg", "txt", "json", "bin", "score.json"} <= set(sample)
        assert sample["jpg"].height == 16


@pytest.mark.filterwarnings("ignore")
def test_datasets_reads_it(output: Path, tmp_path: Path) -> None:
    """datasets.load_dataset("webdataset") reads every kept sample."""
    import datasets

    files = [str(output / name) for name in (output / "shards.txt").read_text().split()]
    loaded = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == sum(json.loads((output / "sizes.json").read_text()).values())
    assert {"jpg", "txt", "score.json"} <= set(loaded.column_names)
