"""A data set's card, made of what a folder records: what was judged by what, and what became of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

import wdsfilter
from wdsfilter.counted import counted
from wdsfilter.ledger import Counts
from wdsfilter.push.target import Target
from wdsfilter.report.opened import Opened

_BEGIN, _END = "<!-- begin: wdsfilter -->", "<!-- end: wdsfilter -->"
_BARS = 20
_WIDTH = 30  # characters of the longest bar


@dataclass(frozen=True, slots=True)
class Bar:
    """So many judged pairs, and kept ones among them, whose value is from ``low`` to below ``high``."""

    low: float
    high: float
    judged: int
    kept: int


def card(opened: Opened, target: Target, counts: Counts, filled: int) -> str:
    """The part of the card that is generated, between two marks.

    Of a run that is not finished it speaks of what ``counts`` counts. ``filled`` shards are in its fill.
    """
    environment = Environment(
        loader=PackageLoader("wdsfilter.push"),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    bars = _histogram(opened)
    longest = max((bar.judged for bar in bars), default=1)
    text = environment.get_template("card.md").render(
        target=target,
        prefix=target.path(""),
        counts=counts,
        filled=counted(filled, "shard") if filled else "",
        status=opened.status,
        selection=opened.is_selection,
        order=opened.order,
        record=json.dumps(opened.record, indent=2, ensure_ascii=False).replace("~~~", "~ ~ ~"),
        fingerprints=opened.record.get("fingerprints", {}),
        measure=opened.ruler.main.label if opened.ruler else "",
        judge=opened.ruler.judge if opened.ruler else "",
        bars=[(bar, "█" * round(_WIDTH * bar.judged / longest)) for bar in bars],
        version=wdsfilter.__version__,
    )
    return f"{_BEGIN}\n{text.strip()}\n{_END}\n"


def merged(old: str, generated: str) -> str:
    """A card with its generated part renewed; front matter and text of its owner's stay as they are."""
    if not old.strip():
        return _FRONT_MATTER + generated
    before, begin, rest = old.partition(_BEGIN)
    if not begin:
        return f"{old.rstrip()}\n\n{generated}"
    _, end, after = rest.partition(_END)
    return before + generated.rstrip("\n") + (after if end else "\n")


_FRONT_MATTER = """---
tags:
- webdataset
- image-text
configs:
- config_name: default
  data_files: "**/*.tar"
---
"""


def _histogram(opened: Opened) -> list[Bar]:
    """What all judged pairs were given by the measure that the recipe keeps by, in at most so many bars."""
    ruler = opened.ruler
    if ruler is None:
        return []
    edges = np.asarray(ruler.main.edges)
    judged, kept = (np.zeros(len(edges), np.int64) for _ in range(2))
    for rows in opened.rows():
        values = rows.measures[ruler.main.name]
        known = ~np.isnan(values)
        places = ruler.main.places(values[known])
        judged += np.bincount(places, minlength=len(edges))
        kept += np.bincount(places[rows.kept[known]], minlength=len(edges))
    step = -(-len(edges) // _BARS)
    bars = []
    for first in range(0, len(edges), step):
        high = edges[min(first + step, len(edges) - 1)]
        part = slice(first, first + step)
        bars.append(Bar(edges[first], high, int(judged[part].sum()), int(kept[part].sum())))
    filled = [number for number, bar in enumerate(bars) if bar.judged]
    return bars[filled[0] : filled[-1] + 1] if filled else []
