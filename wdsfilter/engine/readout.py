"""The grades of a scale as a tree of tokens after a forced start, and what its probabilities say.

After ``score: {`` the grades 1 to 10 are the tokens ``1`` .. ``9`` and the pair ``1``, ``0``: a tree
with two inner nodes. One forward pass over ``score: {`` + ``1`` reads both: the last token of the
start gives P(first digit), the ``1`` gives P(0 | 1). So P(10) = P(1) P(0 | 1), and
P(1) = P(1) (1 - P(0 | 1)): whatever else follows ends the grade. The closing brace is never read,
since it merges with a line break after it.

Other scales have the same shape with more inner nodes (0 to 100 has eleven). Those that do not lie
on one path become branches: a few more tokens at the end of the row, each branch seeing the prompt
and itself only (:mod:`wdsfilter.engine.attention`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wdsfilter.errors import JudgeError

Path = tuple[int, ...]

LogP = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""Of one row: log-probabilities [nodes, tokens] over the whole vocabulary, and the argmax [nodes]."""


def by_row(log_p: npt.NDArray[np.float32], best: npt.NDArray[np.int64], nodes: int) -> list[LogP]:
    """Of each row, where those of all rows lie one after the other."""
    return [(log_p[i : i + nodes], best[i : i + nodes]) for i in range(0, len(log_p), nodes)]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one row says: ``index`` of the greedy grade (None: it would say something else),
    probabilities ``p`` over the grades (they sum to 1; None when no grade has any), ``missing`` mass."""

    index: int | None
    p: tuple[float, ...] | None
    missing: float


@dataclass(frozen=True, slots=True)
class Readout:
    """Where to read the grades of a scale.

    ``trunk`` follows the prompt; its first ``shared`` ids are the forced start, which every one of
    ``branches`` continues. ``nodes`` are the tree's inner nodes as paths after the start, ``slots``
    where each is read (an index counted from the end of the prompt: 0 is the first forced token),
    ``tokens`` all ids that the tree needs at its nodes, ``grades`` the grades' own paths.
    """

    trunk: Path
    shared: int
    branches: tuple[Path, ...]
    nodes: tuple[Path, ...]
    slots: tuple[int, ...]
    tokens: Path
    grades: tuple[Path, ...]

    @property
    def forced(self) -> Path:
        """Everything that is put after a prompt, branches included."""
        return (*self.trunk, *(token for branch in self.branches for token in branch))

    def read(self, log_p: npt.NDArray[np.float32], best: npt.NDArray[np.int64]) -> Reading:
        """Grades from ``log_p`` [nodes, tokens] over the whole vocabulary and argmax ``best`` [nodes]."""
        column = {token: i for i, token in enumerate(self.tokens)}
        row = {node: i for i, node in enumerate(self.nodes)}
        children = {
            node: {path[len(node)] for path in self.grades if _continues(path, node)} for node in self.nodes
        }

        def p(node: Path, token: int) -> float:
            return math.exp(float(log_p[row[node], column[token]]))

        masses = []
        for path in self.grades:
            mass = math.prod(p(path[:i], path[i]) for i in range(len(path)))
            if path in row:  # a longer grade begins with this one: it ends here unless that goes on
                mass *= max(0.0, 1.0 - math.fsum(p(path, token) for token in sorted(children[path])))
            masses.append(mass)
        total = math.fsum(masses)

        greedy: Path = ()
        while greedy in row and int(best[row[greedy]]) in children[greedy]:
            greedy = (*greedy, int(best[row[greedy]]))
        index = self.grades.index(greedy) if greedy in self.grades else None
        if not total > 0.0:
            return Reading(None, None, 1.0)
        return Reading(index, tuple(mass / total for mass in masses), min(1.0, max(0.0, 1.0 - total)))


def build_readout(
    encode: Callable[[str], list[int]], start: str, grades: Sequence[str], line: str = "assistant\n"
) -> Readout:
    """The readout of ``grades`` (as an answer writes them) after the forced ``start``.

    ``encode`` gives the ids of text, ``line`` is what the prompt ends with ("" where ``encode`` knows it).

    Raises JudgeError when the start does not keep its tokens in front of every grade, or two grades share
    theirs: then there is no tree to read.
    """
    prefix = tuple(encode(start))
    if (*encode(line), *prefix) != tuple(encode(line + start)):
        raise JudgeError(
            f"answer {start!r} merges with the line break before it; it should begin with a letter"
        )
    paths: list[Path] = []
    for grade in grades:
        whole = tuple(encode(start + grade))
        if whole[: len(prefix)] != prefix or len(whole) == len(prefix):
            raise JudgeError(
                f"answer {start!r} does not keep its tokens before the grade {grade!r}; "
                "move a space at its end to the front of the grades"
            )
        paths.append(whole[len(prefix) :])
    if len(set(paths)) < len(paths):
        raise JudgeError(f"grades {', '.join(grades)} are not told apart by their tokens")

    nodes = sorted({path[:i] for path in paths for i in range(len(path))}, key=lambda node: (len(node), node))
    tips = [
        node for node in reversed(nodes) if not any(_continues(other, node) for other in nodes)
    ]  # longest first
    slots = []
    for node in nodes:
        at = len(prefix) - 1
        for tip in tips:
            if tip[: len(node)] == node:
                slots.append(at + len(node))
                break
            at += len(tip)
    return Readout(
        trunk=prefix + tips[0],
        shared=len(prefix),
        branches=tuple(tips[1:]),
        nodes=tuple(nodes),
        slots=tuple(slots),
        tokens=tuple(sorted({token for path in paths for token in path})),
        grades=tuple(paths),
    )


def _continues(path: Path, node: Path) -> bool:
    return len(path) > len(node) and path[: len(node)] == node
