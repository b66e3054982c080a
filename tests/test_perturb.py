"""perturb: what each defect does, what is written, and that it is the same every time."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import members, write_recipe
from wdsfilter import rubric
from wdsfilter.cli import main
from wdsfilter.evaluate import pixels, words
from wdsfilter.evaluate.perturb import CAPTION_DEFECTS, DEFECTS, IMAGE_DEFECTS

CAPTIONS = (
    "A red ball lies on the left of two grey stones in front of an orange house",
    "Three yellow birds sit above the door of a white shop with a broken window",
    "An old man with a green coat feeds seven pigeons at the top of the stairs",
    "Black horses run across a wide field while people watch behind the fence",
)


def photo(number: int) -> bytes:
    """A JPEG of 96 x 80 pixels with edges, another one for each number."""
    cells = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells.repeat(4, 0).repeat(4, 1)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_clean(
    path: Path,
    captions: tuple[str, ...] = CAPTIONS,
    images: Mapping[int, bytes] = MappingProxyType({}),
    keys: tuple[str, ...] = (),
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, caption in enumerate(captions):
            key = keys[number] if keys else f"{number:03d}"
            fields = json.dumps({"url": f"https://example.org/{number}", "score": 0.3})
            found = {
                "jpg": images.get(number) or photo(number),
                "txt": caption.encode(),
                "json": fields.encode(),
            }
            for extension, data in found.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def labelled(path: Path) -> dict[str, dict[str, Any]]:
    """Key -> image, caption and label of a shard's samples."""
    found: dict[str, dict[str, Any]] = {}
    for name, data in members(path).items():
        key, _, extension = name.partition(".")
        found.setdefault(key, {})[extension] = data
    return {
        key: {"image": sample["jpg"], "caption": sample["txt"].decode(), **json.loads(sample["json"])}
        for key, sample in found.items()
    }


def outcomes(defect: str, caption: str) -> set[str | None]:
    """What a defect of the caption can make of it, over many seeds."""
    return {CAPTION_DEFECTS[defect](caption, random.Random(seed)) for seed in range(200)}


@pytest.mark.parametrize(
    ("defect", "caption", "accepted"),
    [
        pytest.param("position", "a cat on the left", {"a cat on the right"}, id="left"),
        pytest.param("position", "Behind a wall", {"In front of a wall"}, id="behind"),
        pytest.param(
            "position",
            "the bottom shelf at the top of a rack",
            {"the bottom shelf at the bottom of a rack"},
            id="top",
        ),
        pytest.param("position", "he left the house, all right", {None}, id="left-is-a-verb"),
        pytest.param("position", "a photo behind the scenes", {None}, id="behind-the-scenes"),
        pytest.param("count", "two cats", {"three cats", "four cats", "five cats"}, id="two"),
        pytest.param("count", "Bus 12", {f"Bus {n}" for n in (10, 11, 13, 14, 15)}, id="digits"),
        pytest.param("count", "in 2019, for $5, 20% off, at 10:30, 3.5 km", {None}, id="no-count"),
        pytest.param("colour", "Mr Brown visits the White House", {None}, id="names"),
        pytest.param("colour", "the colored shirt was covered", {None}, id="red-in-a-word"),
        pytest.param("cut", "only five words are here", {None}, id="too-short-to-cut"),
        pytest.param("shuffled", "four words are few", {None}, id="too-short-to-shuffle"),
    ],
)
def test_a_defect_changes_what_it_is_called_after(
    defect: str, caption: str, accepted: set[str | None]
) -> None:
    """A caption gets exactly the one thing wrong, or None where it has nothing that could be."""
    assert outcomes(defect, caption) == accepted


def test_another_colour_is_far_from_all_that_are_there() -> None:
    """One colour word is replaced, by none that is near it or named already; articles and capitals follow."""
    made = outcomes("colour", "An orange cat, a blue door")
    assert {"A green cat, a blue door", "A black cat, a blue door", "An orange cat, a white door"} <= made
    first, second = ({str(text).split()[at] for text in made} for at in (1, 4))
    assert first == {"orange", "green", "purple", "black", "white", "grey"}
    assert second == {"blue", "red", "yellow", "pink", "brown", "white", "grey"}
    assert all(text is not None and len(text.split()) == 6 for text in made)


def test_titles_have_colours_too() -> None:
    """Where every word is capitalised, a capitalised colour is no name, and its successor is capitalised."""
    assert "A White Cat near the Street" in outcomes("colour", "A Red Cat near the Street")
    assert outcomes("colour", "RED CARS") >= {"BLUE CARS", "WHITE CARS"}


def test_cut_and_shuffled_keep_words() -> None:
    """A cut caption is the first half of its words, a shuffled one all of them in another order."""
    for text in outcomes("cut", CAPTIONS[0]):
        assert text is not None
        assert CAPTIONS[0].startswith(text)
        assert 0.35 < len(text.split()) / len(CAPTIONS[0].split()) < 0.65
    for text in outcomes("shuffled", CAPTIONS[0]):
        assert text is not None
        assert sorted(text.split()) == sorted(CAPTIONS[0].split())
    short = "one two three four five"
    for text in outcomes("shuffled", short):
        assert sum(a == b for a, b in zip(str(text).split(), short.split(), strict=True)) <= 1


def test_an_image_gets_bad() -> None:
    """Blur and enlargement take edges away, noise adds them; what is too small already is let be."""
    image = Image.open(io.BytesIO(photo(1))).convert("RGB")

    def edges(data: bytes | None) -> float:
        assert data is not None
        grey = np.asarray(Image.open(io.BytesIO(data)).convert("L").resize(image.size), dtype=np.float64)
        return float(np.abs(np.diff(grey, axis=1)).mean())

    for seed in range(4):
        assert edges(pixels.blur(image, random.Random(seed))) < 0.7 * edges(photo(1))
        assert edges(pixels.noise(image, random.Random(seed))) > 1.5 * edges(photo(1))
        assert edges(pixels.tiny(image, random.Random(seed))) < 0.7 * edges(photo(1))
    sizes = set()
    for seed in range(20):
        data = pixels.tiny(image, random.Random(seed))
        assert data is not None
        sizes.add(Image.open(io.BytesIO(data)).width)
    assert max(sizes) == image.width
    assert min(sizes) <= 20
    assert all(f(image.resize((63, 200)), random.Random(0)) is None for f in IMAGE_DEFECTS.values())


def test_what_is_written(tmp_path: Path) -> None:
    """Each pair comes clean and with each defect: image or caption untouched, score capped, origin told."""
    shard = write_clean(tmp_path / "in/a.tar")
    arguments = ["perturb", str(shard), str(tmp_path / "out"), "--per-sample", "99", "--score", "10"]
    assert main(arguments) == 0
    clean, found = labelled_clean(shard), labelled(tmp_path / "out/a.tar")
    seen = set()
    for key, sample in found.items():
        image, caption = clean[sample["source"]["key"]]
        assert sample["source"]["shard"] == str(shard)
        assert sample["original"]["score"] == 0.3
        assert sample["otherwise"] == 10
        if not sample["defects"]:
            assert (key, sample["score"]) == (sample["source"]["key"], 10)
            assert (sample["image"], sample["caption"]) == (image, caption)
            continue
        (defect,) = sample["defects"]
        seen.add(defect)
        assert key == f"{sample['source']['key']}-{defect}"
        assert sample["score"] == rubric.CAPS[defect]
        assert (sample["image"] == image) is (defect not in IMAGE_DEFECTS)
        assert (sample["caption"] == caption) is (defect in IMAGE_DEFECTS)
    assert seen == set(DEFECTS)
    assert sum(not sample["defects"] for sample in found.values()) == len(CAPTIONS)


def labelled_clean(shard: Path) -> dict[str, tuple[bytes, str]]:
    found = members(shard)
    keys = sorted({name.partition(".")[0] for name in found})
    return {key: (found[f"{key}.jpg"], found[f"{key}.txt"].decode()) for key in keys}


def test_the_seed_decides(tmp_path: Path) -> None:
    """The same seed gives the same bytes, another one other versions; so many per pair as asked for."""
    shard = write_clean(tmp_path / "in/a.tar")
    for name, seed in (("one", "1"), ("again", "1"), ("two", "2")):
        out = str(tmp_path / name)
        assert main(["perturb", str(shard), out, "--seed", seed, "--per-sample", "3"]) == 0
    one, again, two = ((tmp_path / name / "a.tar").read_bytes() for name in ("one", "again", "two"))
    assert one == again != two
    assert len(labelled(tmp_path / "one/a.tar")) == 4 * len(CAPTIONS)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["a.tar"], "no temporary is left"


def test_defects_are_evenly_drawn(tmp_path: Path) -> None:
    """What was seldom possible comes first, so that no defect is left with few pairs; each has its own chance."""
    shard = write_clean(tmp_path / "in/a.tar", CAPTIONS * 5)
    arguments = ["--per-sample", "1", "--defects", "blur,file_name,position"]
    assert main(["perturb", str(shard), str(tmp_path / "out"), *arguments]) == 0
    found = [sample for sample in labelled(tmp_path / "out/a.tar").values() if sample["defects"]]
    counts = Counter(sample["defects"][0] for sample in found)
    assert max(counts.values()) - min(counts.values()) <= 1
    names = {sample["caption"] for sample in found if sample["defects"] == ["file_name"]}
    assert len(names) == counts["file_name"]


def test_keys_stay_apart(tmp_path: Path) -> None:
    """A version whose key would be another sample's gets one of its own."""
    shard = tmp_path / "in/a.tar"
    write_clean(shard, ("A red ball", "A red box"), keys=("a", "a-colour"))
    assert main(["perturb", str(shard), str(tmp_path / "out"), "--defects", "colour"]) == 0
    found = labelled(tmp_path / "out/a.tar")
    assert set(found) == {"a", "a-colour", "a-colour-", "a-colour-colour"}
    assert found["a-colour-"]["source"]["key"] == "a-colour"


def test_a_mismatch_is_another_images_caption(tmp_path: Path) -> None:
    """An image that comes several times never gets one of its own captions for a wrong one."""
    shard = write_clean(tmp_path / "in/a.tar", images={0: photo(7), 1: photo(7), 2: photo(7)})
    for seed in range(5):
        out = tmp_path / f"{seed}"
        assert main(["perturb", str(shard), str(out), "--defects", "mismatch", "--seed", str(seed)]) == 0
        wrong = {s["source"]["key"]: s["caption"] for s in labelled(out / "a.tar").values() if s["defects"]}
        assert len(wrong) == 4
        assert all(wrong[key] == CAPTIONS[3] for key in ("000", "001", "002"))
        assert wrong["003"] in CAPTIONS[:3]


def test_a_mismatch_shares_little_where_it_can() -> None:
    """Of two captions that differ, the one about something else is far."""
    assert not words.is_far("A brown dog runs through green grass", "a dog in brown runs over the grass")
    assert words.is_far("A brown dog runs through green grass", "Old people sitting around a table")
    assert not words.differs("A  dog", "a dog")


def test_only_the_defects_that_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--defects picks; an unknown name is told with the nearest one."""
    shard = write_clean(tmp_path / "in/a.tar")
    assert main(["perturb", str(shard), str(tmp_path / "out"), "--defects", "blur, cut"]) == 0
    found = labelled(tmp_path / "out/a.tar").values()
    assert {defect for sample in found for defect in sample["defects"]} == {"blur", "cut"}
    assert main(["perturb", str(shard), str(tmp_path / "no"), "--defects", "color"]) == 1
    assert "did you mean colour?" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_shard_that_is_there_is_let_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written over, and a place where nothing can be written is told in one line."""
    shard = write_clean(tmp_path / "in/a.tar")
    before = shard.read_bytes()
    assert main(["perturb", str(shard), str(tmp_path / "in")]) == 1
    assert "is there already; choose another folder" in capsys.readouterr().err
    assert shard.read_bytes() == before
    for folder, said in ((f"{shard}/out", "Not a directory"), ("s3://bucket/out", "local or network folder")):
        assert main(["perturb", str(shard), folder]) == 1
        assert said in capsys.readouterr().err


def test_what_is_not_clean_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pair that cannot be read gives nothing, is counted, and is nobody's wrong caption."""
    captions = (*CAPTIONS[:2], "  ", CAPTIONS[3])
    shard = write_clean(tmp_path / "in/a.tar", captions, {3: photo(3)[:300]})
    assert main(["perturb", str(shard), str(tmp_path / "out"), "--per-sample", "99"]) == 0
    said = capsys.readouterr().out
    assert "1 empty_caption" in said
    assert "1 image_truncated" in said
    found = labelled(tmp_path / "out/a.tar").values()
    assert {sample["source"]["key"] for sample in found} == {"000", "001"}


def test_check_judge_reads_what_perturb_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two commands go together: every pair is judged, every defect has its figure."""
    shard = write_clean(tmp_path / "in/a.tar")
    assert main(["perturb", str(shard), str(tmp_path / "out"), "--per-sample", "99"]) == 0
    capsys.readouterr()
    recipe = write_recipe(tmp_path, "judges: [scripted: {seed: 3}]\n")
    assert main(["check-judge", str(recipe), str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == len(labelled(tmp_path / "out/a.tar"))
    assert found["right"] == len(CAPTIONS)
    assert set(found["defects"]) == set(DEFECTS)


def test_every_defect_has_a_cap() -> None:
    """The rubric knows all defects, and the lowest cap that applies is the score."""
    assert set(DEFECTS) <= set(rubric.CAPS)
    assert rubric.capped(9, []) == 9
    assert rubric.capped(9, ["colour", "blur", "cut"]) == 3
    assert rubric.capped(1, ["colour"]) == 1
