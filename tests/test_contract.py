"""A checkpoint's own contract (`judge.json`) holds for all that a recipe leaves unsaid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import make_shards
from tests.training import PIXELS
from wdsfilter import fingerprint
from wdsfilter.cli import main
from wdsfilter.engine.contract import Contract, OwnContract, Scale, read_contract, write_contract
from wdsfilter.errors import JudgeError
from wdsfilter.judges import Runtime, vlm
from wdsfilter.plan import plan
from wdsfilter.recipe import parse

OWN: dict[str, Any] = {
    **PIXELS,
    "prompt": "Good?\n{caption}",
    "answer": "good: (",
    "pattern": r"good: \((\w+)\)",
    "scale": Scale(values={"yes": 1, "no": 0}),
}


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint with a contract of its own."""
    own = tmp_path / "own"
    shutil.copytree(tiny_checkpoint, own)
    write_contract(own, OwnContract(score_first=True, **OWN))
    return own


def resolved(folder: Path, **said: Any) -> tuple[vlm.Options, list[str]]:
    options, remarks = vlm.resolve(vlm.Options.model_validate({"model": str(folder), "at_least": 1, **said}))
    return options, list(remarks)


def test_it_holds_where_the_recipe_is_silent(folder: Path) -> None:
    """Prompt, answer, pattern, scale and pixels are the checkpoint's own, and so is what the judge does."""
    options, remarks = resolved(folder)
    assert remarks == []
    assert {name: getattr(options, name) for name in OWN} == OWN
    judge = vlm.load(vlm.Options(model=str(folder), at_least=vlm.AtLeast(grade=1)), Runtime("cpu"))
    assert (judge.start, judge.pattern.pattern, dict(judge.grades)) == (
        OWN["answer"],
        OWN["pattern"],
        {"no": 0, "yes": 1},
    )
    assert judge.prepare.layout.before == "Good?\n"
    assert judge.prepare.plan.max_pixels == PIXELS["max_pixels"]


def test_a_recipe_that_says_otherwise_wins_with_a_warning(folder: Path) -> None:
    """What the recipe sets explicitly counts, and a line says that the checkpoint says otherwise."""
    options, remarks = resolved(folder, prompt="Bad?\n{caption}", min_pixels=PIXELS["min_pixels"])
    assert options.prompt == "Bad?\n{caption}"
    (remark,) = remarks  # equal values are no contradiction
    assert remark.startswith("warning: judges.vlm.prompt is 'Bad?")
    assert "Good?" in remark


def test_a_threshold_has_to_be_on_its_scale(folder: Path) -> None:
    """The threshold is checked against the scale that holds, the default one included."""
    with pytest.raises(JudgeError, match=r"judges.vlm.*at_least \(9\) is not on the scale, 0 to 1"):
        resolved(folder, at_least=9)
    (folder / "judge.json").unlink()
    with pytest.raises(JudgeError, match=r"at_least \(11\) is not on the scale, 1 to 10"):
        resolved(folder, at_least=11)


def test_without_one_nothing_changes(tiny_checkpoint: Path) -> None:
    """A checkpoint without a contract is asked as the recipe and the published defaults say."""
    said = vlm.Options(model=str(tiny_checkpoint), prompt="{caption}?")
    options, remarks = vlm.resolve(said)
    assert (options, list(remarks)) == (said, [])


def test_the_record_of_a_run_says_what_held(folder: Path, tmp_path: Path) -> None:
    """The resolved values are in the scoring fingerprint: another contract is another run, and they decide."""
    pattern = make_shards(tmp_path / "in", 1, 2)
    raw = {"input": {"shards": pattern}, "judges": [{"vlm": {"model": str(folder), "at_least": 1}}]}
    job = plan(parse(raw), tmp_path / "out", runtime=Runtime("cpu"))
    options = job.record["scoring"]["judges"]["vlm"]["options"]
    assert options["prompt"] == OWN["prompt"]
    assert options["scale"]["values"] == {"yes": 1, "no": 0}
    (spec,) = fingerprint.recorded_specs(json.loads(fingerprint.canonical(job.record)))
    assert spec.options.model_dump()["scale"]["values"] == {"no": 0, "yes": 1}

    said = {**raw["judges"][0]["vlm"], **OWN, "scale": {"values": {"yes": 1, "no": 0}}}  # type: ignore[index]
    explicit = plan(parse({**raw, "judges": [{"vlm": said}]}), tmp_path / "same", runtime=Runtime("cpu"))
    assert explicit.record == job.record
    write_contract(folder, OwnContract(score_first=True, **{**OWN, "prompt": "Fine?\n{caption}"}))
    other = plan(parse(raw), tmp_path / "other", runtime=Runtime("cpu"))
    assert other.fingerprints.scoring != job.fingerprints.scoring


def test_run_warns(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`wdsfilter run` prints the warning."""
    pattern = make_shards(tmp_path / "in", 1, 2)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"judges: [vlm: {{model: {folder}, system: Other, at_least: 0, check: {{first: 0}}}}]\n"
        "guard: off\nrun: {workers: 0}"
    )
    main(["run", str(recipe), "--shards", pattern, "-o", str(tmp_path / "out")])
    assert "warning: judges.vlm.system is 'Other' in the recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param("{", "Invalid JSON", id="torn"),
        pytest.param('{"score_first": true, "promt": "x"}', "did you mean prompt", id="unknown-key"),
        pytest.param('{"score_first": true, "prompt": "x"}', "exactly once", id="no-caption"),
        pytest.param("{}", "score_first: required", id="silent-about-the-score"),
        pytest.param('{"score_first": true, "format": 2}', "format", id="of-the-future"),
    ],
)
def test_one_that_cannot_be_meant_is_a_line(folder: Path, content: str, named: str) -> None:
    """A broken contract is told in one line with its path."""
    (folder / "judge.json").write_text(content)
    with pytest.raises(JudgeError, match="(?i)" + named) as caught:
        resolved(folder)
    assert str(folder / "judge.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_score_that_does_not_come_first_is_not_forced(folder: Path) -> None:
    """A checkpoint that says so of itself is not read after a forced start."""
    write_contract(folder, OwnContract(**{**OWN, "score_first": False}))
    with pytest.raises(JudgeError, match="readout: generate"):
        resolved(folder)
    assert resolved(folder, readout="generate")[0].answer == OWN["answer"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """A contract comes back as it was written; a folder without one has none."""
    assert read_contract(tmp_path) is None
    own = OwnContract(score_first=True, answers_for="drawings", **OWN)
    write_contract(tmp_path, own)
    assert read_contract(tmp_path) == own
    assert own.contract() == Contract(**OWN)
