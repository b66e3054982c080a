"""What a selection asks for, as it was said; ``select.json`` records it with files by their content."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from wdsfilter.errors import QuestionError
from wdsfilter.fingerprint import Record
from wdsfilter.summary import file_sha256

MAX_NEAR = 15
"""Perceptual hashes have 64 bits; two that differ in more say nothing about each other."""

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(%?)")
_DRAWN = 1 << 128


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of samples, or a share of them (``18%``)."""

    text: str

    def __post_init__(self) -> None:
        match = _AMOUNT.fullmatch(self.text)
        if match is None or (not match[2] and "." in match[1]) or (match[2] and Fraction(match[1]) > 100):
            raise QuestionError(f"{self.text!r} is neither a number of samples nor a share such as 18%")

    @property
    def share(self) -> Fraction | None:
        return Fraction(self.text[:-1]) / 100 if self.text.endswith("%") else None

    def of(self, total: int) -> int:
        """So many of ``total``, rounded down."""
        return int(self.text) if self.share is None else int(self.share * total)


@dataclass(frozen=True, slots=True)
class Question:
    """Which samples. Applied in the order of these fields; without ``where`` and ``top``: what the run kept.

    ``near`` is the largest Hamming distance of perceptual hashes that makes duplicates, ``drop_on`` the
    ledger column that ``drop_keys`` lists values of, ``by`` the expression that says which is better.
    """

    where: str | None = None
    keys: Path | None = None
    drop_keys: Path | None = None
    drop_on: str = "key"
    drop_duplicates: bool = False
    near: int | None = None
    top: Amount | None = None
    by: str | None = None
    sample: Amount | None = None
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sample is not None and self.sample.share is None:
            raise QuestionError(f"--sample {self.sample.text}: expected a share such as 5%")
        if self.near is not None and not 0 <= self.near <= MAX_NEAR:
            raise QuestionError(f"--near {self.near}: expected 0 to {MAX_NEAR} of 64 bits")

    def record(self, by: str | None) -> Record:
        """Everything that changes the answer; ``by`` as it was understood."""
        return {
            "where": self.where,
            "keys": _content(self.keys),
            "drop_keys": _content(self.drop_keys),
            "drop_on": self.drop_on if self.drop_keys else None,
            "drop_duplicates": self.drop_duplicates,
            "near": self.near,
            "top": self.top.text if self.top else None,
            "by": by,
            "sample": self.sample.text if self.sample else None,
            "shuffle": self.shuffle,
            "seed": self.seed if self.sample or self.shuffle else None,
        }


def draw_below(share: Fraction) -> str:
    """The 32 hexadecimal digits that a share of all MD5 sums is below; all of them for the whole."""
    bound = int(share * _DRAWN)
    return "g" if bound >= _DRAWN else f"{bound:032x}"


def _content(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return file_sha256(path)
    except OSError as error:
        raise QuestionError(f"{path}: {error.strerror}") from error


def lines(path: Path) -> list[str]:
    """The lines of a list, without blank ones. Raises QuestionError."""
    try:
        text = path.read_text("utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        raise QuestionError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise QuestionError(f"{path}: not UTF-8 ({error.reason})") from error
    return [line for line in text.split("\n") if line.strip()]


def seeded(seed: int, purpose: str) -> str:
    """A prefix that makes draws of one seed for different purposes independent."""
    return hashlib.sha256(f"{seed}:{purpose}".encode()).hexdigest()[:16]
