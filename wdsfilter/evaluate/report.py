"""Judged pairs -> everything that is reported about a judge, ready for JSON, a table and pictures.

A pair without a grade ranks below every grade, is kept by no cut and is never exact; only the mean
error leaves it out. What is read from probabilities speaks of the pairs that have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wdsfilter.errors import InputError, JudgeError
from wdsfilter.evaluate.figures import (
    Bools,
    Calibration,
    Cut,
    Floats,
    auc,
    calibration,
    confusion,
    cut,
    cut_at_recall,
    spearman,
)
from wdsfilter.evaluate.judging import Judged

RECALL = 0.9
"""The share of right pairs that the reported precision is to be had at."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well a number of the judge's follows the true score: rank correlation, mean absolute error (None
    for a probability), AUC for a true score of ``threshold`` or more."""

    spearman: float | None
    mae: float | None
    auc: float | None


@dataclass(frozen=True, slots=True)
class DefectAuc:
    """AUC of faultless pairs over ``pairs`` whose only defect is this one, by each number."""

    pairs: int
    grade: float | None
    expected: float | None
    probability: float | None


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """Cutting at one threshold: by the grade, and by P(grade >= threshold) >= 0.5. ``right``: pairs truly so good."""

    threshold: int
    right: int
    grade: Cut
    probability: Cut | None


@dataclass(frozen=True, slots=True)
class Report:
    """Figures about a judge on ``pairs`` labelled pairs, ``right`` of which have a true score of
    ``threshold`` or more. ``expected`` and everything of probabilities is None where it measures none.

    ``calibrated`` compares P(grade >= threshold) with how often that was so, ``top_grade`` the
    probability of the likeliest grade. ``counts`` [true score, grade] goes with ``true_scores`` and
    ``grades``, whose last, None, is no grade at all where that came up.
    """

    pairs: int
    threshold: int
    right: int
    without_grade: int
    without_probabilities: int
    exact: float
    grade: Ranking
    expected: Ranking | None
    probability: Ranking | None
    at_recall: Cut | None
    calibrated: Calibration | None
    top_grade: Calibration | None
    defects: dict[str, DefectAuc]
    thresholds: tuple[AtThreshold, ...]
    true_scores: tuple[int, ...]
    grades: tuple[int | None, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a judge said of n pairs, as arrays: ``true`` [n], ``grade`` [n] (-inf: none), ``expected`` [n]
    and ``p`` [n, grades] (nan: not measured) or None; ``scale`` are the grades that ``p`` speaks of."""

    true: Floats
    grade: Floats
    expected: Floats
    p: Floats | None
    scale: tuple[int, ...]

    def at_least(self, threshold: int) -> Floats:
        """P(grade >= threshold) of every pair [n]; nan where it is not measured."""
        if self.p is None:
            return np.full(len(self.true), np.nan)
        found: Floats = self.p[:, np.array(self.scale) >= threshold].sum(axis=1)
        return found


def gather(judged: Sequence[Judged], scale: tuple[int, ...] | None) -> Answers:
    """The arrays of ``judged``. Without the judge's own ``scale`` its grades are those that came up."""
    seen = sorted({pair.grade for pair in judged if pair.grade is not None})
    p = None
    if scale is not None and any(pair.p is not None for pair in judged):
        nothing = (np.nan,) * len(scale)
        p = np.array([nothing if pair.p is None else pair.p for pair in judged], dtype=np.float64)
    return Answers(
        np.array([pair.label.score for pair in judged], dtype=np.float64),
        np.array([-np.inf if pair.grade is None else pair.grade for pair in judged], dtype=np.float64),
        np.array([np.nan if pair.expected is None else pair.expected for pair in judged], dtype=np.float64),
        p,
        tuple(seen) if scale is None else scale,
    )


def report(judged: Sequence[Judged], answers: Answers, threshold: int) -> Report:
    """All figures for a cut at ``threshold``.

    Raises InputError when there is no pair, or all are on one side of the threshold; JudgeError when
    the threshold is beyond the judge's scale.
    """
    _check(answers, threshold)
    right = answers.true >= threshold
    reached = answers.at_least(threshold)
    measured = ~np.isnan(reached)
    table = confusion([pair.label.score for pair in judged], [pair.grade for pair in judged])
    columns = _columns(judged, answers)
    without_grade = int(np.isinf(answers.grade).sum())
    return Report(
        pairs=len(judged),
        threshold=threshold,
        right=int(right.sum()),
        without_grade=without_grade,
        without_probabilities=int((~measured).sum()),
        exact=float((answers.grade == answers.true).mean()),
        grade=_ranking(answers.grade, answers.true, right, ~np.isinf(answers.grade)),
        expected=_ranking_where_measured(answers.expected, answers.true, right, has_error=True),
        probability=_ranking_where_measured(reached, answers.true, right, has_error=False),
        at_recall=cut_at_recall(reached[measured], right[measured], RECALL),
        calibrated=calibration(reached[measured], right[measured]),
        top_grade=_top_grade(answers),
        defects=_defects(judged, answers, threshold),
        thresholds=tuple(_at_threshold(answers, t) for t in _thresholds(answers)),
        true_scores=tuple(table),
        grades=columns,
        counts=tuple(tuple(row.get(grade, 0) for grade in columns) for row in table.values()),
    )


def _check(answers: Answers, threshold: int) -> None:
    if not len(answers.true):
        raise InputError("no readable pair among the labelled ones")
    above = int((answers.true >= threshold).sum())
    if above in (0, len(answers.true)):
        side = "below" if above == 0 else "at or above"
        raise InputError(
            f"all {len(answers.true)} true scores are {side} the threshold {threshold}, from "
            f"{answers.true.min():g} to {answers.true.max():g}; give one between them with --threshold"
        )
    if answers.p is not None and not min(answers.scale) < threshold <= max(answers.scale):
        raise JudgeError(
            f"the threshold {threshold} does not divide the judge's grades, {min(answers.scale)} to "
            f"{max(answers.scale)}; give one that does with --threshold"
        )


def _ranking(values: Floats, true: Floats, right: Bools, has_error: Bools | None) -> Ranking:
    """Figures of ``values``; the error over those of ``has_error`` only, or none."""
    mae = None
    if has_error is not None and has_error.any():
        mae = float(np.abs(values[has_error] - true[has_error]).mean())
    return Ranking(spearman(values, true), mae, auc(values[right], values[~right]))


def _ranking_where_measured(values: Floats, true: Floats, right: Bools, *, has_error: bool) -> Ranking | None:
    here = ~np.isnan(values)
    if not here.any():
        return None
    found = values[here]
    return _ranking(found, true[here], right[here], np.ones(len(found), dtype=bool) if has_error else None)


def _top_grade(answers: Answers) -> Calibration | None:
    if answers.p is None:
        return None
    here = ~np.isnan(answers.p).any(axis=1)
    p, true = answers.p[here], answers.true[here]
    likeliest = np.array(answers.scale)[p.argmax(axis=1)] if len(p) else np.empty(0)
    return calibration(p.max(axis=1, initial=0.0), likeliest == true)


def _defects(judged: Sequence[Judged], answers: Answers, threshold: int) -> dict[str, DefectAuc]:
    """Faultless pairs against those that one defect alone took from the threshold or above to below it."""
    labels = [pair.label for pair in judged]
    faultless = np.array([not label.defects and label.score >= threshold for label in labels])
    numbers = (answers.grade, answers.expected, answers.at_least(threshold))
    found = {}
    for defect in sorted({label.defects[0] for label in labels if len(label.defects) == 1}):
        broken = np.array(
            [
                label.defects == (defect,)
                and label.score < threshold
                and (label.otherwise is None or label.otherwise >= threshold)
                for label in labels
            ]
        )
        if broken.any():
            by = [auc(_measured(n[faultless]), _measured(n[broken])) for n in numbers]
            found[defect] = DefectAuc(int(broken.sum()), *by)
    return found


def _measured(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _thresholds(answers: Answers) -> list[int]:
    """Every grade or true score but the lowest: at that one everything is kept."""
    graded = answers.grade[~np.isinf(answers.grade)]
    return sorted({*map(int, answers.true), *map(int, graded), *answers.scale})[1:]


def _at_threshold(answers: Answers, threshold: int) -> AtThreshold:
    right = answers.true >= threshold
    reached = answers.at_least(threshold)
    here = ~np.isnan(reached)
    by_probability = cut(reached[here] >= 0.5, right[here]) if here.any() else None
    return AtThreshold(threshold, int(right.sum()), cut(answers.grade >= threshold, right), by_probability)


def _columns(judged: Sequence[Judged], answers: Answers) -> tuple[int | None, ...]:
    grades = {pair.grade for pair in judged}
    known: list[int | None] = [*sorted({*answers.scale, *(g for g in grades if g is not None)})]
    return (*known, None) if None in grades else tuple(known)
