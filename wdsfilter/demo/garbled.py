"""What becomes of a caption's words on the way through the web: one function a defect.

Each takes an accurate caption and gives the text that stands in its place, and what is wrong with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from wdsfilter.demo.web import BOILERPLATE, FILE_NAMES, GENERIC, PERSUASION


def _cut(text: str, rng: random.Random) -> tuple[str, str]:
    words = text.split()
    kept = words[: max(2, round(len(words) * rng.uniform(0.25, 0.65)))]
    return " ".join(kept), "The caption is cut short."


def _shuffled(text: str, rng: random.Random) -> tuple[str, str]:
    words = text.rstrip(".").lower().split()
    return " ".join(rng.sample(words, len(words))), "The words are out of order."


def _generic(text: str, rng: random.Random) -> tuple[str, str]:
    return rng.choice(GENERIC), "The caption says next to nothing."


def _boilerplate(text: str, rng: random.Random) -> tuple[str, str]:
    said = " ".join(rng.sample(BOILERPLATE, rng.choice((1, 1, 2))))
    return said, "The caption is boilerplate."


def _file_name(text: str, rng: random.Random) -> tuple[str, str]:
    number = "".join(rng.choices("0123456789", k=rng.randint(3, 6)))
    return rng.choice(FILE_NAMES).format(number), "The caption is a file name."


def _persuasion(text: str, rng: random.Random) -> tuple[str, str]:
    lure = rng.choice(PERSUASION)
    said = rng.choice((f"{text} {lure}", f"{lure} {text}", lure, f"{rng.choice(GENERIC)}. {lure}"))
    return said, "The caption talks to its judge."


GARBLERS: Mapping[str, Callable[[str, random.Random], tuple[str, str]]] = {
    "cut": _cut,
    "shuffled": _shuffled,
    "generic": _generic,
    "boilerplate": _boilerplate,
    "file_name": _file_name,
    "persuasion": _persuasion,
}
