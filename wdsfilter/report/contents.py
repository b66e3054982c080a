"""Everything that a page shows of a run, gathered from its folder and, for pictures, from shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from wdsfilter.demo.truth import COLUMN as TRUTH
from wdsfilter.errors import OutputError
from wdsfilter.events import read_events
from wdsfilter.ledger import Header
from wdsfilter.output import OutputFolder
from wdsfilter.pairs import PairReader
from wdsfilter.report import duplicates, shares, speed, words
from wdsfilter.report.cards import Card, make_card, read_pair
from wdsfilter.report.figures import Figures, read_batches
from wdsfilter.report.finding import Found, from_input, from_output
from wdsfilter.report.measures import find_ruler
from wdsfilter.report.picks import Picks, Place, read_picked
from wdsfilter.shards.source import Shard
from wdsfilter.status import Status, read_status
from wdsfilter.summary import Tally

_SCORE_MEMBER_BYTES = 1024
_MOST_PICTURE_BYTES = 4_500_000


@dataclass(frozen=True, slots=True)
class Contents:
    """``cards`` are the shown samples; ``groups`` name them by their places in it, in the group's order."""

    status: Status
    record: Mapping[str, Any]
    versions: Mapping[str, str]
    speed: speed.Speed
    figures: Figures
    shards: Sequence[shares.ShardShare]
    duplicates: duplicates.Duplicates
    vocabulary: words.Vocabulary
    cards: Sequence[Card]
    groups: Mapping[str, Sequence[int]]
    from_input: bool


def gather(folder: OutputFolder, inputs: Sequence[Shard], seed: int) -> Contents:
    """Reads all ledgers once, and the picked samples. Raises OutputError where ``folder`` is no run's."""
    status = read_status(folder)
    record = json.loads(folder.record.read_bytes())
    headers = dict(sorted(Tally(folder).refresh().headers.items()))
    ledgers = {name: folder.ledger(name) for name in headers}
    try:
        schema = pq.read_schema(next(iter(ledgers.values()))) if ledgers else None
        ruler = find_ruler(record, schema) if schema is not None else None
        has_member = record["output"]["shards"] and record["output"]["scores"] == "member"
        reader = PairReader(tuple(record["scoring"]["input"]["image"]), record["scoring"]["input"]["caption"])
    except (KeyError, TypeError) as error:
        raise OutputError(f"{folder.record}: not a record that this version reads ({error})") from error
    figures, picks = Figures(ruler, _SCORE_MEMBER_BYTES if has_member else 0), Picks(ruler, seed)
    for name, path in ledgers.items():
        for rows in read_batches(name, path, ruler):
            figures.add(rows)
            picks.add(rows)
    groups = picks.listed()
    compared = {group: set(groups.pop(group, [])) for group in ("kept", "dropped")}
    shown = {place for places in groups.values() for place in places}
    cards: dict[Place, Card] = {}
    captions: dict[str, list[str]] = {"kept": [], "dropped": []}
    held = 0
    for place, found in _find(
        folder, inputs, shown | compared["kept"] | compared["dropped"], ledgers, headers
    ):
        pair = read_pair(reader, found.sample)
        for verdict, texts in captions.items():
            if place in compared[verdict] and pair is not None and pair.caption:
                texts.append(pair.caption)
        if place in shown:
            truth = str(found.row.get(TRUTH) or "") if figures.with_truth else ""
            card = make_card(place[0], found, pair, ruler, truth, with_picture=held < _MOST_PICTURE_BYTES)
            held += len(card.picture.url) if card.picture else 0
            cards[place] = card
    order = sorted(cards, key=lambda place: (-cards[place].finest, place))
    numbers = {place: number for number, place in enumerate(order)}
    events = list(read_events(folder.events))
    return Contents(
        status,
        record,
        next((e["versions"] for e in reversed(events) if e["event"] == "loaded"), {}),
        speed.measure(events),
        figures,
        shares.shares(headers),
        duplicates.count(ledgers.values(), status.counts.samples),
        words.compare(captions["kept"], captions["dropped"]),
        [cards[place] for place in order],
        {group: [numbers[place] for place in places if place in numbers] for group, places in groups.items()},
        bool(inputs),
    )


def _find(
    folder: OutputFolder,
    inputs: Sequence[Shard],
    places: set[Place],
    ledgers: Mapping[str, Path],
    headers: Mapping[str, Header],
) -> Iterator[tuple[Place, Found]]:
    """Each of ``places`` with its sample, from the input shards where they are given."""
    urls = {shard.name: shard.url for shard in inputs}
    for name, here in groupby(read_picked(places, ledgers), key=lambda item: item[0][0]):
        rows = list(here)
        listed = [row for _, row in rows]
        if name in urls:
            found = from_input(urls[name], headers[name].input.size, listed)
        elif inputs:
            found = iter([Found(row, None, "its input shard is not among those given") for row in listed])
        else:
            found = from_output(folder.shard(name), listed)
        by_row = {id(row): place for place, row in rows}  # a key alone may be there twice
        for item in found:
            yield by_row[id(item.row)], item
