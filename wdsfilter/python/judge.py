"""A judge by itself: pairs in, verdicts out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from wdsfilter.judges import Runtime
from wdsfilter.panel import Panel
from wdsfilter.plan import resolved
from wdsfilter.recipe import parse
from wdsfilter.samples import KEPT, Numbers, Pair, Status
from wdsfilter.stages import Case, Item

Image: TypeAlias = "bytes | str | os.PathLike[str]"
"""An image's bytes as stored (JPEG, PNG, WebP, ...), or the path of its file."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge measured of a pair (``numbers``, {} where it could not), and what its options make of that.

    ``status`` is ``kept``, ``dropped``, ``unreadable`` or ``unparsable``; ``reason`` and ``detail`` say why.
    """

    status: Status
    reason: str = ""
    detail: str = ""
    numbers: Numbers = field(default_factory=dict)


def load_judge(name: str, *, device: str | None = None, **options: Any) -> PairJudge:
    """The judge ``name`` (as in a recipe: ``vlm``, ``rules``, ...) with its options, ready on ``device``.

    ``device`` is torch's name of one; the best that there is where none is given. Raises RecipeError that lists
    every mistake in the options, JudgeError, MissingExtra.
    """
    recipe, _ = resolved(parse({"judges": [{name: options}], "guard": False}, origin="load_judge"))
    panel = Panel(recipe, Runtime(device), worker_count=0)
    panel.__enter__()  # without workers there is nothing to close
    return PairJudge(panel)


class PairJudge:
    """A loaded judge. The same pair gets the same numbers alone and in any batch, within rounding on a GPU."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def score(self, image: Image, caption: str) -> Verdict:
        """Judge one pair. An image that cannot be read gives a verdict that says so."""
        return self.score_batch([(image, caption)])[0]

    def score_batch(self, pairs: Iterable[tuple[Image, str]]) -> list[Verdict]:
        """Judge pairs of image and caption: as many verdicts, in the same order."""
        [judge_id] = self._panel.recipe.judge_ids
        with closing(self._panel.judged(_cases(pairs))) as items:
            return [_verdict(item, judge_id) for item in items if isinstance(item, Case)]

    def check(self, pairs: Iterable[tuple[Image, str]]) -> Mapping[str, Any]:
        """Whether the judge's answers are read rightly, tried on a few dozen ``pairs``; what was found.

        A run does this by itself on its first pairs. Raises JudgeError when they are not.
        """
        listed = list(_pairs(pairs))
        [found] = self._panel.check(lambda: iter(listed)).values()
        return dict(found)


def _pairs(pairs: Iterable[tuple[Image, str]]) -> Iterator[Pair]:
    for number, (image, caption) in enumerate(pairs):
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        yield Pair(str(number), data, caption)


def _cases(pairs: Iterable[tuple[Image, str]]) -> Iterator[Item]:
    for pair in _pairs(pairs):
        yield Case({"key": pair.key}, pair=pair)


def _verdict(case: Case, judge_id: str) -> Verdict:
    decision = case.decision or KEPT
    return Verdict(decision.status, decision.reason, decision.detail, case.row.get(judge_id, {}))
