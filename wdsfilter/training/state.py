"""All that a training needs to go on: one file, replaced as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wdsfilter import storage
from wdsfilter.errors import OutputError


@dataclass(frozen=True, slots=True)
class StateFile:
    """Weights that are trained, optimizers, and the number of steps that they have seen."""

    path: Path

    def load(self, weights: Mapping[str, torch.nn.Parameter], optimizers: Sequence[Any]) -> int:
        """Put what is stored into both; returns the next step, 0 where nothing is stored.

        Raises OutputError for a file that is not of this training.
        """
        try:
            stored = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return 0
        except Exception as error:  # torn, or no archive at all: torch has many words for it
            raise OutputError(f"{self.path}: cannot be read ({str(error).partition(chr(10))[0]})") from error
        if stored["weights"].keys() != weights.keys() or len(stored["optimizers"]) != len(optimizers):
            raise OutputError(f"{self.path}: holds other weights than this training's")
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(stored["weights"][name])
        for optimizer, values in zip(optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        return int(stored["step"])

    def save(self, step: int, weights: Mapping[str, torch.nn.Parameter], optimizers: Sequence[Any]) -> None:
        """Store what ``step`` steps have made."""
        temporary = self.path.with_suffix(".new")
        values = {
            "step": step,
            "weights": {name: weight.detach() for name, weight in weights.items()},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        }
        with temporary.open("wb") as file:
            torch.save(values, file)
            file.flush()
            os.fsync(file.fileno())
        storage.replace(temporary, self.path)

    def remove(self) -> None:
        """Once the training has ended nothing is needed to go on."""
        self.path.unlink(missing_ok=True)
