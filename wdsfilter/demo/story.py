"""What a caption says of a scene, and the words it says it in, with every claim marked as right or wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from wdsfilter.demo.scene import Cell, Scene
from wdsfilter.demo.things import noun

Detail: TypeAlias = Literal["size", "position", "ground", "setting"]
"""What a caption may tell beyond names and colors; ``setting`` is texture and frame."""

About: TypeAlias = Literal[
    "thing", "color", "size", "position", "relation", "number", "total", "ground", "texture", "frame"
]

SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
COUNT_WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}
PLACES: dict[Cell, tuple[str, ...]] = {
    (0, 0): ("in the top left corner", "at the top left", "in the upper left"),
    (0, 1): ("at the top", "at the top center"),
    (0, 2): ("in the top right corner", "at the top right", "in the upper right"),
    (1, 0): ("on the left", "at the left edge"),
    (1, 1): ("in the middle", "in the center"),
    (1, 2): ("on the right", "at the right edge"),
    (2, 0): ("in the bottom left corner", "at the bottom left", "in the lower left"),
    (2, 1): ("at the bottom", "at the bottom center"),
    (2, 2): ("in the bottom right corner", "at the bottom right", "in the lower right"),
}
OPPOSITE = {"above": "below", "below": "above", "to the left of": "to the right of"}
OPPOSITE["to the right of"] = "to the left of"

_TOTALS = (
    "The picture shows {} objects: ",
    "There are {} things here: ",
    "{} things: ",
    "We see {} objects: ",
)
_OPENINGS = ("", "", "", "A picture of ", "There is ", "This image shows ", "We see ", "A drawing of ")
_TEXTURED = {"plain": ("plain",), "striped": ("striped",), "dotted": ("dotted", "spotted")}
_TEXTURED |= {"checkered": ("checkered",), "hatched": ("hatched",)}


@dataclass(frozen=True, slots=True)
class Claim:
    """Characters ``start`` to ``end`` of a caption say something ``about`` the scene's thing number
    ``thing`` (None: about none of them), ``right`` or wrong."""

    start: int
    end: int
    about: About
    right: bool
    thing: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What a caption says of one entry. ``thing`` is its number in the scene, None where it is not there;
    ``wrong`` what is said wrongly."""

    name: str
    color: str | None
    size: str
    cells: tuple[Cell, ...]
    thing: int | None
    wrong: frozenset[About] = frozenset()


@dataclass(frozen=True, slots=True)
class Relation:
    """The ``first`` entry stands ``how`` to the ``second`` (numbers among what is said)."""

    first: int
    how: str
    second: int
    right: bool = True


@dataclass(frozen=True, slots=True)
class Story:
    """What a caption says: entries in its order, the details it goes into, and what it says wrongly.

    ``relations`` stand in place of positions; ``total`` is a number of objects said up front.
    """

    said: tuple[Said, ...]
    details: frozenset[Detail]
    relations: tuple[Relation, ...]
    total: int | None
    ground: str
    texture: str
    frame: str | None
    wrong: frozenset[About] = frozenset()


@dataclass(slots=True)
class Told:
    """Words as they are written, and the claims among them."""

    text: str = ""
    claims: list[Claim] = field(default_factory=list)

    def say(self, words: str) -> None:
        self.text += words

    def claim(self, words: str, about: About, right: bool, thing: int | None = None) -> None:
        self.claims.append(Claim(len(self.text), len(self.text) + len(words), about, right, thing))
        self.text += words


def true_story(scene: Scene, level: int, rng: random.Random) -> Story:
    """What an accurate caption of grade ``level``, 6 to 10, says: names alone, then one, two and three
    details of every object, then texture and frame as well."""
    choices: Sequence[Detail] = ("size", "position", "ground")
    details = set(rng.sample(choices, min(3, level - 6)))
    if level == 10:
        details.add("setting")
    order = rng.sample(range(len(scene.things)), len(scene.things))
    colorless = level == 6 and rng.random() < 0.5
    said = tuple(
        Said(thing.name, None if colorless else thing.color, thing.size, thing.cells, number)
        for number in order
        for thing in (scene.things[number],)
    )
    relations: tuple[Relation, ...] = ()
    if "position" in details and len(said) in (2, 3) and rng.random() < 0.4:
        relations = tuple(_relations(said, rng))
    total = scene.count if rng.random() < 0.2 and scene.count > 1 else None
    return Story(said, frozenset(details), relations, total, scene.ground, scene.texture, scene.frame)


def _relations(said: Sequence[Said], rng: random.Random) -> Iterator[Relation]:
    """Each entry to the one before it; nothing where several of a kind leave it open."""
    if any(len(entry.cells) > 1 for entry in said):
        return
    for second in range(1, len(said)):
        (row, column), (other_row, other_column) = said[second - 1].cells[0], said[second].cells[0]
        true = []
        if row != other_row:
            true.append("above" if row < other_row else "below")
        if column != other_column:
            true.append("to the left of" if column < other_column else "to the right of")
        yield Relation(second - 1, rng.choice(true), second)


def tell(story: Story, rng: random.Random) -> Told:
    """The story in words."""
    told = Told()
    _open(told, story, rng)
    entries = story.said
    if story.relations:
        _name(told, story, entries[0], rng, placed=False)
        for relation in story.relations:
            first, second = entries[relation.first], entries[relation.second]
            if relation.first:
                told.say(rng.choice((", and the ", ", the ")) + noun(first.name))
            told.say(f" {relation.how} ")
            _name(told, story, second, rng, placed=False)
            last = told.claims[-1]
            about = None if second.thing is None else first.thing
            told.claims.append(Claim(last.start, last.end, "relation", relation.right, about))
    else:
        for number, entry in enumerate(entries):
            if number:
                told.say(", " if number < len(entries) - 1 else rng.choice((" and ", ", and ", ", ")))
            _name(told, story, entry, rng, placed="position" in story.details)
    _set(told, story, rng)
    return _punctuated(told, rng)


def _open(told: Told, story: Story, rng: random.Random) -> None:
    if story.total is None:
        told.say(rng.choice(_OPENINGS))
        return
    before, after = rng.choice(_TOTALS).split("{}")
    told.say(before)
    told.claim(COUNT_WORDS.get(story.total, str(story.total)), "total", "total" not in story.wrong)
    told.say(after)


def _name(told: Told, story: Story, said: Said, rng: random.Random, *, placed: bool) -> None:
    count = len(said.cells)
    words: list[tuple[str, About]] = []
    if "size" in story.details:
        words.append((rng.choice(SIZE_WORDS[said.size]), "size"))
    if said.color is not None:
        words.append((said.color, "color"))
    words.append((noun(said.name, count), "thing"))
    if count == 1:
        told.say("an " if words[0][0][0] in "aeiou" else "a ")
    else:
        told.claim(COUNT_WORDS[count], "number", "number" not in said.wrong, said.thing)
        told.say(" ")
    for number, (word, about) in enumerate(words):
        if number:
            told.say(" ")
        told.claim(word, about, about not in said.wrong, said.thing)
    if placed:
        places = [rng.choice(PLACES[cell]) for cell in said.cells]
        told.say(" ")
        for number, place in enumerate(places):
            if number:
                told.say(", " if number < count - 1 else " and ")
            told.claim(place, "position", "position" not in said.wrong, said.thing)


def _set(told: Told, story: Story, rng: random.Random) -> None:
    if "ground" not in story.details:
        return
    sentence = rng.random() < 0.3
    told.say(
        ". The background is " if sentence else rng.choice((" on a ", ", on a ", " against a ", " before a "))
    )
    if "setting" in story.details:
        texture = rng.choice(_TEXTURED[story.texture])
        told.claim(texture, "texture", "texture" not in story.wrong)
        told.say(" and " if sentence else " ")
    told.claim(story.ground, "ground", "ground" not in story.wrong)
    if not sentence:
        told.say(" background")
    if "setting" not in story.details:
        return
    right = "frame" not in story.wrong
    if story.frame is None:
        told.say(", ")
        told.claim("without a frame", "frame", right)
    else:
        told.say(rng.choice((", in a ", ", framed by a ", ", with a ")))
        told.claim(f"{story.frame} frame", "frame", right)


def _punctuated(told: Told, rng: random.Random) -> Told:
    style = rng.random()
    text = told.text[0].upper() + told.text[1:] if style < 0.8 else told.text
    return Told(text + ("." if style < 0.65 else ""), told.claims)
