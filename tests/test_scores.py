"""What the filter adds to a kept sample, and that it adds nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from tests.shards import jpeg
from wdsfilter import ledger
from wdsfilter.ledger import Counts, Header, LedgerWriter, Row
from wdsfilter.recipe import Output, Recipe, parse
from wdsfilter.samples import Member, Sample
from wdsfilter.scores import score_json, taken, with_scores
from wdsfilter.streams import Stat

IDS = ("rules", "scripted")
ROW: Row = {
    "key": "d/a",
    "offset": 0,
    "length": 2048,
    "status": "kept",
    "reason": "",
    "detail": "",
    "rules": {
        "width": 640,
        "height": 480,
        "bytes": 45_000,
        "chars": 31,
        "words": 6,
        "blocked_phrase": None,
        "matches_pattern": True,
        "offending_field": None,
    },
    "scripted": {"grade": 9, "score": float(numpy.float32(8.7))},
}
RULES = (
    '"rules": {"bytes": 45000, "chars": 31, "height": 480, "matches_pattern": true, "width": 640, "words": 6}'
)
SCORES = f'{{{RULES}, "scripted": {{"grade": 9, "score": 8.7}}}}'


def recipe() -> Recipe:
    return parse({"judges": ["rules", "scripted"]})


def sample(**members: bytes) -> Sample:
    """A sample ``d/a``; ``_`` stands for a dot in extensions. Its .json is stored in capitals."""
    listed = [(e.replace("_", "."), d) for e, d in members.items()]
    return Sample(
        "d/a", tuple(Member(f"d/a.{e.upper() if e == 'json' else e}", e, d) for e, d in listed), 0, 2048
    )


def test_scores_are_one_member_more() -> None:
    """All members as they were, and ``KEY.score.json`` behind them."""
    given = sample(jpg=jpeg(), txt=b"c", json=b"{}")
    found = with_scores(given, ROW, IDS, Output())
    assert found[:-1] == list(given.members)
    assert found[-1] == Member("d/a.score.json", "score.json", SCORES.encode() + b"\n")


def test_the_members_extension_can_be_chosen() -> None:
    """A recipe may name the member otherwise."""
    found = with_scores(sample(jpg=b"i"), ROW, IDS, Output(score_extension="score2.json"))
    assert (found[-1].name, found[-1].extension) == ("d/a.score2.json", "score2.json")


def test_without_scores_nothing_is_added() -> None:
    """``scores: none`` writes the members alone."""
    given = sample(jpg=b"i", json=b"{}")
    assert with_scores(given, ROW, IDS, Output(scores="none")) == list(given.members)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(b"{}", b'{"wdsfilter": @}', id="empty"),
        pytest.param(b'{"a": 1}', b'{"a": 1, "wdsfilter": @}', id="plain"),
        pytest.param(b'{"a": 1}\n', b'{"a": 1, "wdsfilter": @}\n', id="newline-stays"),
        pytest.param(
            b'  {\n "a" :1.50 \n}\r\n ', b'  {\n "a" :1.50 \n, "wdsfilter": @}\r\n ', id="blanks-stay"
        ),
        pytest.param(
            b'{"a":1e3,"a":2,"\\u00e9":"\xc3\xa9"}',
            b'{"a":1e3,"a":2,"\\u00e9":"\xc3\xa9", "wdsfilter": @}',
            id="spellings-stay",
        ),
        pytest.param(
            b'\xef\xbb\xbf{"a": {}}', b'\xef\xbb\xbf{"a": {}, "wdsfilter": @}', id="byte-order-mark"
        ),
        pytest.param(b'{"a": NaN, "b": "}"}', b'{"a": NaN, "b": "}", "wdsfilter": @}', id="not-strict"),
    ],
)
def test_scores_may_go_into_the_json(before: bytes, after: bytes) -> None:
    """With ``scores: json`` one field is added at the end, and every other byte stays as it was."""
    given = sample(jpg=b"i", json=before, txt=b"c")
    found = with_scores(given, ROW, IDS, Output(scores="json"))
    assert [m.name for m in found] == ["d/a.jpg", "d/a.JSON", "d/a.txt"]
    assert (found[0], found[2]) == (given.members[0], given.members[2])
    assert found[1].data == after.replace(b"@", SCORES.encode())
    merged = json.loads(bytes(found[1].data).decode("utf-8-sig"))
    assert merged.pop("wdsfilter") == json.loads(SCORES)
    assert str(merged) == str(json.loads(before.decode("utf-8-sig")))


def test_a_sample_without_json_gets_one() -> None:
    """With ``scores: json`` and no json there is one afterwards, with nothing but the scores."""
    found = with_scores(sample(jpg=b"i"), ROW, IDS, Output(scores="json"))
    assert found[-1] == Member("d/a.json", "json", f'{{"wdsfilter": {SCORES}}}\n'.encode())


def test_a_place_that_is_taken_is_refused() -> None:
    """Scores never replace anything: the message names the option that puts them elsewhere."""
    full = sample(jpg=b"i", score_json=b"{}")
    assert "--set output.score_extension=" in (taken(full, {}, Output()) or "")
    assert taken(full, {}, Output(score_extension="score2.json")) is None
    assert taken(full, {}, Output(scores="json")) is None
    assert taken(full, {}, Output(scores="none")) is None
    assert "--set output.scores=member" in (
        taken(sample(jpg=b"i"), {"wdsfilter": 1}, Output(scores="json")) or ""
    )
    assert taken(sample(jpg=b"i"), {"wdsfilter": 1}, Output()) is None


@pytest.mark.parametrize(
    "scripted",
    [
        pytest.param({"grade": 9, "score": 8.7}, id="both"),
        pytest.param({"grade": 9, "score": None}, id="a-number-missing"),
        pytest.param({"grade": 10, "score": float(numpy.float32(1 / 3))}, id="float32"),
        pytest.param({"grade": 10, "score": 1e-30}, id="tiny"),
        pytest.param({"grade": 10, "score": 10.0}, id="whole"),
        pytest.param(None, id="not-reached"),
    ],
)
def test_scores_are_a_function_of_the_ledger_row(tmp_path: Path, scripted: dict[str, object] | None) -> None:
    """A row gives the same JSON before it is written to a ledger and after it is read back."""
    row = {**ROW, "scripted": scripted}
    path = tmp_path / "a.parquet"
    writer = LedgerWriter(path, ledger.schema(recipe()))
    writer.add(row)
    writer.close(Header("a.tar", Stat(1), Counts(1, 1), None, None, "s", "d"))
    (stored,) = ledger.read_rows(path)
    assert score_json(stored, IDS) == score_json(row, IDS)
    assert ("scripted" in json.loads(score_json(row, IDS))) == (scripted is not None)


def test_numbers_are_spelt_as_people_would() -> None:
    """float32 values in a short spelling, lists too, names in order, nothing for what is not there."""
    row: Row = {"vlm": {"p": [float(numpy.float32(0.1)), 0.0], "grade": 9, "note": None, "é": "ü"}}
    assert score_json(row, ["vlm", "rules"]) == '{"vlm": {"grade": 9, "p": [0.1, 0.0], "é": "ü"}}'
