"""The job without any launcher: every sample once, whatever fails."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.prepares import Journal
from tests.runs import make_shards, members, write_shard
from wdsfilter import ledger, stages, storage
from wdsfilter.commit import Fingerprints, ShardOutput
from wdsfilter.errors import JudgeError, OutputError, ReadError
from wdsfilter.guard import guard_trouble
from wdsfilter.judges import Judge
from wdsfilter.output import OutputFolder
from wdsfilter.pipeline import Runner, process_shard, run
from wdsfilter.plan import plan
from wdsfilter.recipe import Guard, Recipe, parse
from wdsfilter.samples import Decision, Member, Numbers, Pair, Prepared, Sample, Unreadable
from wdsfilter.scorer import Scorer
from wdsfilter.shards.source import Shard
from wdsfilter.shards.writer import ShardWriter, Written
from wdsfilter.stages import Case, JudgeStage, batches, read_items
from wdsfilter.workers import Workers


@dataclass
class FakeJudge:
    """Grades by the caption's number; ``bad`` keys fail in ``prepare``, in ``score``, or give NaN."""

    bad: Mapping[str, str] = field(default_factory=dict)
    window: int = 5
    batch_cost: int = 3
    inline: bool = True
    batches: list[list[str]] = field(default_factory=list)

    def prepare(self, pair: Pair) -> Prepared | Unreadable:
        if self.bad.get(pair.key) == "prepare":
            return Unreadable(pair.key, "image_broken", "as ordered")
        return Prepared(pair, phash="0" * 16)

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        self.batches.append([pair.key for pair in batch])
        if any(self.bad.get(pair.key) in ("score", "all") for pair in batch):
            raise MemoryError("as ordered")
        return [
            {
                "grade": 1 + int(p.key[-5:]) % 10,
                "score": float("nan") if self.bad.get(p.key) == "nan" else 0.5,
            }
            for p in batch
        ]

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


RECIPE = parse({"judges": [{"scripted": {"at_least": 6}}], "guard": "off"})


def judge_shard(
    tmp_path: Path, judge: Judge, recipe: Recipe = RECIPE, keys: Sequence[str] = ()
) -> list[ledger.Row]:
    """Rows of a shard of 20 (or of ``keys``) that ``judge`` judged."""
    names = list(keys) or [f"{i:05d}" for i in range(20)]
    shard = Shard("s.tar", str(write_shard(tmp_path / "s.tar", names)))
    process_shard(shard, tmp_path / "out", recipe, [judge])
    return list(ledger.read_rows(OutputFolder(tmp_path / "out").ledger("s.tar")))


def test_every_sample_has_one_row_in_input_order(tmp_path: Path) -> None:
    """read = kept + dropped + unreadable, rows in input order, and the shard holds exactly the kept ones."""
    rows = judge_shard(tmp_path, FakeJudge(bad={"00003": "prepare"}))
    assert [row["key"] for row in rows] == [f"{i:05d}" for i in range(20)]
    statuses = {row["key"]: row["status"] for row in rows}
    assert Counter(statuses.values()) == {"kept": 10, "dropped": 9, "unreadable": 1}
    kept = {name.split(".")[0] for name in members(tmp_path / "out/s.tar")}
    assert kept == {key for key, status in statuses.items() if status == "kept"}
    header = ledger.read_header(OutputFolder(tmp_path / "out").ledger("s.tar"))
    assert header.counts == ledger.Counts(20, 10, 9, 1, 0, {"image_broken": 1, "scripted.at_least": 9})


def test_rows_say_where_the_sample_lay(tmp_path: Path) -> None:
    """Offset and length of a row cut the sample out of its shard, members and all."""
    rows = judge_shard(tmp_path, FakeJudge())
    data = (tmp_path / "s.tar").read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(data[rows[4]["offset"] : rows[4]["offset"] + rows[4]["length"]] + bytes(1024))
    assert members(cut) == {n: d for n, d in members(tmp_path / "s.tar").items() if n.startswith("00004")}


@pytest.mark.parametrize("where", ["prepare", "score", "nan"])
def test_a_poison_sample_costs_itself(where: str, tmp_path: Path) -> None:
    """A sample that fails in decoding, in the model or by NaN is a row with a reason; all others keep their numbers."""
    sound = judge_shard(tmp_path / "sound", FakeJudge())
    poisoned = judge_shard(tmp_path / "poisoned", FakeJudge(bad={"00007": where}))
    reasons = {"prepare": "image_broken", "score": "scripted.failed", "nan": "scripted.not_finite"}
    assert (poisoned[7]["status"], poisoned[7]["reason"]) == ("unreadable", reasons[where])
    assert poisoned[7]["scripted"] is None
    assert [r for r in poisoned if r["key"] != "00007"] == [r for r in sound if r["key"] != "00007"]


def test_decided_samples_are_let_go_of(tmp_path: Path) -> None:
    """What an earlier judge rejected passes a later one without its bytes, and never piles up behind it."""
    recipe = parse({"judges": ["rules", {"scripted": {"id": "later"}}], "guard": "off"})
    held: list[int] = []

    def items() -> Iterator[Case]:
        for number in range(1000):
            case = Case(
                {"key": f"{number:05d}"}, Sample(f"{number:05d}", (), 0, 9), Pair(f"{number:05d}", b"", "")
            )
            if number % 100:
                case.settle(Decision("dropped", "rules.min_side"))
            assert (case.sample is None) == bool(number % 100)
            held.append(number)
            yield case

    judge = FakeJudge()
    with Workers([judge.prepare], 0) as workers:
        scorer = Scorer("later", judge, lambda name, **facts: None)
        stage = JudgeStage(recipe.judges[1], scorer, 0, workers, 1 << 20, lambda: None)
        for passed, _ in enumerate(stage(items())):
            assert len(held) - passed <= 8 * judge.window
    assert sum(map(len, judge.batches)) == 10


def test_a_judge_that_always_fails_stops_the_run(tmp_path: Path) -> None:
    """A judge that fails on every pair is broken: that is an error, not twenty unreadable samples."""
    with pytest.raises(JudgeError, match="fails on every pair"):
        judge_shard(tmp_path, FakeJudge(bad={f"{i:05d}": "all" for i in range(20)}))
    assert not OutputFolder(tmp_path / "out").ledger("s.tar").exists()


@dataclass
class BreakingJudge(FakeJudge):
    """Works for ``healthy`` batches, and never again."""

    healthy: int = 2

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        self.healthy -= 1
        if self.healthy < 0:
            raise RuntimeError("device lost")
        return FakeJudge.score(self, batch)


def test_a_judge_that_breaks_is_no_fact_about_samples(tmp_path: Path) -> None:
    """A judge that stops working stops the run; none of its failures is committed as an unreadable sample."""
    with pytest.raises(JudgeError, match="has stopped working"):
        judge_shard(tmp_path, BreakingJudge())
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_broken_judge_does_not_hide_in_a_small_first_shard(tmp_path: Path) -> None:
    """A first shard of a few pairs that all fail is not committed: it is the judge."""
    with pytest.raises(JudgeError, match="first shard"):
        judge_shard(tmp_path, FakeJudge(bad={"a": "all", "b": "all"}), keys=["a", "b"])
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_moments_failure_costs_nothing(tmp_path: Path) -> None:
    """A pair that fails once and then not is judged."""

    @dataclass
    class Moody(FakeJudge):
        failures: int = 3

        def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
            if self.failures and any(pair.key == "00007" for pair in batch):
                self.failures -= 1
                raise MemoryError
            return FakeJudge.score(self, batch)

    assert judge_shard(tmp_path / "a", Moody()) == judge_shard(tmp_path / "b", FakeJudge())


def test_another_recipe_that_was_slower_to_load_is_refused(tmp_path: Path) -> None:
    """Of two recipes planned on one empty folder, whoever comes to run.json second is refused."""
    pattern = make_shards(tmp_path / "in", 2)
    raw = {"input": {"shards": pattern}, "guard": "off"}
    slow = plan(parse({**raw, "judges": [{"scripted": {"seed": 1}}]}), tmp_path / "out")
    fast = plan(parse({**raw, "judges": [{"scripted": {"seed": 2}}]}), tmp_path / "out")
    with Runner(fast) as runner:
        runner.open()
    with Runner(slow) as runner, pytest.raises(OutputError, match="folder of another run"):
        runner.open()


def test_record_and_readout_race(tmp_path: Path) -> None:
    """Somebody who commits run.json while our judges are being checked wins: ours is compared with it."""
    pattern = make_shards(tmp_path / "in", 2)
    raw = {"input": {"shards": pattern}, "guard": "off", "judges": [{"scripted": {"seed": 1}}]}
    job = plan(parse(raw), tmp_path / "out")

    @dataclass
    class Overtaken(FakeJudge):
        def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
            job.folder.put(b'{"somebody": "else"}', job.folder.record)
            return {}

    with (
        Runner(job, judges=[Overtaken()]) as runner,
        pytest.raises(OutputError, match="folder of another run"),
    ):
        runner.open()


def test_the_check_sees_enough_pairs(tmp_path: Path) -> None:
    """Judges are checked on the run's first 32 pairs that can be read, from several shards where one is not enough."""
    seen: list[int] = []

    @dataclass
    class Asked(FakeJudge):
        def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
            seen.append(len(first))
            return {}

    pattern = make_shards(tmp_path / "in", 5, 12)
    job = plan(
        parse({"input": {"shards": pattern}, "judges": ["scripted"], "guard": "off"}), tmp_path / "out"
    )
    with Runner(job, judges=[Asked()]) as runner:
        runner.open()
    assert seen == [32]


def test_the_order_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shard and ledger are flushed before the ledger is linked, the shard after it, and each folder is flushed."""
    calls: list[str] = []
    real_sync, real_link = os.fsync, os.link

    def sync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        calls.append(f"sync {'folder' if os.path.isdir(path) else 'file'}")
        real_sync(descriptor)

    def link(source: Path, target: Path) -> None:
        calls.append(f"link {Path(target).suffix}")
        real_link(source, target)

    shard = Shard("s.tar", str(write_shard(tmp_path / "s.tar", ["00005"])))
    folder = OutputFolder(tmp_path / "out")
    recipe = parse({"judges": [{"scripted": {"at_least": 1}}], "guard": "off"})
    output = ShardOutput(folder, shard, recipe, Fingerprints("", ""))
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "link", link)
    row = {"key": "00005", "offset": 0, "length": 1, "status": "kept", "reason": "", "detail": ""}
    row["scripted"] = {"grade": 6, "score": 6.0}
    output.add(row, Sample("00005", (Member("00005.txt", "txt", b"x"),), 0, 1))
    output.commit(storage.stat(shard.url), None)
    assert calls == ["sync file", "sync file", "link .parquet", "sync folder", "link .tar", "sync folder"]


def test_who_loses_makes_the_winners_shard(tmp_path: Path) -> None:
    """Two processes with other scores for one shard: the first ledger stands, and the shard is the one it speaks of."""
    shard = Shard("s.tar", str(write_shard(tmp_path / "s.tar", [f"{i:05d}" for i in range(20)])))
    folder = OutputFolder(tmp_path / "out")
    recipe = parse({"judges": [{"scripted": {"at_least": 1}}], "guard": "off"})

    def begun(grade: int) -> ShardOutput:
        output = ShardOutput(folder, shard, recipe, Fingerprints("", ""))
        for item in read_items([shard], recipe):
            if isinstance(item, Case):
                item.row |= {"status": "kept", "reason": "", "detail": ""}
                item.row["scripted"] = {"grade": grade, "score": float(grade)}
                output.add(item.row, item.sample)
        return output

    loser, winner = begun(3), begun(7)
    ours = winner.commit(storage.stat(shard.url), None)
    (tmp_path / "out/s.tar").unlink()  # the winner died between its ledger and its shard
    assert loser.commit(storage.stat(shard.url), None) == ours
    written = members(tmp_path / "out/s.tar")
    assert json.loads(written["00004.score.json"])["scripted"]["grade"] == 7
    assert hashlib.sha256((tmp_path / "out/s.tar").read_bytes()).hexdigest() == ours.output.sha256  # type: ignore[union-attr]


def test_a_rebuild_of_another_input_is_refused(tmp_path: Path) -> None:
    """A shard is made again only of the bytes that its ledger was made of."""
    path = write_shard(tmp_path / "s.tar", [f"{i:05d}" for i in range(20)])
    shard = Shard("s.tar", str(path))
    process_shard(shard, tmp_path / "out", RECIPE, [FakeJudge()])
    (tmp_path / "out/s.tar").unlink()
    data = bytearray(path.read_bytes())
    row = next(
        r for r in ledger.read_rows(OutputFolder(tmp_path / "out").ledger("s.tar")) if r["status"] == "kept"
    )
    data[row["offset"] + 700] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(OutputError, match="is not the file that"):
        process_shard(shard, tmp_path / "out", RECIPE, [FakeJudge()])
    assert not (tmp_path / "out/s.tar").exists()


def test_large_samples_do_not_pile_up(tmp_path: Path) -> None:
    """However large samples are, those that are held at once stay within a bound of bytes."""
    held = most = 0

    def items() -> Iterator[Case]:
        nonlocal held, most
        for number in range(400):
            held += 1
            most = max(most, held)
            key = f"{number:05d}"
            yield Case({"key": key}, Sample(key, (), 0, 4 << 20), Pair(key, b"", ""))

    judge = FakeJudge(window=256)
    with Workers([judge.prepare], 0) as workers:
        scorer = Scorer("scripted", judge, lambda name, **facts: None)
        for _ in JudgeStage(RECIPE.judges[0], scorer, 0, workers, 16 << 20, lambda: None)(items()):
            held -= 1
    assert most * (4 << 20) <= (64 << 20) + (16 << 20)


def test_batches_stay_inside_a_shard(tmp_path: Path) -> None:
    """What a sample's neighbours are depends on its shard alone."""
    judge = FakeJudge()
    job = plan(
        parse({"input": {"shards": make_shards(tmp_path / "in", 3)}, "judges": ["scripted"], "guard": "off"}),
        tmp_path / "out",
    )
    with Runner(job, judges=[judge]) as runner:
        runner.open()
        assert len(list(run(runner))) == 3
    assert judge.batches
    assert all(len({key[:4] for key in batch}) == 1 for batch in judge.batches)


@dataclass
class BusyJudge:
    """Prepares in a worker process that keeps a journal; scores one pair at a time, slowly, and keeps one too."""

    prepare: Journal
    scored: list[tuple[float, str]] = field(default_factory=list)
    window: int = 8
    batch_cost: int = 1
    inline: bool = False

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        time.sleep(0.02)
        self.scored += [(time.monotonic(), key) for key in batch]
        return [{"grade": 10, "score": 10.0} for _ in batch]

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


def test_the_next_shard_is_prepared_while_this_one_is_judged(tmp_path: Path) -> None:
    """The model has work waiting across a shard's border: no pair of the next shard is prepared too late for that."""
    pattern = make_shards(tmp_path / "in", 3)
    recipe = parse({"input": {"shards": pattern}, "judges": ["scripted"], "guard": "off"})
    judge = BusyJudge(Journal(tmp_path / "journal"))
    with Runner(plan(recipe, tmp_path / "out"), judges=[judge]) as runner:
        runner.open()
        (tmp_path / "journal").unlink()  # of the check
        assert len(list(run(runner))) == 3
    prepared = {key: float(at) for at, key in map(str.split, (tmp_path / "journal").read_text().splitlines())}
    order = list(dict.fromkeys(key[:4] for _, key in judge.scored))
    for shard, following in itertools.pairwise(order):
        last_scored = max(at for at, key in judge.scored if key.startswith(shard))
        first_prepared = min(at for key, at in prepared.items() if key.startswith(following))
        assert first_prepared < last_scored - 0.02, "before the model was at this shard's last pair"


def test_the_next_shard_is_judged_while_this_one_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk does not stop the model: it goes on with the next shard."""
    judge = FakeJudge()
    close = ShardWriter.close
    judged: list[int] = []

    def slow(writer: ShardWriter) -> Written:
        deadline = time.monotonic() + 5
        while not judged and len({b[0][:4] for b in judge.batches}) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        judged.append(len({batch[0][:4] for batch in judge.batches}))
        return close(writer)

    pattern = make_shards(tmp_path / "in", 2)
    recipe = parse({"input": {"shards": pattern}, "judges": ["scripted"], "guard": "off"})
    with Runner(plan(recipe, tmp_path / "out"), judges=[judge]) as runner:
        runner.open()
        monkeypatch.setattr(ShardWriter, "close", slow)
        assert len(list(run(runner))) == 2
    assert judged == [2, 2]


@pytest.mark.parametrize("inline", [True, False])
def test_a_thread_reads_ahead_only_where_something_waits(
    inline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local files and judges without workers or model: a thread in front would only take turns with this one."""
    readers: set[str] = set()
    read_case = stages.read_case

    def noted(sample: Sample | Unreadable, recipe: Recipe) -> Case:
        readers.add(threading.current_thread().name)
        return read_case(sample, recipe)

    monkeypatch.setattr(stages, "read_case", noted)
    judge_shard(tmp_path, FakeJudge(inline=inline))
    assert readers == {"MainThread" if inline else "wdsfilter-read"}


def test_the_next_window_is_read_while_one_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large a judge's windows are: else the model would wait for each one's samples to be read."""
    judge = FakeJudge(window=200, batch_cost=200, inline=False)
    read: list[str] = []
    read_ahead: list[int] = []
    read_case, score = stages.read_case, FakeJudge.score

    def noted(sample: Sample | Unreadable, recipe: Recipe) -> Case:
        read.append(sample.key)
        return read_case(sample, recipe)

    def slowly(judge: FakeJudge, batch: Sequence[Any]) -> Sequence[Numbers]:
        deadline = time.monotonic() + 10
        while len(read) <= 620 and time.monotonic() < deadline:
            time.sleep(0.01)
        read_ahead.append(len(read))
        return score(judge, batch)

    monkeypatch.setattr(stages, "read_case", noted)
    monkeypatch.setattr(FakeJudge, "score", slowly)
    assert len(judge_shard(tmp_path, judge, keys=[f"{i:05d}" for i in range(700)])) == 700
    assert read_ahead[0] > 620  # this window, what workers have, and the window that comes next


def test_what_was_judged_is_committed_when_a_later_shard_fails(tmp_path: Path) -> None:
    """A judge that breaks in one shard costs nothing of the shard before it."""
    pattern = make_shards(tmp_path / "in", 2)
    recipe = parse({"input": {"shards": pattern}, "judges": ["scripted"], "guard": "off"})
    job = plan(recipe, tmp_path / "out")
    judge = BreakingJudge(healthy=6)  # five batches in the first shard
    with Runner(job, judges=[judge]) as runner:
        runner.open()
        with pytest.raises(JudgeError, match="has stopped working"):
            list(run(runner))
    assert job.folder.shard_names() == [job.shards[0].name]
    assert not list((tmp_path / "out/wdsfilter/tmp").iterdir())


@pytest.mark.parametrize(
    ("costs", "budget", "expected"),
    [
        pytest.param([], 4, [], id="none"),
        pytest.param([1, 1, 1, 1, 1], 2, [[0, 1], [2, 3], [4]], id="equal"),
        pytest.param([5, 1, 3, 2], 6, [[1, 3, 2], [0]], id="sorted"),
        pytest.param([9, 1], 4, [[1], [0]], id="dearer-than-the-budget"),
        pytest.param([1] * 10, 6, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], id="none-much-smaller"),
    ],
)
def test_batches(costs: list[int], budget: int, expected: list[list[int]]) -> None:
    """Batches hold like costs, no more than the budget, and every position once."""
    assert batches(costs, budget) == expected


def test_a_sample_that_one_judge_rejects_skips_the_rest(tmp_path: Path) -> None:
    """Later judges do not see what an earlier one rejected: NULL in their column."""
    recipe = parse({"judges": [{"rules": {"min_words": 99}}, "scripted"], "guard": "off"})
    shard = Shard("s.tar", str(write_shard(tmp_path / "s.tar", ["a", "b"])))
    process_shard(shard, tmp_path / "out", recipe)
    rows = list(ledger.read_rows(OutputFolder(tmp_path / "out").ledger("s.tar")))
    assert [(r["reason"], r["rules"]["words"], r["scripted"]) for r in rows] == [
        ("rules.min_words", 5, None)
    ] * 2
    assert not (tmp_path / "out/s.tar").exists(), "a shard that keeps nothing is not written"


def test_two_judges_of_one_kind(tmp_path: Path) -> None:
    """Two judges of one kind live side by side under their ids, in ledger and score member."""
    recipe = parse(
        {"judges": [{"scripted": {"id": "a", "grade": 9}}, {"scripted": {"id": "b"}}], "guard": "off"}
    )
    shard = Shard("s.tar", str(write_shard(tmp_path / "s.tar", ["x"])))
    process_shard(shard, tmp_path / "out", recipe)
    scores = json.loads(members(tmp_path / "out/s.tar")["x.score.json"])
    assert scores == {"a": {"grade": 9, "score": 9.0}, "b": {"grade": 10, "score": 10.0}}


def test_ledger_columns_of_the_json(tmp_path: Path) -> None:
    """uid, url and sha256 of a sample's .json are in its ledger row, where they exist."""
    rows = judge_shard(tmp_path, FakeJudge())
    assert (rows[3]["uid"], rows[3]["url"], rows[3]["sha256"]) == (
        f"{3:032x}",
        "https://example.org/00003",
        None,
    )


def test_an_unreadable_shard_commits_nothing(tmp_path: Path) -> None:
    """process_shard raises ReadError for a shard that is not there, and leaves no ledger."""
    write_shard(tmp_path / "t.tar", ["a"])
    with pytest.raises(ReadError, match="No such file"):
        process_shard(Shard("s.tar", str(tmp_path / "s.tar")), tmp_path / "out", RECIPE)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_process_shard_resumes(tmp_path: Path) -> None:
    """process_shard does not judge a shard again that has its ledger, and makes a missing shard from it."""
    rows = judge_shard(tmp_path, FakeJudge())
    shard = tmp_path / "out/s.tar"
    content = shard.read_bytes()
    shard.unlink()
    header = process_shard(
        Shard("s.tar", str(tmp_path / "s.tar")), tmp_path / "out", RECIPE, [FakeJudge(bad={"*": "all"})]
    )
    assert header.counts.samples == len(rows)
    assert shard.read_bytes() == content


def test_a_shard_in_the_way_is_refused(tmp_path: Path) -> None:
    """A file that is there already under an output shard's name is neither overwritten nor taken for ours."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/s.tar").write_bytes(b"somebody's")
    with pytest.raises(OutputError, match="in the way"):
        judge_shard(tmp_path, FakeJudge())
    assert (tmp_path / "out/s.tar").read_bytes() == b"somebody's"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        pytest.param(ledger.Counts(99, 0, 99), None, id="too-early"),
        pytest.param(ledger.Counts(100, 50, 50), None, id="fine"),
        pytest.param(
            ledger.Counts(100, 0, 100, reasons={"rules.min_side": 100}), "rules.min_side", id="nothing-kept"
        ),
        pytest.param(ledger.Counts(100, 100), "are kept", id="all-kept"),
        pytest.param(ledger.Counts(100, 50, 45, 0, 5), "are unparsable", id="unparsable"),
        pytest.param(ledger.Counts(100, 50, 20, 30), "are unreadable", id="unreadable"),
    ],
)
def test_guard(counts: ledger.Counts, said: str | None) -> None:
    """The guard speaks up after enough samples, about the share that is off, with the commonest reasons."""
    trouble = guard_trouble(Guard(after=100, kept=[0.01, 0.95], unparsable=0.01), counts)
    assert (trouble is None) if said is None else (trouble is not None and said in trouble)
