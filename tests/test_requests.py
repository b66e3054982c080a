"""What a shard costs in an object store, in requests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.runs import RECIPE, make_shards, write_recipe
from tests.s3 import Gate
from tests.test_object_output import upload
from wdsfilter.cli import main

MOST = {
    "a run": {"GET": 3, "HEAD": 9, "PUT": 3, "DELETE": 1},
    "the same again": {"GET": 2, "HEAD": 5},
    "status": {"GET": 1, "HEAD": 1},
    "select": {"GET": 5, "HEAD": 4},
}
"""What docs/storage.md says of a shard that is small and keeps something."""


def spent(bucket: str, gate: Gate, folder: Path, shards: int) -> dict[str, Counter[str]]:
    """Requests of each command over so many shards, by method."""
    folder.mkdir()
    make_shards(folder / "in", shards)
    upload(folder / "in", f"{bucket}/in")
    recipe = str(write_recipe(folder, RECIPE.replace("stale_after: 2", "stale_after: 600")))
    run = ["run", recipe, "--shards", f"{bucket}/in/s-*.tar", "-o", f"{bucket}/out"]
    question = ["--shards", f"{bucket}/in/", "--top", "50%", "--workers", "1", "-o", str(folder / "best")]
    found = {}
    for name, command in {
        "a run": run,
        "the same again": run,
        "status": ["status", f"{bucket}/out"],
        "select": ["select", f"{bucket}/out", *question],
    }.items():
        gate.clear()
        assert main(command) == 0
        found[name] = Counter(method for method, _ in gate.requests)
    return found


def test_what_a_shard_costs(bucket: str, s3: Gate, tmp_path: Path) -> None:
    """Two shards more cost twice what the documents say and no more, listings among it."""
    few, more = (spent(f"{bucket}/{count}", s3, tmp_path / str(count), count) for count in (4, 6))
    for command, most in MOST.items():
        each = {method: (more[command][method] - few[command][method]) / 2 for method in more[command]}
        assert all(count <= most.get(method, 0) for method, count in each.items()), (command, each)
