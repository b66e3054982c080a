"""A loaded judge: scores batches, and finds out how its checkpoint wants to be run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from wdsfilter.engine.budget import DEFAULT, Computes, find_budget
from wdsfilter.engine.readout import LogP, Readout
from wdsfilter.errors import JudgeError
from wdsfilter.samples import Numbers

_TOGETHER = 16  # answers that are written together at least, as published
_SHOWN = 200  # characters of an example answer
_BUDGET = "max_tokens_per_batch"


class Ready(Protocol):
    """One pair for the model, and what a ledger says of it. Made by the judge's CPU half.

    ``ids`` are its prompt's [tokens]; ``known`` is False where the checkpoint is not meant for such pairs.
    """

    @property
    def ids(self) -> npt.NDArray[np.int32]: ...

    @property
    def visual_tokens(self) -> int: ...

    @property
    def truncated(self) -> bool: ...

    @property
    def known(self) -> bool: ...


class Model(Computes, Protocol):
    """Weights on a device: in packs (:class:`wdsfilter.engine.model.Model`), or as transformers runs them
    (:class:`wdsfilter.engine.padded.PaddedModel`). Each takes what the CPU half beside it has made ready."""

    def generate(
        self, batch: Sequence[Any], most: int, until: Callable[[list[int]], bool] | None
    ) -> list[list[int]]: ...


@runtime_checkable
class _Launching(Protocol):
    def launch(self, batch: Sequence[Any], readout: Readout) -> Callable[[], list[LogP]]: ...


@dataclass(frozen=True, slots=True)
class VlmJudge:
    """The device half and what it needs to know of its options.

    ``prepare`` is the CPU half that belongs to ``model`` (:mod:`wdsfilter.engine.prepare` or
    :mod:`wdsfilter.engine.processed`); ``grades`` maps what an answer writes to its number, in ascending order;
    ``pattern`` finds it in an answer (one group); ``justify`` says which pairs get a justification, ``keeps`` which
    numbers keep a pair; ``agreement`` is the share of the first ``check_first`` pairs on which the forced start
    must give the generated grade; ``budget`` is the most tokens of a batch, None where it is still to be found.
    """

    model: Model
    prepare: Any
    readout: Readout
    answers: Tokenizer
    grades: Mapping[str, int]
    start: str
    pattern: re.Pattern[str]
    mode: Literal["expected", "generate"]
    max_new_tokens: int
    justify: Literal["none", "kept", "all"]
    keeps: Callable[[Numbers], bool]
    check_first: int
    agreement: float
    answers_for: str | None
    window: int
    budget: int | None

    @property
    def inline(self) -> bool:
        """Decoding and resizing are worth a process of their own."""
        return False

    @property
    def batch_cost(self) -> int:
        """Tokens of a batch at most."""
        return self.budget or DEFAULT

    def adjusted(self, findings: Mapping[str, Any]) -> VlmJudge:
        """With the budget that the run has committed itself to."""
        return replace(self, budget=findings.get(_BUDGET, self.budget))

    @property
    def ahead(self) -> int:
        """A GPU is given one batch ahead. On a CPU all cores are busy anyway, and answers are written in steps."""
        on_gpu = self.model.device.type == "cuda" and isinstance(self.model, _Launching)
        return int(on_gpu and self.mode == "expected" and self.justify == "none")

    def launch(self, batch: Sequence[Ready]) -> Callable[[], Sequence[Numbers]]:
        """Numbers of each pair as :meth:`score` gives them, begun; only where ``ahead`` says so."""
        assert isinstance(self.model, _Launching)
        log_p = self.model.launch(batch, self.readout)
        return lambda: self._read(batch, log_p())

    def score(self, batch: Sequence[Ready]) -> Sequence[Numbers]:
        """Numbers of each pair, as the judge's ``fields`` name them, in the same order."""
        if self.mode == "generate" and self.justify == "all":
            return [*map(self._generated, batch, self.generate(batch, whole=True))]
        if self.mode == "generate":
            numbers = [*map(self._generated, batch, self.generate(batch))]
        else:
            numbers = self.expect(batch)
        if self.justify != "none":
            self._justify(batch, numbers)
        return numbers

    def expect(self, batch: Sequence[Ready]) -> list[dict[str, Any]]:
        """Numbers read after the forced start: one forward pass."""
        return self._read(batch, self.model.log_p(batch, self.readout))

    def _read(self, batch: Sequence[Ready], log_p: Sequence[LogP]) -> list[dict[str, Any]]:
        return [self._expected(pair, *own) for pair, own in zip(batch, log_p, strict=True)]

    def generate(self, batch: Sequence[Ready], *, whole: bool = False) -> list[str]:
        """Answers, greedily; each ends as soon as its grade is certain, unless they are wanted ``whole``."""
        widest = max((len(pair.ids) for pair in batch), default=0)
        together = max(_TOGETHER, self.batch_cost // (widest + self.max_new_tokens))
        answers: list[str] = []
        for i in range(0, len(batch), together):
            ids = self.model.generate(
                batch[i : i + together], self.max_new_tokens, None if whole else self._names_a_grade
            )
            answers += self.answers.decode_batch(ids)
        return answers

    def grade(self, answer: str) -> int | None:
        """The grade that an answer names, None when it names none of the scale."""
        found = self.pattern.search(answer)
        return self.grades.get(found.group(1).strip()) if found else None

    def _names_a_grade(self, ids: list[int]) -> bool:
        """Whether an answer says its grade, and no next token could make another one of it."""
        answer = self.answers.decode(ids)
        found = self.pattern.search(answer)
        return found is not None and found.end(1) < len(answer)

    def _justify(self, batch: Sequence[Ready], numbers: Sequence[dict[str, Any]]) -> None:
        wanted = [
            i
            for i, own in enumerate(numbers)
            if own["grade"] is not None and (self.justify == "all" or self.keeps(own))
        ]
        for i, answer in zip(wanted, self.generate([batch[i] for i in wanted], whole=True), strict=True):
            numbers[i]["justification"] = self._rest(answer)

    def check(self, first: Sequence[Ready]) -> Mapping[str, Any]:
        """Generates answers to the first pairs and compares; finds the budget where that was left to it.

        Where the checkpoint is not meant for all of them, it says for how many, and what it is meant for.

        Raises JudgeError when no answer names a grade, or when the forced start is not to be trusted.
        """
        budget = {} if self.budget else {_BUDGET: find_budget(self.model, first, self.readout)}
        if not self.check_first:
            return budget
        first = first[: self.check_first]
        if not first:
            raise JudgeError(
                "no pair among a run's first samples can be prepared, so it cannot be checked how this "
                "checkpoint answers; `check: {first: 0}` does without"
            )
        began = time.perf_counter()
        answers = self.generate(first)
        seconds = (time.perf_counter() - began) / len(first)
        generated = [self.grade(answer) for answer in answers]
        forced = [numbers["grade"] for numbers in self.expect(first)]
        starting = sum(answer.startswith(self.start) for answer in answers)
        agreeing = sum(a == b and a is not None for a, b in zip(generated, forced, strict=True))
        findings: dict[str, Any] = {
            **budget,
            "pairs": len(first),
            "starting_with_the_score": starting,
            "naming_a_grade": sum(grade is not None for grade in generated),
            "forced_start_agrees": agreeing,
            "score_first": starting >= self.agreement * len(first),
            "examples": [answer[:_SHOWN] for answer in answers[:2]],
        }
        seen = (
            f"of {len(first)} generated answers {starting} start with {self.start!r}, "
            f"{findings['naming_a_grade']} name a grade, {agreeing} name the forced start's grade; "
            f"the first one is {answers[0][:_SHOWN]!r}"
        )
        if not findings["naming_a_grade"]:
            raise JudgeError(f"this checkpoint's answers name no grade ({self.pattern.pattern}): {seen}")
        if self.mode == "expected" and agreeing < self.agreement * len(first):
            raise JudgeError(
                f"readout: expected is not right for this checkpoint: {seen}. `readout: generate` would be, "
                f"at about {seconds * 1e6 / 3600:.3g} hours per million pairs on this device; "
                "set it if that is what you want, this run does not switch by itself"
            )
        if strangers := sum(not pair.known for pair in first):
            findings |= {"strangers": strangers, "answers_for": self.answers_for}
        return findings

    def _expected(self, pair: Ready, log_p: Any, best: Any) -> dict[str, Any]:
        reading = self.readout.read(log_p, best)
        values = tuple(self.grades.values())
        score = (
            None if reading.p is None else sum(p * value for p, value in zip(reading.p, values, strict=True))
        )
        return {
            "grade": None if reading.index is None else values[reading.index],
            "score": None if score is None else _float32(score),
            "p": None if reading.p is None else [_float32(p) for p in reading.p],
            "missing_mass": _float32(reading.missing),
            "justification": None,
            **_widths(pair),
        }

    def _generated(self, pair: Ready, answer: str) -> dict[str, Any]:
        grade = self.grade(answer)
        if grade is None:
            rest: str | None = answer  # the only trace of what went wrong
        else:
            rest = self._rest(answer) if self.justify == "all" else None
        return {
            "grade": grade,
            "score": None if grade is None else float(grade),
            "p": None,
            "missing_mass": None,
            "justification": rest,
            **_widths(pair),
        }

    def _rest(self, answer: str) -> str:
        """What stands around the grade."""
        return self.pattern.sub("", answer, count=1).strip()


def _widths(pair: Ready) -> dict[str, Any]:
    return {"tokens": len(pair.ids), "visual_tokens": pair.visual_tokens, "truncated": pair.truncated}


def _float32(value: float) -> float:
    return float(np.float32(value))
