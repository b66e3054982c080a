"""Lessons of the small world: a picture, several captions of it, and what is true of both, as arrays.

Made in a worker process: no torch. Everything follows from a seed and a number.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wdsfilter import images
from wdsfilter.demo.captions import Caption, caption
from wdsfilter.demo.draw import render
from wdsfilter.demo.scene import FLAWS, FORMATS, FRAMES, GROUNDS, SIZES, TEXTURES, Scene, draw_scene
from wdsfilter.demo.things import COLORS, SHAPES, THINGS
from wdsfilter.engine.layout import Layout
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.launch import exit_with_parent

IGNORE = -100

NAMES = (*SHAPES, *THINGS)
_COLORS, _SIZES = [*COLORS], [*SIZES]
_GROUNDS, _TEXTURES, _FRAMES = [*GROUNDS], [*TEXTURES], [*FRAMES, None]

OF_A_TOKEN = {"name": len(NAMES) + 1, "color": len(_COLORS) + 1, "size": len(SIZES), "row": 3, "column": 3}
"""What a visual token shows: class counts. The last name is nothing, the last color a picture's own."""

OF_A_PICTURE = {
    "ground": len(GROUNDS),
    "texture": len(TEXTURES),
    "frame": len(_FRAMES),
    "flaw": len(FLAWS) + 1,
}

OF_A_THING = {
    "there": 2,
    "color": len(_COLORS) + 1,
    "size": len(SIZES),
    "number": 3,
    "row": 3,
    "column": 3,
}
"""What is true of a thing that a caption names, asked at its last word: is it there at all, how does it look,
how many are there, and where, if it is alone of its kind."""

OF_A_CLAIM = {
    "right": 2,
    "color_right": 2,
    "size_right": 2,
    "number_right": 2,
    "placed_row": 3,
    "placed_column": 3,
}
"""What is true of a claim, asked at the first word that can know it. A place's last word can (``right``, and
where the thing really is), and so can the last word of a relation, a total, background and frame; color,
size and number stand before their thing, so its last word is asked about them."""

OF_A_WORD = OF_A_THING | OF_A_CLAIM

_AT_THE_THING = {"color": "color_right", "size": "size_right", "number": "number_right"}
_SQUARE = 3  # times as many square pictures as of each other format
_RADIUS = {"small": 0.095, "large": 0.165}


@dataclass(frozen=True, slots=True)
class Branch:
    """A caption's tokens after the shared start, up to the end of its answer.

    ``answer`` is where the answer begins, ``grade`` the slice of its grade; ``words`` [12, tokens] are labels
    in the order of ``OF_A_WORD``.
    """

    ids: npt.NDArray[np.int64]
    answer: int
    grade: tuple[int, int]
    words: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A picture (``patches`` [rows * columns, 588] uint8) and its branches.

    ``tokens`` [5, visual tokens] and ``picture`` [4] are labels in the order of ``OF_A_TOKEN``, ``OF_A_PICTURE``.
    """

    patches: npt.NDArray[np.uint8]
    grid: tuple[int, int]
    tokens: npt.NDArray[np.int64]
    picture: npt.NDArray[np.int64]
    branches: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Teacher:
    """Makes lessons, whose answers go on after the grade in a share of ``justified``."""

    layout: Layout
    plan: PatchPlan
    justified: float = 0.3

    def lesson(self, seed: str, form: tuple[int, int], captions: int) -> Lesson:
        """The lesson of a seed: a picture in the format ``form`` (width to height) and so many captions.

        All pictures of a format have one grid: the few very small ones whose rounded sides are of
        another shape are passed over.
        """
        rng = random.Random(seed)
        wide, high = self.plan.size(140 * form[0], 140 * form[1])
        expected = (high // self.plan.patch, wide // self.plan.patch)
        while True:
            scene = draw_scene(rng)
            if scene.format != form:
                continue
            patches, grid = self.plan.patches(images.decode(render(scene, rng)))
            if grid == expected:
                break
        made = [caption(scene, rng) for _ in range(captions)]
        return Lesson(
            patches,
            grid,
            tokens_shown(scene, grid[0] // 2, grid[1] // 2),
            _picture(scene),
            tuple(branch(self.layout, scene, one, rng.random() < self.justified) for one in made),
        )


_teachers: list[Teacher] = []


def begin_teaching(teacher: Teacher) -> None:
    """Make this process one that makes lessons, and ends with the process that asked for them."""
    exit_with_parent()
    _teachers.append(teacher)


def teach(seed: str, count: int, captions: int) -> list[Lesson]:
    """So many lessons with pictures of one format, in a process that began to teach."""
    square, *others = FORMATS
    form = random.Random(seed).choice([square] * _SQUARE + others)
    return [_teachers[0].lesson(f"{seed}/{number}", form, captions) for number in range(count)]


def branch(layout: Layout, scene: Scene, said: Caption, justified: bool) -> Branch:
    """A caption's tokens: the rest of the prompt, and the answer (to the token after its grade, unless
    ``justified``)."""
    start = layout.plain.encode(layout.before, add_special_tokens=False)
    whole = layout.plain.encode(layout.before + said.text, add_special_tokens=False)
    assert whole.ids[: len(start.ids)] == start.ids
    ids, offsets = whole.ids[len(start.ids) :], whole.offsets[len(start.ids) :]
    words = np.full((len(OF_A_WORD), len(ids)), IGNORE, dtype=np.int64)
    if scene.flaw in (None, "noise"):
        _label(words, scene, said, offsets, len(layout.before))
    end = layout.tail[0]
    answer = layout.continuation(f"score: {{{said.score}}}\n{said.justification}")
    digits = layout.continuation(f"score: {{{said.score}")
    at = len(layout.continuation("score: {"))
    answer = [*answer, end] if justified else answer[: len(digits) + 1]
    first = len(ids) + len(layout.tail)
    row = np.array([*ids, *layout.tail, *answer], dtype=np.int64)
    labels = np.full((len(OF_A_WORD), len(row)), IGNORE, dtype=np.int64)
    labels[:, : len(ids)] = words
    # After "1" the model has to say whether the grade ends: the token after the grade counts as well.
    return Branch(row, first, (first + at, first + len(digits) + (said.score in (1, 10))), labels)


def _label(
    words: npt.NDArray[np.int64], scene: Scene, said: Caption, offsets: Sequence[tuple[int, int]], shift: int
) -> None:
    def label(name: str, value: int) -> None:
        words[[*OF_A_WORD].index(name), token] = value

    waiting: dict[str, bool] = {}  # what was said of the thing that is still to be named
    for claim in said.claims:
        token = max(i for i, (first, _) in enumerate(offsets) if first < shift + claim.end)
        thing = None if claim.thing is None else scene.things[claim.thing]
        if claim.about in _AT_THE_THING:
            waiting[_AT_THE_THING[claim.about]] = claim.right
        elif claim.about == "thing":
            label("there", claim.right)
            if claim.right and thing is not None:
                label("color", _color(thing.color))
                label("size", _SIZES.index(thing.size))
                label("number", len(thing.cells) - 1)
                if len(thing.cells) == 1:
                    label("row", thing.cell[0])
                    label("column", thing.cell[1])
                for name, right in waiting.items():
                    label(name, right)
            waiting = {}
        elif thing is not None or claim.about in ("total", "ground", "texture", "frame"):
            label("right", claim.right)
            if claim.about == "position" and thing is not None and len(thing.cells) == 1:
                label("placed_row", thing.cell[0])
                label("placed_column", thing.cell[1])


def tokens_shown(scene: Scene, rows: int, columns: int) -> npt.NDArray[np.int64]:
    """Labels [5, rows * columns]: what each visual token shows (the largest part of it), and where it is."""
    labels = np.full((len(OF_A_TOKEN), rows, columns), IGNORE, dtype=np.int64)
    labels[0], labels[1] = len(NAMES), IGNORE
    middle = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    labels[3] = (middle[0] * 3).astype(np.int64)[:, None]
    labels[4] = (middle[1] * 3).astype(np.int64)[None, :]
    if scene.flaw in ("blur", "tiny", "empty", "artifacts"):
        labels[0] = IGNORE
        return labels.reshape(len(OF_A_TOKEN), -1)
    wide, high = scene.format
    short = min(wide, high)
    best = np.full((rows, columns), 0.12)
    for thing in scene.things:
        if thing.name not in NAMES:
            continue
        for cell_row, cell_column in thing.cells:
            shown = np.outer(
                _overlap(cell_row, rows, high / short, _RADIUS[thing.size]),
                _overlap(cell_column, columns, wide / short, _RADIUS[thing.size]),
            )
            most = shown > best
            best = np.where(most, shown, best)
            for i, value in enumerate(
                (NAMES.index(thing.name), _color(thing.color), _SIZES.index(thing.size))
            ):
                labels[i][most] = value
    return labels.reshape(len(OF_A_TOKEN), -1)


def _overlap(cell: int, tokens: int, length: float, radius: float) -> npt.NDArray[np.float64]:
    """Share of each token that a thing covers along one axis; ``length`` and ``radius`` in short sides."""
    middle = 0.04 + (cell + 0.5) * (length - 0.08) / 3
    edges = np.arange(tokens + 1) * length / tokens
    covered = np.minimum(edges[1:], middle + radius) - np.maximum(edges[:-1], middle - radius)
    shares: npt.NDArray[np.float64] = np.clip(covered, 0, None) * tokens / length
    return shares


def _picture(scene: Scene) -> npt.NDArray[np.int64]:
    flaw = len(FLAWS) if scene.flaw is None else FLAWS.index(scene.flaw)
    if scene.flaw in ("empty", "tiny", "blur", "artifacts"):
        return np.array([IGNORE, IGNORE, IGNORE, flaw])
    return np.array(
        [_GROUNDS.index(scene.ground), _TEXTURES.index(scene.texture), _FRAMES.index(scene.frame), flaw]
    )


def _color(color: str | None) -> int:
    return len(_COLORS) if color is None else _COLORS.index(color)
