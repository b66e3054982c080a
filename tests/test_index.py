"""Index files: each in the format of the loader that reads it."""

from __future__ import annotations

import json

from wdsfilter.shards.index import NAMES, index_files

SIZES = {"b/1.tar": 3, "0.tar": 5, "ü.tar": 1}


def test_every_loader_finds_its_own() -> None:
    """open_clip, timm and wids get exactly the documents that they look for, shards sorted by name."""
    files = index_files(SIZES)
    assert tuple(files) == NAMES
    assert files["shards.txt"].decode() == "0.tar\nb/1.tar\nü.tar\n"
    assert json.loads(files["sizes.json"]) == SIZES
    assert json.loads(files["_info.json"]) == {
        "name": "wdsfilter",
        "splits": {
            "train": {
                "name": "train",
                "filenames": ["0.tar", "b/1.tar", "ü.tar"],
                "shard_lengths": [5, 3, 1],
                "num_samples": 9,
            }
        },
    }
    assert json.loads(files["index.json"]) == {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": [
            {"url": "0.tar", "nsamples": 5},
            {"url": "b/1.tar", "nsamples": 3},
            {"url": "ü.tar", "nsamples": 1},
        ],
    }


def test_index_files_depend_on_nothing_but_the_counts() -> None:
    """The order in which shards were finished does not show."""
    assert index_files(dict(reversed(SIZES.items()))) == index_files(SIZES)


def test_no_shards_are_a_list_too() -> None:
    """A run that kept nothing has index files, and they are valid."""
    files = index_files({})
    assert files["shards.txt"] == b""
    assert json.loads(files["index.json"])["shardlist"] == []
