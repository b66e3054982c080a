"""Scored pairs: read from shards and data sets, every one that cannot be used is told, and sides are drawn by key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests import stock
from tests.shards import write_shard
from tests.training import content, log, scored_shard, write_recipe
from wdsfilter.cli import main
from wdsfilter.engine.contract import Scale
from wdsfilter.errors import BadImage, InputError, MissingExtra
from wdsfilter.images import decode
from wdsfilter.training.recipe import Data
from wdsfilter.training.scored import Found, find_pairs, split
from wdsfilter.training.source import PairSource, order

GRADES = Scale(lowest=1, highest=10).grades()
PNG = stock.png(stock.noise(8, 8))


def shard_of(path: Path, fields: list[str], caption: str = "a dog") -> Data:
    """A shard of one pair for each json text."""
    members = []
    for number, text in enumerate(fields):
        members += [
            (f"{number}.png", PNG),
            (f"{number}.txt", caption.encode()),
            (f"{number}.json", text.encode()),
        ]
    write_shard(path, members)
    return Data(shards=[{"path": str(path)}], tolerate=1.0)  # type: ignore[list-item]  # as a recipe says it


def said(found: Found) -> dict[str, tuple[str, str]]:
    return {
        found.pairs[i].pair.key: (found.pairs[i].grade, found.pairs[i].justification)
        for i in range(len(found.pairs))
    }


def test_scores_are_found_however_they_are_written(tmp_path: Path) -> None:
    """A whole number, a float that is one, and text are the same grade; a justification may be missing."""
    data = shard_of(
        tmp_path / "a.tar",
        [
            '{"score": 7, "justification": " So. "}',
            '{"score": 7.0}',
            '{"score": "7", "justification": null}',
            '{"score": "10"}',
        ],
    )
    found = find_pairs(data, GRADES)
    assert said(found) == {"a/0": ("7", "So."), "a/1": ("7", ""), "a/2": ("7", ""), "a/3": ("10", "")}
    assert found.unusable == ()


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    """Every pair is usable or named with a reason: none is passed over."""
    lines = [
        "{}",
        '{"score": 11}',
        '{"score": true}',
        '{"score": "good"}',
        '{"score": 5, "justification": 3}',
        "[",
        '{"score": 5}',
    ]
    found = find_pairs(shard_of(tmp_path / "a.tar", lines), GRADES)
    assert said(found) == {"a/6": ("5", "")}
    assert {bad.key: bad.reason for bad in found.unusable} == {
        "a/0": "no_score",
        "a/1": "not_on_the_scale",
        "a/2": "not_on_the_scale",
        "a/3": "not_on_the_scale",
        "a/4": "justification_not_text",
        "a/5": "bad_json",
    }
    strict = shard_of(tmp_path / "a.tar", lines).model_copy(update={"tolerate": 0.5})
    with pytest.raises(InputError, match=r"6 of 7 pairs are unusable.*a/0: no_score"):
        find_pairs(strict, GRADES)
    with pytest.raises(InputError, match=r"no scored pair among 1"):
        find_pairs(shard_of(tmp_path / "b.tar", ["{}"]), GRADES)


def test_a_damaged_shard_is_told(tmp_path: Path) -> None:
    """A shard that was cut counts as damage, and its last pair as unusable."""
    data = shard_of(tmp_path / "a.tar", ['{"score": 5}'] * 4)
    path = tmp_path / "a.tar"
    path.write_bytes(path.read_bytes()[:9000])
    reasons = [bad.reason for bad in find_pairs(data, GRADES).unusable]
    assert "incomplete" in reasons
    assert len(reasons) == 2


def test_names_can_be_set(tmp_path: Path) -> None:
    """Caption and labels may lie in nested fields, as in what `run` writes."""
    data = shard_of(
        tmp_path / "a.tar", ['{"text": "a cat", "wdsfilter": {"vlm": {"grade": 3, "why": "No."}}}']
    )
    names = {"caption": "json.text", "score": "wdsfilter.vlm.grade", "justification": "wdsfilter.vlm.why"}
    found = find_pairs(data.model_copy(update=names), GRADES)
    assert said(found) == {"a/0": ("3", "No.")}
    assert found.pairs[0].pair.caption == "a cat"


def test_other_scales_have_other_texts(tmp_path: Path) -> None:
    """A score may be a grade's text or its number."""
    data = shard_of(tmp_path / "a.tar", ['{"score": "yes"}', '{"score": 0}', '{"score": false}'])
    found = find_pairs(data, Scale(values={"yes": 1, "no": 0}).grades())
    assert said(found) == {"a/0": ("yes", ""), "a/1": ("no", "")}
    assert [bad.reason for bad in found.unusable] == ["not_on_the_scale"]


def test_sides_follow_from_keys(tmp_path: Path) -> None:
    """A pair's side depends on its key and the seed alone, whatever else there is, and shares are about right."""
    few = find_pairs(shard_of(tmp_path / "few/a.tar", ['{"score": 5}'] * 100), GRADES)
    shard_of(tmp_path / "many/0.tar", ['{"score": 5}'] * 100)
    shard_of(tmp_path / "many/a.tar", ['{"score": 5}'] * 200)
    many = find_pairs(Data.model_validate({"shards": str(tmp_path / "many")}), GRADES)

    def held_out(found: Found, seed: int = 0) -> set[str]:
        trained, aside = split(found, 0.2, seed)
        assert sorted([*trained.numbers, *aside.numbers]) == list(range(len(found.keys)))
        return {aside[i].pair.key for i in range(len(aside))}

    assert held_out(few) == held_out(many) & set(few.keys)
    assert held_out(few) != held_out(few, seed=1)
    assert 40 < len(held_out(many)) < 80
    assert [len(side) for side in split(few, 0.0, 0)] == [100, 0]
    assert [len(side) for side in split(few, 1.0, 0)] == [0, 100]


def test_the_digest_is_of_the_labels(tmp_path: Path) -> None:
    """Another score, caption or justification is another data set; where it lies is not."""
    same = [find_pairs(shard_of(tmp_path / f"{i}/a.tar", ['{"score": 5}']), GRADES).digest for i in range(2)]
    assert same[0] == same[1]
    assert same[0] != find_pairs(shard_of(tmp_path / "2/a.tar", ['{"score": 6}']), GRADES).digest
    assert same[0] != find_pairs(shard_of(tmp_path / "3/a.tar", ['{"score": 5}'], "a cat"), GRADES).digest


def test_an_epoch_is_every_pair_once() -> None:
    """Each epoch goes through all pairs in an order of its own."""
    first, second = order(50, 0, 0), order(50, 0, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == order(50, 0, 0)
    assert first != order(50, 1, 0)


def test_an_unreadable_image_is_told_and_replaced(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pair whose image is broken is named once, and the training goes on."""
    shard = scored_shard(tmp_path / "s.tar", 12)
    data = shard.read_bytes()
    start = data.index(b"\x89PNG", data.index(b"00003.png"))
    shard.write_bytes(data[: start + 4] + bytes(40) + data[start + 44 :])
    recipe = content(tiny_checkpoint, shard, held_out="off")
    recipe["training"] |= {"steps": 6, "pairs_per_step": 4}
    assert main(["train", str(write_recipe(tmp_path, recipe)), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.count("unreadable: s/00003: image_") == 1
    assert len([line for line in log(tmp_path / "out") if "loss" in line]) == 6


def test_batches_are_full_whatever_cannot_be_read(tmp_path: Path) -> None:
    """A batch is a function of its number: readable pairs in the epochs' order, the next one standing in for
    one that cannot be read; when none can, that is a line."""
    found = find_pairs(shard_of(tmp_path / "a.tar", ['{"score": 5}'] * 10), GRADES)

    class Maker:
        """Makes a key of every pair but those with an odd number, all of them where ``none``."""

        def __init__(self, none: bool = False) -> None:
            self.none = none

        def examples(self, pairs: Any, numbers: Any) -> list[str]:
            keys = [pairs[number].pair.key for number in numbers]
            return [key for key in keys if not self.none and int(key[-1]) % 2 == 0]

    def source(maker: Any) -> PairSource:
        return PairSource(found.pairs, maker, size=4, seed=0)

    forward = [source(Maker()).batch(number) for number in range(5)]
    backward = [source(Maker()).batch(number) for number in reversed(range(5))]
    assert forward == backward[::-1]
    assert all(len(batch) == 4 for batch in forward)
    assert {key for batch in forward for key in batch} == {f"a/{number}" for number in range(0, 10, 2)}  # type: ignore[comparison-overlap]
    with pytest.raises(InputError, match="none of 10 pairs can be read"):
        source(Maker(none=True)).batch(0)


@pytest.mark.parametrize("stored", ["to_disk", "parquet"])
def test_a_hugging_face_data_set(stored: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A folder that `datasets` saved, or a data set of files, is trained on as shards are."""
    import datasets

    rows = [
        {
            "picture": stock.noise(40 + i, 50, i),
            "text": "a dog" if i else "",
            "points": 1 + i % 10,
            "why": "So.",
        }
        for i in range(12)
    ]
    features = datasets.Features(
        picture=datasets.Image(),
        text=datasets.Value("string"),
        points=datasets.Value("int64"),
        why=datasets.Value("string"),
    )
    made = datasets.Dataset.from_list(rows, features=features)
    folder = tmp_path / "data"
    if stored == "to_disk":
        datasets.DatasetDict({"train": made}).save_to_disk(str(folder))
    else:
        folder.mkdir()
        made.to_parquet(str(folder / "train.parquet"))
    names = {"image": "picture", "caption": "text", "score": "points", "justification": "why"}
    found = find_pairs(Data(dataset=str(folder), tolerate=0.1, **{**names, "image": ["picture"]}), GRADES)  # type: ignore[arg-type]
    assert [bad.key for bad in found.unusable] == ["0"]
    assert found.keys == tuple(map(str, range(1, 12)))
    assert found.pairs[3].grade == "5"
    assert found.pairs[3].pair.image[:4] == b"\x89PNG"
    recipe = content(
        tiny_checkpoint, tmp_path, data={}, training={"steps": 1, "pairs_per_step": 4, "precision": "fp32"}
    )
    recipe["data"] = {"dataset": str(folder), "tolerate": 0.1, **names}
    assert main(["train", str(write_recipe(tmp_path, recipe)), "-o", str(tmp_path / "out")]) == 0
    with pytest.raises(InputError, match="no column nowhere; there are: picture, text"):
        find_pairs(Data(dataset=str(folder), image=["nowhere"], caption="text", score="points"), GRADES)


def test_data_sets_that_cannot_be_read_are_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set that is not there is one line, and a missing extra names the command that installs it."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"data.dataset .* cannot be read") as caught:
        find_pairs(Data(dataset=str(tmp_path / "nowhere")), GRADES)
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'wdsfilter\[train\]'"):
        find_pairs(Data(dataset="owner/name"), GRADES)


def test_a_missing_image_is_unreadable(tmp_path: Path) -> None:
    """A row whose image lies nowhere is found out where images are decoded: it costs that row and nothing else."""
    import datasets

    made: Any = datasets.Dataset.from_list(
        [
            {"image": str(tmp_path / "gone.png"), "caption": "a dog", "score": 5},
            {"image": None, "caption": "a", "score": 5},
        ]
    )
    made.save_to_disk(str(tmp_path / "data"))
    found = find_pairs(Data(dataset=str(tmp_path / "data")), GRADES)
    for number in range(2):
        with pytest.raises(BadImage):
            decode(found.pairs[number].pair.image)
