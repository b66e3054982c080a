"""How a training goes: a line for people, a log for machines, figures for trackers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from wdsfilter.samples import Unreadable
from wdsfilter.training.report import Report, describe


def report(log: Path | None, track: Any = None) -> tuple[Report, io.StringIO]:
    said = io.StringIO()
    return Report(Console(file=said, width=200), log, 8, {"ranks": 1}, track), said


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize(
    ("held_out", "speed", "said"),
    [
        pytest.param({}, 0.0, "step 3/10, loss 1.235", id="the-first"),
        pytest.param(
            {"loss": 1.5, "mae": 0.75},
            4.0,
            "step 3/10, loss 1.235, held out: loss 1.5, mae 0.75, 4 pairs/s, 14 s left",
            id="all-of-it",
        ),
    ],
)
def test_the_line_says_how_it_stands(held_out: dict[str, float], speed: float, said: str) -> None:
    """Step, loss, held-out figures, speed, and the time that is left at this speed."""
    assert describe(3, 10, {"loss": 1.23456}, held_out, speed, 8) == said


def test_the_log_holds_every_step_once(tmp_path: Path) -> None:
    """Lines of steps that a resumed training takes again are taken out, and a torn one too."""
    log = tmp_path / "log.jsonl"
    first, _ = report(log)
    with first:
        first.start(0, 4)
        for step in (1, 2, 3):
            first.step(step, {"loss": float(step), "rate": 1.0})
        first.held_out(2, {"mae": 1.0})
    with log.open("a") as file:
        file.write('{"step": 4, "lo')
    second, said = report(log)
    with second:
        second.start(2, 4)
        second.step(3, {"loss": 9.0, "rate": 1.0})
    assert "going on after step 2 of 4" in said.getvalue()
    found = lines(log)
    assert [(line["step"], line["loss"]) for line in found if "loss" in line] == [
        (1, 1.0),
        (2, 2.0),
        (3, 9.0),
    ]
    assert [line["started"] for line in found if "started" in line] == [{"ranks": 1}] * 2
    assert [line["held_out"] for line in found if "held_out" in line] == [{"mae": 1.0}]
    assert "held out: mae 1" in said.getvalue(), "figures from before the break are still shown"


def test_trackers_are_told_the_same(tmp_path: Path) -> None:
    """Trackers get the figures of steps and of held-out pairs, by group."""
    told: list[tuple[int, dict[str, float]]] = []
    one, _ = report(tmp_path / "log.jsonl", lambda values, step: told.append((step, dict(values))))
    with one:
        one.start(0, 2)
        one.step(1, {"loss": 2.0, "rate": 0.5})
        one.held_out(1, {"mae": 1.5})
    (_, first), second = told
    assert first.keys() == {"train/loss", "train/rate", "train/pairs_per_second"}
    assert second == (1, {"held_out/mae": 1.5})


def test_other_ranks_are_silent(tmp_path: Path) -> None:
    """All ranks but the first write and say nothing, except what they alone have met."""
    other, said = report(None)
    with other:
        other.start(0, 2)
        other.step(1, {"loss": 2.0, "rate": 1.0})
        other.held_out(1, {"mae": 1.0})
    assert said.getvalue() == ""
    for _ in range(2):
        other.unreadable(Unreadable("s/3", "image_format", "no image"))
    assert said.getvalue() == "unreadable: s/3: image_format no image\n"
    assert other.unreadable_pairs == 1
    assert list(tmp_path.iterdir()) == []
