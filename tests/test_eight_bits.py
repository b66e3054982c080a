from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.test_built_in import drawn, prepared
from wdsfilter.engine.checkpoint import BUILT_IN
from wdsfilter.engine.eight_bits import EightBits
from wdsfilter.engine.judge import VlmJudge
from wdsfilter.engine.model import Model
from wdsfilter.errors import JudgeError
from wdsfilter.judges import Runtime, is_deciding, is_location, vlm


def load(**options: object) -> VlmJudge:
    return vlm.load(
        vlm.Options.model_validate({"model": BUILT_IN, **options}), Runtime(wanted="cpu", threads=2)
    )


@pytest.fixture(scope="module")
def judge() -> VlmJudge:
    return load(weights="int8")


def test_scores_hardly_move(judge: VlmJudge) -> None:
    """Of 60 pairs, grades are those of the stored weights but for one at most; scores move by 0.03 on average."""
    ready = [one.value for one in prepared(judge, drawn(60, "eight"))]
    stored, rounded = load().score(ready), judge.score(ready)
    assert sum(a["grade"] == b["grade"] for a, b in zip(stored, rounded, strict=True)) >= 59
    moved = np.abs([a["score"] - b["score"] for a, b in zip(stored, rounded, strict=True)])
    assert 0 < moved.mean() < 0.03


def test_scores_are_bit_identical_in_any_company(judge: VlmJudge) -> None:
    """A pair's numbers are the same bits alone, in a batch, and among other neighbours."""
    rows = [one.value for one in prepared(judge, drawn(24, "company"))]
    together = judge.score(rows)
    order = random.Random(0).sample(range(len(rows)), len(rows))
    assert [judge.score([row])[0] for row in rows] == together
    assert judge.score([rows[i] for i in order]) == [together[i] for i in order]


def test_answers_name_the_same_grades(judge: VlmJudge) -> None:
    """Greedy generation goes through the same layers: its grades are the forced readout's."""
    ready = [one.value for one in prepared(judge, drawn(16, "answers"))]
    assert [judge.grade(answer) for answer in judge.generate(ready)] == [
        n["grade"] for n in judge.score(ready)
    ]


def test_both_towers_are_rounded(judge: VlmJudge) -> None:
    """All linear layers of both towers, and not the head, whose few rows cost nothing."""
    import torch

    assert isinstance(judge.model, Model)
    kinds = {type(module) for module in judge.model.network.model.modules()}
    assert EightBits in kinds
    assert torch.nn.Linear not in kinds
    assert isinstance(judge.model.network.lm_head, torch.nn.Linear)


def test_a_layer_of_zeros_and_a_token_of_zeros() -> None:
    """Nothing is divided by zero."""
    import torch

    layer = torch.nn.Linear(32, 16)
    torch.nn.init.zeros_(layer.weight)
    states = torch.zeros(1, 20, 32)
    assert torch.equal(EightBits(layer)(states), layer(states))


def test_it_is_part_of_the_fingerprint() -> None:
    """Other weights, other scores: the option is neither one that decides nor one that locates."""
    field = vlm.Options.model_fields["weights"]
    assert not is_deciding(field)
    assert not is_location(field)


def test_other_checkpoints_are_refused(answering_llava: Path) -> None:
    """Those that are run in padded batches keep their weights."""
    with pytest.raises(JudgeError, match="weights: int8 is for Qwen2-VL"):
        load(model=str(answering_llava), weights="int8")
