"""Grading one's own pairs: which are drawn, the page, its export, and what it says about the run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import vlm_run
from tests.pages import HOSTILE, check_harmless, embedded, in_chromium, opened, text_of
from tests.runs import forgetful, write_recipe, write_shard
from wdsfilter import ledger
from wdsfilter.cli import main
from wdsfilter.demo.world import write_world
from wdsfilter.evaluate.labels import FileLabels, file_head, read_file
from wdsfilter.ledger import Row
from wdsfilter.output import OutputFolder
from wdsfilter.report.label_page import draw
from wdsfilter.report.opened import open_folder
from wdsfilter.report.strata import Strata


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output of a run with probabilities, and its input shards."""
    folder = tmp_path_factory.mktemp("labels")
    shards = write_world(folder / "in", samples=240, samples_per_shard=80, seed=4, broken=0.05)
    with pytest.MonkeyPatch.context() as patch:
        return vlm_run(folder, shards, patch), shards


@pytest.fixture(scope="module")
def page(world: tuple[Path, str]) -> Path:
    assert main(["report", str(world[0]), "--shards", world[1], "--label", "60"]) == 0
    return world[0] / "wdsfilter/label.html"


def rows_of(out: Path) -> dict[tuple[str, str], Row]:
    folder = OutputFolder(out)
    return {(n, r["key"]): r for n in folder.shard_names() for r in ledger.read_rows(folder.ledger(n))}


def graded(page: Path, out: Path, path: Path, **said: Any) -> Path:
    """A file as the page exports it, of somebody who grades by the truth, or says the same of all."""
    data, rows = embedded(page), rows_of(out)
    lines = [data["head"]]
    for item in data["items"]:
        known = {"score": int(rows[item["shard"], item["key"]]["score"])}
        lines.append(json.dumps({**item, **(said or known)}))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_grade_is_drawn(world: tuple[Path, str], page: Path) -> None:
    """Pairs of every grade and of those that no judge graded are drawn, each once and nothing unreadable."""
    rows, items = rows_of(world[0]), embedded(page)["items"]
    drawn = [rows[item["shard"], item["key"]] for item in items]
    assert (
        len({(item["shard"], item["key"]) for item in items}) == len(items) >= 58
    )  # two may be broken unseen
    assert all(row["status"] != "unreadable" for row in drawn)
    grades = {row["vlm"] and row["vlm"]["grade"] for row in rows.values() if row["status"] != "unreadable"}
    assert {row["vlm"] and row["vlm"]["grade"] for row in drawn} == grades
    assert None in grades


def test_the_page_is_blind(page: Path) -> None:
    """Nothing on the page tells what a judge said, and pairs are not in the order of what it said."""
    text = page.read_text("utf-8")
    assert set(embedded(page)["items"][0]) == {"shard", "key"}
    for word in ("kept", "dropped", "at_least", "It says so."):
        assert word not in text.partition("<body")[2].partition("<script>")[0], word


def test_kept_pairs_alone_are_refused(
    world: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the input shards there are no dropped pairs to grade: refused, with the option named."""
    out = forgetful(world[0], tmp_path / "out")
    assert main(["report", str(out), "--label", "5", "-o", str(tmp_path / "x.html")]) == 1
    assert "with --shards" in capsys.readouterr().err


def test_strangers_text_stays_text(tmp_path: Path) -> None:
    """Captions and keys that are markup or script come out as text."""
    write_shard(
        tmp_path / "in/<img src=y>.tar", ["<b onclick=x>&amp;"], HOSTILE.replace("{", "{{").replace("}", "}}")
    )
    arguments = ["--shards", str(tmp_path / "in")]
    assert main(["run", str(write_recipe(tmp_path)), *arguments, "-o", str(tmp_path / "out")]) == 0
    assert main(["report", str(tmp_path / "out"), *arguments, "--label", "5"]) == 0
    page = tmp_path / "out/wdsfilter/label.html"
    assert HOSTILE in check_harmless(page).texts
    assert embedded(page)["items"] == [{"shard": "<img src=y>.tar", "key": "<b onclick=x>&amp;"}]


def test_all_graded_is_the_truth(world: tuple[Path, str], tmp_path: Path) -> None:
    """Where every pair was graded, precision and recall are those of the ledgers, and intervals have no width."""
    out, labels = world[0], tmp_path / "labels.jsonl"
    readable = {place: row for place, row in rows_of(out).items() if row["status"] != "unreadable"}
    lines = [file_head(open_folder(OutputFolder(out)).scoring)]
    lines += [
        json.dumps({"shard": shard, "key": key, "score": int(row["score"])})
        for (shard, key), row in readable.items()
    ]
    labels.write_text("\n".join(lines))
    assert main(["report", str(out), "--labels", str(labels), "-o", str(tmp_path / "r.html")]) == 0
    rows = list(readable.values())
    worth = sum(int(row["score"]) >= 9 for row in rows)
    measure = next(m for m in embedded(tmp_path / "r.html")["measures"] if m["name"] == "grade")
    estimate = measure["estimate"]
    for place, precision, recall in zip(*estimate.values(), strict=True):
        kept = [row for row in rows if row["vlm"] and row["vlm"]["grade"] >= measure["edges"][place]]
        both = sum(int(row["score"]) >= 9 for row in kept)
        assert precision == ([pytest.approx(both / len(kept), abs=1e-3)] * 3 if kept else None)
        assert recall == [pytest.approx(both / worth, abs=1e-3)] * 3


def test_intervals_hold_the_truth(world: tuple[Path, str], tmp_path: Path) -> None:
    """Of many drawings of 60, about 95 % of the intervals hold what all pairs would have shown."""
    out, _ = world
    rows = rows_of(out)
    readable = [row for row in rows.values() if row["status"] != "unreadable"]
    kept = [row for row in readable if row["vlm"] and row["vlm"]["grade"] >= 7]
    both = sum(int(row["score"]) >= 9 for row in kept)
    true = {"precision": both / len(kept), "recall": both / sum(int(row["score"]) >= 9 for row in readable)}
    opened_run = open_folder(OutputFolder(out))
    assert opened_run.ruler is not None
    grade = next(measure for measure in opened_run.ruler.measures if measure.name == "grade")
    names = {name: list(ledger.read_rows(path)) for name, path in opened_run.ledgers.items()}
    held: Counter[str] = Counter()
    drawings = 20
    for seed in range(drawings):
        said: dict[str, dict[str, int]] = {}
        for shard, number in draw(opened_run, 60, seed):
            row = names[shard][number]
            said.setdefault(shard, {})[row["key"]] = int(row["score"])
        strata = Strata(opened_run.ruler)
        for batch in opened_run.graded(FileLabels(opened_run.scoring, said)).rows():
            strata.add(batch)
        estimate = strata.estimate(grade)
        place = list(estimate.places).index(6)
        for name in true:
            low, _, high = getattr(estimate, name)[place]
            held[name] += low <= true[name] <= high
    assert all(count >= 0.8 * drawings for count in held.values()), held


def test_check_judge_reads_the_export(
    world: tuple[Path, str], page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check-judge --labels` asks the judge about the graded pairs alone, and takes their labels for the truth."""
    labels = graded(page, world[0], tmp_path / "labels.jsonl", keep=True)
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([*lines[:41], *(line.replace("true", "false") for line in lines[41:])]))
    recipe = write_recipe(tmp_path, "judges: [scripted: {seed: 7}]\nguard: off\n")
    assert main(["check-judge", str(recipe), world[1], "--labels", str(labels), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pairs"], found["right"]) == (len(embedded(page)["items"]), 40)


def test_labels_of_another_run_are_refused(
    world: tuple[Path, str], page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels were drawn by one run's grades: another run's report does not take them, and says what does."""
    labels = graded(page, world[0], tmp_path / "labels.jsonl")
    assert main(["run", str(write_recipe(tmp_path)), "--shards", world[1], "-o", str(tmp_path / "out")]) == 3
    assert main(["report", str(tmp_path / "out"), "--labels", str(labels)]) == 1
    assert "check-judge --labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "not a file of labels", id="empty"),
        pytest.param('{"labels": 2, "scoring": "a"}', "format 2", id="format"),
        pytest.param('{"labels": 1, "scoring": "a"}', "no labels in it", id="none"),
        pytest.param(
            '{"labels": 1, "scoring": "a"}\n{"shard": "s", "key": "k"}',
            "line 2: expected a score",
            id="nothing",
        ),
        pytest.param(
            '{"labels": 1, "scoring": "a"}\n{"shard": "s", "key": "k", "score": "9"}', "line 2", id="text"
        ),
    ],
)
def test_files_that_are_refused(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is no export is a user's mistake, with the line that shows it."""
    path = tmp_path / "labels.jsonl"
    path.write_text(text)
    assert main(["check-judge", "built-in", str(tmp_path), "--labels", str(path)]) == 1
    assert said in capsys.readouterr().err


def test_the_last_label_of_a_pair_counts(tmp_path: Path) -> None:
    """Files may be put one behind the other's lines: what was said last holds."""
    path = tmp_path / "labels.jsonl"
    lines = ['{"labels": 1, "scoring": "a"}', '{"shard": "s", "key": "k", "score": 3}']
    path.write_text("\n".join([*lines, '{"shard": "s", "key": "k", "keep": false}']))
    assert read_file(path).scores == {"s": {"k": 1}}


@in_chromium
def test_in_a_browser_keys_grade(page: Path, tmp_path: Path) -> None:
    """The keys 1 to 0, k and d grade a pair and go on; the export holds what was pressed."""
    keys = ["7", "0", "k", "d", "s", "ArrowLeft", "3"]
    script = "".join(f"dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}));" for key in keys)
    script += (
        "URL.createObjectURL = (blob) => { blob.text().then((t) => { document.title = t; }); return '#'; };"
    )
    script += "document.getElementById('export').click();"
    text = page.read_text("utf-8")
    test_page = tmp_path / "label.html"
    # a page of the test's own: the real one's policy forbids this script
    head, _, tail = text.partition('<meta http-equiv="Content-Security-Policy"')
    test_page.write_text(
        head + tail.partition(">")[2].replace("</body>", f"<script>{script}</script></body>"), "utf-8"
    )
    elements = opened(test_page, tmp_path / "profile")
    said = elements.partition("<title>")[2].partition("</title>")[0].splitlines()
    labels = [json.loads(line) for line in said]
    items = embedded(page)["items"]
    assert labels[0] == json.loads(embedded(page)["head"])
    expected: list[dict[str, Any]] = [
        {"score": 7},
        {"score": 10},
        {"keep": True},
        {"keep": False},
        {"score": 3},
    ]
    assert labels[1:] == [{**item, **label} for item, label in zip(items, expected, strict=False)]
    assert text_of(elements, "where").startswith(f"Pair 6 of {len(items)}, 5 graded")
