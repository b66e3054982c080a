"""Captions that cannot be read, and odd ones that can, as they lie in a shard."""

from __future__ import annotations

from collections.abc import Iterator

from tests.corpus import Case, beside_others, texts
from tests.shards import jpeg, tar_bytes

IMAGE = jpeg(5, 64, 64)


def cases() -> Iterator[Case]:
    """All of them."""
    for name, text, reason in _TEXTS:
        yield _case(name, [("txt", text)], reason)
    for name, members, reason in _MEMBERS:
        yield _case(name, members, reason)
    yield _all_texts()


def _case(name: str, members: list[tuple[str, bytes]], reason: str) -> Case:
    listed = [("case.jpg", IMAGE), *((f"case.{extension}", data) for extension, data in members)]
    return beside_others(f"caption/{name}", lambda: listed, reason)


_TEXTS: tuple[tuple[str, bytes, str], ...] = (
    ("empty", b"", "empty_caption"),
    ("blank", b" ", "empty_caption"),
    ("blanks-of-all-kinds", " \t\r\n\v\f\u00a0\u2003\u3000".encode(), "empty_caption"),
    ("byte-order-mark-alone", b"\xef\xbb\xbf", "empty_caption"),
    ("latin-1", "Ein Hündchen".encode("latin-1"), "caption_not_utf8"),
    ("utf-16", "A dog".encode("utf-16"), "caption_not_utf8"),
    ("utf-32", "A dog".encode("utf-32"), "caption_not_utf8"),
    ("shift-jis", "犬の写真".encode("shift-jis"), "caption_not_utf8"),
    ("utf-16-without-mark", "A dog".encode("utf-16-le"), ""),
    ("cut-inside-a-character", "A café".encode()[:-1], "caption_not_utf8"),
    ("continuation-alone", b"A \x80 dog", "caption_not_utf8"),
    ("overlong-slash", b"A \xc0\xaf dog", "caption_not_utf8"),
    ("overlong-nul", b"A \xc0\x80 dog", "caption_not_utf8"),
    ("surrogate", b"A \xed\xa0\x80 dog", "caption_not_utf8"),
    ("surrogate-pair-as-cesu-8", b"A \xed\xa0\xbd\xed\xb0\xb6 dog", "caption_not_utf8"),
    ("beyond-unicode", b"A \xf4\x90\x80\x80 dog", "caption_not_utf8"),
    ("five-bytes", b"A \xf8\x88\x80\x80\x80 dog", "caption_not_utf8"),
    ("ff", b"\xff" * 100, "caption_not_utf8"),
    ("jpeg", jpeg(), "caption_not_utf8"),
    ("pickle", b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "caption_not_utf8"),
    ("byte-order-mark", b"\xef\xbb\xbfA dog on a street.", ""),
    ("two-byte-order-marks", b"\xef\xbb\xbf\xef\xbb\xbfA dog on a street.", ""),
    ("nul", b"A dog\0on a street.", ""),
    ("nothing-but-nul", b"\0" * 50, ""),
    ("100-thousand-characters", b"A dog. " * 15_000, ""),
    ("10-million-characters", b"A dog. " * 1_500_000, ""),
    ("100-thousand-letters-without-a-blank", b"x" * 100_000, ""),
    ("100-thousand-combining-marks", ("e" + "\u0301" * 100_000).encode(), ""),
    ("100-thousand-line-breaks", b"A" + b"\n" * 100_000, ""),
)

_BAD = b'{"caption": '
_MEMBERS: tuple[tuple[str, list[tuple[str, bytes]], str], ...] = (
    ("missing", [("json", b"{}")], "no_caption"),
    ("in-another-member", [("caption", b"A dog.")], "no_caption"),
    ("beside-a-json-that-is-cut", [("txt", b"A dog on a street."), ("json", _BAD)], ""),
    ("beside-a-json-too-deep", [("txt", b"A dog on a street."), ("json", b"[" * 100_000)], ""),
    ("beside-a-json-of-a-list", [("txt", b"A dog on a street."), ("json", b"[1]")], ""),
    (
        "beside-a-huge-number",
        [("txt", b"A dog on a street."), ("json", b'{"uid": 1' + b"0" * 5000 + b"}")],
        "",
    ),
    (
        "beside-a-lone-surrogate",
        [("txt", b"A dog on a street."), ("json", b'{"uid": "\\ud800", "url": "\\udfff"}')],
        "",
    ),
    (
        "beside-not-a-number",
        [("txt", b"A dog on a street."), ("json", b'{"uid": NaN, "url": -Infinity}')],
        "",
    ),
    ("beside-a-key-twice", [("txt", b"A dog on a street."), ("json", b'{"uid": 1, "uid": 2}')], ""),
)


def _all_texts() -> Case:
    """Every caption of :mod:`tests.corpus.texts`, a sample each."""
    listed = texts.texts().values()
    rows = [
        f"{number:03}:empty_caption" if not text.strip() else f"{number:03}"
        for number, text in enumerate(listed)
    ]

    def build() -> bytes:
        return tar_bytes(
            member
            for number, text in enumerate(listed)
            for member in ((f"{number:03}.jpg", IMAGE), (f"{number:03}.txt", text.encode()))
        )

    return Case("caption/texts", build, tuple(rows))
