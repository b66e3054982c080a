"""`verify` finds every kind of tampering with a finished output."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.runs import make_shards, tree, write_recipe
from tests.shards import flipped, read
from wdsfilter.cli import main
from wdsfilter.errors import OutputError
from wdsfilter.ledger import LedgerWriter, read_header, read_rows
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import Output
from wdsfilter.samples import Sample
from wdsfilter.scores import with_scores
from wdsfilter.shards.writer import ShardWriter
from wdsfilter.summary import finish
from wdsfilter.verify import verify


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _rewrite_tar(path: Path, edit: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> None:
    with tarfile.open(path) as tar:
        entries = [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    edit(entries)
    with tarfile.open(path, "w") as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _swap_scores(rows: list[dict[str, object]]) -> None:
    rows[0]["scripted"], rows[1]["scripted"] = rows[1]["scripted"], rows[0]["scripted"]


TAR, LEDGER = "s-0000.tar", "wdsfilter/ledger/s-0000.parquet"
TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "a changed byte in a payload": lambda out: _flip(out / TAR, 600),
    "a changed byte in the padding": lambda out: _flip(out / TAR, (out / TAR).stat().st_size - 1),
    "a missing sample": lambda out: _rewrite_tar(out / TAR, lambda entries: entries.__delitem__(slice(0, 5))),
    "a sample too many": lambda out: _rewrite_tar(out / TAR, lambda entries: entries.extend(entries[:5])),
    "swapped score members": lambda out: _rewrite_tar(out / TAR, _swap_members),
    "a shard cut short": lambda out: (out / TAR).write_bytes((out / TAR).read_bytes()[:-1024]),
    "a missing shard": lambda out: (out / TAR).unlink(),
    "a folder in a shard's place": lambda out: _make_folder(out / TAR),
    "a shard that no ledger speaks of": lambda out: (out / "x.tar").write_bytes((out / TAR).read_bytes()),
    "a missing ledger": lambda out: (out / LEDGER).unlink(),
    "a changed byte in a ledger": lambda out: _flip(out / LEDGER, 50),
    "a ledger cut short": lambda out: (out / LEDGER).write_bytes((out / LEDGER).read_bytes()[:-9]),
    "a row too many": lambda out: _edit_ledger(out / LEDGER, lambda rows: rows.append(rows[-1])),
    "a missing row": lambda out: _edit_ledger(out / LEDGER, lambda rows: rows.pop()),
    "swapped scores": lambda out: _edit_ledger(out / LEDGER, _swap_scores),
    "a changed status": lambda out: _edit_ledger(
        out / LEDGER, lambda rows: _kept(rows).update(status="dropped")
    ),
    "ledgers exchanged": lambda out: (out / LEDGER).write_bytes(
        (out / LEDGER.replace("0000", "0002")).read_bytes()
    ),
    "a changed index": lambda out: (out / "sizes.json").write_text("{}"),
    "a changed summary": lambda out: (out / "wdsfilter/summary.json").write_text("{}"),
    "an index without a line": lambda out: (out / "shards.txt").write_text(""),
    "a missing index": lambda out: (out / "index.json").unlink(),
    "a missing summary": lambda out: (out / "wdsfilter/summary.json").unlink(),
    "a shard under another name": lambda out: (out / TAR).rename(out / "s-0009.tar"),
    "shards exchanged": lambda out: _exchange(out / TAR, out / "s-0002.tar"),
    "a compressed shard": lambda out: (out / TAR).write_bytes(gzip.compress((out / TAR).read_bytes())),
    "samples reordered": lambda out: _rewrite_tar(out / TAR, lambda entries: entries.reverse()),
    "a changed caption": lambda out: _rewrite_tar(out / TAR, _change_caption),
    "a member too many": lambda out: _rewrite_tar(
        out / TAR, lambda entries: entries.insert(1, (tarfile.TarInfo("x.txt"), b"x"))
    ),
    "a member's clock": lambda out: _rewrite_tar(
        out / TAR, lambda entries: setattr(entries[0][0], "mtime", 1)
    ),
    "a ledger too many": lambda out: (out / "wdsfilter/ledger/x.parquet").write_bytes(
        (out / LEDGER).read_bytes()
    ),
    "an empty ledger": lambda out: (out / LEDGER).write_bytes(b""),
    "rows exchanged": lambda out: _edit_ledger(out / LEDGER, lambda rows: rows.reverse()),
    "a row in twice": lambda out: _edit_ledger(out / LEDGER, lambda rows: rows.insert(3, rows[3])),
    "a changed key": lambda out: _edit_ledger(out / LEDGER, lambda rows: _kept(rows).update(key="x")),
    "a changed image hash": lambda out: _edit_ledger(
        out / LEDGER, lambda rows: _kept(rows).update(image_sha256="0" * 64)
    ),
    "a changed reason": lambda out: _edit_ledger(out / LEDGER, _change_reason),
    "a changed score of a dropped row": lambda out: _edit_ledger(out / LEDGER, _change_dropped),
    "metadata of another shard": lambda out: _edit_header(out / LEDGER, shard="s-0002.tar"),
    "metadata of another run": lambda out: _edit_header(out / LEDGER, scoring="0" * 64),
    "metadata without its shard": lambda out: _edit_header(out / LEDGER, output=None),
    "metadata with a damage": lambda out: _edit_header(
        out / LEDGER, damage={"reason": "cut_in_member", "detail": "", "offset": 0}
    ),
    "a changed readout": lambda out: (out / "wdsfilter/readout.json").write_text('{"scripted": {}}'),
    "a readout of other judges": lambda out: (out / "wdsfilter/readout.json").write_text('{"vlm": {}}'),
    "a missing readout": lambda out: (out / "wdsfilter/readout.json").unlink(),
    "a changed scoring part": lambda out: _edit_scoring(out / "wdsfilter/run.json"),
    "a changed record": lambda out: _edit_record(out / "wdsfilter/run.json"),
}


BY_HASH_ALONE = (
    "a changed summary",
    "a missing summary",
    "a changed readout",
    "a changed score of a dropped row",
    "metadata with a damage",
)


def _kept(rows: list[dict[str, object]]) -> dict[str, object]:
    return next(row for row in rows if row["status"] == "kept")


def _swap_members(entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    places = [i for i, (info, _) in enumerate(entries) if info.name.endswith(".score.json")]
    first, second = places[0], next(p for p in places if entries[p][1] != entries[places[0]][1])
    one, two = entries[first], entries[second]
    entries[first], entries[second] = (one[0], two[1]), (two[0], one[1])


def _exchange(first: Path, second: Path) -> None:
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


def _change_caption(entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    place = next(i for i, (info, _) in enumerate(entries) if info.name.endswith(".txt"))
    entries[place] = (entries[place][0], b"another caption")


def _change_reason(rows: list[dict[str, object]]) -> None:
    next(row for row in rows if row["status"] == "dropped")["reason"] = "rules.min_words"


def _change_dropped(rows: list[dict[str, object]]) -> None:
    next(row for row in rows if row["status"] == "dropped")["scripted"] = {"grade": 1, "score": 1.5}


def _edit_ledger(path: Path, edit: Callable[[list[dict[str, object]]], object]) -> None:
    """Rewrite the rows and keep the metadata: what somebody would do who knows the format."""
    rows = pq.read_table(path).to_pylist()
    edit(rows)
    _write_ledger(path, rows, {})


def _edit_header(path: Path, **facts: object) -> None:
    _write_ledger(path, pq.read_table(path).to_pylist(), facts)


def _write_ledger(path: Path, rows: list[dict[str, object]], facts: Mapping[str, object]) -> None:
    header = {**json.loads(pq.read_metadata(path).metadata[b"wdsfilter"]), **facts}
    table = pa.Table.from_pylist(rows, pq.read_schema(path).remove_metadata())
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"wdsfilter": json.dumps(header).encode()})


def _edit_scoring(path: Path) -> None:
    record = json.loads(path.read_text())
    record["scoring"]["judges"]["scripted"]["options"]["seed"] = 4
    path.write_text(json.dumps(record))


def _edit_record(path: Path) -> None:
    record = json.loads(path.read_text())
    record["decision"]["judges"]["scripted"]["at_least"] = 10
    path.write_text(json.dumps(record))


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, str]:
    """A finished run's folder, and its input shards."""
    pattern = make_shards(tmp_path / "in", 3)
    recipe = write_recipe(tmp_path, "judges: [rules, scripted: {seed: 3, at_least: 3}]\nguard: off\n")
    assert main(["run", str(recipe), "--shards", pattern, "-o", str(tmp_path / "out")]) == 0
    return tmp_path / "out", pattern


def test_a_sound_run_verifies(run: tuple[Path, str]) -> None:
    """Nothing is found where nothing is wrong, with and without the input."""
    out, pattern = run
    assert main(["verify", str(out)]) == 0
    assert main(["verify", str(out), "--shards", pattern]) == 0


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found(name: str, run: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind of tampering is found without the input at hand, and exits 3 (1 where the record itself is void)."""
    out, _ = run
    TAMPERINGS[name](out)
    capsys.readouterr()
    code = main(["verify", str(out)])
    captured = capsys.readouterr()
    if name in ("a changed record", "a changed scoring part"):  # then it is no run's record any more
        assert (code, "is not what its fingerprint was made of" in captured.err) == (1, True)
    else:
        assert (code, "broken promise" in captured.out) == (3, True)
    if name not in BY_HASH_ALONE:
        rest = [line for line in captured.out.splitlines() if "summary.json" not in line]
        assert len(rest) > 1 or code == 1, "not by the summary's hash alone"


def test_status_needs_a_readable_record(run: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    """`status` says nothing of a folder whose record is no record."""
    (run[0] / "wdsfilter/run.json").write_text("{")
    assert main(["status", str(run[0])]) == 1
    assert "not readable as a run's record" in capsys.readouterr().err


def test_a_changed_input_is_found(run: tuple[Path, str], tmp_path: Path) -> None:
    """With the input at hand, a kept member that is not the input's is found."""
    out, pattern = run
    kept = next(row for row in read_rows(out / LEDGER) if row["status"] == "kept")
    _flip(tmp_path / "in/s-0000.tar", kept["offset"] + 600)
    assert main(["verify", str(out)]) == 0
    assert main(["verify", str(out), "--shards", pattern]) == 3


def _careful(out: Path, source: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change rows of a ledger, and make everything else fit: counts, hashes, the shard, indexes, summary."""
    header, rows = read_header(out / LEDGER), list(read_rows(out / LEDGER))
    columns = pq.read_schema(out / LEDGER).remove_metadata()
    edit(rows)
    (out / LEDGER).unlink()
    (out / TAR).unlink()
    ledger, tar = LedgerWriter(out / LEDGER, columns), ShardWriter(out / TAR)
    samples = {sample.key: sample for sample in read(source.read_bytes()) if isinstance(sample, Sample)}
    for row in rows:
        ledger.add(row)
        if row["status"] == "kept":
            tar.add(with_scores(samples[row["key"]], row, ["rules", "scripted"], Output()))
    ledger.close(replace(header, counts=ledger.counts, output=tar.close()))
    finish(OutputFolder(out))


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda rows: rows.pop(4), id="a row left out"),
        pytest.param(lambda rows: rows.insert(4, {**rows[4], "key": "invented"}), id="a row invented"),
        pytest.param(lambda rows: rows[4].update(offset=rows[4]["offset"] + 512), id="a row moved"),
    ],
)
def test_careful_tampering_is_found_with_the_input(
    edit: Callable[[list[dict[str, Any]]], object], run: tuple[Path, str], tmp_path: Path
) -> None:
    """Who makes everything else fit what they changed is found by comparing with the input."""
    out, pattern = run
    _careful(out, tmp_path / "in/s-0000.tar", lambda rows: None)
    assert main(["verify", str(out), "--shards", pattern]) == 0, "care alone is no tampering"
    dropped = next(i for i, row in enumerate(read_rows(out / LEDGER)) if row["status"] == "dropped")

    def of_dropped(rows: list[dict[str, Any]]) -> None:
        rows[4], rows[dropped] = rows[dropped], rows[4]  # a row whose bytes nobody would miss
        edit(rows)
        if len(rows) > max(4, dropped):
            rows[4], rows[dropped] = rows[dropped], rows[4]

    _careful(out, tmp_path / "in/s-0000.tar", edit if dropped == 4 else of_dropped)
    assert main(["verify", str(out), "--shards", pattern]) == 3


@pytest.mark.parametrize("stride", [499, pytest.param(7, marks=pytest.mark.nightly)])
def test_a_flipped_bit_anywhere_is_found(stride: int, tmp_path: Path, ram_path: Path) -> None:
    """One bit of any byte of any file of a finished run: committed and derived ones alike."""
    pattern = make_shards(tmp_path / "in", 2, 4)
    recipe = write_recipe(tmp_path, "judges: [rules, scripted: {seed: 3, at_least: 3}]\nguard: off\n")
    assert main(["run", str(recipe), "--shards", pattern, "-o", str(ram_path / "out")]) == 0
    flips = 0
    for name in tree(ram_path / "out"):
        path = ram_path / "out" / name
        data = path.read_bytes()
        for offset in range(0, len(data), stride):
            path.write_bytes(flipped(data, 8 * offset + offset % 8))
            try:
                found = next(verify(OutputFolder(ram_path / "out")), None)
            except OutputError as error:
                found = str(error)
            assert found, f"{name}: byte {offset}"
            flips += 1
        path.write_bytes(data)
    assert flips > 50
    assert not list(verify(OutputFolder(ram_path / "out")))
