"""`wdsfilter pilot`: the first shards of a run, and what they say about the whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.forks import judged_by
from tests.runs import finished, make_shards, sleepless, tree, write_recipe
from tests.test_ranks import SLOW, launch, ranks_of
from wdsfilter.bootstrap import resampled
from wdsfilter.cli import main
from wdsfilter.cli.pilot import _show_distribution
from wdsfilter.pilot.contents import Bar, Contents
from wdsfilter.pilot.cost import Rate, cost, rate
from wdsfilter.pilot.forecast import Estimate, Forecast, Sampling, threshold
from wdsfilter.pilot.ledgers import Judged, JudgedShard
from wdsfilter.report.measures import Measure, Ruler


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture
def shards(tmp_path: Path) -> str:
    return make_shards(tmp_path / "in", 6)


def arguments(recipe: Path, shards: str, out: Path, *more: str) -> list[str]:
    return ["pilot", str(recipe), "--shards", shards, "-o", str(out), *more]


def told(capsys: pytest.CaptureFixture[str], *given: str) -> Any:
    capsys.readouterr()
    assert main([*given, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_its_work_counts_towards_the_run(recipe: Path, shards: str, tmp_path: Path) -> None:
    """A run that goes on from a pilot, trials and all, leaves the tree that a run without one leaves."""
    out, other = tmp_path / "out", tmp_path / "other"
    tried = ["--try", "judges.scripted.seed=8"]
    assert main(arguments(recipe, shards, out, "--shards", "2", *tried)) == 0
    assert len(list((out / "wdsfilter/ledger").iterdir())) == 2
    for folder in (out, other):
        assert main(["run", str(recipe), "--shards", shards, "-o", str(folder)]) == 0
        assert main(["verify", str(folder), "--shards", shards]) == 0
    found = {name: digest for name, digest in tree(out).items() if not name.startswith("wdsfilter/pilot/")}
    assert found == tree(other)


@pytest.mark.nightly
def test_two_ranks_pilot_together(tmp_path: Path) -> None:
    """accelerate launch on two ranks, world size asserted: both judge, one tells, and the run goes on from there."""
    recipe, shards, out = write_recipe(tmp_path, SLOW), make_shards(tmp_path / "in", 6, 40), tmp_path / "out"
    tried = ["--try", "judges.scripted.seed=8", "--keep", "50%", "--json"]
    code, said, err = finished(launch(*arguments(recipe, shards, out, "--shards", "5", *tried)))
    assert code == 0, err
    assert ranks_of(out) == {(0, 2), (1, 2)}
    assert len([names for names in judged_by(out).values() if names]) == 2
    found = json.loads(said)  # told once
    assert (found["shards"], found["total"], found["samples"]) == (5, 6, 200)
    assert found["cost"]["gpus"] == 2
    assert found["cost"]["hours"] == pytest.approx(found["cost"]["gpu_hours"] / 2)
    [trial] = found["trials"]
    assert trial["agreement"]["pairs"] == 160
    with sleepless():
        for folder in (out, tmp_path / "alone"):
            assert main(["run", str(recipe), "--shards", shards, "-o", str(folder)]) == 0
    assert {name: sha for name, sha in tree(out).items() if "/pilot/" not in name} == tree(tmp_path / "alone")


def test_all_shards_judged_is_a_certainty(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where every shard is judged the forecast is what was counted, and intervals have no width."""
    out = tmp_path / "out"
    found = told(
        capsys, *arguments(recipe, shards, out, "--shards", "6", "--keep", "50%", "--gpu-price", "2")
    )
    counts = json.loads((out / "wdsfilter/summary.json").read_text())["counts"]
    kept = found["recipe"]["kept"]
    assert (found["samples"], found["total"], kept["value"]) == (72, 6, counts["kept"])
    assert kept["interval"] == {"low": counts["kept"], "high": counts["kept"]}
    assert found["recipe"]["share"]["value"] == pytest.approx(counts["kept"] / 72)
    assert sum(bar["pairs"] for bar in found["bars"]) == 60, "rules dropped twelve"
    assert found["cost"]["money"] == pytest.approx(2 * found["cost"]["gpu_hours"])
    at = next(t for t in found["thresholds"] if t["measure"] == "grade")
    assert abs(at["forecast"]["share"]["value"] - 0.5) < 0.1
    assert found["expressions"]["grade"] == "scripted.grade"


def test_a_threshold_is_what_a_selection_keeps(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The expression that is offered chooses as many samples as were foretold, of the shards that are judged."""
    out, keys = tmp_path / "out", tmp_path / "keys.txt"
    found = told(capsys, *arguments(recipe, shards, out, "--shards", "6", "--keep", "30%"))
    [at] = [t for t in found["thresholds"] if t["measure"] == "score"]
    where = f"{found['expressions']['score']} >= {at['at']['value']}"
    assert main(["select", str(out), "--shards", shards, "--where", where, "--export", str(keys)]) == 0
    assert len(keys.read_text().splitlines()) == at["forecast"]["kept"]["value"]


def test_trials_show_agreement_against_cost(
    recipe: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same shards under other settings: how alike the answers are, and what they cost. Judged once only."""
    tried = ["--try", "judges.scripted.seconds_per_pair=0.001", "--try", "judges.scripted.seed=8,9"]
    given = arguments(recipe, shards, tmp_path / "out", "--shards", "3", *tried)
    found = told(capsys, *given)
    same, *others = found["trials"]
    assert [one["trial"]["name"] for one in found["trials"]] == ["seconds_per_pair=0.001", "seed=8", "seed=9"]
    assert same["agreement"]["spearman"] == pytest.approx(1)
    assert same["agreement"]["same_decisions"] == 1
    assert same["cost"]["pairs_per_second"] < 1000
    for one in others:
        assert one["agreement"]["spearman"] < 0.9
        assert one["agreement"]["same_decisions"] < 1
    assert told(capsys, *given)["trials"] == found["trials"], "ledgers and events are there"
    assert main(given) == 0
    assert "same decisions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param(["--try", "judges.scripted.at_least=3"], "it is a threshold", id="threshold"),
        pytest.param(["--try", "judges.scripted.seed=7"], "its scores are the recipe's own", id="no-change"),
        pytest.param(["--try", "seed"], "expected PATH=VALUE,VALUE", id="no-value"),
        pytest.param(["--keep", "18"], "expected a share such as 18%", id="no-share"),
        pytest.param(["--shards", "2", "--shards", "3"], "expected one number", id="two-numbers"),
        pytest.param(["--shards", "-"], "standard input comes once", id="stdin"),
    ],
)
def test_a_users_mistake_is_one_line(
    more: list[str],
    said: str,
    recipe: Path,
    shards: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What cannot be meant exits 1 before anything is judged."""
    assert main(arguments(recipe, shards, tmp_path / "out", *more)) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out/wdsfilter/run.json").exists()


def test_a_judge_without_grades_is_cut_by_its_score(
    tiny_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The threshold of a similarity is told on its own scale, and where the recipe cuts it."""
    recipe = write_recipe(
        tmp_path, f"judges: [clip: {{model: {tiny_clip}, at_least: 0.1}}]\nguard: off\nrun: {{workers: 0}}"
    )
    shards = make_shards(tmp_path / "in", 2, 6)
    found = told(capsys, *arguments(recipe, shards, tmp_path / "out", "--keep", "50%"))
    assert (found["label"], found["measure"], found["recipe_at"]) == ("Score", "score", 0.1)
    [at] = found["thresholds"]
    assert -1 <= at["at"]["value"] <= 1
    assert at["forecast"]["kept"]["value"] == 6


def drawn_shards(rng: np.random.Generator, count: int, samples: int, spread: float) -> Judged:
    """Shards whose scores lie around a middle of their own."""
    found = []
    for number in range(count):
        values = rng.normal(rng.normal(0, spread), 1, samples)
        every = np.ones(samples, bool)
        found.append(JudgedShard(f"{number}", every, every, every, {"score": values}, np.full(samples, 10.0)))
    return Judged(found, Ruler("j", (), 0.0, (Measure("score", "Score", (), None, 0.0),)))


def test_intervals_hold_what_they_promise() -> None:
    """Over many drawn worlds, the interval of a threshold covers the whole's threshold about as often as it says."""
    rng = np.random.default_rng(5)
    covered = widths = 0.0
    worlds, judged, total = 60, 10, 40
    for _ in range(worlds):
        world = drawn_shards(rng, total, 200, 0.3)
        truth = np.quantile(world.joined("score"), 0.8)
        part = Judged(world.shards[:judged], world.ruler)
        found = threshold(part, "score", 0.2, Sampling(judged, total, resampled(judged))).at
        assert found.interval is not None
        covered += found.interval.low <= truth <= found.interval.high
        widths += found.interval.high - found.interval.low
    assert 0.8 <= covered / worlds <= 1, "ten shards are few: the bootstrap falls a little short"
    assert widths / worlds < 1


def test_one_shard_has_no_interval() -> None:
    """How much shards differ is not seen on one of them."""
    part = drawn_shards(np.random.default_rng(0), 1, 100, 0.0)
    found = threshold(part, "score", 0.2, Sampling(1, 9, resampled(1)))
    assert found.at.interval is None
    assert found.forecast.kept.value == 9 * 20


def test_a_rate_leaves_out_loading_and_pauses() -> None:
    """Seconds count from when a process is ready to its last shard, over all processes and launches."""
    events = [
        {"process": "a", "time": 0.0, "event": "started"},
        {"process": "a", "time": 50.0, "event": "opened"},
        {"process": "b", "time": 55.0, "event": "opened"},
        {"process": "a", "time": 60.0, "event": "committed", "samples": 100},
        {"process": "b", "time": 65.0, "event": "committed", "samples": 200},
        {"process": "a", "time": 900.0, "event": "opened"},
        {"process": "a", "time": 910.0, "event": "committed", "samples": 300},
        {"process": "c", "time": 999.0, "event": "opened"},
    ]
    found = rate(events)
    assert found == Rate(600, 30.0)
    whole = cost(found, 72_000, gpus=2, price=2.5)
    assert whole is not None
    assert (whole.pairs_per_second, whole.gpu_hours, whole.hours, whole.money) == (20, 1, 0.5, 2.5)
    assert cost(Rate(0, 0.0), 10, 1, None) is None
    assert not math.isnan(whole.hours)


@pytest.mark.parametrize(("cut", "marked"), [(3, ["3"]), (6, ["6"]), (1, ["1"])])
def test_the_recipes_mark_is_where_it_cuts(
    cut: int, marked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A grade that no pair has is not marked at one that many have: it gets a line of its own."""
    nothing = Estimate(0.0, None)
    found = Contents(
        *(1, 2, 10, "vlm", "grade", "Grade"),
        bars=[Bar(3.0, 3.0, 5), Bar(4.0, 4.0, 5)],
        recipe=Forecast(nothing, nothing, nothing, nothing),
        recipe_at=cut,
        wanted=None,
        thresholds=[],
        expressions={},
        cost=None,
        trials=[],
    )
    _show_distribution(found)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words[0] for words in shown if words[-1:] == ["recipe"]] == marked
