"""The rubric behind the scores: what a defect that is put into a good pair leaves of its score.

Ten points; of all caps that apply, the lowest is the final score (*Trust the Model*,
arXiv 2507.20156, appendix B).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

CAPS: Mapping[str, int] = MappingProxyType(
    {
        # minor inaccuracies: 5
        "colour": 5,
        "size": 5,
        "count": 5,
        "position": 5,
        "swap": 5,
        "background": 5,
        # any element that is not in the image: 2
        "object": 2,
        "extra": 2,
        "mismatch": 2,
        "boilerplate": 2,
        "persuasion": 2,
        # major visual elements are left out, or the text cannot be followed: 4
        "omission": 4,
        "cut": 4,
        "shuffled": 4,
        # generic or minimal: 3
        "generic": 3,
        "file_name": 3,
        "empty": 3,
        # image extremely low quality, blurry, uninterpretable: 3
        "blur": 3,
        "tiny": 3,
        # significant visual noise or artifacts: 5
        "noise": 5,
        "artifacts": 5,
    }
)
"""Defect -> the score that a pair with it can have at most.

*Trust the Model*, arXiv 2507.20156, appendix B. The appendix speaks of classes of defects (the
comments here); which class a defect belongs to is our reading of it.
"""


def capped(score: int, defects: Iterable[str]) -> int:
    """The score that is left of ``score`` with all of ``defects``: the lowest cap that applies."""
    return min([score, *(CAPS[defect] for defect in defects)])
