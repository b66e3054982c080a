"""The whole job with the VLM judge: whoever does it, and however often it is killed, the bytes are the same."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.runs import finished, members, start, tree
from tests.test_ranks import launch, ranks_of
from wdsfilter import ledger
from wdsfilter.cli import main
from wdsfilter.demo.world import write_world

ARGUMENTS = [
    "--set",
    "input.tolerate.unreadable=50%",
    "--set",
    "run.stale_after=5",
    "--set",
    "judges.vlm.at_least=4",
    "--set",
    "judges.vlm.min_pixels=3136",
    "--set",
    "judges.vlm.max_pixels=12544",
]


@pytest.fixture(scope="module")
def single(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Arguments of a run of the demo recipe, and its output by one process."""
    folder = tmp_path_factory.mktemp("vlm")
    pattern = write_world(folder / "in", samples=90, samples_per_shard=30, broken=0.05)
    arguments = [
        "run",
        "demo",
        "--shards",
        pattern,
        "--set",
        f"judges.vlm.model={tiny_checkpoint}",
        *ARGUMENTS,
    ]
    assert main([*arguments, "-o", str(folder / "out")]) == 0
    return arguments, folder / "out"


def test_scores_are_in_ledger_and_member(single: tuple[list[str], Path]) -> None:
    """Every judged pair has a grade, a score and probabilities; a kept sample's member says the same."""
    _, out = single
    rows = list(ledger.read_rows(out / "wdsfilter/ledger/world-0000.parquet"))
    kept = {row["key"]: row for row in rows if row["status"] == "kept"}
    assert kept
    for row in kept.values():
        assert row["vlm"]["grade"] >= 4
        assert sum(row["vlm"]["p"]) == pytest.approx(1, abs=1e-5)
        expected = sum(grade * p for grade, p in enumerate(row["vlm"]["p"], 1))
        assert row["vlm"]["score"] == pytest.approx(expected, abs=1e-4)
        assert row["phash"] is not None
    for name, data in members(out / "world-0000.tar").items():
        if name.endswith(".score.json"):
            scores = json.loads(data)["vlm"]
            assert scores["grade"] == kept[name.split(".")[0]]["vlm"]["grade"]
    assert {row["reason"] for row in rows if row["status"] == "unreadable"} <= {
        *("image_format", "image_truncated", "no_caption")
    }


def test_the_check_is_committed(single: tuple[list[str], Path]) -> None:
    """readout.json says that the forced start was compared with greedy answers, and agreed."""
    _, out = single
    found = json.loads((out / "wdsfilter/readout.json").read_text())["vlm"]
    assert found["score_first"] is True
    assert found["forced_start_agrees"] == found["pairs"] > 0
    assert found["max_tokens_per_batch"] == 16384  # `auto`, on a CPU


def test_verify_holds(single: tuple[list[str], Path]) -> None:
    """A VLM run verifies, its decisions made again from its ledgers included."""
    arguments, out = single
    assert main(["verify", str(out), "--shards", arguments[3]]) == 0


def test_two_ranks_give_the_bytes_of_one(single: tuple[list[str], Path], tmp_path: Path) -> None:
    """Two ranks under accelerate launch, world size asserted, give the single process's bytes, scores included."""
    arguments, out = single
    code, _, err = finished(launch(*arguments, "-o", tmp_path / "out"), timeout=240)
    assert code == 0, err
    assert ranks_of(tmp_path / "out") == {(0, 2), (1, 2)}
    assert tree(tmp_path / "out") == tree(out)


def test_a_killed_run_goes_on_to_the_same_bytes(single: tuple[list[str], Path], tmp_path: Path) -> None:
    """Killed between ledger and shard, and run again by another process: the same bytes."""
    arguments, out = single
    code, _, err = finished(start(*arguments, "-o", tmp_path / "out", WDSFILTER_FAILPOINT="ledger.linked:2"))
    assert code == -signal.SIGKILL, err
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert tree(tmp_path / "out") == tree(out)


def test_the_score_after_the_justification_is_refused(
    score_last_checkpoint: Path,
    single: tuple[list[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A checkpoint for which the forced start is wrong stops the run before anything is committed; `generate` works."""
    arguments, _ = single
    arguments = [
        *arguments,
        "--set",
        f"judges.vlm.model={score_last_checkpoint}",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 1
    assert "readout: generate" in capsys.readouterr().err
    assert not (tmp_path / "out/wdsfilter/run.json").exists()
    generating = ["--set", "judges.vlm.readout=generate", "--set", "judges.vlm.justify=all"]
    assert main([*arguments, *generating, "--limit-shards", "1"]) == 0
    rows = list(ledger.read_rows(next((tmp_path / "out/wdsfilter/ledger").iterdir())))
    judged = [row["vlm"] for row in rows if row["vlm"] is not None]
    graded = [numbers for numbers in judged if numbers["grade"] is not None]
    assert len(graded) > 0.6 * len(judged)  # captions are longer than those that the checkpoint learnt from
    assert all(numbers["justification"] for numbers in graded)


def test_a_fill_gives_the_numbers_of_a_run(single: tuple[list[str], Path], tmp_path: Path) -> None:
    """Pairs that a rule rejected get bit by bit the numbers that they have in a run without that rule."""
    arguments, complete = single
    out = tmp_path / "out"
    strict = [*arguments, "-o", str(out), "--set", "judges.rules.min_words=12"]
    assert main(strict) == 0
    assert main([*strict, "--fill"]) == 0
    filled = 0
    for name in ("world-0000", "world-0001", "world-0002"):
        rows = [
            ledger.read_rows(folder / f"wdsfilter/ledger/{name}.parquet")
            for folder in (complete, out, out / "wdsfilter/fill")
        ]
        for due, run, after in zip(*rows, strict=True):
            if due["vlm"] is not None:
                assert (after["vlm"], after["phash"]) == (due["vlm"], due["phash"])
                filled += run["vlm"] is None
    assert filled > 5
