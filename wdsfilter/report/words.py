"""Which words the filter favours and which it removes, by the captions of a sample."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]{2,30}")
_FEWEST = 4
_MOST = 14


@dataclass(frozen=True, slots=True)
class Word:
    """A word, how many of the kept and of the other captions have it, and how surely it tells them apart.

    ``leaning`` is the log odds ratio in standard errors (half a caption added to each count): above 0 for a
    word of kept captions.
    """

    text: str
    kept: int
    others: int
    leaning: float


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words that lean most to either side, of so many captions each."""

    kept: int
    others: int
    favoured: Sequence[Word] = ()
    removed: Sequence[Word] = ()


def compare(kept: Sequence[str], others: Sequence[str]) -> Vocabulary:
    """The words of two lists of captions that tell them apart; a word counts once a caption."""
    with_word, without = (
        Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
        for texts in (kept, others)
    )
    words = [
        Word(
            text,
            with_word[text],
            without[text],
            _leaning(with_word[text], len(kept), without[text], len(others)),
        )
        for text in with_word.keys() | without.keys()
        if with_word[text] + without[text] >= _FEWEST
    ]
    words.sort(key=lambda word: (-word.leaning, word.text))
    favoured = [word for word in words[:_MOST] if word.leaning > 1]
    removed = [word for word in reversed(words[-_MOST:]) if word.leaning < -1]
    return Vocabulary(len(kept), len(others), favoured, removed)


def _leaning(a: int, of_a: int, b: int, of_b: int) -> float:
    if not of_a or not of_b:
        return 0.0
    first, second = a + 0.5, b + 0.5
    odds = math.log(first / (of_a - a + 0.5)) - math.log(second / (of_b - b + 0.5))
    return odds / math.sqrt(1 / first + 1 / second)
