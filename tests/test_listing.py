"""Folders and patterns of a hundred thousand objects, in bounded time and memory."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from wdsfilter.shards.source import Pattern, find_shards


class Crowded(AbstractFileSystem):  # type: ignore[misc]
    """A store with ``objects`` in one folder, and as many beside it; it counts what it is asked."""

    protocol = "crowded"
    cachable = False
    objects = 0
    listings = 0

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        Crowded.listings += 1
        folder = self._strip_protocol(path).strip("/")
        if folder == "bucket":
            return [{"name": f"bucket/{name}", "size": 0, "type": "directory"} for name in ("in", "other")]
        if folder not in ("bucket/in", "bucket/other"):
            raise FileNotFoundError(path)
        return [
            {"name": f"{folder}/cc12m-train-{number:06d}.tar", "size": 1, "type": "file"}
            for number in range(Crowded.objects)
        ]


@pytest.mark.parametrize("objects", [5000, pytest.param(100_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("pattern", ["in/", "in/*.tar", "in/cc12m-train-{000000..LAST}.tar"])
def test_a_crowded_folder(pattern: str, objects: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its objects are found by a few listings of this folder alone, in 0.2 ms of CPU and 1 kB each at most."""
    fsspec.register_implementation("crowded", Crowded, clobber=True)
    monkeypatch.setattr(Crowded, "objects", 1)
    find_shards([Pattern("crowded://bucket/in/"), Pattern("crowded://bucket/in/{0..1}.tar")])  # imports
    monkeypatch.setattr(Crowded, "listings", 0)
    monkeypatch.setattr(Crowded, "objects", objects)
    last = f"{objects - 1:06d}"
    tracemalloc.start()
    begun = time.process_time()
    found = find_shards([Pattern(f"crowded://bucket/{pattern.replace('LAST', last)}")])
    spent = time.process_time() - begun
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [found[0].name, found[-1].name, len(found)] == [
        "cc12m-train-000000.tar",
        f"cc12m-train-{last}.tar",
        objects,
    ]
    assert Crowded.listings <= 3
    assert spent < 0.5 + 200e-6 * objects
    assert most < 1e6 + 1000 * objects
