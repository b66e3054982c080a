"""The judge perplexity: transformers' own loss of every caption."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.encoders import TEXTS
from wdsfilter.engine.fluency import Ready
from wdsfilter.judges import Runtime, perplexity
from wdsfilter.samples import Decision, Pair, Prepared, Unreadable


def load(folder: Path, **options: Any) -> Any:
    return perplexity.load(perplexity.Options(model=str(folder), **options), Runtime("cpu"))


def ready(judge: Any, caption: str) -> Ready:
    prepared = judge.prepare(Pair("k", b"", caption))
    assert isinstance(prepared, Prepared), prepared
    value: Ready = prepared.value
    assert prepared.cost == len(value.ids)
    return value


@pytest.mark.parametrize("start", [True, False])
def test_losses_are_transformers_own(start: bool, tiny_gpt2: Path) -> None:
    """Alone, together and padded into one batch, a caption's loss is what transformers says of its ids."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny_gpt2),
        AutoTokenizer.from_pretrained(tiny_gpt2),
    )
    stock = []
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        row = torch.tensor([[tokenizer.bos_token_id, *ids] if start else ids])
        with torch.no_grad():
            stock.append(model(row, labels=row).loss.item())
    judge = load(tiny_gpt2, start=start)
    batch = [ready(judge, text) for text in TEXTS]
    rows = judge.score(batch)
    assert [row["loss"] for row in rows] == pytest.approx(stock, rel=1e-6)
    assert [row["perplexity"] for row in rows] == pytest.approx([math.exp(x) for x in stock], rel=1e-5)
    assert [row["tokens"] for row in rows] == [len(one.ids) - 1 for one in batch]
    assert judge._losses(batch) == pytest.approx(stock, rel=1e-5)
    assert [judge.score([one])[0] for one in batch] == rows, "neighbours change no bit"
    judge.threads.shutdown()


def test_a_caption_is_data(tiny_gpt2: Path) -> None:
    """A caption that spells the start token is text."""
    judge = load(tiny_gpt2)
    start = judge.prepare.captions.before[0]
    assert ready(judge, "a <|endoftext|> b").ids.tolist().count(start) == 1
    judge.threads.shutdown()


def test_a_caption_without_anything_to_predict_is_unreadable(tiny_gpt2: Path) -> None:
    """One token has no loss unless a start token comes before it."""
    bare, started = load(tiny_gpt2, start=False), load(tiny_gpt2)
    outcome = bare.prepare(Pair("k", b"", "a"))
    assert isinstance(outcome, Unreadable)
    assert outcome.reason == "caption_too_short"
    assert ready(started, "a").ids.shape == (2,)
    for judge in (bare, started):
        judge.threads.shutdown()


def test_a_long_caption_is_cut_at_the_models_length(tiny_gpt2: Path) -> None:
    """What lies beyond the model's positions is cut, and that is recorded."""
    judge = load(tiny_gpt2)
    long = ready(judge, "a dog near the lake " * 50)
    assert len(long.ids) == 32
    assert judge.score([long])[0]["truncated"] is True
    judge.threads.shutdown()


@pytest.mark.parametrize(
    ("at_most", "decision"),
    [
        pytest.param(None, None, id="measures-only"),
        pytest.param(60.0, None, id="below"),
        pytest.param(40.0, Decision("dropped", "at_most", "perplexity 50 > 40"), id="above"),
    ],
)
def test_decisions(at_most: float | None, decision: Decision | None) -> None:
    """A pair stays up to the limit; without one every pair does."""
    numbers = {"loss": math.log(50), "perplexity": 50.0, "tokens": 3, "truncated": False}
    assert perplexity.decide(perplexity.Options(at_most=at_most), numbers) == decision
