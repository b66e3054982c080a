"""Checkpoints for tests, made once per session. conftest.py makes the fixtures known to all tests."""

from __future__ import annotations

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
