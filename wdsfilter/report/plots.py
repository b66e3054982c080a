"""Figures -> shapes for the page's drawings: numbers and path strings, never markup.

Coordinates are those of an SVG's viewBox, y downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wdsfilter.report.figures import Ints, bin_edges

WIDTH, HEIGHT = 520, 190
HERO_WIDTH, HERO_HEIGHT = 1000, 100


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram from ``low`` to below ``high``."""

    x: float
    y: float
    width: float
    height: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis, and what is written there; ``minor`` ones give way on a phone."""

    at: float
    text: str
    minor: bool = False


_PERCENT = tuple(Tick(round((1 - n / 4) * HEIGHT, 1), f"{25 * n} %", bool(n % 2)) for n in range(5))


@dataclass(frozen=True, slots=True)
class Chart:
    """Paths in a box of :data:`WIDTH` by :data:`HEIGHT`, with their axes."""

    paths: tuple[str, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]


def bars(edges: Sequence[float], counts: Ints, most: int, upper: float, *, rooted: bool = False) -> list[Bar]:
    """A histogram of at most ``most`` bars over a box of :data:`HERO_WIDTH` by :data:`HERO_HEIGHT`.

    ``edges`` are lower edges; the last bar ends at ``upper``. ``rooted`` heights are square roots of counts.
    """
    lowest = edges[0]
    span = (upper - lowest) / most
    places = np.clip(((np.asarray(edges) - lowest) / span + 1e-9).astype(int), 0, most - 1)
    sums = np.bincount(places, counts, most)
    highest = max(float(sums.max(initial=0)), 1.0)
    width = HERO_WIDTH / most
    found = []
    for place, count in enumerate(sums):
        part = float(count) / highest
        height = round((part**0.5 if rooted else part) * HERO_HEIGHT, 2)
        low = round(lowest + place * span, 6)
        found.append(
            Bar(
                round(place * width + 0.08 * width, 2),
                round(HERO_HEIGHT - height, 2),
                round(0.84 * width, 2),
                height,
                low,
                round(low + span, 6),
                int(count),
            )
        )
    return found


def line(xs: Sequence[float], ys: Sequence[float], x_ticks: Sequence[Tick] = ()) -> Chart:
    """A line through points with x from 0 to 1 and y from 0 to 1, y read in percent."""
    return Chart(
        (_path([(x * WIDTH, (1 - y) * HEIGHT) for x, y in zip(xs, ys, strict=True)]),),
        tuple(x_ticks),
        _PERCENT,
    )


def bands(
    xs: Sequence[float],
    series: Sequence[Sequence[tuple[float, float, float] | None]],
    x_ticks: Sequence[Tick] = (),
) -> Chart:
    """Lines with their intervals, x and y from 0 to 1: for each of ``series`` first its area, then its line."""
    paths = []
    for values in series:
        there = [(x * WIDTH, ends) for x, ends in zip(xs, values, strict=True) if ends is not None]
        upper = [(x, (1 - high) * HEIGHT) for x, (_, _, high) in there]
        lower = [(x, (1 - low) * HEIGHT) for x, (low, _, _) in reversed(there)]
        paths += [_path([*upper, *lower]), _path([(x, (1 - middle) * HEIGHT) for x, (_, middle, _) in there])]
    return Chart(tuple(paths), tuple(x_ticks), _PERCENT)


def compared(counts: Ints) -> Chart | None:
    """Two logarithmic histograms [2, bins], each as shares of its own; None without anything to show.

    First the area of kept samples, then the line of the others.
    """
    seen = np.flatnonzero(counts.sum(axis=0))
    if not len(seen):
        return None
    first, last = max(int(seen[0]) - 1, 0), min(int(seen[-1]) + 2, counts.shape[1])
    shown = counts[:, first:last].astype(float)
    parts = shown / np.maximum(shown.sum(axis=1, keepdims=True), 1)
    highest = float(parts.max()) or 1.0
    step = WIDTH / (last - first)
    paths = []
    for half in parts:
        points = [(0.0, float(HEIGHT))]
        for place, part in enumerate(half):
            y = (1 - part / highest) * HEIGHT
            points += [(place * step, y), ((place + 1) * step, y)]
        paths.append(_path([*points, (float(WIDTH), float(HEIGHT))]))
    edges = bin_edges(counts.shape[1])[first : last + 1]
    every = max(1, (last - first) // 5)
    ticks = tuple(
        Tick(round(place * step, 1), short(float(edges[place])), bool(number % 2))
        for number, place in enumerate(range(0, last - first + 1, every))
    )
    return Chart(tuple(paths), ticks, (Tick(0, f"{highest:.0%}".replace("%", " %")),))


def columns(values: Sequence[float]) -> Chart:
    """Values over equal spans, as one area."""
    highest = max(values, default=0) or 1.0
    step = WIDTH / max(len(values), 1)
    points = [(0.0, float(HEIGHT))]
    for place, value in enumerate(values):
        y = (1 - value / highest) * HEIGHT
        points += [(place * step, y), ((place + 1) * step, y)]
    path = _path([*points, (float(WIDTH), float(HEIGHT))])
    return Chart((path,), (), (Tick(0, short(highest)), Tick(HEIGHT, "0")))


def dots(values: Sequence[float], marked: Sequence[bool]) -> Chart:
    """A dot for each value from 0 to 1: first the ordinary ones, then the marked."""
    step = WIDTH / max(len(values), 1)
    paths = ["", ""]
    for place, (value, is_marked) in enumerate(zip(values, marked, strict=True)):
        paths[is_marked] += f"M{(place + 0.5) * step:.1f} {(1 - value) * HEIGHT:.1f}h0"
    return Chart((paths[0], paths[1]), (), _PERCENT)


def short(value: float) -> str:
    """A number in few characters: 0.5, 12, 3.4 k, 56 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if n else 'M'}{x:.1f} {y:.1f}" for n, (x, y) in enumerate(points))
