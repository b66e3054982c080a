"""A stand-in for the vision-language judge: the ledgers of a real one, without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wdsfilter.cli import main
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Numbers, Pair, Prepared

RECIPE = """
judges:
  - rules: {min_words: 2}
  - vlm: {model: none, at_least: {grade: 9, with_probability: 0.5}}
guard: off
ledger: {columns: [uid, url, score, defects], truth: score}
"""


@dataclass(frozen=True, slots=True)
class FakeVlm:
    """Probabilities around the true score in the json, drawn from key and caption."""

    justification: str
    window: int = 64
    batch_cost: int = 64
    inline: bool = True

    def prepare(self, pair: Pair) -> Prepared:
        drawn = hashlib.sha256(f"{pair.key}\0{pair.caption}".encode()).digest()
        middle = float(pair.fields.get("score", 5)) + (drawn[0] / 255 - 0.5) * 5
        spread = 0.4 + drawn[1] / 128
        weights = [2.7 ** -(((grade - middle) / spread) ** 2) + 1e-4 for grade in range(1, 11)]
        p = [weight / sum(weights) for weight in weights]
        numbers = {
            "grade": 1 + max(range(10), key=p.__getitem__),
            "score": sum(grade * chance for grade, chance in enumerate(p, 1)),
            "p": p,
            "missing_mass": 0.0,
            "tokens": 300,
            "visual_tokens": 256,
            "truncated": False,
            "justification": self.justification,
        }
        return Prepared(numbers)

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        return batch

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


def vlm_run(folder: Path, shards: str, patch: pytest.MonkeyPatch, justification: str = "It says so.") -> Path:
    """A finished run of rules and a fake vlm judge over ``shards``; returns its output folder."""

    def identify(options: vlm.Options, runtime: Runtime) -> Mapping[str, Any]:
        return {"scoring_version": 1}

    def load(options: vlm.Options, runtime: Runtime) -> FakeVlm:
        return FakeVlm(justification)

    def resolve(options: vlm.Options) -> tuple[vlm.Options, Sequence[str]]:
        return vlm.Options.model_validate({**options.model_dump(), "scale": options.scale.model_dump()}), ()

    for function in (identify, load, resolve):
        patch.setattr(vlm, function.__name__, function)
    recipe, out = folder / "recipe.yaml", folder / "out"
    recipe.write_text(RECIPE)
    tolerate = json.dumps({"unreadable": "100%", "damaged_shards": 9})
    arguments = ["run", str(recipe), "--shards", shards, "--set", f"input.tolerate={tolerate}"]
    assert main([*arguments, "-o", str(out)]) == 0
    return out
