"""The same shards under another setting: how much its answers agree with the recipe's own, and what it costs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from wdsfilter.errors import UserError
from wdsfilter.evaluate.figures import spearman
from wdsfilter.output import OutputFolder
from wdsfilter.pilot.ledgers import Judged
from wdsfilter.plan import Job
from wdsfilter.recipe_files import read_yaml


@dataclass(frozen=True, slots=True)
class Trial:
    """An override of the recipe, and where it is tried. ``name`` is short for people."""

    name: str
    override: str

    @property
    def overrides(self) -> list[str]:
        """Ledgers only, no guard (a trial shall end), and no trackers: it is not the run."""
        return [self.override, "output.shards=false", "guard=off", "run.trackers=[]"]

    def folder(self, run: OutputFolder) -> str:
        """In the run's own folder, outside its promises: a trial goes on where it was stopped, like a run."""
        digest = hashlib.sha256(self.override.encode()).hexdigest()[:8]
        readable = re.sub(r"[^\w.=-]+", "-", self.name)[:80]
        return str(run.pilot / f"{readable}.{digest}")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a trial's answers are to the recipe's own.

    ``spearman`` is the rank correlation of the ``measure`` over ``pairs`` that both judged; None where there is
    none. ``same_decisions`` is the share of the samples that both could read which both kept or both dropped;
    ``kept`` the share that the trial kept of what it could read.
    """

    measure: str | None
    pairs: int
    spearman: float | None
    same_decisions: float | None
    kept: float | None


def parse_trials(options: Sequence[str]) -> list[Trial]:
    """``judges.vlm.max_pixels=100352,200704`` is two trials. Raises UserError."""
    found: list[Trial] = []
    for option in options:
        path, equals, text = option.partition("=")
        try:
            values = read_yaml(f"[{text}]")
        except yaml.YAMLError:
            values = []
        if not equals or not values:
            raise UserError(
                f"--try {option}: expected PATH=VALUE,VALUE, such as judges.vlm.max_pixels=200704,401408"
            )
        last = path.rpartition(".")[2]
        for value in values:
            said = json.dumps(value, ensure_ascii=False)
            found.append(Trial(f"{last}={said}", f"{path}={said}"))
    return found


def check_scores(trial: Trial, base: Job, tried: Job) -> None:
    """Raise UserError where a trial changes no score."""
    if base.fingerprints.scoring == tried.fingerprints.scoring:
        other = "its scores are the recipe's own"
        if base.fingerprints.decision != tried.fingerprints.decision:
            other = "it is a threshold, and those need no trial: --keep, and `wdsfilter select --where`"
        raise UserError(f"--try {trial.override}: {other}")


def agreement(base: Judged, tried: Judged) -> Agreement:
    """Over the shards that both judged."""
    others = {shard.name: shard for shard in tried.shards}
    both = [(shard, others[shard.name]) for shard in base.shards if shard.name in others]
    measure = base.ruler.main.name if base.ruler else None
    pairs, rho = 0, None
    if measure is not None and tried.ruler and measure in {m.name for m in tried.ruler.measures}:
        here = np.concatenate([a.measures[measure] for a, _ in both])
        there = np.concatenate([b.measures[measure] for _, b in both])
        known = ~np.isnan(here) & ~np.isnan(there)
        pairs, rho = int(known.sum()), spearman(here[known], there[known])
    same = np.concatenate([(a.kept == b.kept)[a.readable & b.readable] for a, b in both])
    kept = np.concatenate([b.kept[b.readable] for _, b in both])
    return Agreement(
        measure,
        pairs,
        rho,
        float(same.mean()) if len(same) else None,
        float(kept.mean()) if len(kept) else None,
    )
