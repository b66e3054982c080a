"""`show`: everything that is known of one sample."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tests.runs import forgetful, make_shards, write_recipe
from wdsfilter import ledger
from wdsfilter.cli import main
from wdsfilter.report.blocks import in_colour


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, str]:
    shards, out = make_shards(tmp_path / "in", 2), tmp_path / "out"
    assert main(["run", str(write_recipe(tmp_path)), "--shards", shards, "-o", str(out)]) == 0
    return out, shards


def test_row_caption_and_picture(
    run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample's whole ledger row, its shard and its caption are printed, its picture is written."""
    out, shards = run
    row = list(ledger.read_rows(out / "wdsfilter/ledger/s-0001.parquet"))[3]
    capsys.readouterr()
    picture = tmp_path / "a.png"
    assert main(["show", str(out), row["key"], "--shards", shards, "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out.partition("wrote ")[0]
    assert json.loads(printed) == {"shard": "s-0001.tar", **row, "caption": "short"}
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_dropped_sample_without_input(
    run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dropped sample has its row then, and the word that its picture is in the input only."""
    assert main(["show", str(forgetful(run[0], tmp_path / "copy")), "000100003"]) == 0
    assert "give them with --shards" in capsys.readouterr().err


def test_no_such_key(run: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A key that no ledger has is a user's mistake."""
    assert main(["show", str(run[0]), "nobody"]) == 1
    assert "no ledger has the key 'nobody'" in capsys.readouterr().err


def test_a_picture_as_text() -> None:
    """In a terminal each character shows two pixels, the upper one in front of the lower one."""
    picture = Image.new("RGB", (2, 3), (255, 0, 0))
    picture.putpixel((1, 1), (0, 0, 255))
    text = in_colour(picture, 64)
    assert text.plain == "\u2580\u2580\n\u2580\u2580\n"
    console = Console(force_terminal=True, color_system="truecolor", file=io.StringIO(), legacy_windows=False)
    console.print(text, end="")
    written = console.file
    assert isinstance(written, io.StringIO)
    assert "38;2;255;0;0;48;2;0;0;255m" in written.getvalue()
    assert in_colour(Image.new("RGB", (300, 100)), 64).plain.count("\n") == 11
