"""`wdsfilter run --fill`: judges are asked about what they never saw, and nothing else changes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import wdsfilter
from tests.forks import Watch, fork, judged_by
from tests.runs import committed, make_shards, sleepless, tree, write_recipe
from tests.selections import exported, rows_of
from wdsfilter import trackers
from wdsfilter.cli import main
from wdsfilter.commit import Fingerprints
from wdsfilter.committing import CommitStage
from wdsfilter.events import read_events
from wdsfilter.fill import read_unseen
from wdsfilter.judges import scripted
from wdsfilter.output import OutputFolder
from wdsfilter.plan import input_shards
from wdsfilter.recipe_files import load_recipe
from wdsfilter.samples import Pair, Prepared, Unreadable
from wdsfilter.stages import Item, ShardEnds
from wdsfilter.watch import Watch as Onlooker

FILL = "wdsfilter/fill"
SHARDS = 4
RECIPE = """
judges:
  - rules: {min_words: 2, max_side: 20}
  - scripted: {seed: 7, at_least: 5}
  - scripted: {id: second, seed: 8, at_least: 5}
guard: off
run: {stale_after: 2}
"""
WITHOUT_A_THRESHOLD = RECIPE.replace("at_least: 5", "at_least: 1").replace(
    "{min_words: 2, max_side: 20}", "{}"
)


@dataclass(frozen=True)
class Filled:
    """A run, its input, and what it and its fill are when nobody disturbs them."""

    folder: Path
    pattern: str
    run: dict[str, str]
    both: dict[str, str]

    def arguments(self, output: Path) -> list[str]:
        return ["run", str(self.folder / "recipe.yaml"), "--shards", self.pattern, "-o", str(output)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """A run and its fill, in the folder ``out``. Nothing may change it."""
    folder = tmp_path_factory.mktemp("filled")
    pattern = make_shards(folder / "in", SHARDS)
    write_recipe(folder, RECIPE)
    found = Filled(folder, pattern, {}, {})
    assert main(found.arguments(folder / "out")) == 0
    run = tree(folder / "out")
    before = committed(folder / "out")
    assert main([*found.arguments(folder / "out"), "--fill"]) == 0
    assert before.items() <= committed(folder / "out").items(), "the run's own files stay as they are"
    return Filled(folder, pattern, run, tree(folder / "out"))


def seen(output: Path) -> list[tuple[str, dict[str, Any] | None, dict[str, Any] | None]]:
    """Key and both judges' numbers of every row of a run's own ledgers."""
    return [(row["key"], row["scripted"], row["second"]) for row in rows_of(output)]


def test_what_was_never_seen_is_judged(filled: Filled, tmp_path: Path) -> None:
    """Afterwards every judge has the numbers for all samples that it would have given without the ones before it."""
    (tmp_path / "all.yaml").write_text(WITHOUT_A_THRESHOLD)
    alone = ["run", str(tmp_path / "all.yaml"), "--shards", filled.pattern, "-o", str(tmp_path / "all")]
    assert main(alone) == 0
    assert any(first is None for _, first, _ in seen(filled.folder / "out"))
    assert any(first and second is None for _, first, second in seen(filled.folder / "out"))
    assert seen(filled.folder / "out" / FILL) == seen(tmp_path / "all")


def test_a_judge_is_asked_about_nothing_else(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each judge gets exactly the pairs that it never saw, once."""
    out, real = tmp_path / "out", scripted.ScriptedJudge.prepare
    assert main(filled.arguments(out)) == 0
    asked: list[tuple[str, str]] = []

    def noting(self: scripted.ScriptedJudge, pair: Pair) -> Prepared:
        asked.append((self.options.id or "scripted", pair.key))
        return real(self, pair)

    monkeypatch.setattr(scripted.ScriptedJudge, "prepare", noting)
    assert main([*filled.arguments(out), "--fill"]) == 0
    never_seen = [
        (judge, row["key"]) for row in rows_of(out) for judge in ("scripted", "second") if not row[judge]
    ]
    assert sorted(asked) == sorted(never_seen)
    asked.clear()
    assert main([*filled.arguments(out), "--fill"]) == 0
    assert asked == []


def test_what_was_decided_stays_decided(filled: Filled) -> None:
    """Each row of a fill says of its sample what the run's row says, numbers that the run did not have apart."""
    for before, after in zip(
        rows_of(filled.folder / "out"), rows_of(filled.folder / "out" / FILL), strict=True
    ):
        assert {k: v for k, v in before.items() if v is not None}.items() <= after.items()


def test_selections_know_what_was_filled(
    filled: Filled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, samples that a judge never saw are counted with the way to fill; after, they can be chosen."""
    out, question = tmp_path / "out", ["--where", "second.grade >= 8"]
    assert main(filled.arguments(out)) == 0
    due = [row["key"] for row in rows_of(filled.folder / "out" / FILL) if row["second"]["grade"] >= 8]
    few = exported([out], tmp_path / "few.txt", *question)
    assert set(few) < set(due)
    told = capsys.readouterr().err
    assert "never seen by second: " in told
    assert f"wdsfilter run RECIPE --output {out} --fill" in told
    assert main([*filled.arguments(out), "--fill"]) == 0
    assert exported([out], tmp_path / "all.txt", *question) == due
    assert "never seen" not in capsys.readouterr().err
    assert exported([out], tmp_path / "kept.txt") == [r["key"] for r in rows_of(out) if r["status"] == "kept"]


def test_readers_know_what_was_filled(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    """The table in Python and `show` have a fill's numbers; `status` and `verify` speak of it."""
    out = filled.folder / "out"
    assert wdsfilter.read_ledger(out)["second"].null_count == 0
    key = next(key for key, first, _ in seen(out) if first is None)
    assert main(["show", str(out), key]) == 0
    assert json.loads(capsys.readouterr().out)["second"]["grade"] >= 1
    assert main(["status", str(out)]) == 0
    said = f"{gaps_of(out)} samples judged that a judge had never seen, in {SHARDS} of {SHARDS} shards"
    assert f"fill: done, {said}: {out / FILL}" in capsys.readouterr().out
    assert main(["status", str(out / FILL)]) == 0
    assert capsys.readouterr().out.startswith(f"{said}\n")
    assert main(["verify", str(out), "--shards", filled.pattern]) == 0


def gaps_of(output: Path) -> int:
    """How many samples a judge never saw in a run."""
    return sum(
        row["status"] == "dropped" and not (row["scripted"] and row["second"]) for row in rows_of(output)
    )


def test_progress_counts_what_is_judged(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of a fill, its events and who looks on count pairs that a judge is asked about, not all rows."""
    out, told = tmp_path / "out", list[dict[str, float]]()
    assert main(filled.arguments(out)) == 0
    monkeypatch.setattr(
        trackers, "tracking", lambda *_: nullcontext(lambda values, step: told.append(dict(values)))
    )
    assert main([*filled.arguments(out), "--fill"]) == 0
    due = gaps_of(out)
    assert 0 < due < len(rows_of(out))
    assert told[-1] == {"run/samples": due, "run/shards": SHARDS, "run/damaged_shards": 0}
    events = [
        event for event in read_events(OutputFolder(out / FILL).events) if event["event"] == "committed"
    ]
    assert sum(event["samples"] for event in events) == due
    watch = Onlooker(OutputFolder(out / FILL))
    watch.look()
    console = Console(record=True, width=100)
    console.print(watch.view())
    assert f"{SHARDS}/{SHARDS} shards, {due} pairs" in console.export_text()


def test_samples_in_hand_are_those_that_are_judged(filled: Filled, tmp_path: Path) -> None:
    """What is not committed yet counts in a fill where a judge is asked about it."""
    parsed = load_recipe(str(filled.folder / "recipe.yaml"), ["output.shards=false"], [filled.pattern])
    stage = CommitStage(OutputFolder(tmp_path / "out"), parsed, Fingerprints("", ""), filling=True)
    in_hand = []

    def items() -> Iterator[Item]:
        for item in read_unseen(input_shards(parsed), parsed, OutputFolder(filled.folder / "out")):
            if isinstance(item, ShardEnds):
                in_hand.append(stage.open_samples)
            yield item

    assert len(list(stage(items()))) == SHARDS
    assert sum(in_hand) == gaps_of(filled.folder / "out")


def test_only_what_the_run_has_done_is_filled(
    filled: Filled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that goes on is filled as far as it is, says so, and is filled to its end later."""
    out = tmp_path / "out"
    assert main([*filled.arguments(out), "--limit-shards", "2"]) == 0
    assert main([*filled.arguments(out), "--fill"]) == 0
    assert f"not judged yet, and so not filled: 2 of {SHARDS} shards" in capsys.readouterr().err
    assert len(list((out / FILL / "wdsfilter/ledger").iterdir())) == 2
    assert main(["verify", str(out)]) == 0
    assert len(exported([out], tmp_path / "k.txt", "--where", "second.grade >= 1")) == 24
    assert main(filled.arguments(out)) == 0
    assert main([*filled.arguments(out), "--fill"]) == 0
    assert tree(out) == filled.both


def test_nothing_to_fill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the last judge alone rejects, no judge is loaded and nothing is written."""
    recipe = write_recipe(tmp_path, "judges: [rules: {}, scripted: {seed: 1}]\nguard: off\n")
    arguments = ["run", str(recipe), "--shards", make_shards(tmp_path / "in", 2), "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert main([*arguments, "--fill"]) == 0
    assert "nothing to fill" in capsys.readouterr().out
    assert not (tmp_path / "out" / FILL).exists()


def test_what_cannot_be_filled(filled: Filled, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, another recipe's run, a stream and a changed shard are refused in one line, and nothing is written."""
    assert main([*filled.arguments(tmp_path / "none"), "--fill"]) == 1
    assert "is not the output folder of a run" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main([*filled.arguments(Path("-")), "--fill"]) == 1
    assert "give --output FOLDER" in capsys.readouterr().err
    pattern, out = make_shards(tmp_path / "in", 2), tmp_path / "out"
    arguments = ["run", str(filled.folder / "recipe.yaml"), "--shards", pattern, "-o", str(out)]
    assert main(arguments) == 0
    before = tree(out)
    assert main([*arguments, "--fill", "--set", "judges.second.seed=9"]) == 1
    assert "judges.second.options.seed: 8 there, 9 now" in capsys.readouterr().err
    assert tree(out) == before
    shard = tmp_path / "in/s-0000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"a picture of number 3", b"another caption of it"))
    assert main([*arguments, "--fill"]) == 1
    assert f"{shard} is not the file that was judged: '000000003'" in capsys.readouterr().err
    assert not (out / FILL / "wdsfilter/ledger/s-0000.parquet").exists()


def test_what_turns_out_to_be_unreadable(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample that a judge cannot read is unreadable from then on, as it were had that judge seen it at once."""
    out, real = tmp_path / "out", scripted.ScriptedJudge.prepare
    assert main(filled.arguments(out)) == 0
    key = next(key for key, first, _ in seen(out) if first is None)

    def failing(self: scripted.ScriptedJudge, pair: Pair) -> Prepared | Unreadable:
        return Unreadable(pair.key, "image_truncated") if pair.key == key else real(self, pair)

    monkeypatch.setattr(scripted.ScriptedJudge, "prepare", failing)
    assert main([*filled.arguments(out), "--fill", "--set", "input.tolerate.unreadable=5%"]) == 0
    [row] = [row for row in rows_of(out / FILL) if row["key"] == key]
    assert (row["status"], row["reason"], row["scripted"]) == ("unreadable", "image_truncated", None)
    assert main(["verify", str(out)]) == 0
    assert key not in exported([out], tmp_path / "k.txt", "--where", "rules.width > 0")


@pytest.mark.parametrize(
    "kill",
    [
        "file.written:1",
        "file.written:2",
        "claim.taken:2",
        "shard.written:2",
        "ledger.written:1",
        "ledger.linked:3",
        "claim.released:2",
        "summary.replaced:1",
    ],
)
def test_killed_and_filled_again(kill: str, filled: Filled, ram_path: Path) -> None:
    """Killed anywhere and called again, a fill comes to the undisturbed tree, and never changes what is committed."""
    out = ram_path / "out"
    assert main(filled.arguments(out)) == 0
    watch = Watch(out, filled.both)
    log = ram_path / "log"
    killed = fork(*filled.arguments(out), "--fill", log=log, WDSFILTER_FAILPOINT=kill)
    assert watch.until(killed) == -signal.SIGKILL, log.read_text()
    assert watch.until(fork(*filled.arguments(out), "--fill", log=log)) == 0, log.read_text()
    assert tree(out) == filled.both
    assert list((out / FILL / "wdsfilter/tmp").iterdir()) == []


def test_processes_share_a_fill(tmp_path: Path, ram_path: Path) -> None:
    """Two processes that fill one run each do a part of it, no shard twice, and one's tree comes of it."""
    pattern = make_shards(tmp_path / "in", 6, 70)
    write_recipe(tmp_path, RECIPE.replace("id: second,", "id: second, seconds_per_pair: 0.01,"))
    run = Filled(tmp_path, pattern, {}, {})
    with sleepless():
        for folder in ("one", "two"):
            assert main(run.arguments(ram_path / folder)) == 0
        assert main([*run.arguments(ram_path / "one"), "--fill"]) == 0
    expected = tree(ram_path / "one")
    both = [fork(*run.arguments(ram_path / "two"), "--fill", log=ram_path / f"{n}.log") for n in (0, 1)]
    watch = Watch(ram_path / "two", expected)
    assert [watch.until(process) for process in both] == [0, 0]
    assert tree(ram_path / "two") == expected
    done = judged_by(ram_path / "two" / FILL)
    assert len(done) == 2
    assert all(done.values())
    assert sorted(name for names in done.values() for name in names) == [f"s-{n:04d}.tar" for n in range(6)]


def _edit(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


LEDGER = f"{FILL}/wdsfilter/ledger/s-0000.parquet"
TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "a number that the run has": lambda out: _edit(
        out / LEDGER, lambda rows: rows[0]["rules"].update(words=99)
    ),
    "a row is missing": lambda out: _edit(out / LEDGER, lambda rows: rows.pop()),
    "a judge that was not asked": lambda out: _edit(out / LEDGER, lambda rows: _rejected(rows).update(second=None)),
    "another decision": lambda out: _edit(out / LEDGER, lambda rows: _rejected(rows).update(reason="rules.x")),
    "no file at all": lambda out: (out / LEDGER).write_bytes(b"nothing"),
    "other findings": lambda out: (out / FILL / "wdsfilter/readout.json").write_text('{"scripted": {"x": 1}}'),
    "a ledger that the run lacks": lambda out: (out / "wdsfilter/ledger/s-0000.parquet").unlink(),
    "the fill of another run": lambda out: (out / FILL / "wdsfilter/run.json").write_text(
        (out / "wdsfilter/run.json").read_text().replace('"scoring": "', '"scoring": "0')
    ),
}  # fmt: skip


def _rejected(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in rows if row["status"] == "dropped")


@pytest.mark.parametrize("tampering", list(TAMPERINGS))
def test_tampering_with_a_fill_is_found(tampering: str, filled: Filled, tmp_path: Path) -> None:
    """`verify` holds a fill beside its run."""
    out = tmp_path / "out"
    assert main(filled.arguments(out)) == 0
    assert main([*filled.arguments(out), "--fill"]) == 0
    TAMPERINGS[tampering](out)
    assert main(["verify", str(out)]) == 3
