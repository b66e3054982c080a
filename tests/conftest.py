"""Fixtures that several files share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, browser
from tests.checkpoints import score_last_checkpoint, tiny_checkpoint, windowed_checkpoint
from tests.encoders import tiny_clip, tiny_gpt2, tiny_siglip
from tests.s3 import Gate, new_bucket, s3_server, speak_to
from tests.strangers import answering_llava, tiny_gemma3, tiny_idefics3

__all__ = [
    "answering_llava",
    "ram_path",
    "score_last_checkpoint",
    "tiny_checkpoint",
    "tiny_clip",
    "tiny_gemma3",
    "tiny_gpt2",
    "tiny_idefics3",
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


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for the tests of one file."""
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="session")
def s3_address() -> Iterator[tuple[str, Gate]]:
    """One S3 server for all tests."""
    with s3_server() as found:
        yield found


@pytest.fixture
def s3(s3_address: tuple[str, Gate], monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The gate of an S3 server that this process and its children speak to, without pauses between tries."""
    address, gate = s3_address
    speak_to(address, monkeypatch)
    gate.clear()
    yield gate
    gate.clear()


@pytest.fixture
def bucket(s3: Gate) -> str:
    """``s3://NAME`` of an empty bucket on it."""
    return new_bucket()
