"""What can stand in a scene: pictures of nameable things, and plain shapes in colors.

The pictures are Google's Noto Emoji, 64 pixels a side (Apache License 2.0,
https://github.com/googlefonts/noto-emoji), in one sheet beside this file (``things.webp``), in the
order of ``things.txt``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import Image

_HERE = Path(__file__).parent

PICTURES = tuple((_HERE / "things.txt").read_text(encoding="utf-8").splitlines())

NEW_THINGS = (
    *("anchor", "basket", "camel", "cheese", "crocodile", "drum", "fire engine", "gift", "hedgehog"),
    *("kangaroo", "lobster", "magnet", "mountain", "parrot", "pretzel", "scooter", "snowman", "sunflower"),
    *("teapot", "violin"),
)
"""Left out of the ordinary world: what a judge of it has never seen (the shifted world)."""

THINGS = tuple(name for name in PICTURES if name not in NEW_THINGS)

SHAPES = (
    *("circle", "square", "triangle", "star", "heart", "cross", "ring", "pentagon"),
    *("crescent", "arrow", "oval", "lightning bolt"),
)

COLORS = {
    "red": (214, 40, 40),
    "orange": (245, 130, 20),
    "yellow": (248, 214, 30),
    "green": (50, 150, 60),
    "turquoise": (40, 195, 190),
    "blue": (40, 80, 205),
    "purple": (130, 50, 165),
    "brown": (120, 75, 40),
    "black": (25, 25, 25),
}
"""Of shapes. Pictures have colors of their own, which captions do not name."""

_ONE = {
    "bread": "loaf of bread",
    "broccoli": "piece of broccoli",
    "cheese": "piece of cheese",
    "cherries": "pair of cherries",
    "corn": "ear of corn",
    "popcorn": "box of popcorn",
    "scissors": "pair of scissors",
    "socks": "pair of socks",
}
_MANY = {
    "fish": "fish",
    "loaf of bread": "loaves of bread",
    "maple leaf": "maple leaves",
    "mouse": "mice",
    "sheep": "sheep",
    "snowman": "snowmen",
    "tomato": "tomatoes",
}
_SHEET_COLUMNS, _SIDE = 16, 64


def noun(name: str, count: int = 1) -> str:
    """What ``count`` of a thing are called."""
    one = _ONE.get(name, name)
    if count == 1:
        return one
    if one in _MANY:
        return _MANY[one]
    head, of, rest = one.partition(" of ")
    if head.endswith("y") and head[-2] not in "aeiou":
        many = head[:-1] + "ies"
    else:
        many = head + ("es" if head.endswith(("s", "sh", "ch", "x")) else "s")
    return many + of + rest


@cache
def picture(name: str) -> Image.Image:
    """The RGBA picture of one of ``PICTURES``, 64 x 64."""
    column, row = PICTURES.index(name) % _SHEET_COLUMNS, PICTURES.index(name) // _SHEET_COLUMNS
    left, top = column * _SIDE, row * _SIDE
    return _sheet().crop((left, top, left + _SIDE, top + _SIDE))


@cache
def _sheet() -> Image.Image:
    with Image.open(_HERE / "things.webp") as sheet:
        converted: Image.Image = sheet.convert("RGBA")
    return converted
