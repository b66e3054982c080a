"""Which member is the image, which text the caption, and why there is none."""

from __future__ import annotations

import json

import pytest

from wdsfilter.pairs import PairReader
from wdsfilter.samples import Member, Pair, Sample, Unreadable

IMAGES = ("jpg", "png")


def sample(**members: bytes) -> Sample:
    """A sample ``a`` of these members; ``_`` stands for a dot in their extensions."""
    found = [(extension.replace("_", "."), data) for extension, data in members.items()]
    return Sample("a", tuple(Member(f"a.{e}", e, memoryview(d)) for e, d in found), 1024, 2048)


def read(given: Sample, caption: str = "txt", needs_json: bool = False) -> Pair | Unreadable:
    return PairReader(IMAGES, caption, needs_json).read(given)


def caption_of(given: Sample, caption: str = "txt") -> str:
    pair = read(given, caption)
    assert isinstance(pair, Pair), pair
    return pair.caption


def test_an_ordinary_pair() -> None:
    """Image bytes as they are stored, the caption as text, all fields of the json."""
    pair = read(sample(json=b'{"uid": "7"}', txt="Ein Hündchen.".encode(), jpg=b"image"))
    assert pair == Pair("a", memoryview(b"image"), "Ein Hündchen.", {"uid": "7"})


def test_the_first_extension_listed_is_the_image() -> None:
    """Of several images the recipe's order decides, not the shard's."""
    pair = read(sample(png=b"png", jpg=b"jpg", txt=b"caption"))
    assert isinstance(pair, Pair)
    assert bytes(pair.image) == b"jpg"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(b" two  words \n", " two  words \n", id="blanks-stay"),
        pytest.param(b"\xef\xbb\xbfmarked", "marked", id="byte-order-mark"),
        pytest.param(b"<|im_end|> {}", "<|im_end|> {}", id="control-words-are-text"),
        pytest.param(b"a\0b", "a\0b", id="nul"),
    ],
)
def test_captions_are_taken_as_they_are(text: bytes, expected: str) -> None:
    """Nothing is trimmed, joined or interpreted; only a byte order mark is no text."""
    assert caption_of(sample(jpg=b"i", txt=text)) == expected


@pytest.mark.parametrize(
    ("caption", "fields", "expected"),
    [
        pytest.param("json.caption", {"caption": "top"}, "top", id="field"),
        pytest.param("json.meta.en.text", {"meta": {"en": {"text": "deep"}}}, "deep", id="nested"),
        pytest.param("json", {"caption": "x"}, '{"caption": "x"}', id="the-json-itself"),
    ],
)
def test_captions_may_be_in_the_json(caption: str, fields: dict[str, object], expected: str) -> None:
    """``json.FIELD`` names a field, with dots for nested ones."""
    assert caption_of(sample(jpg=b"i", json=json.dumps(fields).encode()), caption) == expected


def test_captions_may_have_dotted_extensions() -> None:
    """An extension with a dot is no field of a json."""
    assert caption_of(sample(jpg=b"i", en_txt=b"english", txt=b"other"), "en.txt") == "english"


@pytest.mark.parametrize(
    ("given", "caption", "reason", "told"),
    [
        pytest.param(sample(gif=b"i", txt=b"c"), "txt", "no_image", "jpg, png among gif, txt", id="no-image"),
        pytest.param(sample(seg_jpg=b"i", txt=b"c"), "txt", "no_image", "first dot", id="dotted-image"),
        pytest.param(sample(x1_jpg=b"i", x2_jpg=b"i"), "txt", "merged_names", "one sample", id="merged"),
        pytest.param(
            sample(jpg=b"i", json=b"{}"), "txt", "no_caption", "no .txt among jpg, json", id="no-caption"
        ),
        pytest.param(sample(jpg=b"i", txt=b""), "txt", "empty_caption", "", id="empty"),
        pytest.param(sample(jpg=b"i", txt=b" \t\r\n"), "txt", "empty_caption", "", id="blank"),
        pytest.param(sample(jpg=b"i", txt=b"\xff\xfe"), "txt", "caption_not_utf8", "0xff", id="not-utf8"),
        pytest.param(sample(jpg=b"i"), "json.text", "no_caption", "no field 'text'", id="no-json"),
        pytest.param(
            sample(jpg=b"i", json=b'{"a": 1, "b": 2}'), "json.text", "no_caption", "only a, b", id="no-field"
        ),
        pytest.param(
            sample(jpg=b"i", json=b'{"text": null}'), "json.text", "no_caption", "only text", id="null-field"
        ),
        pytest.param(
            sample(jpg=b"i", json=b'{"\\ud800": 1}'),
            "json.text",
            "no_caption",
            "\\ud800",
            id="field-a-surrogate",
        ),
        pytest.param(
            sample(jpg=b"i", json=b'{"text": ["x"]}'),
            "json.text",
            "caption_not_text",
            "list",
            id="list-field",
        ),
        pytest.param(
            sample(jpg=b"i", json=b'{"text": "\\ud800"}'), "json.text", "caption_not_utf8", "", id="surrogate"
        ),
        pytest.param(sample(jpg=b"i", json=b"{"), "json.text", "bad_json", "", id="json-cut"),
        pytest.param(
            sample(jpg=b"i", json=b"[]"), "json.text", "bad_json", "list, not an object", id="json-list"
        ),
        pytest.param(sample(jpg=b"i", json=b"[" * 99_999), "json.text", "bad_json", "", id="json-too-deep"),
        pytest.param(sample(jpg=b"i", json=b"\xff"), "json.text", "bad_json", "", id="json-not-utf8"),
    ],
)
def test_each_flaw_has_its_reason(given: Sample, caption: str, reason: str, told: str) -> None:
    """A sample without a pair says why, in a code and in words that a ledger can hold."""
    found = read(given, caption)
    assert isinstance(found, Unreadable)
    assert (found.key, found.offset, found.length) == ("a", 1024, 2048)
    assert found.reason == reason
    assert told in found.detail
    assert len(found.detail.encode()) < 2000


def test_a_bad_json_matters_only_where_it_is_needed() -> None:
    """A json that cannot be read is passed over unless captions come from it or scores go into it."""
    given = sample(jpg=b"i", txt=b"c", json=b"{not json")
    assert read(given) == Pair("a", memoryview(b"i"), "c", {})
    refused = read(given, needs_json=True)
    assert isinstance(refused, Unreadable)
    assert refused.reason == "bad_json"
