"""A judge from nothing: made by one command, resumed exactly, and an ordinary checkpoint in the end."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.runs import finished, start
from wdsfilter.cli import main
from wdsfilter.demo.world import write_world

RECIPE = """
shape: {vocabulary: 600, width: 64, layers: 3, heads: 2, key_value_heads: 1, mlp: 96,
        vision_width: 32, vision_layers: 1, vision_heads: 1}
judge: {min_pixels: 15680, max_pixels: 19600, answers_for: a test}
world: {look_first: 2, looks: 4, pictures: 2, captions: 3}
training: {steps: 6, precision: fp32, optimizer: {name: muon, learning_rate: 2.0e-3}}
held_out: {pairs: 8, every: 3}
run: {checkpoint_every: 1}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge of a few steps, made without a break."""
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "recipe.yaml").write_text(RECIPE)
    assert main(["train", str(folder / "recipe.yaml"), "-o", str(folder / "judge")]) == 0
    return folder


def test_what_comes_out_is_a_checkpoint(trained: Path) -> None:
    """Stock transformers loads it, and its contract says for what it answers."""
    from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

    network = Qwen2VLForConditionalGeneration.from_pretrained(trained / "judge", dtype="auto")
    assert str(network.dtype) == "torch.float16"
    assert AutoTokenizer.from_pretrained(trained / "judge").encode("10", add_special_tokens=False)[1:]
    contract = json.loads((trained / "judge/judge.json").read_text())
    assert contract["answers_for"] == "a test"
    assert contract["score_first"] is True
    assert contract["max_pixels"] == 19600


def test_run_takes_it_as_its_model(trained: Path, tmp_path: Path) -> None:
    """The contract of the checkpoint is obeyed without a word in the recipe of the run."""
    shards = write_world(tmp_path / "in", samples=6)
    (tmp_path / "run.yaml").write_text(
        f"judges: [vlm: {{model: {trained / 'judge'}, check: {{first: 0}}, at_least: 1}}]\nguard: off"
    )
    assert main(["run", str(tmp_path / "run.yaml"), "--shards", shards, "-o", str(tmp_path / "out")]) == 0


@pytest.mark.nightly  # by day test_train.py kills a training of the same loop
def test_a_killed_training_goes_on_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    """Killed in the middle and started again: byte for byte the weights of the unbroken training."""
    arguments: list[str | Path] = ["train", trained / "recipe.yaml", "-o", tmp_path / "judge"]
    process = start(*arguments)
    state = tmp_path / "judge/training/state.pt"
    while process.poll() is None and not state.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    finished(process)
    assert not (tmp_path / "judge/judge.json").exists()
    assert main([*map(str, arguments)]) == 0
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "judge" / name).read_bytes() == (trained / "judge" / name).read_bytes()


def test_held_out_figures_are_logged(trained: Path) -> None:
    """Losses of both phases and held-out figures are in the log."""
    lines = [json.loads(line) for line in (trained / "judge/training/log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "texture" in line]
    assert len(steps) >= 2
    assert any("grade" in line and "right" in line for line in lines)
    assert any("mae" in json.dumps(line) for line in lines)


def test_a_mistake_is_told_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown key in the world's section is one of the listed mistakes."""
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("look_first", "look_frist"))
    assert main(["train", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "judge")]) == 1
    assert "look_first" in capsys.readouterr().err
    assert not (tmp_path / "judge").exists()
