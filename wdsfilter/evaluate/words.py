"""Defects of a caption: a caption -> the same one with one thing wrong, or None where that cannot be done.

Rules of thumb for English captions, made to be wrong surely rather than to be found everywhere: a
colour in a name, ``left`` as a verb or a year are let be.
"""

from __future__ import annotations

import random
import re

_SHADES = {
    "red": ("red", "crimson", "scarlet", "maroon"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green", "turquoise", "teal"),
    "blue": ("blue", "navy", "cyan"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "magenta"),
    "brown": ("brown", "beige", "tan"),
    "black": ("black",),
    "white": ("white",),
    "grey": ("grey", "gray", "silver"),
}
_HUE_OF = {word: hue for hue, words in _SHADES.items() for word in words}
_NEAR = (
    {"red", "orange", "pink", "brown"},
    {"orange", "yellow", "brown"},
    {"green", "blue"},
    {"blue", "purple", "black"},
    {"purple", "pink"},
    {"brown", "black"},
    {"black", "grey"},
    {"grey", "white"},
    {"yellow", "white"},
)  # what somebody might call by the other's name
_SMALL = {"with", "from", "over", "into", "near", "under", "behind", "above", "below"}  # in titles too
_COLOUR = re.compile(rf"\b({'|'.join(_HUE_OF)})\b", re.IGNORECASE)

_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NEARBY = 3  # a number is replaced by one so near: twelve dogs in place of two would be too easy
_NUMBER = re.compile(
    rf"\b({'|'.join(_NUMBERS)})\b|(?<![\w.,:/$€£#+-])\d{{1,2}}(?![\w%°]|[.,:/-]\d)", re.IGNORECASE
)

_LEFT, _TOP = {"left": "right", "right": "left"}, {"top": "bottom", "bottom": "top"}
_FRONT = {"in front of": "behind", "behind": "in front of"}
_GROUND = {"foreground": "background", "background": "foreground"}
_ON_THE = "(?:" + "|".join(rf"(?<=\b{word} the )" for word in ("on", "to", "at", "in", "from")) + ")"
_SIDES = (
    (rf"{_ON_THE}(left|right)(?=[\s,.;)]|$)", _LEFT),
    (r"(?<!the )\b(left|right)(?= (?:side|hand|corner|half|edge|of)\b)", _LEFT),
    (rf"{_ON_THE}(top|bottom)(?=[\s,.;)]|$)", _TOP),
    (r"\b(above|below)(?= (?:the|a|an|it|him|her|them|his|their)\b)", {"above": "below", "below": "above"}),
    (r"\b(in front of|behind)(?= (?!the scenes|bars)\w)", _FRONT),
    (r"(?<=\bin the )(foreground|background)\b", _GROUND),
)  # what says where something is, and the opposite of each

_BOILERPLATE = (
    "Click here to subscribe to our newsletter and get 10% off your first order",
    "Buy now! Free shipping on all orders over $50",
    "Image may be subject to copyright. All rights reserved.",
    "This website uses cookies to ensure you get the best experience",
    "Share this: Facebook Twitter Pinterest WhatsApp Email",
    "404 - The page you are looking for could not be found",
    "Add to cart | Add to wishlist | Compare",
    "Log in or sign up to leave a comment",
    "Posted by admin on March 3, 2016 | Leave a comment | Read more »",
    "Privacy Policy | Terms of Service | Contact Us",
)
_GENERIC = (
    *(
        "image",
        "photo",
        "picture",
        "a photo",
        "an image",
        "a picture",
        "stock photo",
        "an image of something",
    ),
    *("photo of the day", "a nice picture", "gallery image", "this is a photo"),
)


def colour(caption: str, rng: random.Random) -> str | None:
    """One colour word becomes another one, far from it and not in the caption already."""
    found = [match for match in _COLOUR.finditer(caption) if not _is_name(caption, match)]
    if not found:
        return None
    match = rng.choice(found)
    named = {_HUE_OF[other[1].lower()] for other in _COLOUR.finditer(caption)}
    hue = _HUE_OF[match[1].lower()]
    far = [
        other for other in _SHADES if other not in named and not any({hue, other} <= near for near in _NEAR)
    ]
    return _replaced(caption, match, rng.choice(far)) if far else None


def count(caption: str, rng: random.Random) -> str | None:
    """One number, from two to twelve in words or of one or two digits, becomes one near it."""
    found = [match for match in _NUMBER.finditer(caption) if match[0] not in ("0", "00")]
    if not found:
        return None
    match = rng.choice(found)
    if match[1]:
        place = _NUMBERS.index(match[1].lower())
        near = [*_NUMBERS[max(0, place - _NEARBY) : place], *_NUMBERS[place + 1 : place + 1 + _NEARBY]]
        return _replaced(caption, match, rng.choice(near))
    value, least = int(match[0]), 2 if len(match[0]) == 1 else 10
    most = 10 ** len(match[0]) - 1
    around = range(max(least, value - _NEARBY), min(most, value + _NEARBY) + 1)
    return _replaced(caption, match, str(rng.choice([n for n in around if n != value])))


def position(caption: str, rng: random.Random) -> str | None:
    """One left, top, above, in front of, foreground (or its opposite) becomes its opposite."""
    found = [
        (match, opposites)
        for pattern, opposites in _SIDES
        for match in re.finditer(pattern, caption, re.IGNORECASE)
    ]
    if not found:
        return None
    match, opposites = rng.choice(found)
    return _replaced(caption, match, opposites[match[1].lower()])


def cut(caption: str, rng: random.Random) -> str | None:
    """The caption ends in its middle; one of fewer than six words has none."""
    words = caption.split()
    if len(words) < 6:
        return None
    end = rng.randint(len(words) * 2 // 5, len(words) * 3 // 5)
    return " ".join(words[:end]).rstrip(".,;:!?- ") or None


def shuffled(caption: str, rng: random.Random) -> str | None:
    """The caption's words in an order in which few stand where they stood; of five words or more."""
    words = caption.split()
    if len(words) < 5:
        return None
    for _ in range(20):
        mixed = rng.sample(words, len(words))
        if sum(a == b for a, b in zip(words, mixed, strict=True)) <= len(words) // 4:
            return " ".join(mixed)
    return None


def boilerplate(caption: str, rng: random.Random) -> str | None:
    """What web pages say around their images."""
    return rng.choice(_BOILERPLATE)


def generic(caption: str, rng: random.Random) -> str | None:
    """True of every image."""
    return rng.choice(_GENERIC)


def file_name(caption: str, rng: random.Random) -> str | None:
    """What a camera, a phone or a page called the file."""
    number, day = (
        rng.randrange(10_000),
        f"20{rng.randint(8, 23):02}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
    )
    return rng.choice(
        (
            f"IMG_{number:04}.jpg",
            f"DSC{number:05}.JPG",
            f"image{number % 100:03}.png",
            f"Screenshot {day} at {rng.randint(10, 23)}.{rng.randint(10, 59)}.{rng.randint(10, 59)}.png",
            f"{rng.getrandbits(64):016x}.jpg",
            f"untitled-{number % 20}_final_{rng.choice((640, 800, 1024))}x{rng.choice((480, 600, 768))}.jpeg",
            f"{day.replace('-', '')}_{number:04}",
        )
    )


def differs(caption: str, other: str) -> bool:
    """Whether two captions differ in more than case and spaces."""
    return caption.casefold().split() != other.casefold().split()


def is_far(caption: str, other: str) -> bool:
    """Whether two captions share less than a quarter of the long words of either."""
    one, two = ({w for w in re.findall(r"\w+", text.casefold()) if len(w) > 3} for text in (caption, other))
    return 4 * len(one & two) < min(len(one), len(two))


def _is_name(caption: str, match: re.Match[str]) -> bool:
    """Whether a word is capitalised within a caption that is not: ``White House``, ``Mr Brown``."""
    if not match[0][0].isupper() or not caption[: match.start()].strip(" \"'(") or match[0].isupper():
        return False
    words = [word for word in caption.split() if len(word) > 3 and word[0].isalpha()]
    return not all(word[0].isupper() or word in _SMALL for word in words)


def _replaced(caption: str, match: re.Match[str], word: str) -> str:
    """``word`` in the match's place, capitalised like it, with the article in front of it put right."""
    if match[0].isupper() and len(match[0]) > 1:
        word = word.upper()
    elif match[0][0].isupper():
        word = word[0].upper() + word[1:]
    before = caption[: match.start()]
    if article := re.search(r"\b(an?)(\s+)$", before, re.IGNORECASE):
        an = article[1][0] + ("n" if word[0].lower() in "aeiou" else "")
        before = before[: article.start()] + an + article[2]
    return before + word + caption[match.end() :]
