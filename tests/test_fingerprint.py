"""What makes two runs the same run: every key is in its part of the record; where and how is in none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import write_recipe
from wdsfilter import recipe
from wdsfilter.fingerprint import differences, judges_of, record
from wdsfilter.judges import Runtime
from wdsfilter.recipe_files import load_recipe

BASE = """
judges:
  - rules: {min_words: 2}
  - scripted: {seed: 7, at_least: 5}
"""
CPU = Runtime("cpu")


def parts_that_change(path: Path, *overrides: str) -> set[str]:
    """Names of the record's parts that differ from the base recipe's."""
    base, other = (record(load_recipe(str(path), given), CPU)["fingerprints"] for given in ((), overrides))
    return {name for name in base if base[name] != other[name]}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("judges.scripted.seed=8", {"scoring"}),
        ("judges.scripted.table={a: 3}", {"scoring"}),
        ("judges.rules.blocklist=[buy]", {"scoring"}),
        ("judges.rules.pattern=x", {"scoring"}),
        ("input.caption=json.caption", {"scoring"}),
        ("input.image=[png, jpg]", {"scoring"}),
        ("input.max_sample=1MiB", {"scoring"}),
        ("judges.scripted.at_least=6", {"decision"}),
        ("judges.rules.min_words=3", {"decision"}),
        ("judges.rules.max_aspect=3", {"decision"}),
        ("output.scores=json", {"output"}),
        ("output.score_extension=s.json", {"output"}),
        ("output.shards=false", {"output"}),
        ("ledger.columns=[url]", {"output"}),
        ("input.shards=[elsewhere.tar]", set()),
        ("input.tolerate.unreadable=50%", set()),
        ("output.folder=elsewhere", set()),
        ("guard=off", set()),
        ("seed=5", set()),
        ("run.workers=3", set()),
        ("run.in_flight=1MiB", set()),
        ("run.stale_after=5", set()),
    ],
)
def test_each_key_is_in_its_part(override: str, parts: set[str], tmp_path: Path) -> None:
    """A key changes exactly the part of the record that it belongs to."""
    assert parts_that_change(write_recipe(tmp_path, BASE), override) == parts


def test_the_order_of_judges_counts(tmp_path: Path) -> None:
    """Judges in another order are another run: who rejects first decides what the others see."""
    one = load_recipe(str(write_recipe(tmp_path, "judges: [rules, scripted]\n")))
    other = load_recipe(str(write_recipe(tmp_path, "judges: [scripted, rules]\n")))
    assert record(one, CPU)["fingerprints"]["scoring"] != record(other, CPU)["fingerprints"]["scoring"]


def test_weights_count_and_their_place_does_not(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The same checkpoint elsewhere is the same run; one other byte of its weights is another."""
    moved = tmp_path / "moved"
    shutil.copytree(tiny_checkpoint, moved)

    def found(folder: Path) -> dict[str, Any]:
        return record(load_recipe("demo", [f"judges.vlm.model={folder}"]), CPU)

    assert found(moved) == found(tiny_checkpoint)
    with (moved / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    changed = list(differences(found(tiny_checkpoint), found(moved)))
    assert any("model.safetensors" in line for line in changed)
    assert found(moved)["fingerprints"]["scoring"] != found(tiny_checkpoint)["fingerprints"]["scoring"]


@pytest.mark.parametrize(
    ("options", "decides"),
    [
        pytest.param({}, False, id="nothing"),
        pytest.param({"blocklist": [], "json": {}, "suspicious": False}, False, id="all-off"),
        pytest.param({"min_words": 3}, True, id="limit"),
        pytest.param({"suspicious": True}, True, id="suspicious"),
        pytest.param({"blocklist": ["stock photo"]}, True, id="blocklist"),
        pytest.param({"pattern": "[a-z]"}, True, id="pattern"),
        pytest.param({"json": {"nsfw": {"one_of": [False]}}}, True, id="json"),
    ],
)
def test_a_record_tells_which_judges_drop_samples(options: dict[str, Any], decides: bool) -> None:
    """A judge decided about a set where any option for which it drops samples is on."""
    found = judges_of(record(recipe.parse({"judges": [{"rules": options}]}), CPU))
    assert found["rules"]["decides"] is decides
