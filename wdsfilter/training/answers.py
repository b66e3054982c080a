"""A grade and its justification -> the tokens of the answer that is to be learnt, and how much each counts.

The tokens are those that the forced readout reads (:mod:`wdsfilter.engine.readout`): the answer's
start, then the grade's own path through the tree of grades. Soft targets live on that tree. With
``soft: 0.1`` a pair of grade 9 is taken to have the grades 8, 9 and 10 with 0.05, 0.9 and 0.05, one
of grade 10 the grades 9 and 10 with 0.1 and 0.9. At each inner node on the way to the true grade the
target is what that says of the next token, given the tokens so far: at the first one ``8`` has 0.05,
``9`` 0.9, and ``1``, with which 10 begins, 0.05. After ``1`` only 1 and 10 are left: if the true
grade is 10, ``0`` has all of the mass, as 1 has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wdsfilter.engine.readout import Path, Readout
from wdsfilter.errors import JudgeError


@dataclass(frozen=True, slots=True)
class Answer:
    """Token ``ids`` [n] of an answer, and its targets [k]: ``token`` at place ``at`` has this ``weight``.

    Weights sum to 1; those at the places ``grade[0]`` to ``grade[1]`` (exclusive) are the grade's.
    ``cut``: it was too long, and has no end.
    """

    ids: npt.NDArray[np.int64]
    at: npt.NDArray[np.int64]
    token: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]
    grade: tuple[int, int]
    cut: bool


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How answers are written: ``encode`` gives the ids of text, ``end`` is the token that ends an answer.

    ``readout`` must be that of ``grades``, in their order.
    """

    encode: Callable[[str], list[int]]
    readout: Readout
    grades: Mapping[str, int]
    start: str
    closing: str
    end: int
    soft: float
    grade_weight: float
    max_tokens: int

    def answer(self, grade: str, justification: str) -> Answer:
        """The answer that gives this grade. Raises JudgeError where its tokens are not those that are read."""
        text = f"{self.start}{grade}{self.closing}" + (f"\n{justification}" if justification else "")
        number = list(self.grades).index(grade)
        forced = self.readout.trunk[: self.readout.shared]
        path = self.readout.grades[number]
        ids = [*self.encode(text), self.end]
        if tuple(ids[: len(forced) + len(path)]) != (*forced, *path):
            raise JudgeError(
                f"answer {text[:80]!r} does not begin with the tokens of {self.start + grade!r}: "
                "what follows the grade (answers.closing) merges with it"
            )
        # Where a longer grade begins with this one, the token after it says that it ends here.
        decided = len(path) + (path in self.readout.nodes)
        grade_at = (len(forced), len(forced) + decided)
        most = max(self.max_tokens, grade_at[1])
        cut, ids = len(ids) > most, ids[:most]
        weights = np.ones(len(ids))
        weights[slice(*grade_at)] = self.grade_weight
        weights /= weights.sum()
        masses = self._masses(number)
        targets = [
            (place, token, weights[place] * share)
            for place in range(len(ids))
            for token, share in self._shares(place - len(forced), path, ids[place], masses).items()
        ]
        at, token, weight = zip(*targets, strict=True)
        return Answer(
            np.array(ids), np.array(at), np.array(token), np.array(weight, dtype=np.float32), grade_at, cut
        )

    def _masses(self, number: int) -> dict[int, float]:
        """Grade's number -> its mass, for the grades that have any."""
        near = [n for n in (number - 1, number + 1) if 0 <= n < len(self.grades)] if self.soft else []
        return {number: 1 - self.soft if near else 1.0, **{n: self.soft / len(near) for n in near}}

    def _shares(self, depth: int, path: Path, token: int, masses: Mapping[int, float]) -> dict[int, float]:
        """Token -> its share of the target at a place that lies ``depth`` tokens behind the start."""
        if depth < 0 or path[:depth] not in self.readout.nodes or depth > len(path):
            return {token: 1.0}
        found: dict[int, float] = {}
        for number, mass in masses.items():
            other = self.readout.grades[number]
            if other[:depth] == path[:depth]:
                following = other[depth] if depth < len(other) else token
                found[following] = found.get(following, 0.0) + mass
        total = sum(found.values())
        return {following: mass / total for following, mass in found.items()}
