"""A page to grade drawn pairs on, without seeing what a judge said of them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wdsfilter.errors import BadImage, InputError
from wdsfilter.evaluate.labels import file_head
from wdsfilter.report import html
from wdsfilter.report.cards import Thumbnail, cut, read_pair, thumbnail
from wdsfilter.report.opened import Opened
from wdsfilter.report.picks import Place, chances
from wdsfilter.report.strata import strata, stratum_names
from wdsfilter.shards.source import Shard

_MOST_BYTES = 5_500_000  # of pictures; written as text they take a third more
_BYTES_PER_PIXEL = 0.2
_SIDES = (160, 560)


@dataclass(frozen=True, slots=True)
class Item:
    """A pair to grade."""

    shard: str
    key: str
    caption: str
    picture: Thumbnail


def render(opened: Opened, inputs: Sequence[Shard], count: int, seed: int) -> bytes:
    """The page, as UTF-8, with ``count`` pairs at most. Raises InputError without the input
    shards, for kept pairs alone would say nothing of the others."""
    head = file_head(opened.scoring)
    if not inputs:
        raise InputError("the output has kept pairs only: give the run's input shards with --shards")
    items = _items(opened, inputs, draw(opened, count, seed))
    if not items:
        raise InputError("no drawn pair can be shown; give the run's input shards with --shards")
    random.Random(f"{seed}:order").shuffle(items)
    digest = hashlib.sha256("\n".join([head, *(f"{i.shard}\t{i.key}" for i in items)]).encode()).hexdigest()
    data = {
        "head": head,
        "store": f"wdsfilter-labels-{digest[:16]}",
        "items": [{"shard": item.shard, "key": item.key} for item in items],
    }
    return html.render("label", data, items=items)


def draw(opened: Opened, count: int, seed: int) -> set[Place]:
    """``count`` readable samples, drawn by a seed at random from each stratum."""
    ruler = opened.ruler
    drawn: list[list[tuple[float, Place]]] = [[] for _ in stratum_names(ruler)]
    sizes = [0] * len(drawn)
    for rows in opened.rows():
        where, chance = strata(rows, ruler), chances(rows, f"label:{seed}")
        for number, found in enumerate(drawn):
            here = np.flatnonzero(where == number)
            sizes[number] += len(here)
            foremost = here[np.argsort(chance[here], kind="stable")[:count]]
            found += [(float(chance[row]), (rows.shard, rows.first + int(row))) for row in foremost]
            found.sort()
            del found[count:]
    shares = _shares(sizes, count)
    return {place for found, share in zip(drawn, shares, strict=True) for _, place in found[:share]}


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """``count`` dealt out to strata of these ``sizes`` by the square roots of their sizes (Bankier, 1988):
    neither are seldom grades left out, nor does one label stand for most of the run."""
    shares = [0] * len(sizes)
    for _ in range(min(count, sum(sizes))):
        open_ones = [number for number, size in enumerate(sizes) if shares[number] < size]
        shares[min(open_ones, key=lambda number: (shares[number] + 1) / sizes[number] ** 0.5)] += 1
    return shares


def _items(opened: Opened, inputs: Sequence[Shard], places: set[Place]) -> list[Item]:
    side = int((_MOST_BYTES / max(len(places), 1) / _BYTES_PER_PIXEL) ** 0.5)
    side = min(max(side, _SIDES[0]), _SIDES[1])
    items: dict[Place, Item] = {}
    for (shard, row), found in opened.find(inputs, places):
        pair = read_pair(opened.reader, found.sample)
        if pair is None or not pair.caption:
            continue
        try:
            items[shard, row] = Item(shard, pair.key, cut(pair.caption, 2000), thumbnail(pair.image, side))
        except BadImage:
            continue
    return [items[place] for place in sorted(items)]
