"""The judge clip: transformers' own numbers, for CLIP and SigLIP, whatever a caption says."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from tests.encoders import TEXTS
from wdsfilter.engine.alignment import Ready
from wdsfilter.engine.crop import build_crop
from wdsfilter.errors import BadImage, JudgeError
from wdsfilter.judges import Runtime, clip
from wdsfilter.samples import KEPT, Decision, Pair, Prepared, Unreadable

SIZES = [(60, 40), (33, 90), (24, 24), (17, 25)]


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Smooth noise."""
    drawn = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    return Image.fromarray(drawn).resize(size, Image.Resampling.BICUBIC)


def pairs() -> list[Pair]:
    found = []
    for number, (size, caption) in enumerate(zip(SIZES, TEXTS, strict=True)):
        buffer = io.BytesIO()
        picture(size, number).save(buffer, "PNG")
        found.append(Pair(f"{number}", buffer.getvalue(), caption))
    return found


def ready(judge: Any, pair: Pair) -> Ready:
    prepared = judge.prepare(pair)
    assert isinstance(prepared, Prepared), prepared
    value: Ready = prepared.value
    return value


def load(folder: Path, **options: Any) -> Any:
    return clip.load(clip.Options(model=str(folder), **options), Runtime("cpu"))


def stock_cosines(folder: Path, padding: Any) -> list[float]:
    """What transformers' own model, tokenizer and image processor say of :func:`pairs`."""
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    limit = model.config.text_config.max_position_embeddings
    text = tokenizer(TEXTS, padding=padding, truncation=True, max_length=limit, return_tensors="pt")
    text.pop("token_type_ids", None)
    if padding == "max_length":
        text.pop("attention_mask")
    pixels = processor([picture(size, n) for n, size in enumerate(SIZES)], return_tensors="pt")
    with torch.no_grad():
        found = model(**text, **pixels)
    return [float(a @ b) for a, b in zip(found.text_embeds, found.image_embeds, strict=True)]


@pytest.mark.parametrize(("family", "padding"), [("clip", True), ("siglip", "max_length")])
def test_scores_are_transformers_own(family: str, padding: Any, request: pytest.FixtureRequest) -> None:
    """Alone and in a batch, a pair's score is the cosine that a direct computation gives."""
    folder = request.getfixturevalue(f"tiny_{family}")
    stock = stock_cosines(folder, padding)
    assert max(stock) - min(stock) > 0.01, "a model that tells nothing apart shows nothing"
    judge = load(folder)
    batch = [ready(judge, pair) for pair in pairs()]
    assert [row["score"] for row in judge.score(batch)] == pytest.approx(stock, abs=2e-6)
    judge.threads.shutdown()


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_batch_on_a_device_is_the_same(family: str, request: pytest.FixtureRequest) -> None:
    """Padded into one batch, as on a GPU, pairs have the scores that they have alone."""
    judge = load(request.getfixturevalue(f"tiny_{family}"))
    batch = [ready(judge, pair) for pair in pairs()]
    alone = [row["score"] for row in judge.score(batch)]
    assert judge._padded(batch) == pytest.approx(alone, abs=2e-6)
    judge.threads.shutdown()


def test_neighbours_change_no_bit(tiny_clip: Path) -> None:
    """On a CPU a pair has the same bits alone and in any batch."""
    judge = load(tiny_clip)
    batch = [ready(judge, pair) for pair in pairs()]
    together = judge.score(batch)
    assert [judge.score([one])[0] for one in batch] == together
    assert judge.score(batch[::-1]) == together[::-1]
    judge.threads.shutdown()


@pytest.mark.parametrize(
    ("family", "said"), [("clip", "<|endoftext|>"), ("clip", "<|startoftext|>"), ("siglip", "</s>")]
)
def test_a_caption_is_data(family: str, said: str, request: pytest.FixtureRequest) -> None:
    """A caption that spells a control token is text: the only ones are those around it."""
    judge = load(request.getfixturevalue(f"tiny_{family}"))
    captions = judge.prepare.captions
    ids = captions.row(f"a dog {said} runs")[0].tolist()
    inside = ids[len(captions.before) : -len(captions.after)]
    assert set(captions.before + captions.after).isdisjoint(inside)
    assert len(inside) > len(captions.row("a dog runs")[0]) - len(captions.after)
    judge.threads.shutdown()


def test_a_long_caption_is_cut_and_says_so(tiny_clip: Path) -> None:
    """A caption beyond the encoder's length loses its end, never the end token."""
    judge = load(tiny_clip)
    long = ready(judge, Pair("k", pairs()[0].image, "a dog near the lake " * 50))
    assert (len(long.ids), long.truncated, long.ids[-1]) == (20, True, judge.prepare.captions.after[0])
    [row] = judge.score([long])
    assert row["truncated"] is True
    judge.threads.shutdown()


def test_siglips_first_tokenizer_reads_bare_text(tiny_siglip: Path, tmp_path: Path) -> None:
    """Where a checkpoint names SigLIP's first tokenizer, case and punctuation go before a caption is encoded."""
    folder = tmp_path / "bare"
    shutil.copytree(tiny_siglip, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "tokenizer_class": "SiglipTokenizer"})
    )
    judge = load(folder)
    rows = [judge.prepare.captions.row(text)[0].tolist() for text in ("A  Dog, near!", "a dog near")]
    assert rows[0] == rows[1]
    judge.threads.shutdown()


def test_what_cannot_be_looked_at_is_unreadable(tiny_clip: Path) -> None:
    """A broken or endlessly long image costs its pair."""
    judge = load(tiny_clip)
    assert isinstance(judge.prepare(Pair("k", b"no image", "a dog")), Unreadable)
    buffer = io.BytesIO()
    Image.new("RGB", (2001, 10)).save(buffer, "PNG")
    outcome = judge.prepare(Pair("k", buffer.getvalue(), "a dog"))
    assert isinstance(outcome, Unreadable)
    assert outcome.reason == "image_aspect"
    judge.threads.shutdown()


@pytest.mark.parametrize(
    ("at_least", "decision"),
    [
        pytest.param(None, None, id="measures-only"),
        pytest.param(0.25, None, id="reached"),
        pytest.param(0.31, Decision("dropped", "at_least", "score 0.3 < 0.31"), id="missed"),
    ],
)
def test_decisions(at_least: float | None, decision: Decision | None) -> None:
    """A pair stays from the threshold on; without one every pair does."""
    assert KEPT.status == "kept"
    options = clip.Options(at_least=at_least)
    assert clip.decide(options, {"score": 0.3, "truncated": False}) == decision


def test_another_family_is_refused(tiny_gpt2: Path) -> None:
    """A checkpoint that is no dual encoder is told in one line."""
    with pytest.raises(JudgeError, match="model type is gpt2; accepted: clip, siglip"):
        load(tiny_gpt2)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"do_normalize": False}, id="no-normalisation"),
        pytest.param({"rescale_factor": 1.0}, id="other-scale"),
        pytest.param({"crop_size": {"height": 60, "width": 60}}, id="crop-beyond-the-image"),
        pytest.param({"size": {"longest_edge": 24}}, id="unknown-size"),
    ],
)
def test_preprocessing_that_would_not_be_reproduced_is_refused(
    changed: dict[str, Any], tiny_clip: Path
) -> None:
    """Settings of an image processor that are not followed are refused, never passed over."""
    settings = json.loads((tiny_clip / "preprocessor_config.json").read_text())
    with pytest.raises(JudgeError, match="image processor"):
        build_crop({**settings, **changed})


def test_older_settings_are_read(tiny_clip: Path) -> None:
    """Sizes as single numbers, as the first CLIP checkpoints have them, mean the same."""
    settings = json.loads((tiny_clip / "preprocessor_config.json").read_text())
    assert build_crop({**settings, "size": 24, "crop_size": 24}) == build_crop(settings)
    with pytest.raises(BadImage):
        build_crop(settings).pixels(Image.new("RGB", (1, 300)))
