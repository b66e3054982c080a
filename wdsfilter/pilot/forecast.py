"""What the whole run would keep, from its first shards, with intervals over shards.

Samples of one shard are alike (one crawl, one day), so what is resampled is shards. The intervals are
widened by S / (S - 1) of S shards, which the bootstrap leaves out, and narrowed by what of all N is judged
already (1 - S / N): nothing is uncertain once all are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wdsfilter.bootstrap import Floats, Interval, interval, resampled
from wdsfilter.pilot.ledgers import Judged, JudgedShard
from wdsfilter.report.measures import Bools

_EDGES = 4096


@dataclass(frozen=True, slots=True)
class Estimate:
    """``interval`` is None where one shard is all that was judged."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of the whole run: samples that come in, and what stays of them, in samples, bytes and as a share of all
    that can be read."""

    samples: Estimate
    share: Estimate
    kept: Estimate
    bytes: Estimate


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where a measure has to be cut for a wished share, as near to it as its values allow."""

    measure: str
    at: Estimate
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Sampling:
    """So many of ``total`` shards were judged; ``weights`` [draws, shards] resample them."""

    judged: int
    total: int
    weights: Floats

    def estimate(self, value: float, drawn: Floats, low: float = 0.0, high: float = math.inf) -> Estimate:
        """``value``, and an interval by its values on resampled shards [draws], all of it from ``low`` to ``high``."""
        if self.judged < 2:
            return Estimate(value, None)
        spread = math.sqrt(self.judged / (self.judged - 1) * (1 - self.judged / self.total))
        return Estimate(value, interval(np.clip(value + (drawn - value) * spread, low, high)))

    def whole(self, parts: Floats) -> Estimate:
        """What the whole run has of something that each judged shard has ``parts`` of [shards]."""
        scale = self.total / self.judged
        return self.estimate(float(parts.sum()) * scale, self.weights @ parts * scale)

    def share(self, parts: Floats, of: Floats) -> Estimate:
        """The share that ``parts`` are of something else [shards]."""
        drawn = self.weights @ parts / np.maximum(self.weights @ of, 1)
        return self.estimate(float(parts.sum() / max(of.sum(), 1)), drawn, high=1.0)


def sampling(judged: Judged, total: int) -> Sampling:
    """``judged`` holds a shard or more."""
    return Sampling(len(judged.shards), total, resampled(len(judged.shards)))


def as_it_is(judged: Judged, drawn: Sampling) -> Forecast:
    """With the recipe's own thresholds."""
    kept = [shard.kept for shard in judged.shards]
    return _forecast(judged.shards, kept, drawn)


def threshold(judged: Judged, measure: str, share: float, drawn: Sampling) -> Threshold:
    """Where to cut ``measure`` so that ``share`` of all readable samples stays."""
    edges = np.unique(judged.joined(measure))
    if not len(edges):  # no candidate at all
        edges = np.zeros(1)
    elif len(edges) > _EDGES:
        edges = np.unique(np.quantile(edges, np.linspace(0, 1, _EDGES), method="nearest"))
    above = np.stack([_above(shard, measure, edges) for shard in judged.shards])
    readable = _readable(judged.shards)
    place = int(np.abs(above.sum(0) / max(readable.sum(), 1) - share).argmin())
    shares = drawn.weights @ above / np.maximum(drawn.weights @ readable, 1)[:, None]
    places = np.abs(shares - share).argmin(1)
    at = float(edges[place])
    kept = [shard.candidates & (shard.measures[measure] >= at) for shard in judged.shards]
    found = drawn.estimate(at, edges[places], float(edges[0]), float(edges[-1]))
    return Threshold(measure, found, _forecast(judged.shards, kept, drawn))


def _above(shard: JudgedShard, measure: str, edges: Floats) -> Floats:
    """Candidates that reach each edge [edges]."""
    values = np.sort(shard.measures[measure][shard.candidates])
    return (len(values) - np.searchsorted(values, edges, side="left")).astype(np.float64)


def _readable(shards: Sequence[JudgedShard]) -> Floats:
    return np.array([shard.readable.sum() for shard in shards], np.float64)


def _forecast(shards: Sequence[JudgedShard], kept: Sequence[Bools], drawn: Sampling) -> Forecast:
    counts = np.array([chosen.sum() for chosen in kept], np.float64)
    sizes = np.array([s.sizes[c].sum() for s, c in zip(shards, kept, strict=True)], np.float64)
    return Forecast(
        samples=drawn.whole(np.array([len(shard.kept) for shard in shards], np.float64)),
        share=drawn.share(counts, _readable(shards)),
        kept=drawn.whole(counts),
        bytes=drawn.whole(sizes),
    )
