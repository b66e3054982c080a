"""Everything that a page shows of a run or a selection, gathered from its folder and, for pictures, from shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wdsfilter.events import read_events
from wdsfilter.report import duplicates, shares, speed, words
from wdsfilter.report.cards import Card, make_card, read_pair
from wdsfilter.report.figures import Figures
from wdsfilter.report.opened import Opened
from wdsfilter.report.picks import Picks, Place
from wdsfilter.report.strata import Strata
from wdsfilter.shards.source import Shard

_MOST_PICTURE_BYTES = 4_500_000


@dataclass(frozen=True, slots=True)
class Contents:
    """``cards`` are the shown samples; ``groups`` name them by their places in it, in the group's order.

    ``strata`` is there where the truth is what a person said of drawn pairs.
    """

    opened: Opened
    versions: Mapping[str, str]
    speed: speed.Speed
    figures: Figures
    strata: Strata | None
    shards: Sequence[shares.ShardShare]
    duplicates: duplicates.Duplicates
    vocabulary: words.Vocabulary
    cards: Sequence[Card]
    groups: Mapping[str, Sequence[int]]
    from_input: bool


def gather(opened: Opened, inputs: Sequence[Shard], seed: int) -> Contents:
    """Reads all ledgers once, and the picked samples."""
    ruler = opened.ruler
    figures, picks = Figures(ruler, opened.added), Picks(ruler, seed)
    strata = Strata(ruler) if ruler is not None and opened.truth.sampled else None
    for rows in opened.rows():
        figures.add(rows)
        picks.add(rows)
        if strata is not None:
            strata.add(rows)
    groups = picks.listed()
    compared = {group: set(groups.pop(group, [])) for group in ("kept", "dropped")}
    shown = {place for places in groups.values() for place in places}
    cards: dict[Place, Card] = {}
    captions: dict[str, list[str]] = {"kept": [], "dropped": []}
    held = 0
    for place, found in opened.find(inputs, shown | compared["kept"] | compared["dropped"]):
        pair = read_pair(opened.reader, found.sample)
        for verdict, texts in captions.items():
            if place in compared[verdict] and pair is not None and pair.caption:
                texts.append(pair.caption)
        if place in shown:
            truth = opened.truth.of(place[0], found.row)
            card = make_card(place[0], found, pair, ruler, truth, with_picture=held < _MOST_PICTURE_BYTES)
            held += len(card.picture.url) if card.picture else 0
            cards[place] = card
    order = sorted(cards, key=lambda place: (-cards[place].finest, place))
    numbers = {place: number for number, place in enumerate(order)}
    events = list(read_events(opened.folder.events))
    return Contents(
        opened,
        next((e["versions"] for e in reversed(events) if e["event"] == "loaded"), {}),
        speed.measure(events),
        figures,
        strata,
        shares.shares(opened.headers),
        duplicates.count(opened.ledgers.values(), opened.status.counts.samples),
        words.compare(captions["kept"], captions["dropped"]),
        [cards[place] for place in order],
        {group: [numbers[place] for place in places if place in numbers] for group, places in groups.items()},
        bool(inputs),
    )
