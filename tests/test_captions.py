"""Captions are data: whatever one says, its row has the layout's tokens, and its neighbours their scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import stock
from tests.corpus import texts
from tests.test_layout import VISUAL_TOKENS, layout
from wdsfilter.engine.layout import Layout
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Pair, Prepared

TEXTS = texts.texts()


def controls(ours: Layout, caption: str) -> list[int]:
    """The control tokens of a caption's row, in order."""
    ids, _ = ours.row(caption, VISUAL_TOKENS)
    return [token for token in ids.tolist() if token in ours.controls]


@pytest.fixture(scope="module")
def controls_of(tiny_checkpoint: Path) -> Callable[[str], list[int]]:
    ours = layout(tiny_checkpoint)
    return lambda caption: controls(ours, caption)


def test_there_are_enough() -> None:
    """At least 200 structural cases, no two alike."""
    assert len(set(TEXTS.values())) == len(TEXTS) >= 200


@pytest.mark.parametrize("name", TEXTS)
def test_no_caption_makes_a_control_token(controls_of: Callable[[str], list[int]], name: str) -> None:
    """The row's images and control tokens are those of any other caption."""
    assert controls_of(TEXTS[name]) == controls_of(texts.PLAIN)


def test_no_caption_reaches_its_neighbours(tiny_checkpoint: Path) -> None:
    """Packed between all of them, pairs keep their scores, bit by bit (fp32, CPU)."""
    judge = vlm.load(
        vlm.Options(model=str(tiny_checkpoint), min_pixels=3136, max_pixels=12544, max_caption_tokens=200),
        Runtime(wanted="cpu"),
    )

    def ready(pair: Pair) -> Any:
        prepared = judge.prepare(pair)
        assert isinstance(prepared, Prepared), pair
        return prepared.value

    pairs = stock.pairs(8)
    neighbours = [ready(pair) for pair in pairs]
    alone = judge.score(neighbours)
    hostile = [ready(Pair("hostile", pairs[0].image, text)) for text in TEXTS.values()]
    for start in range(0, len(hostile), len(neighbours)):
        batch = [row for two in zip(neighbours, hostile[start:], strict=False) for row in two]
        assert judge.score(batch)[::2] == alone[: len(batch) // 2]
