from __future__ import annotations

import json
import pickle
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests import stock
from wdsfilter.demo.checkpoint import PROMPT, SYSTEM
from wdsfilter.engine.checkpoint import Checkpoint
from wdsfilter.engine.layout import Layout, build_layout
from wdsfilter.errors import JudgeError
from wdsfilter.training.nothing import ADDED_TOKENS, TEXTUAL_TOKENS

VISUAL_TOKENS = 4


def layout(folder: Path, prompt: str = PROMPT + "{caption}", most: int = 1000) -> Layout:
    checkpoint = Checkpoint(folder)
    return build_layout(
        checkpoint, checkpoint.read("config.json"), system=SYSTEM, prompt=prompt, max_caption_tokens=most
    )


def captions(count: int) -> list[str]:
    """Captions as the web has them: words, digits, marks, line breaks, other scripts, combining marks."""
    rng = random.Random(1)
    pieces = [
        "a dog",
        "Photo",
        "in 1984",
        ",",
        ".",
        "!?",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "café",
        "cafe\u0301",
        "日本語",
    ]
    pieces += [
        "Ⅳ",
        "½",
        "👩‍👩‍👧",
        "مرحبا",
        "\u0301",
        "it's",
        "{x}",
        "score: {10}",
        "<b>",
        "|>",
        "<|",
        "--",
        "\u00a0",
        "\r\n",
    ]
    return ["", " ", "\n", *("".join(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(count))]


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param(PROMPT + "{caption}", id="published"),
        pytest.param("Caption: {caption}. Grade it!", id="abutting"),
        pytest.param("{caption}\n\nis it good?", id="caption-first"),
    ],
)
def test_ids_are_the_stock_ones(tiny_checkpoint: Path, prompt: str) -> None:
    """Hundreds of captions without control tokens give the stock ids, wherever they touch the prompt."""
    reference = stock.processor(tiny_checkpoint, min_pixels=56 * 56, max_pixels=56 * 56)
    image = stock.noise(56, 56)
    ours = layout(tiny_checkpoint, prompt)
    for caption in captions(300):
        expected = stock.inputs(reference, image, prompt.replace("{caption}", caption))["input_ids"][
            0
        ].tolist()
        ids, cut = ours.row(caption, VISUAL_TOKENS)
        assert (ids.tolist(), cut) == (expected, False), caption


@pytest.mark.parametrize("token", [*ADDED_TOKENS, *TEXTUAL_TOKENS, "<|placeholder|>"])
def test_control_tokens_in_captions_are_text(tiny_checkpoint: Path, token: str) -> None:
    """Whatever a caption spells, a row has the control tokens of the layout and no others."""
    ours = layout(tiny_checkpoint)
    plain, _ = ours.row("a dog", VISUAL_TOKENS)
    hostile, _ = ours.row(f"{token}a {token} dog{token}", VISUAL_TOKENS)
    assert [i for i in hostile.tolist() if i in ours.controls] == [
        i for i in plain.tolist() if i in ours.controls
    ]


def test_long_captions_are_cut_and_the_instruction_is_not(tiny_checkpoint: Path) -> None:
    """A caption keeps its first tokens and the row says that it was cut; what surrounds it stays whole."""
    prompt = PROMPT + "{caption}\nGrade it!"
    ours, caption = layout(tiny_checkpoint, prompt, most=10), " ".join(["dog cat house"] * 50)
    ids, cut = ours.row(caption, VISUAL_TOKENS)
    whole, _ = layout(tiny_checkpoint, prompt).row(caption, VISUAL_TOKENS)
    empty, _ = ours.row("", VISUAL_TOKENS)
    assert cut
    assert len(ids) <= len(empty) + 10
    assert (
        ids[: len(ours.head) + VISUAL_TOKENS + 10].tolist()
        == whole[: len(ours.head) + VISUAL_TOKENS + 10].tolist()
    )
    end = len(ours.continuation("\nGrade it!")) + len(ours.tail)
    assert ids[-end:].tolist() == whole[-end:].tolist()


@pytest.mark.parametrize("text", captions(20), ids=repr)
@pytest.mark.parametrize("most", [1, 3, 8])
def test_cut_captions_hold_the_limit(tiny_checkpoint: Path, text: str, most: int) -> None:
    """Cutting keeps a start of the caption within the limit and is recorded exactly when it happens."""
    ours = layout(tiny_checkpoint, "Caption {caption} end", most)
    ids, cut = ours.row(text, VISUAL_TOKENS)
    whole, _ = layout(tiny_checkpoint, "Caption {caption} end").row(text, VISUAL_TOKENS)
    empty, _ = ours.row("", VISUAL_TOKENS)
    assert len(ids) <= len(empty) + most + 2  # the borders may split differently around another text
    assert cut == (ids.tolist() != whole.tolist())


def test_a_huge_caption_costs_little(tiny_checkpoint: Path) -> None:
    """What lies far beyond the limit is not even tokenised."""
    began = time.perf_counter()
    _, cut = layout(tiny_checkpoint, most=50).row("dog " * 5_000_000, VISUAL_TOKENS)
    assert cut
    assert time.perf_counter() - began < 5


def test_the_layout_travels_to_workers(tiny_checkpoint: Path) -> None:
    """A pickled layout gives the same ids."""
    ours = layout(tiny_checkpoint)
    again: Layout = pickle.loads(pickle.dumps(ours))
    assert again.row("a dog", VISUAL_TOKENS)[0].tolist() == ours.row("a dog", VISUAL_TOKENS)[0].tolist()


def test_lone_surrogates_are_refused(tiny_checkpoint: Path) -> None:
    """A caption that is no text raises instead of being repaired."""
    with pytest.raises(UnicodeEncodeError):
        layout(tiny_checkpoint).row("dog \ud800", VISUAL_TOKENS)


def _without_image_pad(tokenizer: dict[str, Any]) -> None:
    tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["content"] != "<|image_pad|>"]


def _moved_image_pad(tokenizer: dict[str, Any]) -> None:
    for token in tokenizer["added_tokens"]:
        token["id"] += 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(_without_image_pad, r"lacks <\|image_pad\|>", id="other-family"),
        pytest.param(_moved_image_pad, "do not belong together", id="other-model"),
    ],
)
def test_another_tokenizer_is_refused(tiny_checkpoint: Path, tmp_path: Path, change: Any, named: str) -> None:
    """A tokenizer of another family, or of another model, is an error that says what is missing."""
    tokenizer = json.loads((tiny_checkpoint / "tokenizer.json").read_text())
    change(tokenizer)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = Checkpoint(tiny_checkpoint).read("config.json")
    with pytest.raises(JudgeError, match=named):
        build_layout(Checkpoint(tmp_path), config, system="", prompt="{caption}", max_caption_tokens=1)
