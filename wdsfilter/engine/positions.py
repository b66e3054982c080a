"""Where the tokens of packed rows stand, as multimodal rotary embeddings count it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    places = [np.broadcast_to(np.arange(head), (4, head)), *(_row(row)[:, head:] for row in rows)]
    return np.concatenate(places, axis=1)[:, None, :]


def _row(row: Row) -> npt.NDArray[np.int64]:
    high, wide = row.grid
    image = row.before + np.stack(
        [
            np.zeros(high * wide, dtype=np.int64),
            np.repeat(np.arange(high), wide),
            np.tile(np.arange(wide), high),
        ]
    )
    resume = row.before + max(high, wide)
    text = np.concatenate([np.arange(row.before), np.arange(resume, resume + row.after)])
    mrope = np.concatenate([_thrice(text[: row.before]), image, _thrice(text[row.before :])], axis=1)
    index = np.arange(row.trunk)
    parts = [np.concatenate([index[None], mrope])]
    for length in row.branches:
        steps = np.arange(length)
        parts.append(
            np.concatenate([(row.shared + steps)[None], _thrice(mrope[0, row.shared - 1] + 1 + steps)])
        )
    return np.concatenate(parts, axis=1)


def _thrice(line: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.broadcast_to(line, (3, len(line)))
