"""Checkpoints for tests, made once per session. conftest.py makes the fixtures known to all tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from wdsfilter.demo.checkpoint import make_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-VL checkpoint that answers with its score first; grades follow the caption's words."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def score_last_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but its answers end with the score."""
    folder = tmp_path_factory.mktemp("checkpoint") / "score_last"
    make_checkpoint(folder, score_first=False)
    return folder


@pytest.fixture(scope="session")
def windowed_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL checkpoint with random weights, the tiny one's tokenizer, and windows of 2 x 2 visual tokens."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    folder = tmp_path_factory.mktemp("checkpoint") / "windowed"
    shutil.copytree(tiny_checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    like = json.loads((tiny_checkpoint / "config.json").read_text())
    config = Qwen2_5_VLConfig(
        text_config=like["text_config"] | {"model_type": "qwen2_5_vl_text"},
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 60,  # as the real one's, no multiple of 16
            "num_heads": 2,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        **{name: token for name, token in like.items() if name.endswith("_token_id")},
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    network = Qwen2_5_VLForConditionalGeneration(config)
    for weight in network.parameters():  # far from what it starts with, where nothing depends on anything
        torch.nn.init.normal_(weight, std=0.3)
    network.save_pretrained(folder)
    return folder
