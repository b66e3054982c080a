"""What a caption can say wrongly of a scene, or leave out: one function a defect.

Each changes a true story and tells why the result is wrong; None where the story does not admit it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from wdsfilter.demo.scene import FRAMES, GROUNDS, SIZES, TEXTURES, Cell, Scene, draw_scene, fresh_name
from wdsfilter.demo.story import COUNT_WORDS, OPPOSITE, PLACES, About, Said, Story, true_story
from wdsfilter.demo.things import COLORS, SHAPES, noun

Changed = tuple[Story, str] | None


def _color(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    i = _one(story, rng, lambda said: said.color is not None)
    if i is None:
        return None
    true = story.said[i].color
    color = rng.choice([name for name in COLORS if name != true])
    return _with(story, i, "color", color=color), f"{_the(story.said[i])} {true}, not {color}."


def _size(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    if "size" not in story.details:
        return None
    i = rng.randrange(len(story.said))
    true = story.said[i].size
    (size,) = (name for name in SIZES if name != true)
    return _with(story, i, "size", size=size), f"{_the(story.said[i])} {true}, not {size}."


def _position(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    if "position" not in story.details or story.relations:
        return None
    i = _one(story, rng, lambda said: len(said.cells) == 1)
    if i is None:
        return None
    (true,) = story.said[i].cells
    cell = rng.choice([cell for cell in PLACES if cell != true])
    changed = _with(story, i, "position", cells=(cell,))
    return changed, f"{_the(story.said[i])} {PLACES[true][0]}, not {PLACES[cell][0]}."


def _swap(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    """Two things change places, or a relation is turned round."""
    if story.relations:
        number = rng.randrange(len(story.relations))
        true = story.relations[number]
        turned = replace(true, how=OPPOSITE[true.how], right=False)
        relations = (*story.relations[:number], turned, *story.relations[number + 1 :])
        first, second = story.said[true.first], story.said[true.second]
        why = f"{_the(first)} {true.how} the {noun(second.name)}, not {turned.how} it."
        return replace(story, relations=relations), why
    single = [i for i, said in enumerate(story.said) if len(said.cells) == 1]
    if "position" not in story.details or len(single) < 2:
        return None
    i, j = rng.sample(single, 2)
    first, second = story.said[i], story.said[j]
    changed = _with(_with(story, i, "position", cells=second.cells), j, "position", cells=first.cells)
    return changed, f"The {noun(first.name)} and the {noun(second.name)} have changed places."


def _count(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    i = _one(story, rng, lambda said: len(said.cells) > 1)
    if i is None or "position" in story.details or (story.total is not None and rng.random() < 0.5):
        if story.total is None:
            return None
        total = story.total + (rng.choice((-1, 1)) if story.total > 1 else 1)
        why = f"There are {COUNT_WORDS[story.total]} objects, not {COUNT_WORDS[total]}."
        return replace(story, total=total, wrong=frozenset({"total"})), why
    said = story.said[i]
    count = rng.choice([n for n in (2, 3, 4) if n != len(said.cells)])
    cells: tuple[Cell, ...] = (said.cells * 4)[:count]
    many = noun(said.name, 2)
    why = f"There are {COUNT_WORDS[len(said.cells)]} {many}, not {COUNT_WORDS[count]}."
    return _with(story, i, "number", cells=cells), why


def _background(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    if "ground" not in story.details:
        return None
    what = rng.choice(("ground", "texture", "frame")) if "setting" in story.details else "ground"
    if what == "ground":
        ground = rng.choice([name for name in GROUNDS if name != story.ground])
        changed = replace(story, ground=ground, wrong=frozenset({"ground"}))
        return changed, f"The background is {story.ground}, not {ground}."
    if what == "texture":
        texture = rng.choice([name for name in TEXTURES if name != story.texture])
        changed = replace(story, texture=texture, wrong=frozenset({"texture"}))
        return changed, f"The background is {story.texture}, not {texture}."
    frame = rng.choice([name for name in (*FRAMES, None) if name != story.frame])
    why = "There is no frame." if story.frame is None else f"The frame is {story.frame}."
    return replace(story, frame=frame, wrong=frozenset({"frame"})), why


def _object(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    i = rng.randrange(len(story.said))
    stranger = _stranger(scene, rng, names)
    said = replace(story.said[i], name=stranger.name, color=stranger.color, thing=None, wrong=stranger.wrong)
    return replace(story, said=_replaced(story.said, i, said)), _there_is_no(said)


def _extra(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    if story.relations:
        return None
    said = _stranger(scene, rng, names)
    at = rng.randint(0, len(story.said))
    total = None if story.total is None else story.total + 1
    return replace(story, said=(*story.said[:at], said, *story.said[at:]), total=total), _there_is_no(said)


def _mismatch(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    here = {thing.name for thing in scene.things}
    while True:
        other = draw_scene(rng, names=names)
        if not here & {thing.name for thing in other.things}:
            break
    level = 6 + len(story.details)
    elsewhere = true_story(other, min(10, level), rng)
    said = tuple(replace(said, thing=None, wrong=frozenset({"thing"})) for said in elsewhere.said)
    relations = tuple(replace(relation, right=False) for relation in elsewhere.relations)
    wrong: set[About] = {"total"} if elsewhere.total != scene.count else set()
    wrong |= {"ground"} if elsewhere.ground != scene.ground else set()
    wrong |= {"texture"} if elsewhere.texture != scene.texture else set()
    wrong |= {"frame"} if elsewhere.frame != scene.frame else set()
    changed = replace(elsewhere, said=said, relations=relations, wrong=frozenset(wrong))
    return changed, "The caption is about another picture."


def _omission(scene: Scene, story: Story, rng: random.Random, names: Sequence[str]) -> Changed:
    if len(story.said) < 2 or story.total is not None:
        return None
    if story.relations:
        story = replace(story, relations=())
    at = rng.randrange(len(story.said))
    left_out = story.said[at]
    many = len(left_out.cells) > 1
    why = f"The {noun(left_out.name, len(left_out.cells))} {'are' if many else 'is'} left out."
    return replace(story, said=(*story.said[:at], *story.said[at + 1 :])), why


MISTAKES: Mapping[str, Callable[[Scene, Story, random.Random, Sequence[str]], Changed]] = {
    "colour": _color,
    "size": _size,
    "position": _position,
    "swap": _swap,
    "count": _count,
    "background": _background,
    "object": _object,
    "extra": _extra,
    "mismatch": _mismatch,
    "omission": _omission,
}


def _one(story: Story, rng: random.Random, fits: Callable[[Said], bool]) -> int | None:
    fitting = [i for i, said in enumerate(story.said) if fits(said)]
    return rng.choice(fitting) if fitting else None


def _replaced(entries: tuple[Said, ...], at: int, entry: Said) -> tuple[Said, ...]:
    return (*entries[:at], entry, *entries[at + 1 :])


def _with(story: Story, at: int, wrong: About, **changes: object) -> Story:
    said = story.said[at]
    changed = replace(said, wrong=said.wrong | {wrong}, **changes)  # type: ignore[arg-type]  # fields of Said
    return replace(story, said=_replaced(story.said, at, changed))


def _stranger(scene: Scene, rng: random.Random, names: Sequence[str]) -> Said:
    """Something that the scene does not show, in a free place."""
    name = fresh_name(rng, [thing.name for thing in scene.things], names)
    taken = {cell for thing in scene.things for cell in thing.cells}
    cell = rng.choice([cell for cell in PLACES if cell not in taken])
    color = rng.choice([*COLORS]) if name in SHAPES else None
    return Said(name, color, rng.choice(SIZES), (cell,), None, frozenset({"thing"}))


def _the(said: Said) -> str:
    return f"The {noun(said.name, len(said.cells))} {'is' if len(said.cells) == 1 else 'are'}"


def _there_is_no(said: Said) -> str:
    return f"There is no {noun(said.name)}."
