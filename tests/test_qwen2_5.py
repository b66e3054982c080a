"""Qwen2.5-VL: the vision tower attends in windows, and its MLP is of an odd width."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import stock
from wdsfilter.demo.checkpoint import PROMPT
from wdsfilter.engine.judge import VlmJudge
from wdsfilter.engine.prepare import Ready
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Prepared

MIN, MAX = 56 * 56, 20 * 28 * 28
PAIRS = stock.pairs(10)


@pytest.fixture(scope="module")
def judge(windowed_checkpoint: Path) -> VlmJudge:
    options = vlm.Options(
        model=str(windowed_checkpoint), min_pixels=MIN, max_pixels=MAX, resize="pillow", max_new_tokens=6
    )
    return vlm.load(options, Runtime(wanted="cpu", threads=2))


@pytest.fixture(scope="module")
def rows(judge: VlmJudge) -> list[Ready]:
    prepared = [judge.prepare(pair) for pair in PAIRS]
    return [one.value for one in prepared if isinstance(one, Prepared)]


def test_packed_rows_equal_the_stock_model(
    judge: VlmJudge, rows: list[Ready], windowed_checkpoint: Path
) -> None:
    """Log-probabilities and greedy answers are those of the stock model and processor for each pair alone."""
    import torch

    processor = stock.processor(windowed_checkpoint, min_pixels=MIN, max_pixels=MAX)
    network = stock.model(windowed_checkpoint)
    readout = judge.readout
    seen = []
    for pair, row, (log_p, _) in zip(PAIRS, rows, judge.model.log_p(rows, readout), strict=True):
        image = Image.open(io.BytesIO(bytes(pair.image)))
        inputs = stock.inputs(processor, image, PROMPT + pair.caption)
        assert inputs["input_ids"][0].tolist() == row.ids.tolist()
        with torch.inference_mode():
            whole = network.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=-1)
            start = torch.tensor([readout.trunk[: readout.shared]])
            inputs["input_ids"] = torch.cat([inputs["input_ids"], start], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            kinds = inputs.get("mm_token_type_ids")
            if kinds is not None:
                inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(start)], dim=1)
            expected = torch.log_softmax(network(**inputs).logits[0, -1], dim=-1)
        np.testing.assert_allclose(log_p[0], expected[list(readout.tokens)].numpy(), atol=1e-4)
        seen.append(log_p[0])
        [ours] = judge.model.generate([row], 6, None)
        assert ours == whole[0, len(row.ids) :].tolist()[: len(ours)]
    assert np.std(seen, axis=0).max() > 0.1  # the pairs do differ


def test_scores_are_bit_identical_in_any_company(judge: VlmJudge, rows: list[Ready]) -> None:
    """In fp32 on a CPU a pair's numbers are the same bits alone, in a batch, and among other neighbours."""
    together = judge.score(rows)
    order = random.Random(0).sample(range(len(rows)), len(rows))
    assert [judge.score([row])[0] for row in rows] == together
    assert judge.score([rows[i] for i in order]) == [together[i] for i in order]
