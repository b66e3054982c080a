"""A recipe is strict, names all its mistakes at once, and can be overridden key by key."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.runs import ROOT, write_recipe
from wdsfilter import judges
from wdsfilter.errors import RecipeError
from wdsfilter.judges.vlm import PUBLISHED
from wdsfilter.recipe import Guard, Input, LedgerOptions, Output, Recipe, Run, Tolerate, parse
from wdsfilter.recipe_files import (
    find_recipe,
    is_train,
    load_recipe,
    read_recipe,
    recipe_folder,
    recipe_names,
)
from wdsfilter.training.recipe import load_train_recipe


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_is_valid_and_says_how_to_start_it(path: Path) -> None:
    """Each file under recipes/ loads, opens with its purpose, and then the command that starts it; those
    under recipes/train/ are train recipes, and no others are."""
    name = path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
    trains = name.startswith("train/")
    assert name in recipe_names()
    assert is_train(read_recipe(name)) == trains
    if trains:
        load_train_recipe(name)
    else:
        assert isinstance(load_recipe(name), Recipe)
    purpose, launch = path.read_text().splitlines()[:2]
    assert purpose.startswith("# ")
    assert f"{'train' if trains else 'run'} {name}" in launch


def test_recipes_are_in_the_wheel(tmp_path: Path) -> None:
    """A built wheel holds every recipe, where the installed package looks for them."""
    source = tmp_path / "source"
    for folder in ("wdsfilter", "recipes"):
        shutil.copytree(ROOT / folder, source / folder)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "from wdsfilter.recipe_files import *\n"
        "from wdsfilter.training.recipe import load_train_recipe\n"
        "print(recipe_folder())\n"
        "load = lambda name: (load_train_recipe if name.startswith('train/') else load_recipe)(name)\n"
        "print(*[name for name in recipe_names() if load(name)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folder, names = done.stdout.splitlines()
    assert folder == str(tmp_path / "site/wdsfilter/recipes")
    assert names.split() == recipe_names()


def test_all_mistakes_are_named_at_once() -> None:
    """Unknown keys, wrong types and unknown judges are reported together, each with the nearest known name."""
    raw = {
        "inputt": {},
        "input": {"captoin": "txt", "tolerate": {"unreadable": "x%"}, "max_sample": "3 bananas"},
        "judges": [{"scripted": {"at_lest": 9}}, {"ruls": {}}, {"rules": {"min_side": "big"}}],
        "guard": {"after": "soon"},
    }
    with pytest.raises(RecipeError) as caught:
        parse(raw)
    message = str(caught.value)
    assert message.startswith("recipe: 8 mistakes")
    for part in (
        "inputt: unknown key; did you mean input?",
        "input.captoin: unknown key; did you mean caption?",
        "input.tolerate.unreadable: input should be a valid number, found 'x%'",
        "input.max_sample: could not interpret",
        "judges.scripted.at_lest: unknown key; did you mean at_least?",
        "judges.1: no judge 'ruls'; did you mean rules?",
        "judges.rules.min_side: input should be a valid integer, found 'big'",
        "guard.after: input should be a valid integer, found 'soon'",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        pytest.param([], "expected sections", id="list"),
        pytest.param({}, "judges: required, and missing", id="empty"),
        pytest.param({"judges": []}, "at least 1", id="no-judge"),
        pytest.param({"judges": ["scripted", "scripted"]}, "two judges have the id 'scripted'", id="same-id"),
        pytest.param(
            {"judges": [{"scripted": {"id": "key"}}]}, "is a column of the ledger", id="reserved-id"
        ),
        pytest.param({"judges": [{"scripted": {}, "rules": {}}]}, "expected one judge", id="two-in-one"),
        pytest.param({"judges": ["scripted"], "guard": {"kept": ["95%", "1%"]}}, "lower share", id="guard"),
        pytest.param(
            {"judges": ["scripted"], "output": {"score_extension": "txt"}}, "part of the pair", id="ext"
        ),
        pytest.param(
            {"judges": [{"vlm": {"model": PUBLISHED, "at_least": 11}}]}, "not on the scale", id="grade"
        ),
        pytest.param({"judges": ["os.system"]}, "no judge 'os.system'", id="dotted-name"),
        pytest.param({"judges": ["scripted"], "ledger": {"columns": ["key"]}}, "taken", id="column"),
        pytest.param(
            {"judges": ["scripted"], "input": {"shards": [{"path": "x", "as": "../y"}]}}, "match", id="as"
        ),
    ],
)
def test_mistakes(raw: object, said: str) -> None:
    """Each mistake is refused in words."""
    with pytest.raises(RecipeError, match=said):
        parse(raw)


def test_an_override_of_all_options_leaves_the_other_judges(tmp_path: Path) -> None:
    """`judges.NAME={...}` replaces that judge's options and nothing else; anything but a mapping is refused."""
    path = str(write_recipe(tmp_path, "judges: [rules: {min_side: 9}, scripted: {seed: 1}]\n"))
    recipe = load_recipe(path, ["judges.rules={min_words: 3}"])
    assert recipe.judge_ids == ("rules", "scripted")
    options = recipe.judges[0].options.model_dump()
    assert (options["min_words"], options["min_side"]) == (3, None)
    with pytest.raises(RecipeError, match="expected the judge's options"):
        load_recipe(path, ["judges.rules=off"])


def test_numbers_with_exponents_are_numbers(tmp_path: Path) -> None:
    """`2e-3` is a number in a recipe and in an override, though PyYAML reads a word; `e3` and `2e` are words."""
    path = write_recipe(tmp_path, "[2e-3, 1E5, +.5e1, 2.e+3, 2e, e3, 2e-3x]\n")
    assert read_recipe(str(path)) == [0.002, 1e5, 5.0, 2000.0, "2e", "e3", "2e-3x"]
    recipe = write_recipe(tmp_path, "judges: [rules]\n")
    assert (
        load_recipe(str(recipe), ["judges.rules.max_aspect=3e0"]).judges[0].options.model_dump()["max_aspect"]
        == 3.0
    )


def test_overrides_reach_every_key(tmp_path: Path) -> None:
    """PATH=VALUE sets sections' keys and, by their ids, judges' options; values are YAML."""
    path = write_recipe(tmp_path, "judges: [rules, scripted: {id: fixed, table: {a: 1}}]\n")
    recipe = load_recipe(
        str(path),
        [
            "judges.fixed.table={b: 2}",
            "judges.rules.min_side=32",
            "input.tolerate.unreadable=5%",
            "input.max_sample=2MiB",
            "input.shards=[a.tar, {path: b.tar, as: second}]",
            "guard=off",
            "run.workers=auto",
        ],
    )
    assert recipe.judge_ids == ("rules", "fixed")
    assert recipe.judges[0].options.model_dump()["min_side"] == 32
    assert recipe.judges[1].options.model_dump()["table"] == {"b": 2}
    assert recipe.input.tolerate.unreadable == 0.05
    assert recipe.input.max_sample == 2 << 20
    assert [(p.path, p.prefix) for p in recipe.input.patterns()] == [("a.tar", ""), ("b.tar", "second")]
    assert recipe.guard is None
    assert recipe.run.workers is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("judges: !!python/object/apply:os.system [true]\n", id="tag"),
        pytest.param("judges: [scripted]\nseed: 1\nseed: 2\n", id="repeated-key"),
        pytest.param("judges: [scripted\n", id="syntax"),
    ],
)
def test_yaml_that_is_refused(text: str, tmp_path: Path) -> None:
    """Tags run nothing, a key that stands there twice is a mistake, broken YAML says where."""
    with pytest.raises(RecipeError, match=str(tmp_path)):
        load_recipe(str(write_recipe(tmp_path, text)))


def test_recipes_are_found_by_name_and_path(tmp_path: Path) -> None:
    """A name means an installed recipe, a path a file; anything else names the nearest."""
    assert find_recipe("cc12m") == recipe_folder() / "cc12m.yaml"
    assert find_recipe(str(write_recipe(tmp_path))) == tmp_path / "recipe.yaml"
    with pytest.raises(RecipeError, match=r"did you mean cc3m\?"):
        find_recipe("cc3")
    with pytest.raises(RecipeError, match="no recipe file"):
        find_recipe("nowhere.yaml")


def test_every_key_is_documented() -> None:
    """docs/recipes.md names every key of every section and every option of every judge."""
    text = (ROOT / "docs/recipes.md").read_text()
    options = {
        field.alias or name
        for model in (Input, Tolerate, Guard, Output, LedgerOptions, Run)
        for name, field in model.model_fields.items()
    }
    for judge in judges.names():
        options |= {field.alias or name for name, field in judges.module(judge).Options.model_fields.items()}
    missing = {name for name in options if not re.search(rf"[`.]{name}[`:]", text)}
    assert not missing
