"""A judge with fixed answers: for tests, dry runs, and measuring everything but a model.

Without options every pair gets 10. It needs no pixels.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from wdsfilter.judges import JudgeOptions, Runtime, decides
from wdsfilter.samples import Decision, Numbers, Pair, Prepared

VERSION = 1


class Options(JudgeOptions):
    """``table`` gives grades by key; else ``seed`` draws them from key and caption; else all get ``grade``."""

    grade: int = Field(10, ge=1, le=10)
    table: dict[str, int] = Field(default_factory=dict)
    seed: int | None = None
    seconds_per_pair: float = Field(0.0, ge=0)
    at_least: int = decides(9, ge=1, le=10)


def resolve(options: Options) -> tuple[Options, Sequence[str]]:
    return options, ()


def fields(options: Options) -> Mapping[str, str]:
    return {"grade": "int16", "score": "float32"}


def decide(options: Options, numbers: Numbers) -> Decision | None:
    if numbers["grade"] >= options.at_least:
        return None
    return Decision("dropped", "at_least", f"grade {numbers['grade']} < {options.at_least}")


def identify(options: Options, runtime: Runtime) -> Mapping[str, Any]:
    return {"version": VERSION}


def load(options: Options, runtime: Runtime) -> ScriptedJudge:
    return ScriptedJudge(options)


@dataclass(frozen=True, slots=True)
class ScriptedJudge:
    """Answers from its options, after ``seconds_per_pair`` each."""

    options: Options
    window: int = 64
    batch_cost: int = 64
    inline: bool = True

    def prepare(self, pair: Pair) -> Prepared:
        options = self.options
        grade = options.table.get(pair.key, options.grade)
        if options.seed is not None and pair.key not in options.table:
            drawn = hashlib.sha256(f"{options.seed}\0{pair.key}\0{pair.caption}".encode()).digest()
            grade = 1 + int.from_bytes(drawn[:4], "big") % 10
        return Prepared({"grade": grade, "score": float(grade)})

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        if self.options.seconds_per_pair:
            time.sleep(self.options.seconds_per_pair * len(batch))
        return batch

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}
