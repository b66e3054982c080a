"""`verify` finds every kind of tampering with a finished output."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.runs import make_shards, write_recipe
from wdsfilter.cli import main
from wdsfilter.ledger import read_rows


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


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
    "a shard that no ledger speaks of": lambda out: (out / "x.tar").write_bytes((out / TAR).read_bytes()),
    "a missing ledger": lambda out: (out / LEDGER).unlink(),
    "a changed byte in a ledger": lambda out: _flip(out / LEDGER, 50),
    "a ledger cut short": lambda out: (out / LEDGER).write_bytes((out / LEDGER).read_bytes()[:-9]),
    "a row too many": lambda out: _edit_ledger(out / LEDGER, lambda rows: rows.append(rows[-1])),
    "a missing row": lambda out: _edit_ledger(out / LEDGER, lambda rows: rows.pop()),
    "swapped scores": lambda out: _edit_ledger(out / LEDGER, _swap_scores),
    "a changed status": lambda out: _edit_ledger(out / LEDGER, lambda rows: rows[0].update(status="dropped")),
    "ledgers exchanged": lambda out: (out / LEDGER).write_bytes(
        (out / LEDGER.replace("0000", "0002")).read_bytes()
    ),
    "a changed index": lambda out: (out / "sizes.json").write_text("{}"),
    "a changed summary": lambda out: (out / "wdsfilter/summary.json").write_text("{}"),
    "a missing readout": lambda out: (out / "wdsfilter/readout.json").unlink(),
    "a changed scoring part": lambda out: _edit_scoring(out / "wdsfilter/run.json"),
    "a changed record": lambda out: _edit_record(out / "wdsfilter/run.json"),
}


def _swap_members(entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    places = [i for i, (info, _) in enumerate(entries) if info.name.endswith(".score.json")]
    first, second = places[0], next(p for p in places if entries[p][1] != entries[places[0]][1])
    one, two = entries[first], entries[second]
    entries[first], entries[second] = (one[0], two[1]), (two[0], one[1])


def _edit_ledger(path: Path, edit: Callable[[list[dict[str, object]]], object]) -> None:
    """Rewrite the rows and keep the metadata: what somebody would do who knows the format."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    edit(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path, compression="zstd")


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


def test_a_changed_input_is_found(run: tuple[Path, str], tmp_path: Path) -> None:
    """With the input at hand, a kept member that is not the input's is found."""
    out, pattern = run
    kept = next(row for row in read_rows(out / LEDGER) if row["status"] == "kept")
    _flip(tmp_path / "in/s-0000.tar", kept["offset"] + 600)
    assert main(["verify", str(out)]) == 0
    assert main(["verify", str(out), "--shards", pattern]) == 3
