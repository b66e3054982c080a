"""Small trainings for tests: scored pairs, a recipe over them, and what a training leaves."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests import stock
from tests.shards import write_shard
from wdsfilter.training.recipe import TrainRecipe, parse

PIXELS = {"min_pixels": 56 * 56, "max_pixels": 16 * 28 * 28}
WORDS = ["a", "dog", "cat", "house", "tree", "small", "large", "red", "old", "near", "street", "with"]


def score_pairs(count: int, seed: int = 0) -> list[tuple[str, bytes, str, dict[str, Any]]]:
    """Key, image, caption and fields: the score is the number of words, and every third pair says why."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        words = rng.randint(1, 10)
        fields: dict[str, Any] = {"score": words}
        if number % 3 == 0:
            fields["justification"] = "The caption is short."
        image = stock.png(stock.noise(rng.randint(40, 80), rng.randint(40, 80), number))
        found.append((f"{number:05d}", image, " ".join(rng.choices(WORDS, k=words)), fields))
    return found


def scored_shard(
    path: Path,
    count: int = 32,
    change: Callable[[dict[str, Any], str], dict[str, Any]] = lambda fields, caption: fields,
) -> Path:
    """A shard of scored pairs, whose fields ``change`` (fields, caption) gives."""
    members = []
    for key, image, caption, fields in score_pairs(count):
        members += [(f"{key}.png", image), (f"{key}.txt", caption.encode())]
        members.append((f"{key}.json", json.dumps(change(fields, caption)).encode()))
    return write_shard(path, members)


def content(model: Path, shards: Path, **sections: Any) -> dict[str, Any]:
    """A train recipe of a few fp32 steps over ``shards``; ``sections`` replace or extend its own."""
    recipe: dict[str, Any] = {
        "model": str(model),
        "judge": dict(PIXELS),
        "data": {"shards": str(shards)},
        "held_out": {"share": 0.25, "every": 4},
        "training": {
            "steps": 6,
            "pairs_per_step": 8,
            "precision": "fp32",
            "optimizer": {"learning_rate": 2e-3},
        },
        "run": {"pairs_at_once": 4, "checkpoint_every": 3},
    }
    for name, section in sections.items():
        both = isinstance(section, Mapping) and isinstance(recipe.get(name), Mapping)
        recipe[name] = {**recipe[name], **section} if both else section
    return recipe


def parsed(recipe: Mapping[str, Any]) -> TrainRecipe:
    """The recipe, validated."""
    found = parse(dict(recipe))
    assert isinstance(found, TrainRecipe)
    return found


def write_recipe(folder: Path, recipe: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(dict(recipe)))
    return path


def log(output: Path) -> list[dict[str, Any]]:
    """The lines of a training's log."""
    return [json.loads(line) for line in (output / "training" / "log.jsonl").read_text().splitlines()]


def losses(output: Path) -> dict[int, float]:
    """Step -> its loss; every step stands in the log once."""
    lines = [line for line in log(output) if "loss" in line]
    found = {line["step"]: line["loss"] for line in lines}
    assert len(found) == len(lines)
    return found
