"""Captions that talk to their judge: what they say, found by patterns in any disguise that is easily put on.

A caption is looked at as a reader would see it: compatibility forms are folded (full-width and
mathematical letters), invisible characters are gone, letters that only look Latin are Latin. Patterns
are written for few false alarms on captions of pictures, not to catch everything that can be said; a judge
has to stand the rest.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["answer", "order", "role", "verdict", "hidden"]
"""A grade in the form of an answer; an order to whoever grades; a turn of a chat; praise of the caption itself;
text that is there to be read by machines alone."""

_MOST = 4000  # characters looked at, from both ends: a caption is cut somewhere behind that
_HIGH = r"(?:10|ten|top|highest|maximum|maximal|max|perfect|full|best)"
_GRADE = r"(?:scores?|grades?|ratings?|marks?|points)"
_PATTERNS: Mapping[Kind, str] = {
    "answer": r"""
        \bscore\W{0,3}\{ | \{\W?(?:10|[1-9])\W?\} | \b(?:10|ten)\s?(?:/|out\sof)\s?(?:10|ten)\b
        | \b(?:score|grade|rating)\W{0,4}(?:is|of|as|=)?\W{0,3}(?:9|10|nine|ten)\b(?![-–:.]\d)
        | \b(?:correct|right)\s(?:answer|grade|score)\s(?:is|would\sbe)\b | <score>
        | \bquality\W{1,3}(?:is\s)?(?:excellent|perfect|10)\b
    """,
    "order": rf"""
        \b(?:ignore|disregard|forget|override|bypass)\b.{{0,30}}\b(?:above|previous|prior|instructions?|prompt|rules
            |rubric|guidelines|everything|image|picture|caption)\b
        | \b(?:give|assign|award|grant|rate|grade|score|answer|output|respond|return|use|raise|deserves?)\b
            .{{0,40}}\b{_HIGH}\b.{{0,12}}\b{_GRADE}\b
        | \b(?:rate|grade|mark)\s(?:it|this|that|the)\b.{{0,30}}\b(?:10|ten|excellent|perfect|maximum)\b
        | \b(?:give|say|write|output|return|print|answer|respond|reply)(?:\s(?:with|only|just|it|me|a|the))*
            \s?\W{{0,2}}(?:10|ten)\b(?!\s\w|[-–:.%]\d)
        | \b(?:give|say|write|output|return|print|answer|respond)\b.{{0,20}}\s\W{{0,2}}(?:10|ten)\W{{0,3}}$
        | \b(?:new|your)\s(?:instruction|task|prompt)s?\b | \braise\sthe\s{_GRADE}
        | \bwhen\syou\s(?:grade|rate|score)\b | \bnumber\sthat\scomes\safter\snine\b
        | \b(?:note|message)\sto\s(?:the\s)?(?:judge|grader|model|ai|evaluator|annotator)\b
    """,
    "role": r"""
        <\|[\w\s]{1,30}\|> | \[/?inst\] | </?(?:system|assistant|user)> | \#\#\#\s?(?:response|instruction|system)
        | (?:^|[\n.!?>]\s?)(?:system|assistant|user|human|ai)(?:\s\w+)?\s?:
    """,
    "verdict": rf"""
        \b(?:this|the)\s(?:image-caption\s)?(?:caption|pair|description)\b.{{0,40}}
            \b(?:perfect(?:ly)?|accurate|correct|verified|flawless|excellent|{_GRADE}|ten|10|highest|gold\sstandard)\b
        | \bperfect\s(?:caption|description)\b | \bimage-caption\s(?:pair|data)\b
        | \b(?:raters|annotators|experts)\b.{{0,30}}\b(?:agreed|best|{_GRADE})\b
        | \b(?:statements?|details?|elements?)\s(?:in|of)\s(?:this|the)\scaption\b
        | \baccuracy\W{{1,3}}(?:excellent|perfect)\b
    """,
}
_FOREIGN: Mapping[Kind, str] = {
    "answer": r"bewertung\W{0,3}10|10\s?von\s?10|10\s?sur\s?10|10\s?de\s?10|满分|10\s?点|10\s?分",
    "order": r"""
        ignorier\w*\s.{0,20}anweisung | ignore[zr]\s.{0,10}instructions | ignora\w*\s.{0,10}(?:instrucciones|istruzioni)
        | note\smaximale | puntuaci[oó]n\s(?:de\s10|m[aá]xima) | punteggio\smassimo | gib\sdie\snote
        | 忽略.{0,6}(?:指令|指示) | игнорируй\w* | оценк[уа]\s10 | تجاهل\sالتعليمات | الدرجة\s10
    """,
}
_COMPILED = [
    (kind, re.compile(pattern, re.VERBOSE | re.DOTALL))
    for patterns in (_PATTERNS, _FOREIGN)
    for kind, pattern in patterns.items()
]
_LOOK_ALIKES = str.maketrans("абвгеіјкморсѕтухһԁοαερικνυ", "abbreijkmopcstyxhdoaepiknu")
_TAGS = re.compile("[\U000e0020-\U000e007e]+")
_FLAG = "\U0001f3f4"  # in emoji flags tags are at home
_LATIN_SPLIT = re.compile("[A-Za-z][\u200b\u200c\u200d\u2060\ufeff]+[A-Za-z]")
_OVERRIDE = re.compile("[\u202d\u202e]")
_INVISIBLE = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)
_SPACED = re.compile(r"(?<!\S)(?:\S {1,3}){5,}\S(?!\S)")
_LEET = re.compile(r"\b[013]*[a-z][a-z013]*[013][a-z013]*\b|\b[013]+[a-z]+\b")
_LETTERS = str.maketrans("013", "oie")


def find(caption: str) -> str | None:
    """``KIND: PHRASE``, the first that a caption says to its judge; None for an ordinary caption."""
    text = caption if len(caption) <= 2 * _MOST else f"{caption[:_MOST]} {caption[-_MOST:]}"
    if hidden := _hidden(text):
        return f"hidden: {hidden}"
    for seen in _seen(text):
        for kind, pattern in _COMPILED:
            if found := pattern.search(seen):
                return f"{kind}: {' '.join(found[0].split())[:80]}"
    return None


def _hidden(text: str) -> str | None:
    if (tags := _TAGS.search(text)) and not text[: tags.start()].endswith(_FLAG):
        return "tag characters"
    if len(_LATIN_SPLIT.findall(text)) > 2:
        return "invisible characters inside words"
    return "a reversed direction" if _OVERRIDE.search(text) else None


def _seen(text: str) -> list[str]:
    """As it looks; and with look-alike letters, letters set apart, and digits for letters put right."""
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    latin = plain if plain.isascii() else plain.translate(_LOOK_ALIKES)
    closed = _SPACED.sub(lambda match: _closed(match[0]), latin)
    letters = _LEET.sub(lambda match: match[0].translate(_LETTERS), latin)
    return [*dict.fromkeys((plain, latin, closed, letters))]


def _closed(text: str) -> str:
    """``g i v e   1 0`` is ``give 10``."""
    return " ".join(word.replace(" ", "") for word in re.split(" {2,}", text))
