"""Cheap rules: what they measure, what they drop, and for which reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.shards import jpeg
from wdsfilter.decide import decide_one
from wdsfilter.errors import RecipeError
from wdsfilter.judges import Runtime, rules
from wdsfilter.recipe import JudgeSpec, parse
from wdsfilter.samples import Decision, Numbers, Pair, Prepared, Unreadable

IMAGE = jpeg(width=40, height=16)


def measured(
    options: rules.Options, caption: str = "a red car", image: bytes = IMAGE, **fields: Any
) -> Numbers:
    judge = rules.load(options, Runtime())
    prepared = judge.prepare(Pair("a", image, caption, fields))
    assert isinstance(prepared, Prepared), prepared
    (numbers,) = judge.score([prepared.value])
    return numbers


def decided(given: dict[str, Any], caption: str = "a red car", **fields: Any) -> Decision | None:
    options = rules.Options.model_validate(given)
    return decide_one(JudgeSpec("rules", "rules", options), measured(options, caption, **fields))


def test_everything_is_measured_whatever_the_limits() -> None:
    """A ledger can be asked about other limits later: no limit, all numbers."""
    assert measured(rules.Options(), "Ein  Hündchen\nschläft") == {
        "width": 40,
        "height": 16,
        "bytes": len(IMAGE),
        "chars": 21,
        "words": 3,
        "blocked_phrase": None,
        "suspicious": None,
        "matches_pattern": None,
        "offending_field": None,
    }


def test_the_fields_are_what_is_measured() -> None:
    """The ledger's struct has a place for every number, and no more."""
    assert set(rules.fields(rules.Options())) == set(measured(rules.Options()))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({}, None),
        ({"min_side": 16, "max_side": 40, "min_pixels": 640, "max_aspect": 2.5}, None),
        ({"min_side": 17}, "min_side"),
        ({"max_side": 39}, "max_side"),
        ({"min_pixels": 641}, "min_pixels"),
        ({"max_aspect": 2.4}, "max_aspect"),
        ({"min_bytes": len(IMAGE), "max_bytes": len(IMAGE)}, None),
        ({"min_bytes": len(IMAGE) + 1}, "min_bytes"),
        ({"max_bytes": len(IMAGE) - 1}, "max_bytes"),
        ({"min_chars": 9, "max_chars": 9, "min_words": 3, "max_words": 3}, None),
        ({"min_chars": 10}, "min_chars"),
        ({"max_chars": 8}, "max_chars"),
        ({"min_words": 4}, "min_words"),
        ({"max_words": 2}, "max_words"),
        ({"min_side": 17, "min_words": 4}, "min_side"),
    ],
    ids=str,
)
def test_limits_hold_to_the_last_unit(limits: dict[str, Any], reason: str | None) -> None:
    """A value at its limit passes, one beyond it is dropped by that limit's name, the first one listed."""
    found = decided(limits)
    assert (found.status, found.reason) == ("dropped", f"rules.{reason}") if found else reason is None


def test_a_drop_says_what_was_found() -> None:
    """The detail holds the value and the limit."""
    assert decided({"max_aspect": 2}) == Decision("dropped", "rules.max_aspect", "aspect 2.5, limit 2.0")


@pytest.mark.parametrize(
    ("blocklist", "caption", "found"),
    [
        (["stock photo"], "A Stock Photo of a car", "stock photo"),
        (["car"], "a scar, cars", None),
        (["car"], "car!", "car"),
        (["c++"], "I like C++.", "c++"),
        (["a.b"], "axb", None),
        (["größe"], "Die GRÖSSE, die GRÖßE", "größe"),
        ([], "anything", None),
    ],
    ids=str,
)
def test_blocked_phrases_are_whole_words(blocklist: list[str], caption: str, found: str | None) -> None:
    """A phrase is found without regard to case, never inside a word, and taken literally."""
    decision = decided({"blocklist": blocklist}, caption)
    assert decision == (Decision("dropped", "rules.blocklist", found) if found else None)


@pytest.mark.parametrize(("pattern", "passes"), [(r"\bred\b", True), ("^red", False), (None, True)])
def test_a_pattern_must_match_somewhere(pattern: str | None, passes: bool) -> None:
    """A caption without a match is dropped."""
    assert decided({"pattern": pattern}) == (None if passes else Decision("dropped", "rules.pattern"))


@pytest.mark.parametrize(
    ("limit", "value", "told"),
    [
        ({"at_most": 0.5}, 0.5, None),
        ({"at_most": 0.5}, 0.51, "x is 0.51"),
        ({"at_least": 2}, 2, None),
        ({"at_least": 2}, 1, "x is 1"),
        ({"at_most": 0.5}, float("nan"), "x is nan"),
        ({"at_most": 0.5}, "0.1", "x is no number"),
        ({"at_most": 2}, True, "x is no number"),
        ({"at_most": 0.5}, None, "x is no number"),
        ({"at_most": 0.5, "optional": True}, None, None),
        ({"at_most": 0.5, "optional": True}, 0.6, "x is 0.6"),
        ({"one_of": ["en", None]}, None, None),
        ({"one_of": ["en", "de"]}, "de", None),
        ({"one_of": ["en", "de"]}, "fr", "x is fr"),
        ({"one_of": [True]}, True, None),
    ],
    ids=str,
)
def test_json_fields_are_held_to_their_limits(limit: dict[str, Any], value: Any, told: str | None) -> None:
    """A field beyond its limits, of another type or not there is named, unless it is optional."""
    decision = decided({"json": {"x": limit}}, x=value)
    assert decision == (Decision("dropped", "rules.json", told) if told else None)


def test_what_a_json_holds_can_be_stored() -> None:
    """Whatever is in a field, the detail is text that a ledger can hold, and short."""
    options = rules.Options.model_validate({"json": {"x": {"one_of": ["en"]}}})
    for value in ("\ud800", "é" * 10_000, ["\udfff"], {"\ud800": 1}):
        found = measured(options, x=value)["offending_field"]
        assert found.startswith("x is ")
        assert len(found.encode()) < 500


def test_huge_numbers_are_numbers() -> None:
    """A json may hold integers that no float can: they are beyond a limit like any other."""
    decision = decided({"json": {"x": {"at_most": 1}}}, x=10**400)
    assert decision is not None
    assert decision.reason == "rules.json"


def test_only_a_header_is_needed() -> None:
    """An image that is cut behind its header can be measured; one that is none cannot."""
    assert measured(rules.Options(), image=jpeg(width=400, height=300)[:-50])["width"] == 400
    refused = rules.load(rules.Options(), Runtime()).prepare(Pair("a", b"<html>", "caption"))
    assert isinstance(refused, Unreadable)
    assert refused.reason == "image_format"


def test_the_rules_decide_later_as_they_do_now() -> None:
    """Deciding is pure: numbers that were measured without limits meet limits afterwards."""
    numbers = measured(rules.Options())
    assert rules.decide(rules.Options(min_words=4), numbers) == Decision(
        "dropped", "min_words", "words 3, limit 4"
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pattern": "("}, "not a regular expression"),
        ({"min_side": "200"}, "min_side"),
        ({"max_aspect": 0.5}, "max_aspect"),
        ({"min_sides": 200}, "min_side"),
        ({"json": {"x": {"at_mots": 1}}}, "at_most"),
    ],
    ids=str,
)
def test_impossible_limits_are_refused(options: dict[str, Any], told: str) -> None:
    """A recipe with a limit that cannot be meant is refused before anything starts."""
    with pytest.raises(RecipeError, match=told.replace("(", r"\(")):
        parse({"judges": [{"rules": options}]})
