"""A scene -> a caption of every kind that the rubric tells apart, its true score, and why.

An accurate caption has a grade of its own, 6 to 10, by the details it goes into; a defect caps it
(:mod:`wdsfilter.rubric`), and so does a flaw of the picture.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wdsfilter.demo.garbled import GARBLERS
from wdsfilter.demo.mistakes import MISTAKES
from wdsfilter.demo.scene import Scene
from wdsfilter.demo.story import Claim, Detail, tell, true_story
from wdsfilter.demo.things import THINGS
from wdsfilter.rubric import capped

KINDS: Mapping[str, float] = {
    "10": 10,
    "9": 10,
    "8": 7,
    "7": 6,
    "6": 6,
    "colour": 5,
    "size": 5,
    "position": 8,
    "swap": 6,
    "count": 5,
    "background": 5,
    "object": 5,
    "extra": 5,
    "mismatch": 6,
    "omission": 7,
    "cut": 2,
    "shuffled": 2,
    "generic": 4,
    "boilerplate": 3,
    "file_name": 2,
    "persuasion": 2,
}
"""Kinds of captions and how often a crawl has them: an accurate one of that grade, or a defect."""

_FLAWS = {
    "blur": "The image is blurred beyond recognition.",
    "tiny": "The image is too small to see anything.",
    "empty": "The image shows next to nothing.",
    "noise": "The image is full of noise.",
    "artifacts": "The image is full of compression artifacts.",
}
_UNTOLD: Mapping[Detail, str] = {"size": "sizes", "position": "places", "ground": "the background"}


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption and the truth about it. ``otherwise`` is its score without its defects, ``claims`` what
    it says rightly and wrongly (none where its words are not those of a story)."""

    text: str
    score: int
    otherwise: int
    defects: tuple[str, ...]
    justification: str
    claims: tuple[Claim, ...]


def caption(
    scene: Scene, rng: random.Random, kind: str | None = None, names: Sequence[str] = THINGS
) -> Caption:
    """A caption of that ``kind``, of a random one by default, where the scene admits it: else of another.

    ``names`` are the things of the world that the scene is from.
    """
    while True:
        chosen = kind or rng.choices([*KINDS], weights=[*KINDS.values()])[0]
        made = (
            _accurate(scene, int(chosen), rng) if chosen.isdigit() else _defective(scene, chosen, rng, names)
        )
        if made is not None:
            return _seen(scene, made)
        kind = None


def _seen(scene: Scene, made: Caption) -> Caption:
    """The caption judged beside its picture, which may be the worse of the two."""
    if scene.flaw is None:
        return made
    score = capped(made.score, [scene.flaw])
    said = _FLAWS[scene.flaw] if score < made.score else made.justification
    return replace(made, score=score, defects=(*made.defects, scene.flaw), justification=said)


def _accurate(scene: Scene, level: int, rng: random.Random) -> Caption:
    story = true_story(scene, level, rng)
    told = tell(story, rng)
    untold = [words for detail, words in _UNTOLD.items() if detail not in story.details]
    if level == 10:
        why = "Accurate and thorough."
    elif level == 9:
        why = "Accurate and detailed."
    elif level == 6:
        why = "Accurate but basic."
    else:
        why = f"Accurate, but without {' and '.join(untold)}."
    return Caption(told.text, level, level, (), why, tuple(told.claims))


def _defective(scene: Scene, defect: str, rng: random.Random, names: Sequence[str]) -> Caption | None:
    level = rng.choices((10, 9, 8, 7), weights=(4, 4, 1, 1))[0]
    if defect in MISTAKES:
        changed = MISTAKES[defect](scene, true_story(scene, level, rng), rng, names)
        if changed is None:
            return None
        story, why = changed
        told = tell(story, rng)
        return Caption(told.text, capped(level, [defect]), level, (defect,), why, tuple(told.claims))
    accurate = tell(true_story(scene, level, rng), rng)
    text, why = GARBLERS[defect](accurate.text, rng)
    return Caption(text, capped(level, [defect]), level, (defect,), why, ())
