"""Two runs side by side: their numbers are the ledgers', pair by pair."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.fakes import vlm_run
from tests.pages import HOSTILE, check_harmless, embedded, in_chromium, opened, text_of
from tests.runs import write_recipe
from tests.selections import rows_of as selected_rows
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
    """Runs over other shards are refused in one line, and so is more than one page at once."""
    other = write_world(tmp_path / "in/other", samples=5)
    renamed = json.dumps([{"path": other, "as": "x"}])
    recipe = write_recipe(tmp_path, f"input: {{shards: {renamed}}}\njudges: [scripted]\nguard: off\n")
    assert main(["run", str(recipe), "-o", str(tmp_path / "other")]) == 0
    assert main(["report", str(runs[0]), "--compare", str(tmp_path / "other")]) == 1
    assert "no shard of the same name" in capsys.readouterr().err
    assert main(["report", str(runs[0]), "--compare", str(runs[1]), "--label", "3"]) == 1


@pytest.fixture(scope="module")
def selections(runs: tuple[Path, Path, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the second run graded 4 or more, in a shuffled order, and the first one's best 30; their keys changed."""
    folder = tmp_path_factory.mktemp("selections")
    shuffled = ["--where", "scripted.grade >= 4", "--shuffle", "--samples-per-shard", "20"]
    for name, run, question in (("a", runs[1], shuffled), ("b", runs[0], ["--top", "30"])):
        common = ["--shards", runs[2], "-o", str(folder / name), "--workers", "1"]
        assert main(["select", str(run), *question, *common]) == 0
    return folder / "a", folder / "b"


def sources_of(selection: Path) -> set[tuple[str, str]]:
    return {(row["source_shard"], row["source_key"]) for row in rows_of(selection)}


def confusion(page: Path) -> list[int]:
    """Pairs that both keep, A alone, B alone and neither, where both thresholds stand at first."""
    data = embedded(page)
    joint, (i, j) = data["joint"], [side["start"] + 1 for side in data["sides"]]
    both = sum(sum(row[j:]) for row in joint[i:])
    first, second = sum(map(sum, joint[i:])), sum(sum(row[j:]) for row in joint)
    return [both, first - both, second - both, sum(map(sum, joint)) - first - second + both]


@pytest.mark.parametrize("swapped", [False, True], ids=["run-first", "selection-first"])
def test_a_selection_beside_a_run(
    runs: tuple[Path, Path, str], selections: tuple[Path, Path], swapped: bool, tmp_path: Path
) -> None:
    """Of all that the run judged, what the selection does not have is not selected; both show pictures of it."""
    run, selection, path = runs[0], selections[0], tmp_path / "page.html"
    sides = (selection, run) if swapped else (run, selection)
    assert main(["report", str(sides[0]), "--compare", str(sides[1]), "-o", str(path)]) == 0
    kept = {(row["shard"], row["key"]) for row in selected_rows(run) if row["status"] == "kept"}
    chosen = sources_of(selection)
    both, only_run, only_selection = len(kept & chosen), len(kept - chosen), len(chosen - kept)
    alone = [only_selection, only_run] if swapped else [only_run, only_selection]
    assert min(both, only_run, only_selection) > 0
    assert confusion(path) == [both, *alone, 90 - both - sum(alone)]
    text = path.read_text("utf-8")
    assert "<code>not selected</code>" in text
    assert text.count("<img ") > 10
    check_harmless(path)
    assert not list((selection / "wdsfilter/tmp").iterdir())


def test_two_selections(runs: tuple[Path, Path, str], selections: tuple[Path, Path], tmp_path: Path) -> None:
    """Every pair that one of two selections has is counted, by the shard and the key that it came from."""
    path = tmp_path / "page.html"
    a, b = map(sources_of, selections)
    assert main(["report", *map(str, (selections[0], "--compare", selections[1], "-o", path))]) == 0
    assert confusion(path) == [len(a & b), len(a - b), len(b - a), 0]
    assert "question.top: null in A" in path.read_text("utf-8")
    keys = path.read_text("utf-8").split('<li class="card"')[1:]
    shown = [card.rpartition('<p class="where"><code>')[2].partition("</code>")[0] for card in keys]
    for number in embedded(path)["groups"]["first"]:
        assert shown[number] in {key for _, key in a - b}


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
