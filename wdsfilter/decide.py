"""Numbers and recipe -> decision. Pure: a ledger's rows can be decided about again without a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from wdsfilter.recipe import JudgeSpec
from wdsfilter.samples import KEPT, Decision, Numbers


def decide_one(spec: JudgeSpec, numbers: Numbers) -> Decision | None:
    """What one judge's numbers lead to; None where it lets the sample pass."""
    for name, value in numbers.items():
        for number in value if isinstance(value, list) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                return Decision("unreadable", f"{spec.id}.not_finite", f"{name} is {number}")
            if isinstance(number, str) and not number.isascii() and not _is_utf8(number):
                return Decision("unreadable", f"{spec.id}.not_utf8", f"{name} cannot be stored")
    decision = spec.module.decide(spec.options, numbers)
    if decision is None:
        return None
    return Decision(decision.status, f"{spec.id}.{decision.reason}", decision.detail)


def decide(specs: Sequence[JudgeSpec], measured: Mapping[str, Numbers | None]) -> Decision:
    """What a row's numbers lead to; ``measured`` maps judge ids to them, None where a judge was not reached."""
    for spec in specs:
        numbers = measured.get(spec.id)
        if numbers is None:
            break
        if (decision := decide_one(spec, numbers)) is not None:
            return decision
    return KEPT


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
