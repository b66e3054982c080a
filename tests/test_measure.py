"""`wdsfilter measure`: the paper's two numbers, facts, and who filtered what."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.encoders import TEXTS
from tests.runs import jpeg
from tests.test_clip import pairs, stock_cosines
from wdsfilter.cli import main


def write(path: Path, found: Sequence[tuple[bytes, str]], extension: str = "png") -> Path:
    """A shard of images and captions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (image, caption) in enumerate(found):
            for name, data in ((extension, image), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{number:04d}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """The pairs that tests of clip know the numbers of."""
    return write(tmp_path / "in/a.tar", [(bytes(pair.image), pair.caption) for pair in pairs()])


def measured(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> Any:
    capsys.readouterr()
    assert main(["measure", *map(str, arguments), "--set", "run.workers=0", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_both_numbers_are_those_of_a_direct_computation(
    shard: Path, tiny_clip: Path, tiny_gpt2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alignment is the mean cosine, perplexity exp of the mean loss, as transformers computes them."""
    found = measured(capsys, f"x={shard}", "--clip", tiny_clip, "--lm", tiny_gpt2)
    [one] = found["sets"]
    cosines = stock_cosines(tiny_clip, True)
    assert one["alignment"]["value"] == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)
    model, tokenizer = (kind.from_pretrained(tiny_gpt2) for kind in (AutoModelForCausalLM, AutoTokenizer))
    losses = []
    for text in TEXTS:
        row = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text).input_ids]])
        with torch.no_grad():
            losses.append(model(row, labels=row).loss.item())
    assert one["perplexity"]["value"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    low, high = one["perplexity"]["interval"].values()
    assert math.exp(min(losses)) <= low < one["perplexity"]["value"] < high <= math.exp(max(losses))
    assert (one["name"], one["pairs"], one["filtered_by"]) == ("x", 4, [])


def test_facts_need_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lengths, words, sizes and repetitions are counted exactly; what cannot be read is left out and told."""
    image, other = jpeg(1), jpeg(2)  # 17 x 16 and 18 x 16
    shard = write(
        tmp_path / "a.tar",
        [(image, "A dog"), (image, "a dog"), (other, "A dog"), (other, "the cat's house, 2"), (b"no", "x")],
        "jpg",
    )
    [one] = measured(capsys, shard, "--clip", "none", "--lm", "none")["sets"]
    assert (one["alignment"], one["perplexity"], one["alike_images"]) == (None, None, None)
    assert (one["pairs"], one["unreadable"]) == (4, {"image_format": 1})
    assert (one["repeated_images"], one["repeated_captions"]) == (2, 1)
    assert (one["vocabulary"], one["type_token_ratio"]) == (6, 0.6), "a dog the cat's house 2"
    assert one["words"]["value"] == 2.5
    assert one["words_spread"] == {"low": 2, "median": 2, "high": 4}
    assert one["characters"] == {"low": 5, "median": 5, "high": 18}
    assert one["shorter_side"] == {"low": 16, "median": 16, "high": 16}
    assert one["pixels"]["high"] == 288


def test_sets_stand_side_by_side(shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every argument is a set of its own; a set of one pair has no interval."""
    single = write(tmp_path / "b.tar", [(jpeg(3), "one picture")], "jpg")
    assert main(["measure", f"all={shard}", f"one={single}", "--clip", "none", "--lm", "none"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert ["pairs", "4", "1"] in [line.split() for line in lines]
    mean = next(number for number, line in enumerate(lines) if line.startswith("words in a caption, mean"))
    assert lines[mean + 1].count(" to ") == 1


def test_a_damaged_shard_is_told(shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shard that was cut is measured up to there, and the exit code says that it is not all."""
    (tmp_path / "in/b.tar").write_bytes(shard.read_bytes()[:-7000])
    found = measured(capsys, tmp_path / "in", "--clip", "none", "--lm", "none", code=3)
    assert list(found["sets"][0]["damaged"]) == ["b.tar"]


def test_no_pair_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A set without a readable pair is one line that says why."""
    shard = write(tmp_path / "a.tar", [(b"no", "x")], "jpg")
    assert main(["measure", str(shard), "--clip", "none", "--lm", "none"]) == 1
    assert "image_format" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("at_least", "selection", "filtered", "itself"),
    [
        pytest.param(-1, None, ["clip"], ["alignment"], id="its-own-filter"),
        pytest.param(None, None, [], [], id="only-measured-with"),
        pytest.param(None, ["--where", "clip.score >= -1"], ["clip"], ["alignment"], id="selected-by-it"),
        pytest.param(-1, ["--where", "rules.width > 1"], ["rules"], [], id="selected-by-another"),
        pytest.param(-1, ["--sample", "100%"], ["clip"], ["alignment"], id="selected-from-what-it-kept"),
    ],
)
def test_a_filter_that_measures_itself_is_told(
    at_least: float | None,
    selection: list[str] | None,
    filtered: list[str],
    itself: list[str],
    shard: Path,
    tiny_clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The record beside a set's shards says who decided about it; the same weights measuring it are named."""
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    options = json.dumps({"model": str(tiny_clip), "at_least": at_least})
    recipe.write_text(f"judges: [rules, clip: {options}]\nguard: off\nrun: {{workers: 0}}")
    assert main(["run", str(recipe), "--shards", str(shard), "-o", str(out)]) == 0
    if selection is not None:
        new = tmp_path / "new"
        assert main(["select", str(out), "--shards", str(shard), "-o", str(new), *selection]) == 0
        out = new
    [one] = measured(capsys, out, "--clip", tiny_clip, "--lm", "none")["sets"]
    assert one["filtered_by"] == filtered
    assert one["measured_by_its_filter"] == itself
    assert one["pairs"] == 4


def test_other_weights_are_another_model(
    shard: Path, tiny_clip: Path, tiny_siglip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set that one model filtered is measured by another without a warning."""
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(
        f"judges: [clip: {{model: {tiny_siglip}, at_least: -1}}]\nguard: off\nrun: {{workers: 0}}"
    )
    assert main(["run", str(recipe), "--shards", str(shard), "-o", str(out)]) == 0
    [one] = measured(capsys, out, "--clip", tiny_clip, "--lm", "none")["sets"]
    assert (one["filtered_by"], one["measured_by_its_filter"]) == (["clip"], [])
