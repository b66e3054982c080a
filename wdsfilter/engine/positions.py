"""Where the tokens of packed rows stand, as multimodal rotary embeddings count it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a pack: ``before`` text tokens, an image of ``grid`` visual tokens (rows, columns),
    ``after`` text tokens, then ``branches`` of that many tokens each, which all continue where the
    first ``shared`` tokens of the row end."""

    before: int
    grid: tuple[int, int]
    after: int
    shared: int = 0
    branches: tuple[int, ...] = ()

    @property
    def trunk(self) -> int:
        """Tokens of the row without its branches."""
        return self.before + self.grid[0] * self.grid[1] + self.after

    @property
    def length(self) -> int:
        """All tokens of the row."""
        return self.trunk + sum(self.branches)


def positions(rows: Sequence[Row], head: int = 0) -> npt.NDArray[np.int64]:
    """Position ids [4, 1, L] of rows packed one after the other: text index, then time, height, width.

    The first ``head`` tokens, which are text and the same in all rows, come once, in front of them.

    Text has one number in all four. An image starts where the text before it ends and stands still in
    time; the text after it goes on from one past its largest position. Every row starts at 0.
    (Qwen2-VL, section 2.1; the text index in front is transformers' convention for packed rows.)
    """
    found = np.empty((4, head + sum(row.length - head for row in rows)), dtype=np.int64)
    found[:, :head] = np.arange(head)
    at = head
    for row in rows:
        _place(row, head, found[:, at : at + row.length - head])
        at += row.length - head
    return found[:, None, :]


def _place(row: Row, head: int, found: npt.NDArray[np.int64]) -> None:
    """Fill in one row's positions [4, tokens of it without the ``head``]."""
    high, wide = row.grid
    image, text = row.before - head, row.before - head + high * wide
    trunk = row.trunk - head
    found[:, :image] = np.arange(head, row.before)
    found[0, image:trunk] = np.arange(row.before, row.trunk)
    found[1:, image:text] = _image(row.grid) + row.before
    resume = row.before + max(high, wide)
    found[1:, text:trunk] = np.arange(resume, resume + row.after)
    at = trunk
    for length in row.branches:
        found[:, at : at + length] = found[:, row.shared - head - 1, None] + np.arange(1, length + 1)
        at += length


@lru_cache(maxsize=4096)
def _image(grid: tuple[int, int]) -> npt.NDArray[np.int64]:
    """[3, visual tokens]: time, row, column."""
    return np.stack([np.zeros(grid, dtype=np.int64), *np.indices(grid)]).reshape(3, -1)
