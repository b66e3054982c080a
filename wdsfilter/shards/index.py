"""What loaders want beside the shards: derived files, made of nothing but names and sample counts.

Formats: open_clip reads ``sizes.json``; timm reads ``_info.json``; webdataset's wids reads
``index.json`` (``wids-shard-index-v1``). ``shards.txt`` is the plain list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

NAMES = ("shards.txt", "sizes.json", "_info.json", "index.json")


def index_files(sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Content of every index file, for shards (names relative to the folder) with their sample counts."""
    names = sorted(sizes)
    counts = [sizes[name] for name in names]
    train = {"name": "train", "filenames": names, "shard_lengths": counts, "num_samples": sum(counts)}
    wids = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": [{"url": name, "nsamples": sizes[name]} for name in names],
    }
    return {
        "shards.txt": "".join(f"{name}\n" for name in names).encode(),
        "sizes.json": _json({name: sizes[name] for name in names}),
        "_info.json": _json({"name": "wdsfilter", "splits": {"train": train}}),
        "index.json": _json(wids),
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
