"""What `wdsfilter select` can be asked: expressions, the best part, lists, samples, duplicates, several runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.selections import column_names, exported, ledger_run, rows_of, run_here, select

SCRIPTED = ["scripted"]


def graded(*grades: int | None) -> list[dict[str, object]]:
    """Rows that the scripted judge graded like this; None was rejected before it."""
    return [
        {"scripted": {"grade": g, "score": float(g)} if g is not None else None, "url": f"u{n}"}
        for n, g in enumerate(grades)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ledgers of two shards: grades 3 9 9 5, and 9 1 (none)."""
    return ledger_run(
        tmp_path / "run [1]", SCRIPTED, {"a.tar": graded(3, 9, 9, 5), "b.tar": graded(9, 1, None)}
    )


@pytest.mark.parametrize(
    "expression",
    [
        "1); COPY (SELECT 1) TO 'written.txt'; --",
        "true) FROM read_text('/etc/passwd'); --",
        "true) FROM read_text('/etc/passwd'",
        "(SELECT count(*) FROM read_text('/etc/passwd')) > 0",
        "EXISTS (FROM read_csv('/etc/passwd'))",
        "key IN (SELECT content FROM read_text('/etc/passwd'))",
        "read_text('/etc/passwd') IS NULL",
        "true; ATTACH 'written.db'",
        "true UNION SELECT true",
        "getenv('HOME') = 'x'",
        "current_setting('memory_limit') = 'x'",
        "random() < 0.5",
        "now() IS NOT NULL",
        "count(*) > 1",
        "row_number() OVER () < 3",
        "COLUMNS(*) IS NULL",
        "$1",
        "",
    ],
)
def test_nothing_but_an_expression_is_run(
    run: Path,
    tmp_path: Path,
    expression: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Statements, subqueries, files, settings and whatever may change from run to run are one line and exit code 1."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for option in ("--where", "--by"):
        more = ["--top", "1"] if option == "--by" else []
        assert select(run, "--export", tmp_path / "keys.txt", option, expression, *more) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"wdsfilter: {option}: ")
        assert len(told.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("scripted.scor > 3", "no column scripted.scor; did you mean scripted.score?"),
        ("scriptd.score > 3", "no column scriptd.score; did you mean scripted.score?"),
        ("ke = 'x'", "no column ke; did you mean key?"),
        ("key", "expected something true or false, found a value of type VARCHAR"),
        ("scripted.score >", "syntax error"),
        (" ", "expected one expression, found nothing"),
        ("p_at_least(scripted, 9) > 0.5", "scripted measures no probabilities"),
    ],
)
def test_a_mistake_is_one_line(
    run: Path, tmp_path: Path, expression: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake in the expression names what was found and what is near."""
    assert select(run, "--export", tmp_path / "keys.txt", "--where", expression) == 1
    assert told in capsys.readouterr().err


def test_the_top_is_exact_and_ties_go_by_place(run: Path, tmp_path: Path) -> None:
    """--top takes so many of the best, a share is one of all readable samples, and the earlier of equals wins."""
    assert exported([run], tmp_path / "1.txt", "--top", "2") == ["k1", "k2"]
    assert exported([run], tmp_path / "2.txt", "--top", "50%") == ["k1", "k2", "k0"]
    assert (tmp_path / "2.txt").read_text().splitlines()[2] == "b.tar\tk0"
    assert exported([run], tmp_path / "3.txt", "--top", "2", "--by", "-scripted.grade") == ["k0", "k1"]
    assert exported([run], tmp_path / "4.txt", "--top", "1", "--where", "scripted.score < 9") == ["k3"]


def test_samples_that_a_judge_never_saw_are_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever asks about a judge hears how many samples it never saw; they are never chosen by it."""
    assert "k2" not in exported([run], tmp_path / "keys.txt", "--where", "scripted.score < 3")
    assert (
        "never seen by scripted: 1 of 7 readable samples, since an earlier judge" in capsys.readouterr().err
    )


def test_probabilities_rank_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A judge with probabilities ranks by P(grade >= 9), the sum of p over grades from 9 on."""
    monkeypatch.setattr("wdsfilter.judges.vlm.identify", lambda options, runtime: {})
    nines_and_tens = ([0.1, 0.5], [0.4, 0.3], [0.0, 0.65])
    rows = [
        {"vlm": {"grade": 9, "score": 9.9 - n, "p": [0.0] * 7 + [1 - sum(p), *p]}}
        for n, p in enumerate(nines_and_tens)
    ]
    run = ledger_run(tmp_path / "run", [{"vlm": {"model": "m"}}], {"a.tar": rows})
    assert exported([run], tmp_path / "1.txt", "--top", "1") == ["k1"]
    assert "the best by p_at_least(vlm, 9)" in capsys.readouterr().err
    assert exported([run], tmp_path / "2.txt", "--where", "p_at_least(vlm, 10) > 0.4") == ["k0", "k2"]
    assert exported([run], tmp_path / "3.txt", "--where", "p_at_least(vlm, 1) > 0.9") == ["k0", "k1", "k2"]
    assert select(run, "--export", tmp_path / "4.txt", "--where", "p_at_least(vlm, 11) > 0") == 1


def test_lists_of_keys_and_takedowns(run: Path, tmp_path: Path) -> None:
    """--keys takes keys of any shard or of one; --drop-keys drops whatever has a listed value in --on."""
    (tmp_path / "keys").write_text("k1\nb.tar\tk0\n\n")
    (tmp_path / "urls").write_text("u2\nu0\n")
    assert exported([run], tmp_path / "1.txt", "--keys", tmp_path / "keys") == ["k1", "k0", "k1"]
    assert exported([run], tmp_path / "2.txt", "--drop-keys", tmp_path / "urls", "--on", "url") == [
        "k1",
        "k3",
        "k1",
    ]
    assert exported([run], tmp_path / "3.txt", "--keys", tmp_path / "1.txt") == ["k1", "k0", "k1"]


def test_lists_that_name_what_is_not_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many of a list's lines are there is told, whatever mark the file begins with and its lines end with."""
    (tmp_path / "keys").write_text("\ufeffk1\r\nk1\r\nb.tar\tk0\r\nb.tar\tk3\r\nnone\r\n")
    (tmp_path / "urls").write_text("u2\nhttps://example.org/none\nu2\n")
    lists: list[str | Path] = ["--keys", tmp_path / "keys", "--drop-keys", tmp_path / "urls", "--on", "url"]
    assert exported([run], tmp_path / "1.txt", *lists) == ["k1", "k0", "k1"]
    told = capsys.readouterr().err
    assert f"--keys {tmp_path}/keys: 2 of 4 are there" in told
    assert f"--drop-keys {tmp_path}/urls: 1 of 2 are there, as url" in told


def test_a_sample_is_drawn_by_seed(tmp_path: Path) -> None:
    """--sample takes about its share, the same one every time, another one for another seed."""
    run = ledger_run(tmp_path / "run", SCRIPTED, {"a.tar": graded(*[9] * 1000)})
    draws = [
        exported([run], tmp_path / f"{n}.txt", "--sample", "20%", "--seed", str(n // 2)) for n in range(3)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert all(150 < len(draw) < 250 for draw in draws)
    assert len(exported([run], tmp_path / "all.txt", "--sample", "100%")) == 1000


def test_of_exact_duplicates_the_best_stays(tmp_path: Path) -> None:
    """Images with the same bytes: the first stays, or with --by the best; samples without a hash all stay."""
    rows = [{**row, "image_sha256": h} for row, h in zip(graded(3, 9, 5, 5, 5), "xxy" + "\0\0", strict=True)]
    rows = [
        {**row, "image_sha256": None if row["image_sha256"] == "\0" else row["image_sha256"]} for row in rows
    ]
    run = ledger_run(tmp_path / "run", SCRIPTED, {"a.tar": rows})
    assert exported([run], tmp_path / "1.txt", "--drop-duplicates") == ["k0", "k2", "k3", "k4"]
    best = exported([run], tmp_path / "2.txt", "--drop-duplicates", "--by", "scripted.score")
    assert best == ["k1", "k2", "k3", "k4"]


@pytest.mark.parametrize("distance", [0, 1, 3, 8, 15])
def test_near_duplicates_are_those_within_the_distance(tmp_path: Path, distance: int) -> None:
    """A sample goes exactly when an earlier one's perceptual hash differs in at most N of 64 bits."""
    chance = np.random.default_rng(0)
    hashes = [int(h) for h in chance.integers(0, 1 << 63, 20, dtype=np.uint64)]
    for _ in range(60):
        flips = chance.choice(64, int(chance.integers(0, 10)), replace=False)
        hashes.append(int(chance.choice(hashes[:20])) ^ sum(1 << int(bit) for bit in flips))
    rows = [{**row, "phash": f"{h:016x}"} for row, h in zip(graded(*[9] * 80), hashes, strict=True)]
    run = ledger_run(tmp_path / "run", SCRIPTED, {"a.tar": rows})
    due = [
        f"k{n}"
        for n, h in enumerate(hashes)
        if all((h ^ earlier).bit_count() > distance for earlier in hashes[:n])
    ]
    assert exported([run], tmp_path / "k.txt", "--drop-duplicates", "--near", str(distance)) == due


def test_near_by_chance_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A distance within which unrelated pictures lie is taken, with a word on how many."""
    chance = np.random.default_rng(0)
    rows = [{**row, "phash": chance.bytes(8).hex()} for row in graded(*[9] * 1000)]
    run = ledger_run(tmp_path / "run", SCRIPTED, {"a.tar": rows})
    exported([run], tmp_path / "8.txt", "--drop-duplicates", "--near", "8")
    assert "by chance" not in capsys.readouterr().err
    exported([run], tmp_path / "15.txt", "--drop-duplicates", "--near", "15")
    assert "of 1,000 different hashes each has 0.012 others within so few bits" in capsys.readouterr().err


def test_runs_are_joined_by_shard_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named runs over the same shards answer together, and their numbers go along under their names."""
    first = ledger_run(tmp_path / "1", SCRIPTED, {"a.tar": graded(3, 9, 9), "b.tar": graded(9)})
    second = ledger_run(tmp_path / "2", SCRIPTED, {"a.tar": graded(9, 2, 8)})
    runs = [f"a={first}", f"b={second}"]
    where = ["--where", "a.scripted.score > 5 and b.scripted.score > 5"]
    assert exported(runs, tmp_path / "k.txt", *where) == ["k2"]
    assert select(*runs, "--export", tmp_path / "rows.parquet", *where) == 0
    assert {"a_scripted", "b_scripted", "source_shard"} <= set(column_names(tmp_path / "rows.parquet"))
    assert select(*runs, "--export", tmp_path / "x.txt", "--where", "scripted.score > 5") == 1
    assert "scripted.score is a column of several runs; say a.scripted.score" in capsys.readouterr().err
    third = ledger_run(tmp_path / "3", SCRIPTED, {"a.tar": graded(3, 9)})
    capsys.readouterr()
    assert exported([f"a={first}", f"b={third}"], tmp_path / "y.txt") == ["k0", "k1"]
    assert "left out: 2 of 4 readable samples of a; not every run has" in capsys.readouterr().err
    assert select(first, second, "--export", tmp_path / "x.txt") == 1
    assert "give each of several runs a name" in capsys.readouterr().err


def test_joined_runs_become_shards(tmp_path: Path) -> None:
    """Shards of joined runs hold the input's bytes, and one score.json with the judges of both."""
    pattern = run_here(tmp_path, 2)
    runs = [f"a={tmp_path}/run", f"b={tmp_path}/run"]
    assert select(*runs, "--shards", pattern, "-o", tmp_path / "out", "--where", "a.scripted.score >= 5") == 0
    assert all(row["a_scripted"] == row["b_scripted"] for row in rows_of(tmp_path / "out"))


def test_a_datacomp_subset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """subset.npy holds the sorted halves of all chosen uids as u8,u8; a uid that is none is refused."""
    uids = ["f" * 32, "0" * 31 + "1", "8000000000000000" + "0" * 16]
    rows = [{**row, "uid": uid} for row, uid in zip(graded(9, 9, 9), uids, strict=True)]
    run = ledger_run(tmp_path / "run", SCRIPTED, {"a.tar": rows})
    assert select(run, "--export", tmp_path / "subset.npy") == 0
    found = np.load(tmp_path / "subset.npy")
    assert found.dtype == np.dtype("u8,u8")
    assert found.tolist() == [(int(u[:16], 16), int(u[16:], 16)) for u in sorted(uids)]
    other = ledger_run(tmp_path / "other", SCRIPTED, {"a.tar": graded(9)})
    assert select(other, "--export", tmp_path / "other.npy") == 1
    assert "sample 'k0' has no uid: a subset of DataComp's" in capsys.readouterr().err
    assert not (tmp_path / "other.npy").exists()


def test_an_export_overwrites_nothing(run: Path, tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    (tmp_path / "keys.txt").write_text("mine")
    assert select(run, "--export", tmp_path / "keys.txt") == 1
    assert (tmp_path / "keys.txt").read_text() == "mine"
