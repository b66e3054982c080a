"""Two runs side by side: their numbers are the ledgers', pair by pair."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.fakes import vlm_run
from tests.pages import HOSTILE, check_harmless, embedded, in_chromium, opened, text_of
from tests.runs import write_recipe
from wdsfilter import ledger
from wdsfilter.cli import main
from wdsfilter.demo.world import write_world
from wdsfilter.evaluate import figures
from wdsfilter.ledger import Row
from wdsfilter.output import OutputFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Outputs of two runs, of rules and a fake vlm and of other rules and a scripted judge, and their input."""
    folder = tmp_path_factory.mktemp("compare")
    shards = write_world(folder / "in", samples=90, samples_per_shard=45, seed=5, broken=0.05)
    with pytest.MonkeyPatch.context() as patch:
        first = vlm_run(folder, shards, patch, HOSTILE)
    recipe = "judges: [rules: {min_words: 4}, scripted: {seed: 7, at_least: 5}]\nguard: off\n"
    path = write_recipe(folder, recipe)
    assert main(["run", str(path), "--shards", shards, "-o", str(folder / "b")]) in (0, 3)
    return first, folder / "b", shards


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path, str]) -> Path:
    first, second, shards = runs
    assert main(["report", str(first), "--compare", str(second), "--shards", shards]) == 0
    return first / "wdsfilter/compare.html"


def rows_of(out: Path) -> list[Row]:
    folder = OutputFolder(out)
    return [row for name in folder.shard_names() for row in ledger.read_rows(folder.ledger(name))]


def test_counts_at_every_pair_of_thresholds_are_the_ledgers(runs: tuple[Path, Path, str], page: Path) -> None:
    """Wherever both thresholds stand, what both keep is what the ledgers hold."""
    pairs = list(zip(rows_of(runs[0]), rows_of(runs[1]), strict=True))
    data = embedded(page)
    joint, (a, b) = data["joint"], data["sides"]
    assert sum(map(sum, joint)) == len(pairs) == 90
    for i, p in list(enumerate(a["edges"]))[::9]:
        for j, grade in enumerate(b["edges"]):
            both = sum(
                first["vlm"] is not None
                and sum(first["vlm"]["p"][8:]) >= p
                and second["scripted"] is not None
                and second["scripted"]["grade"] >= grade
                for first, second in pairs
            )
            assert sum(sum(row[j + 1 :]) for row in joint[i + 1 :]) == both, (p, grade)


def test_correlation_is_the_ledgers(runs: tuple[Path, Path, str], page: Path) -> None:
    """Spearman's correlation, mean distance and change are those of the scores, to their hundredths."""
    scores = [
        (a["vlm"]["score"], float(b["scripted"]["grade"]))
        for a, b in zip(rows_of(runs[0]), rows_of(runs[1]), strict=True)
        if a["vlm"] and b["scripted"]
    ]
    import numpy as np

    first, second = np.array(scores).T
    expected = figures.spearman(np.floor(first * 100 + 1e-6), second)
    assert expected is not None
    text = page.read_text("utf-8")
    assert float(text_of(text, "r-spearman")) == pytest.approx(expected, abs=2e-3)
    distance = float(text.partition("mean distance</span><b>")[2].partition("<")[0])
    assert distance == pytest.approx(np.abs(second - first).mean(), abs=0.011)


def test_examples_are_what_their_group_says(runs: tuple[Path, Path, str], page: Path) -> None:
    """A pair that only A keeps is kept by A and not by B, and so on; its picture is there."""
    first = {row["key"]: row for row in rows_of(runs[0])}
    second = {row["key"]: row for row in rows_of(runs[1])}
    text, data = page.read_text("utf-8"), embedded(page)
    cards = text.split('<li class="card"')[1:]
    keys = [card.rpartition('<p class="where"><code>')[2].partition("</code>")[0] for card in cards]
    for group, wanted in {"first": (True, False), "second": (False, True), "both": (True, True)}.items():
        assert data["groups"][group]
        for number in data["groups"][group]:
            key = keys[number]
            assert (first[key]["status"] == "kept", second[key]["status"] == "kept") == wanted
    rises = [
        second[keys[n]]["scripted"]["score"] - first[keys[n]]["vlm"]["score"] for n in data["groups"]["rose"]
    ]
    assert rises == sorted(rises, reverse=True)
    assert text.count("<img ") > 10
    assert HOSTILE in check_harmless(page).texts


def test_what_differs_is_said(page: Path) -> None:
    """The page names every option that one run was told otherwise."""
    assert "decision.judges.rules.min_words: 2 in A, 4 in B" in page.read_text("utf-8")


def test_a_run_beside_itself(runs: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Two copies of one run differ in nothing; a pair that one of them lacks is counted apart."""
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    path = tmp_path / "page.html"
    assert main(["report", str(runs[0]), "--compare", str(copy), "-o", str(path)]) == 0
    data = embedded(path)
    assert all(not number for i, row in enumerate(data["joint"]) for j, number in enumerate(row) if i != j)
    assert not data["groups"]["first"] + data["groups"]["rose"]
    assert text_of(path.read_text("utf-8"), "r-spearman") == "1.000"
    (copy / "wdsfilter/ledger/world-0001.parquet").unlink()
    assert main(["report", str(runs[0]), "--compare", str(copy), "-o", str(path)]) == 0
    assert "45 pairs only A has judged" in path.read_text("utf-8")


def test_what_cannot_be_compared(
    runs: tuple[Path, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs over other shards, and selections, are refused in one line."""
    other = write_world(tmp_path / "in/other", samples=5)
    renamed = json.dumps([{"path": other, "as": "x"}])
    recipe = write_recipe(tmp_path, f"input: {{shards: {renamed}}}\njudges: [scripted]\nguard: off\n")
    assert main(["run", str(recipe), "-o", str(tmp_path / "other")]) == 0
    assert main(["report", str(runs[0]), "--compare", str(tmp_path / "other")]) == 1
    assert "no shard of the same name" in capsys.readouterr().err
    selection = ["select", str(runs[0]), "--shards", runs[2], "-o", str(tmp_path / "new"), "--workers", "1"]
    assert main(selection) == 0
    assert main(["report", str(runs[0]), "--compare", str(tmp_path / "new")]) == 1
    assert "is a selection" in capsys.readouterr().err
    assert main(["report", str(runs[0]), "--compare", str(runs[1]), "--label", "3"]) == 1


@in_chromium
def test_in_a_browser_the_table_shows(runs: tuple[Path, Path, str], page: Path, tmp_path: Path) -> None:
    """The page's script shows what both recipes keep, and logs no error."""
    kept = [
        (a["status"] == "kept", b["status"] == "kept")
        for a, b in zip(rows_of(runs[0]), rows_of(runs[1]), strict=True)
    ]
    elements = opened(page, tmp_path)
    for cell, wanted in {
        "11": (True, True),
        "10": (True, False),
        "01": (False, True),
        "00": (False, False),
    }.items():
        assert int(text_of(elements, f"r-{cell}")) == kept.count(wanted)
    assert int(text_of(elements, "r-agreement")) == sum(a == b for a, b in kept)
