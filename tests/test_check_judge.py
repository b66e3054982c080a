"""check-judge: exact figures against brute force, which pairs they are about, and what is told to whom."""

from __future__ import annotations

import io
import itertools
import json
import random
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import jpeg, write_recipe
from wdsfilter.cli import main
from wdsfilter.errors import InputError, JudgeError
from wdsfilter.evaluate import figures
from wdsfilter.evaluate.judging import Agreement, Bench, Judged
from wdsfilter.evaluate.labels import FieldLabels, Label, labelled_shards
from wdsfilter.evaluate.report import Report, gather, report
from wdsfilter.judges import Runtime
from wdsfilter.panel import Panel
from wdsfilter.recipe_files import load_recipe
from wdsfilter.samples import Pair, Prepared

TINY = ["--set", "judges.vlm.min_pixels=3136", "--set", "judges.vlm.max_pixels=12544"]
INLINE = [*TINY, "--set", "run.workers=0"]


def drawn(seed: int, n: int, values: int) -> figures.Floats:
    """``n`` numbers with many ties."""
    return np.array([random.Random(f"{seed}/{i}").randrange(values) for i in range(n)], dtype=np.float64)


def judged(
    score: int, grade: int | None, *defects: str, otherwise: int | None = None, p9: float = 0
) -> Judged:
    """A pair on the scale 1 to 10, with P(9) = ``p9`` and the rest on 1."""
    p = (1 - p9, *[0.0] * 7, p9, 0.0)
    return Judged("s.tar", "k", Label(score, otherwise, defects), grade, 1 + 8 * p9, p)


def reported(*pairs: Judged, threshold: int = 9) -> Report:
    return report(pairs, gather(pairs, tuple(range(1, 11))), threshold)


def write_labelled(
    path: Path, samples: Mapping[str, Any], image: bytes = b"", captions: Sequence[str] = ()
) -> Path:
    """A shard with a sample for each key, whose .json is the value (bytes as they are, None: no .json)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (key, label) in enumerate(samples.items()):
            members = {"jpg": image or jpeg(number, 64), "txt": b"a thing" + b" more" * number}
            if captions:
                members["txt"] = captions[number].encode()
            if label is not None:
                members["json"] = label if isinstance(label, bytes) else json.dumps(label).encode()
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def scripted(folder: Path, grades: Mapping[str, int]) -> Path:
    return write_recipe(folder, f"judges: [{{scripted: {{table: {json.dumps(grades)}}}}}]\n")


def checked(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    """What check-judge --json says, standard output being JSON and nothing else."""
    capsys.readouterr()
    assert main(["check-judge", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# --- figures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_spearman_is_pearson_on_brute_force_ranks(seed: int) -> None:
    """Spearman's correlation is Pearson's over ranks in which ties share their mean."""
    a, b = drawn(seed, 40, 6), drawn(seed + 100, 40, 9)

    def ranks(values: figures.Floats) -> list[float]:
        return [1 + sum(v < x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]

    assert figures.spearman(a, b) == pytest.approx(float(np.corrcoef(ranks(a), ranks(b))[0, 1]))
    assert figures.spearman(a, 2 * a + 1) == pytest.approx(1)
    assert figures.spearman(a, np.ones(40)) is None


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_in_the_right_order(seed: int) -> None:
    """AUC counts all pairs of a positive and a negative, an equal one as half."""
    positives, negatives = drawn(seed, 23, 7) + 1, drawn(seed + 50, 31, 7)
    wins = [(p > n) + (p == n) / 2 for p, n in itertools.product(positives, negatives)]
    assert figures.auc(positives, negatives) == pytest.approx(sum(wins) / len(wins))
    assert figures.auc(positives, np.empty(0)) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_cut_at_a_recall_is_the_strictest_that_reaches_it(seed: int) -> None:
    """Of all cuts that keep nine tenths of the right pairs, the one with the highest bar is reported."""
    scores, right = drawn(seed, 50, 12), drawn(seed + 9, 50, 2) > 0
    found = figures.cut_at_recall(scores, right, 0.9)
    assert found is not None
    bars = [at for at in sorted(set(scores)) if (right & (scores >= at)).sum() >= 0.9 * right.sum()]
    assert found.at == bars[-1]
    assert found.kept == (scores >= bars[-1]).sum()
    assert found.precision == pytest.approx(float(right[scores >= bars[-1]].mean()))
    assert found.recall == pytest.approx(float((right & (scores >= bars[-1])).sum() / right.sum()))


def test_calibration_by_hand() -> None:
    """The error is each bin's distance of prediction and outcome, weighted by its pairs; borders go up."""
    predicted = np.array([0.1, 0.15, 0.95, 1.0, 0.7 - 1e-9, 0.75])
    found = figures.calibration(predicted, np.array([False, True, True, True, False, True]))
    assert found is not None
    assert [b.pairs for b in found.bins] == [2, 2, 2]
    assert [b.observed for b in found.bins] == [0.5, 0.5, 1.0]
    assert found.bins[1].predicted == pytest.approx(0.725)
    assert found.error == pytest.approx((2 * (0.5 - 0.125) + 2 * (0.725 - 0.5) + 2 * (1 - 0.975)) / 6)


# --- which pairs they are about ----------------------------------------------------------------


def test_a_defects_auc_is_about_pairs_with_that_defect_alone() -> None:
    """Faultless pairs stand against pairs with one defect, which alone took them below the threshold."""
    found = reported(
        judged(9, 9, p9=0.5, otherwise=9),
        judged(10, 9, p9=0.9),
        judged(7, 9, p9=0.0),  # faultless, and below the threshold: neither side
        judged(9, 1, "noise", p9=0.0),  # good, and not faultless
        judged(5, 3, "colour", otherwise=9, p9=0.4),
        judged(5, 9, "colour", p9=0.7),
        judged(5, 9, "colour", otherwise=8, p9=1.0),  # it was not good before
        judged(5, 9, "colour", "size", otherwise=9, p9=1.0),
    ).defects
    assert list(found) == ["colour"]
    assert found["colour"].pairs == 2
    assert found["colour"].probability == pytest.approx(3 / 4)
    assert found["colour"].expected == pytest.approx(3 / 4)
    assert found["colour"].grade == pytest.approx(3 / 4), "two ties of four"


def test_a_pair_without_a_grade_is_kept_by_no_cut() -> None:
    """An answer that names no grade is wrong, lower than any grade, and no part of the mean error."""
    found = reported(judged(9, 9, p9=1.0), judged(9, None, p9=0.6), judged(2, 4), judged(2, 1))
    assert (found.without_grade, found.exact) == (1, 0.25)
    assert found.grade.mae == pytest.approx(1.0)
    assert found.grade.auc == pytest.approx(0.5), "the one without a grade loses to both"
    (at_nine,) = (row for row in found.thresholds if row.threshold == 9)
    assert (at_nine.grade.kept, at_nine.grade.precision, at_nine.grade.recall) == (1, 1.0, 0.5)
    assert at_nine.probability is not None
    assert (at_nine.probability.kept, at_nine.probability.recall) == (2, 1.0)
    assert found.grades[-1] is None
    assert [sum(row) for row in found.counts] == [2, 2]


def test_figures_of_probabilities() -> None:
    """P(grade >= t) sums the grades from t on; calibration asks whether the true score was so high."""
    found = reported(judged(9, 9, p9=0.8), judged(10, 1, p9=0.3), judged(2, 1, p9=0.3), judged(1, 1, p9=0.0))
    assert found.probability is not None
    assert found.probability.auc == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert found.calibrated is not None
    assert found.calibrated.error == pytest.approx((0.2 + 2 * 0.2 + 0) / 4)
    assert found.top_grade is not None
    assert found.top_grade.error == pytest.approx((0.2 + 2 * 0.7 + 0.0) / 4)
    assert found.expected is not None
    assert found.expected.mae == pytest.approx((1.6 + 6.6 + 1.4 + 0) / 4)
    assert found.expected.spearman == pytest.approx(found.probability.spearman)
    assert [row.threshold for row in found.thresholds] == [*range(2, 11)]
    assert found.at_recall is not None
    assert (found.at_recall.kept, found.at_recall.recall) == (3, 1.0)
    assert found.at_recall.precision == pytest.approx(2 / 3)
    assert found.at_recall.at == pytest.approx(0.3)


def test_the_likeliest_grade_is_right_when_it_is_the_true_score() -> None:
    """Too high is as wrong as too low, for the grade's calibration and for the exact share."""
    found = reported(judged(9, 9, p9=0.8), judged(5, 9, p9=0.8), judged(10, 9, p9=0.8))
    assert found.top_grade is not None
    assert found.top_grade.error == pytest.approx(0.8 - 1 / 3)
    assert found.exact == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("pairs", "threshold", "said"),
    [
        pytest.param([], 9, "no readable pair", id="nothing"),
        pytest.param([judged(9, 9), judged(10, 9)], 9, "at or above the threshold 9, from 9 to 10", id="all"),
        pytest.param([judged(2, 9), judged(8, 9)], 9, "below the threshold 9", id="none"),
        pytest.param([judged(20, 9), judged(8, 9)], 15, "the judge's grades, 1 to 10", id="off-scale"),
    ],
)
def test_what_cannot_be_compared_is_told(pairs: list[Judged], threshold: int, said: str) -> None:
    """A threshold that does not divide pairs or scale is a mistake that says where both lie."""
    with pytest.raises((InputError, JudgeError), match=said):
        reported(*pairs, threshold=threshold)


class TwoMinds:
    """Reads the number in a caption as its grade, and writes one that is higher by 2 from 5 on; 0 is no grade."""

    inline, window, batch_cost = True, 8, 4

    def prepare(self, pair: Pair) -> Prepared:
        number = int(pair.caption)
        return Prepared(number, cost=5 - number % 5)

    def score(self, batch: Sequence[int]) -> Sequence[Mapping[str, Any]]:
        return self.expect(batch)

    def check(self, first: Sequence[int]) -> Mapping[str, Any]:
        return {}

    def expect(self, batch: Sequence[int]) -> Sequence[Mapping[str, Any]]:
        return [{"grade": number} for number in batch]

    def generate(self, batch: Sequence[int]) -> Sequence[str]:
        return [str(number + 2 * (number >= 5)) for number in batch]

    def grade(self, answer: str) -> int | None:
        return int(answer) or None


def test_the_readout_is_held_against_generated_answers(tmp_path: Path) -> None:
    """Of the first pairs it is counted how many answers name a grade, and the readout's; and how far they are."""
    samples = {f"k{n}": {"score": 9} for n in range(9)}
    shard = write_labelled(tmp_path / "a.tar", samples, captions=[str(n) for n in range(9)])
    recipe = load_recipe(str(scripted(tmp_path, {})))
    with Panel(recipe, Runtime("cpu"), judges=[TwoMinds()]) as panel:
        bench = Bench(panel, FieldLabels("score"))
        shards = labelled_shards([str(shard)])
        assert bench.agreement(shards, 8) == Agreement(8, naming_a_grade=7, agreeing=4, distance=6 / 7)
        assert bench.agreement(shards, 0) is None


# --- the command -------------------------------------------------------------------------------


def test_a_judge_without_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Grades alone give every figure that grades can give; what needs probabilities is null."""
    labels = {f"k{score}": {"score": score} for score in range(1, 11)}
    shard = write_labelled(tmp_path / "a.tar", labels)
    recipe = scripted(tmp_path, {f"k{score}": min(10, score + 1) for score in range(1, 11)})
    found = checked(capsys, recipe, shard, "--set", "judges.scripted.table.k1=1")
    assert found["pairs"] == 10
    assert (found["exact"], found["grade"]["mae"]) == (0.2, 0.8)
    assert found["grade"]["auc"] == 1.0
    assert found["counts"][8][found["grades"].index(10)] == 1, "the true 9 was graded 10"
    assert (found["probability"], found["calibrated"], found["at_recall"], found["generated"]) == (None,) * 4
    at = {row["threshold"]: row["grade"] for row in found["thresholds"]}
    assert at[9] == {"kept": 3, "precision": pytest.approx(2 / 3), "recall": 1.0, "at": None}


def test_a_vlm_judge(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint folder is a judge: probabilities, greedy agreement and the table for people are there."""
    labels = {f"k{n}": {"true": 9 if n % 2 else 3, "defects": [] if n % 2 else ["size"]} for n in range(12)}
    shard = write_labelled(tmp_path / "a.tar", labels)
    arguments: tuple[str | Path, ...] = (tiny_checkpoint, shard, "--label", "true", "--generate", "5", *TINY)
    found = checked(capsys, *arguments)
    assert found["pairs"] == 12
    assert found["without_probabilities"] == 0
    assert found["defects"]["size"]["pairs"] == 6
    assert sum(b["pairs"] for b in found["calibrated"]["bins"]) == 12
    assert found["generated"] == {"pairs": 5, "naming_a_grade": 5, "agreeing": 5, "distance": 0.0}
    assert sum(map(sum, found["counts"])) == 12
    assert main(["check-judge", *map(str, arguments)]) == 0
    shown = capsys.readouterr().out
    assert "12 pairs, 6 of them with a true score of 9 or more" in shown
    assert "size" in shown


def test_generated_answers_are_judged_as_they_are(
    score_last_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With readout: generate grades are there, probabilities are not; the readout's disagreement is counted."""
    shard = write_labelled(tmp_path / "a.tar", {f"k{n}": {"score": 9 if n else 2} for n in range(3)})
    overrides = ("--set", "judges.vlm.readout=generate", "--generate", "3", *INLINE)
    found = checked(capsys, score_last_checkpoint, shard, *overrides)
    assert (found["pairs"], found["without_grade"], found["without_probabilities"]) == (3, 0, 3)
    assert found["probability"] is None
    assert found["generated"]["naming_a_grade"] == 3


def test_one_judge_of_a_recipe_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A judge that rejects before it does not hide pairs from the one that is checked; --id picks."""
    shard = write_labelled(tmp_path / "a.tar", {"a": {"score": 9}, "b": {"score": 2}})
    text = "judges: [rules: {min_words: 99}, scripted: {id: one, grade: 9}, scripted: {id: two, grade: 2}]\n"
    recipe = write_recipe(tmp_path, text)
    assert checked(capsys, recipe, shard, "--id", "one")["grades"] == [9]
    assert checked(capsys, recipe, shard, "--id", "two")["grades"] == [2]
    for wanted, said in (((), "one, two"), (("--id", "rules"), "no grade"), (("--id", "x"), "no judge 'x'")):
        assert main(["check-judge", str(recipe), str(shard), *wanted]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        pytest.param({"a": {"score": 9}, "b": {"url": "x"}}, "a.tar: b: no label 'score'", id="missing"),
        pytest.param({"a": {"score": 9}, "b": None}, "b: no label 'score', it has no .json", id="no-json"),
        pytest.param({"b": {"score": "9"}}, "b: field 'score' holds '9', accepted is a whole", id="text"),
        pytest.param({"b": {"score": True}}, "holds True", id="bool"),
        pytest.param({"b": {"score": 9, "otherwise": 8.5}}, "'otherwise' holds 8.5", id="otherwise"),
        pytest.param({"b": {"score": 9, "defects": "blur"}}, "'defects' holds 'blur'", id="defects"),
        pytest.param({"b": b"{"}, "no readable pair in these shards; b: no_fields", id="bad-json"),
        pytest.param({"a": {"score": 9}}, "all 1 true scores are at or above the threshold", id="one-class"),
    ],
)
def test_a_mistake_in_the_labels_is_one_line(
    labels: Mapping[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with a label is told with shard, key and field, in one line."""
    shard = write_labelled(tmp_path / "a.tar", labels)
    assert main(["check-judge", str(scripted(tmp_path, {})), str(shard)]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_pairs_that_cannot_be_judged_are_counted(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken images and broken .json files cost their samples, and are told by reason; no shard counts twice."""
    good = write_labelled(tmp_path / "a/a.tar", {"a": {"score": 9}, "b": {"score": 2}, "c": b"["})
    bad = write_labelled(tmp_path / "b/a.tar", {"a": {"score": 9}}, image=b"<html>")
    found = checked(capsys, tiny_checkpoint, good, bad, good.parent, "--generate", "0", *INLINE)
    assert (found["pairs"], found["unreadable"]) == (2, {"no_fields": 1, "image_format": 1})
    assert found["generated"] is None


def test_pictures(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--plots writes three pictures, the same bytes for the same figures; without probabilities only one."""
    shard = write_labelled(tmp_path / "a.tar", {"a": {"score": 9}, "b": {"score": 2}, "c": {"score": 5}})
    for folder in ("one", "two"):
        checked(capsys, tiny_checkpoint, shard, "--generate", "0", "--plots", tmp_path / folder, *INLINE)
    names = ["calibration.svg", "confusion.svg", "probability.svg"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    plots = ("--plots", tmp_path / "png", "--picture", "png")
    checked(capsys, scripted(tmp_path, {}), shard, *plots)
    (picture,) = (tmp_path / "png").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_pictures_need_an_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without matplotlib --plots says what to install, before any work."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["check-judge", "no-such-recipe", "no.tar", "--plots", str(tmp_path)]) == 1
    assert "--plots needs an extra that is not installed: pip install 'wdsfilter[plots]'" in (
        capsys.readouterr().err
    )


def test_what_a_judge_may_be_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither recipe nor checkpoint: the message says which of both was looked for."""
    shard = str(write_labelled(tmp_path / "a.tar", {"a": {"score": 9}}))
    (tmp_path / "empty").mkdir()
    told = {"cc12mm": "did you mean cc12m?", f"{tmp_path}/empty": "config.json", "x.yaml": "no recipe file"}
    for judge, said in told.items():
        assert main(["check-judge", judge, shard]) == 1
        assert said in capsys.readouterr().err
