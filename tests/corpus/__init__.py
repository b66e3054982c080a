"""Bad input, generated: named shards, and what the ledger of each must say.

    tars.py       what is wrong with an archive
    images.py     what is wrong (or odd, and right) with an image
    captions.py   what is wrong (or odd, and right) with a caption
    texts.py      captions that try to be more than text

One case is one shard. To add one, add it to its module's ``cases``; ``test_corpus.py`` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.shards import jpeg, tar_bytes


@dataclass(frozen=True, slots=True)
class Case:
    """A shard, as bytes made by ``build``, and its ledger: ``rows`` in order, then ``damage``.

    A row is ``KEY`` of a sample that was judged and ``KEY:REASON`` of one that was not;
    ``damage`` is a reason, or empty.
    """

    name: str
    build: Callable[[], bytes]
    rows: tuple[str, ...]
    damage: str = ""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why something of it was not kept, or was not there."""
        return tuple(row.rpartition(":")[2] for row in self.rows if ":" in row) + (self.damage,) * bool(
            self.damage
        )


def unique(cases: Iterator[Case]) -> dict[str, Case]:
    """Cases by their name, which is their own."""
    found: dict[str, Case] = {}
    for case in cases:
        assert case.name not in found, f"two cases are called {case.name}"
        found[case.name] = case
    return found


BEFORE, AFTER = "before", "later"
"""Keys of the sound samples beside one that is looked at."""


def beside_others(name: str, members: Callable[[], list[tuple[str, bytes]]], reason: str) -> Case:
    """A shard of a sample ``case`` between two sound ones; it is judged where there is no ``reason``."""

    def build() -> bytes:
        around = {
            key: [(f"{key}.jpg", jpeg(number, 64, 48)), (f"{key}.txt", b"A picture beside another one.")]
            for number, key in enumerate((BEFORE, AFTER))
        }
        return tar_bytes([*around[BEFORE], *members(), *around[AFTER]])

    return Case(name, build, (BEFORE, f"case:{reason}" if reason else "case", AFTER))
