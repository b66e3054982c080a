"""The output folder of a training: the checkpoint that comes of it, and ``training/`` with all that led there.

config.json model.safetensors tokenizer.json ... judge.json    the checkpoint; judge.json comes last
training/run.json                                              what identifies the training
training/lock                                                  held by the process that writes here
training/state.pt                                              what is needed to go on; gone at the end
training/log.jsonl                                             a line for every step and every evaluation
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdsfilter import fingerprint, storage
from wdsfilter.engine.contract import FILE
from wdsfilter.errors import OutputError


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """Where everything of a training lies."""

    root: Path

    @property
    def inner(self) -> Path:
        return self.root / "training"

    @property
    def record(self) -> Path:
        return self.inner / "run.json"

    @property
    def state(self) -> Path:
        return self.inner / "state.pt"

    @property
    def log(self) -> Path:
        return self.inner / "log.jsonl"

    @property
    def is_done(self) -> bool:
        """Whether the checkpoint is there, all of it."""
        return (self.root / FILE).exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, that no second launch trains in it. Raises OutputError where another process does."""
        self.inner.mkdir(parents=True, exist_ok=True)
        with (self.inner / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"another process trains in {self.root}") from None
            yield

    def check(self, record: dict[str, Any]) -> None:
        """Raise OutputError where the folder holds something of another training, or a checkpoint of none."""
        try:
            there = json.loads(self.record.read_bytes())
        except FileNotFoundError:
            if (self.root / "config.json").exists() or self.is_done:
                raise OutputError(f"{self.root} holds a checkpoint that no training made") from None
            return
        except ValueError as error:
            raise OutputError(f"{self.record}: {error}") from error
        begun = self.is_done or self.state.exists()
        if begun and (lines := list(fingerprint.differences(there, record))):
            raise OutputError(
                "\n  ".join([f"{self.root} is the folder of another training; use another one", *lines])
            )

    def claim(self, record: dict[str, Any]) -> None:
        """Make the folder this training's."""
        self.inner.mkdir(parents=True, exist_ok=True)
        temporary = self.record.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        storage.write_synced(temporary, fingerprint.canonical(record))
        storage.replace(temporary, self.record)
