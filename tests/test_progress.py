"""One line tells how a run stands, live or plain."""

from __future__ import annotations

import os
import pty
import subprocess
from collections import deque
from pathlib import Path

import pytest

from tests.runs import command, environment, make_shards, write_recipe
from wdsfilter.ledger import Counts
from wdsfilter.progress import Sofar, describe, duration, speed


@pytest.mark.parametrize(
    ("sofar", "pairs_per_second", "expected"),
    [
        pytest.param(Sofar(Counts(), 0, 0, 0), 0, "0/20 shards, 0 pairs", id="start"),
        pytest.param(
            Sofar(Counts(5000, 900, 4100), 1, 200, 0),
            150.4,
            "1/20 shards, 5,200 pairs, 150 pairs/s, 18.0% kept, 10 min 30 s left",
            id="under-way",
        ),
        pytest.param(
            Sofar(Counts(100000, 18000), 20, 0, 2),
            1500,
            "20/20 shards, 100,000 pairs, 1,500 pairs/s, 18.0% kept, 2 damaged, 0 s left",
            id="done",
        ),
        pytest.param(
            Sofar(Counts(5000, 900, 4100), 1, 20, 0, gaps=400),
            10,
            "1/20 shards, 420 pairs, 10 pairs/s, 12 min 38 s left",
            id="a fill",
        ),
    ],
)
def test_the_line(sofar: Sofar, pairs_per_second: float, expected: str) -> None:
    """Shards, pairs, speed, kept share, damage and time left, each once it is known."""
    assert describe(sofar, 20, pairs_per_second) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (61, "1 min 1 s"), (3600 * 3 + 60 * 12 + 5, "3 h 12 min")]
)
def test_duration(seconds: float, expected: str) -> None:
    """Durations are told in the two largest units that matter."""
    assert duration(seconds) == expected


def test_speed_is_of_the_recent_past() -> None:
    """Pairs per second between the first and the last look; 0 where nothing can be said."""
    assert speed(deque([(10.0, 100), (14.0, 300)])) == 50
    assert speed(deque([(10.0, 100)])) == 0


def test_a_terminal_gets_a_live_line(tmp_path: Path) -> None:
    """On a terminal rank 0 keeps one line up to date while it works."""
    recipe = write_recipe(tmp_path, "judges: [scripted: {seconds_per_pair: 0.03}]\nguard: off\n")
    shards = make_shards(tmp_path / "in", 4, 25)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("run", recipe, "--shards", shards, "-o", tmp_path / "out"),
        env=environment(TERM="xterm-256color", COLUMNS="120"),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # what Linux says when the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert process.wait(60) == 0
    assert b"/4 shards" in shown
    assert b" pairs" in shown
