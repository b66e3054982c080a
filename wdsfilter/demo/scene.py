"""A scene of the small world: what stands where, on what, in which frame, and how badly it was taken."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from wdsfilter.demo.things import COLORS, SHAPES, THINGS

Cell: TypeAlias = tuple[int, int]
"""Row and column in a grid of 3 x 3, from the top left."""

Flaw: TypeAlias = Literal["blur", "noise", "artifacts", "tiny", "empty"]
"""What may be wrong with a picture."""

SIZES = ("small", "large")
GROUNDS = {
    "white": (250, 250, 248),
    "gray": (190, 190, 192),
    "beige": (236, 222, 190),
    "light blue": (182, 214, 240),
    "light green": (190, 230, 190),
    "pink": (248, 200, 212),
    "lavender": (214, 200, 240),
}
TEXTURES = ("plain", "striped", "dotted", "checkered", "hatched")
FRAMES = {"white": (244, 244, 244), "black": (30, 30, 30), "golden": (190, 150, 50), "wooden": (130, 86, 50)}
FLAWS: tuple[Flaw, ...] = ("blur", "noise", "artifacts", "tiny", "empty")
FORMATS = ((1, 1), (4, 3), (3, 4))
"""Width to height."""

_CELLS = tuple((row, column) for row in range(3) for column in range(3))


@dataclass(frozen=True, slots=True)
class Thing:
    """One entry of a scene: a thing, or several of the same in one cell each. Shapes have a ``color``."""

    name: str
    color: str | None
    size: str
    cells: tuple[Cell, ...]

    @property
    def cell(self) -> Cell:
        """Where a thing stands that is alone of its kind."""
        (cell,) = self.cells
        return cell


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. Things have names of their own; ``frame`` None is a picture without one."""

    things: tuple[Thing, ...]
    ground: str
    texture: str
    frame: str | None
    format: tuple[int, int]
    flaw: Flaw | None

    @property
    def count(self) -> int:
        """Objects in all."""
        return sum(len(thing.cells) for thing in self.things)


def draw_scene(rng: random.Random, *, names: Sequence[str] = THINGS, flawed: float = 0.12) -> Scene:
    """A random scene: one to four kinds of things out of ``names`` and of the shapes, at most five objects.

    ``flawed`` is the share of pictures with a flaw.
    """
    kinds = rng.choices((1, 2, 3, 4), weights=(20, 34, 28, 18))[0]
    cells = rng.sample(_CELLS, len(_CELLS))
    several = rng.randrange(kinds) if rng.random() < 0.25 else None
    things: list[Thing] = []
    for number in range(kinds):
        name = fresh_name(rng, [thing.name for thing in things], names)
        count = rng.choice((2, 2, 3)) if number == several else 1
        mine, cells = cells[:count], cells[count:]
        color = rng.choice([*COLORS]) if name in SHAPES else None
        things.append(Thing(name, color, rng.choice(SIZES), tuple(sorted(mine))))
    return Scene(
        tuple(things),
        ground=rng.choice([*GROUNDS]),
        texture=rng.choice(TEXTURES),
        frame=rng.choice((*FRAMES, None)),
        format=rng.choices(FORMATS, weights=(60, 20, 20))[0],
        flaw=rng.choice(FLAWS) if rng.random() < flawed else None,
    )


def fresh_name(rng: random.Random, taken: Sequence[str], names: Sequence[str] = THINGS) -> str:
    """A shape's (three in ten) or a thing's name that is not ``taken``."""
    while True:
        name = rng.choice(SHAPES if rng.random() < 0.3 else names)
        if name not in taken:
            return name
