"""Fixtures that several files share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import score_last_checkpoint, tiny_checkpoint, windowed_checkpoint
from tests.encoders import tiny_clip, tiny_gpt2, tiny_siglip

__all__ = [
    "ram_path",
    "score_last_checkpoint",
    "tiny_checkpoint",
    "tiny_clip",
    "tiny_gpt2",
    "tiny_siglip",
    "windowed_checkpoint",
]


@pytest.fixture
def ram_path(tmp_path: Path) -> Iterator[Path]:
    """A folder of this test's own that no flush waits for, where the system has memory for one."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
