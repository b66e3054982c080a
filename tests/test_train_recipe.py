"""A train recipe is strict, names all its mistakes at once, and is told from a recipe of a run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs import ROOT
from tests.training import content, write_recipe
from wdsfilter.cli import main
from wdsfilter.errors import RecipeError
from wdsfilter.recipe_files import load_recipe
from wdsfilter.training.options import Optimizer, Run, Schedule, Training
from wdsfilter.training.recipe import (
    Answers,
    Data,
    HeldOut,
    Judge,
    Lora,
    TrainRecipe,
    load_train_recipe,
    parse,
)


def test_all_mistakes_are_named_at_once() -> None:
    """Unknown keys, wrong types and missing sections are reported together, with the nearest known name."""
    raw = {
        "model": "x",
        "data": {"shards": "a.tar", "captoin": "txt"},
        "judge": {"prompt": "no place"},
        "lora": {"rnak": 4},
        "training": {"steps": "many", "optimizer": {"name": "sgd"}},
        "held_out": {"share": "x%"},
    }
    with pytest.raises(RecipeError) as caught:
        parse(raw)
    message = str(caught.value)
    assert message.startswith("recipe: 6 mistakes")
    for part in (
        "data.captoin: unknown key; did you mean caption?",
        "judge.prompt: must hold {caption} exactly once",
        "lora.rnak: unknown key; did you mean rank?",
        "training.steps: input should be a valid integer, found 'many'",
        "training.optimizer.name: input should be 'adamw' or 'muon', found 'sgd'",
        "held_out.share: input should be a valid number, found 'x%'",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        pytest.param({"training": {"steps": 1, "epochs": 1}}, "either steps or epochs", id="two-lengths"),
        pytest.param({"training": {}}, "either steps or epochs", id="no-length"),
        pytest.param({"data": {}}, "either shards or dataset", id="no-data"),
        pytest.param({"data": {"dataset": "x", "image": ["a", "b"]}}, "one column", id="two-columns"),
        pytest.param({"lora": {}, "freeze": ["visual"]}, "freeze goes without lora", id="freeze-and-lora"),
        pytest.param({"run": {"pairs_at_once": 5}}, "no multiple of run.pairs_at_once", id="batches"),
    ],
)
def test_contradictions(sections: dict[str, Any], said: str) -> None:
    """What cannot be meant together is refused in words."""
    raw = {"model": "x", "data": {"shards": "a.tar"}, "training": {"steps": 1}, **sections}
    with pytest.raises(RecipeError, match=said):
        parse(raw)


def test_the_two_kinds_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` names the command for a train recipe, `train` refuses a run's, and `recipes check` knows both."""
    path = str(write_recipe(tmp_path, content(tmp_path, tmp_path / "s.tar")))
    with pytest.raises(RecipeError, match="is a train recipe: wdsfilter train"):
        load_recipe(path)
    with pytest.raises(RecipeError, match="no section training"):
        load_train_recipe("cc12m")
    assert main(["recipes", "check", path]) == 0
    assert "a train recipe" in capsys.readouterr().out
    assert main(["recipes", "check", path, "--set", "seed=x"]) == 1
    assert "seed: input should be a valid integer" in capsys.readouterr().err


def test_overrides_reach_every_key(tmp_path: Path) -> None:
    """PATH=VALUE sets keys of every section; `off` switches a section off."""
    path = str(write_recipe(tmp_path, content(tmp_path, tmp_path / "s.tar")))
    overrides = [
        "lora.rank=4",
        "held_out=off",
        "training.schedule.warmup=10%",
        "freeze=[]",
        "data.max_sample=2MiB",
    ]
    recipe = load_train_recipe(path, overrides)
    assert isinstance(recipe, TrainRecipe)
    assert recipe.lora is not None
    assert recipe.lora.rank == 4
    assert recipe.held_out is None
    assert recipe.training.schedule.warmup == 0.1
    assert recipe.data.max_sample == 2 << 20


def test_the_length_of_a_training() -> None:
    """Epochs count pairs: a last step that is not full is a step too."""
    assert Training(epochs=2, pairs_per_step=32).all_steps(100) == 7
    assert Training(epochs=0.01, pairs_per_step=32).all_steps(100) == 1
    assert Training(steps=5).all_steps(100) == 5


def test_the_papers_recipe_asks_what_the_published_judge_is_asked() -> None:
    """`train/vlm-2b` spells out the contract that is the default of `run`."""
    recipe = load_train_recipe("train/vlm-2b")
    assert isinstance(recipe, TrainRecipe)
    assert recipe.judge == Judge()
    assert recipe.lora is not None
    assert recipe.training.precision == "bf16"


def test_checking_loads_no_torch() -> None:
    """A train recipe of scored pairs is checked without torch."""
    code = (
        "import sys; from wdsfilter.training.recipe import load_train_recipe as load; load('train/vlm-2b'); "
        "print({'torch', 'transformers', 'peft', 'datasets'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_key_is_documented() -> None:
    """docs/training.md names every key of every section."""
    text = (ROOT / "docs/training.md").read_text()
    models = (TrainRecipe, Judge, Answers, Data, HeldOut, Lora, Training, Optimizer, Schedule, Run)
    names = {name for model in models for name in model.model_fields}
    assert not {name for name in names if not re.search(rf"[`.]{name}[`:.]", text)}
