"""The corpus of bad input: every case through a real run, and what its ledger says about it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.corpus import AFTER, BEFORE, Case, captions, images, tars, unique
from tests.runs import environment
from wdsfilter import ledger
from wdsfilter.cli import main
from wdsfilter.events import read_events
from wdsfilter.summary import EXIT_DAMAGED

ARCHIVES = unique(tars.cases())
HEAVY = unique(images.heavy())
PAIRS = unique(chain(images.cases(), captions.cases()))
GIB = 1 << 30
SECONDS = 10

RECIPE = """
input: {max_sample: 32MiB}
judges: [JUDGE]
guard: off
"""
# Prints the exit code, the share of its time that this process and its children had a core, how far the peak of
# its memory rose above what it held when everything was imported, and the peak of its largest child.
CHILD = """
import json, os, resource, sys, time
from wdsfilter.cli import main
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))
memory, began = peak(), time.monotonic()
code = main(sys.argv[1:])
share = min(1.0, sum(os.times()[:4]) / (time.monotonic() - began))
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
print(json.dumps([code, share, peak() - memory, children]))
"""


@dataclass(frozen=True)
class Ran:
    """A run over cases: its output folder, exit code, the most memory that it needed (bytes), and the share
    of its time that it had a core, for other work may go on beside a test."""

    out: Path
    code: int
    share: float
    memory: int

    def rows(self, case: Case) -> tuple[str, ...]:
        """The ledger of a case, as a case writes it."""
        rows = self.numbers(case, ["key", "status", "reason"])
        return tuple(
            f"{row['key']}:{row['reason']}" if row["status"] == "unreadable" else row["key"] for row in rows
        )

    def numbers(self, case: Case, columns: Sequence[str] = ("key", "vlm")) -> list[dict[str, Any]]:
        return [*ledger.read_rows(self._ledger(case), [*columns])]

    def damage(self, case: Case) -> str:
        damage = ledger.read_header(self._ledger(case)).damage
        return damage.reason if damage else ""

    def _ledger(self, case: Case) -> Path:
        return self.out / f"wdsfilter/ledger/{case.name}.parquet"

    @property
    def slowest(self) -> float:
        """Seconds of work from one shard's commit to the next one's, at most."""
        events = read_events(self.out / "wdsfilter/events")
        times: list[float] = [event["time"] for event in events if event["event"] in ("opened", "committed")]
        return self.share * max(after - before for before, after in pairwise(times))


def ran(folder: Path, cases: Iterable[Case], judge: str) -> Ran:
    """A run of ``judge`` over ``cases``, in a process of its own."""
    for case in cases:
        path = folder / "in" / f"{case.name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.build())
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("JUDGE", judge))
    out = folder / "out"
    arguments = ["run", str(recipe), "--shards", f"{folder}/in", "-o", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    code, share, memory, of_children = json.loads(done.stdout.splitlines()[-1])
    return Ran(out, code, share, max(memory, of_children))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return ran(tmp_path_factory.mktemp("archives"), ARCHIVES.values(), "scripted")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Ran:
    return ran(tmp_path_factory.mktemp("pairs"), PAIRS.values(), vlm_judge(tiny_checkpoint))


@pytest.mark.nightly
def test_the_largest_images(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Images of 64 megapixels stay in the bounds of all others, in every mode."""
    run = ran(tmp_path, HEAVY.values(), vlm_judge(tiny_checkpoint))
    for case in HEAVY.values():
        assert run.rows(case) == case.rows
    assert run.slowest < SECONDS
    assert run.memory < GIB


def vlm_judge(model: Path) -> str:
    """The smallest judge that looks at its images."""
    pixels = "min_pixels: 3136, max_pixels: 12544"
    return f"vlm: {{model: {model}, {pixels}, at_least: 1, check: {{first: 0}}}}"


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(archives: Ran, name: str) -> None:
    """Every sample of a bad archive has its row with its reason, and the shard its damage."""
    case = ARCHIVES[name]
    assert archives.rows(case) == case.rows
    assert archives.damage(case) == case.damage


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(pairs: Ran, name: str) -> None:
    """A bad image or caption costs its sample, by its own reason; an odd but sound one costs nothing."""
    case = PAIRS[name]
    assert pairs.rows(case) == case.rows
    assert pairs.damage(case) == ""


def test_neighbours_keep_their_scores(pairs: Ran) -> None:
    """Beside whatever image and caption, the same two pairs get the same numbers, bit by bit."""
    seen = {
        json.dumps([row["vlm"] for row in pairs.numbers(case) if row["key"] in (BEFORE, AFTER)])
        for case in PAIRS.values()
        if BEFORE in case.rows
    }
    assert len(seen) == 1


@pytest.mark.parametrize("which", ["archives", "pairs"])
def test_bounds(which: str, request: pytest.FixtureRequest) -> None:
    """No case takes more than 10 seconds, or raises a process's memory by more than a gigabyte."""
    run: Ran = request.getfixturevalue(which)
    assert run.slowest < SECONDS
    assert run.memory < GIB


@pytest.mark.parametrize("which", ["archives", "pairs"])
def test_the_output_holds(which: str, request: pytest.FixtureRequest) -> None:
    """The run says by its exit code that something was wrong, and everything that it wrote verifies."""
    run: Ran = request.getfixturevalue(which)
    assert run.code == EXIT_DAMAGED
    assert main(["verify", str(run.out)]) == 0


def test_it_is_large() -> None:
    """At least 150 bad inputs, no two of them alike."""
    bad = [
        case for case in (*ARCHIVES.values(), *PAIRS.values()) if case.reasons and "large" not in case.name
    ]
    assert len({case.build() for case in bad}) == len(bad) >= 150
