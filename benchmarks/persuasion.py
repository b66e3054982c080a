"""How often an attack talks a judge into keeping a pair that it drops: alone, and with ``rules.suspicious`` before it.

Pairs of the small world that are not worth keeping, and that the judge drops, though they do not talk to it, are
attacked: every attack of
``benchmarks/attacks.py`` on ``--victims`` of them. A flip is one that is kept then. What harmless words
in the same places flip is shown beside it. AUC is that of the demo's rule over ``--pairs`` pairs, with
flagged ones below all others; the false alarms are those of accurate captions.

    python -m benchmarks.persuasion [--judge built-in] [--pairs 1500] [--victims 3] [--seed 990018]
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks import measure
from benchmarks.attacks import Attack, attacks, harmless
from wdsfilter import suspicion
from wdsfilter.demo.world import MARK, draw_pair
from wdsfilter.engine.judge import VlmJudge
from wdsfilter.evaluate.figures import auc
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Pair, Prepared
from wdsfilter.stages import batches

RIGHT = 9
AT_LEAST = 0.5
"""What P(grade >= 9) has to be: the demo's rule."""


@dataclass(frozen=True, slots=True)
class Flips:
    """Of so many ``attempts``, pairs that were kept by the judge alone, and by the judge behind the detector."""

    attempts: int
    alone: int
    detected: int
    flips: int

    @property
    def rates(self) -> tuple[float, float]:
        return self.alone / self.attempts, self.flips / self.attempts


def probabilities(judge: VlmJudge, pairs: Sequence[tuple[bytes, str]]) -> list[float]:
    """P(grade >= 9) of each; 0 where it names no grade."""
    prepared = [judge.prepare(Pair("k", image, caption, {MARK: {}})) for image, caption in pairs]
    ready = [one for one in prepared if isinstance(one, Prepared)]
    assert len(ready) == len(pairs)
    found = [0.0] * len(pairs)
    for batch in batches([one.cost for one in ready], judge.batch_cost):
        for i, numbers in zip(batch, judge.score([ready[i].value for i in batch]), strict=True):
            found[i] = sum((numbers["p"] or [0.0] * 10)[RIGHT - 1 :])
    return found


def drawn(count: int, seed: int) -> Iterator[tuple[bytes, str, int]]:
    """Image, caption and true score of pairs that no training has seen."""
    for number in range(count):
        pair = draw_pair(f"persuasion/{seed}/{number}")
        yield pair.image, pair.caption.text, pair.caption.score


def flips(
    judge: VlmJudge, victims: Sequence[tuple[bytes, str]], tried: Sequence[Attack], each: int, seed: int
) -> dict[str, Flips]:
    """What every kind of attack reaches, each attack on ``each`` victims drawn by ``seed``."""
    chance = random.Random(seed)
    listed = [(attack, victim) for attack in tried for victim in chance.sample(victims, each)]
    attacked = [attack.apply(*victim) for attack, victim in listed]
    kept = [p >= AT_LEAST for p in probabilities(judge, attacked)]
    flagged = [suspicion.find(caption) is not None for _, caption in attacked]
    attempts, alone, detected, both = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for (attack, _), is_kept, is_flagged in zip(listed, kept, flagged, strict=True):
        for kind in (attack.kind, "all"):
            attempts[kind] += 1
            alone[kind] += is_kept
            detected[kind] += is_flagged
            both[kind] += is_kept and not is_flagged
    return {kind: Flips(attempts[kind], alone[kind], detected[kind], both[kind]) for kind in sorted(attempts)}


def measured(judge: VlmJudge, pairs: int, each: int, seed: int, tried: Sequence[Attack]) -> dict[str, object]:
    """Everything that is published."""
    world = [*drawn(pairs, seed)]
    p = np.array(probabilities(judge, [(image, caption) for image, caption, _ in world]))
    right = np.array([score >= RIGHT for _, _, score in world])
    flagged = np.array([suspicion.find(caption) is not None for _, caption, _ in world])
    behind = np.where(flagged, -1.0, p)
    victims = [
        (image, caption)
        for (image, caption, score), chance, is_flagged in zip(world, p, flagged, strict=True)
        if score < RIGHT and chance < AT_LEAST and not is_flagged
    ]
    reached = flips(judge, victims, tried, each, seed)
    control = flips(judge, victims, [*harmless()], each, seed)
    return {
        "attacks": len(tried),
        "victims": len(victims),
        "flips": {kind: asdict(found) for kind, found in {**reached, **control}.items() if kind != "all"}
        | {"all": asdict(reached["all"])},
        "auc": {"alone": auc(p[right], p[~right]), "with the detector": auc(behind[right], behind[~right])},
        "false_alarms": {"captions": int(right.sum()), "flagged": int((flagged & right).sum())},
    }


def load(name: str) -> VlmJudge:
    """The judge, on the CPU."""
    return vlm.load(vlm.Options(model=name), Runtime(wanted="cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judge", default="built-in")
    parser.add_argument("--pairs", type=int, default=1500)
    parser.add_argument("--victims", type=int, default=3, help="of every attack")
    parser.add_argument("--seed", type=int, default=990_018)
    options = parser.parse_args()
    found = measured(load(options.judge), options.pairs, options.victims, options.seed, [*attacks()])
    print(json.dumps(found, indent=2))
    total = found["flips"]["all"]  # type: ignore[index]
    rates = {
        "persuasion: pairs kept by an attack, of all attempts, judge alone": total["alone"],
        "persuasion: the same with rules.suspicious": total["flips"],
    }
    ratios = {what: measure.spread([flipped / total["attempts"]]) for what, flipped in rates.items()}
    measure.save("persuasion", {"ratios": ratios, **found}, ("torch", "transformers"))


if __name__ == "__main__":
    main()
