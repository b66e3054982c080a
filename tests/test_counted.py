"""Numbers of things in messages and on pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.selections import run_here, select
from wdsfilter.cli import main
from wdsfilter.counted import counted


@pytest.mark.parametrize(("count", "said"), [(0, "0 shards"), (1, "1 shard"), (2176, "2,176 shards")])
def test_one_is_no_plural(count: int, said: str) -> None:
    """One thing is called so, and digits come in threes."""
    assert counted(count, "shard") == said


def test_nobody_says_one_things(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run over one sample of one shard, a selection of it and the page of both speak of one of each."""
    shards = run_here(tmp_path, 1, 1)
    run, new = str(tmp_path / "run"), str(tmp_path / "new")
    assert select(run, "--shards", shards, "-o", new, "--where", "true") == 0
    recipe = str(tmp_path / "recipe.yaml")
    assert main(["pilot", recipe, "--shards", shards, "-o", run]) == 0
    for folder in (run, new):
        assert main(["status", folder]) == main(["verify", folder]) == 0
        assert main(["report", folder]) == 0
    told = capsys.readouterr()
    pages = [(Path(folder) / "wdsfilter/report.html").read_text("utf-8") for folder in (run, new)]
    pages = [re.sub(r"<[^>]*>", "", re.sub(r"(?s)<(style|script).*?</\1>", "", page)) for page in pages]
    for text in (told.out, told.err, *pages):
        assert not re.findall(r"(?<![\d.,/])1 (?:of \d+ )?(?:readable )?(?:shards|samples|pairs)\b", text)
    assert "1 sample in 1 shard" in told.out
