"""The small world: what is drawn, what is said of it, and the truth about both."""

from __future__ import annotations

import io
import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from wdsfilter.cli import main
from wdsfilter.demo.captions import KINDS, Caption, caption
from wdsfilter.demo.draw import render
from wdsfilter.demo.scene import FLAWS, Scene, draw_scene
from wdsfilter.demo.story import PLACES, SIZE_WORDS
from wdsfilter.demo.things import NEW_THINGS, PICTURES, SHAPES, THINGS, noun, picture
from wdsfilter.demo.world import draw_pair, write_world
from wdsfilter.rubric import CAPS, capped
from wdsfilter.samples import Sample
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples

DEFECTS = [kind for kind in KINDS if not kind.isdigit()]
IN_WORDS = [kind for kind in DEFECTS if CAPS[kind] == 5 or kind in ("object", "extra")]


def pairs(kind: str | None = None, count: int = 300) -> list[tuple[Scene, Caption]]:
    made = []
    for number in range(count):
        rng = random.Random(f"{kind}/{number}")
        scene = draw_scene(rng)
        made.append((scene, caption(scene, rng, kind)))
    return made


def samples(path: Path) -> list[Sample]:
    with path.open("rb") as file:
        found = list(read_samples(decompressed(io.BufferedReader(io.BytesIO(file.read())))))
    assert all(isinstance(item, Sample) for item in found)
    return [item for item in found if isinstance(item, Sample)]


def test_true_score_is_the_lowest_cap() -> None:
    """A pair's score is what it would be otherwise, capped by every defect of caption and picture."""
    for _, said in pairs(count=1500):
        assert said.score == capped(said.otherwise, said.defects)
        assert said.justification
        assert said.otherwise == said.score or said.defects


def test_every_kind_and_every_grade_occurs() -> None:
    """A crawl of the world holds all defects, all flaws, and all grades from 2 to 10, none of them rare."""
    made = [said for _, said in pairs(count=4000)]
    found = {defect for said in made for defect in said.defects}
    assert found == {*DEFECTS, *FLAWS}
    for grade in range(2, 11):
        assert sum(said.score == grade for said in made) > 100


@pytest.mark.parametrize("kind", IN_WORDS)
def test_a_defect_is_marked_where_it_stands(kind: str) -> None:
    """A wrong word is marked as wrong; accurate captions have no wrong claim."""
    found = 0
    for _, said in pairs(kind):
        wrong = [claim for claim in said.claims if not claim.right]
        assert bool(wrong) == (kind in said.defects) or said.defects[0] != kind
        found += kind in said.defects
    assert found > 20


def test_claims_that_are_right_are_true_of_the_scene() -> None:
    """What a caption claims of a thing is what the scene shows, exactly where the claim is marked right."""
    checked = 0
    for scene, said in pairs(count=1500):
        for claim in said.claims:
            words = said.text[claim.start : claim.end].lower()
            if claim.thing is None:
                continue
            thing = scene.things[claim.thing]
            truth = {
                "thing": noun(thing.name, len(thing.cells)),
                "color": thing.color,
                "number": {1: "one", 2: "two", 3: "three"}[len(thing.cells)],
            }
            if claim.about in truth:
                assert (words == truth[claim.about]) == claim.right or claim.about == "thing"
            elif claim.about == "size":
                assert (words in SIZE_WORDS[thing.size]) == claim.right
            elif claim.about == "position":
                assert any(words in PLACES[cell] for cell in thing.cells) == claim.right
            checked += 1
    assert checked > 3000


def test_relations_are_true_of_the_scene() -> None:
    """A relation that is marked right holds between the places of its things, a wrong one is turned round."""
    checked = 0
    for kind in ("9", "swap"):
        for scene, said in pairs(kind, 600):
            names = {noun(thing.name): thing for thing in scene.things}
            for claim in (claim for claim in said.claims if claim.about == "relation"):
                if claim.thing is None:  # one of the two is not there
                    continue
                first = scene.things[claim.thing]
                second = names[said.text[claim.start : claim.end].lower()]
                before = said.text[: claim.start]
                how = max(("above", "below", "to the left of", "to the right of"), key=before.rfind)
                axis, sign = {"above": (0, -1), "below": (0, 1), "to the left of": (1, -1)}.get(how, (1, 1))
                holds = sign * (first.cell[axis] - second.cell[axis]) > 0
                assert holds == claim.right
                checked += 1
    assert checked > 100


def test_a_mismatched_caption_names_nothing_that_is_there() -> None:
    """The caption of another picture shares no thing with this one."""
    for scene, said in pairs("mismatch", 100):
        here = {thing.name for thing in scene.things}
        named = {said.text[c.start : c.end].lower() for c in said.claims if c.about == "thing"}
        assert named
        assert not named & {noun(name, count) for name in here for count in (1, 2)}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Shards follow from their seed, and the first pairs do not depend on how many follow."""
    for name, count, seed in (("a", 30, 1), ("b", 30, 1), ("more", 50, 1), ("other", 30, 2)):
        write_world(tmp_path / name, samples=count, seed=seed, samples_per_shard=20)
    read = {name: (tmp_path / name / "world-0000.tar").read_bytes() for name in ("a", "b", "more", "other")}
    assert read["a"] == read["b"] == read["more"] != read["other"]
    assert (tmp_path / "a/world-0001.tar").read_bytes() == (tmp_path / "b/world-0001.tar").read_bytes()


def test_shards_tell_the_truth(tmp_path: Path) -> None:
    """Each pair has a picture that decodes, the caption, and score, defects and scene in its json."""
    assert main(["world", str(tmp_path), "--samples", "40", "--seed", "3"]) == 0
    found = samples(tmp_path / "world-0000.tar")
    assert len(found) == 40
    for sample in found:
        image, text, fields = (bytes(member.data) for member in sample.members)
        Image.open(io.BytesIO(image)).load()
        told = json.loads(fields)
        assert told["caption"] == text.decode()
        assert told["score"] == capped(told["otherwise"], told["defects"])
        assert told["world"]["things"]


def test_a_shifted_world_has_other_things(tmp_path: Path) -> None:
    """The shifted world's pictures are none that the ordinary world has."""
    write_world(tmp_path, samples=40, shifted=True)
    names = {
        thing["name"]
        for sample in samples(tmp_path / "world-0000.tar")
        for thing in json.loads(bytes(sample.members[-1].data))["world"]["things"]
    }
    assert names <= {*NEW_THINGS, *SHAPES}
    assert len(names & {*NEW_THINGS}) > 10
    assert not {*NEW_THINGS} & {*THINGS}


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shard that is there already is a mistake in one line."""
    assert main(["world", str(tmp_path), "--samples", "5"]) == 0
    assert main(["world", str(tmp_path), "--samples", "5"]) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("flaw", [None, *FLAWS])
def test_flaws_are_seen(flaw: str | None) -> None:
    """A flaw changes a picture as its name says: less or more detail, or hardly any contrast."""
    detail = []
    for number in range(12):
        rng = random.Random(number)
        scene = draw_scene(rng, flawed=1.0 if flaw else 0.0)
        if scene.flaw != flaw:
            scene = Scene(scene.things, scene.ground, scene.texture, scene.frame, scene.format, flaw)  # type: ignore[arg-type]
        gray = Image.open(io.BytesIO(render(scene, rng))).convert("L").resize((112, 112))
        values = [*gray.tobytes()]
        detail.append(sum(abs(a - b) for a, b in pairwise(values)) / len(values))
    average = sum(detail) / len(detail)
    low, high = {None: (4, 15), "noise": (20, 99), "artifacts": (2, 12)}.get(flaw, (0, 3.5))
    assert low < average < high


def test_every_picture_is_there_and_has_a_plural() -> None:
    """The sheet holds a picture for every name, and names have plurals."""
    for name in PICTURES:
        assert max(picture(name).getchannel("A").tobytes()) > 200, name
    assert [
        noun(name, 2) for name in ("bus", "cherries", "mouse", "bread", "butterfly", "monkey", "tomato")
    ] == [*("buses", "pairs of cherries", "mice", "loaves of bread", "butterflies", "monkeys", "tomatoes")]


def test_a_pair_is_drawn_by_its_seed() -> None:
    """The same seed draws the same picture and caption."""
    assert draw_pair("x") == draw_pair("x") != draw_pair("y")
