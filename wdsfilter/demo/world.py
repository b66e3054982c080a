"""The small world as shards: pictures and captions of them whose true score is known.

Seeded: the same seed gives the same pairs, whatever their number. Laid out as CC12M is on the hub (nine-digit
keys, ``.jpg .txt .json``); the json tells the truth.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wdsfilter.demo.captions import Caption, caption
from wdsfilter.demo.draw import render
from wdsfilter.demo.scene import Scene, draw_scene
from wdsfilter.demo.things import NEW_THINGS, THINGS
from wdsfilter.errors import UserError
from wdsfilter.samples import Member
from wdsfilter.shards.writer import ShardWriter

MARK = "world"
"""The field of a pair's json that says where it is from (and what its picture shows)."""

SAMPLES_PER_SHARD = 1000


@dataclass(frozen=True, slots=True)
class Drawn:
    """A pair: a JPEG, its scene, and a caption with the truth about it."""

    image: bytes
    scene: Scene
    caption: Caption


def draw_pair(seed: str, names: Sequence[str] = THINGS) -> Drawn:
    """The pair of a seed, of a world in which the things ``names`` exist."""
    rng = random.Random(seed)  # reproducible, not secret
    scene = draw_scene(rng, names=names)
    image = render(scene, rng)
    return Drawn(image, scene, caption(scene, rng, names=names))


def write_world(
    folder: Path,
    *,
    samples: int,
    seed: int = 0,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    shifted: bool = False,
    broken: float = 0.0,
) -> str:
    """Write ``world-0000.tar`` and so on into ``folder``; returns their brace pattern.

    ``shifted`` is a world of things that the ordinary one does not have; of the pairs, a share of ``broken``
    cannot be read. Raises UserError where one of the files is there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = -(-samples // samples_per_shard)
    for shard in range(shards):
        path = folder / f"world-{shard:04d}.tar"
        try:
            writer = ShardWriter(path)
        except FileExistsError:
            raise UserError(f"{path} is there already; give an empty folder") from None
        for number in range(shard * samples_per_shard, min(samples, (shard + 1) * samples_per_shard)):
            key = f"{shard:04d}{number - shard * samples_per_shard:05d}"
            writer.add(_members(key, f"world/{seed}/{number}", NEW_THINGS if shifted else THINGS, broken))
        writer.close()
    last = f"{shards - 1:04d}"
    return f"{folder}/world-{{0000..{last}}}.tar" if shards > 1 else f"{folder}/world-0000.tar"


def _members(key: str, seed: str, names: Sequence[str], broken: float) -> Iterator[Member]:
    pair = draw_pair(seed, names)
    rng = random.Random(f"{seed}/broken")
    how = rng.choice(("cut", "page", "captionless")) if rng.random() < broken else None
    image = pair.image
    if how == "cut":
        image = image[: len(image) // 2]
    elif how == "page":
        image = b"<html><body>404 Not Found</body></html>"
    yield Member(f"{key}.jpg", "jpg", image)
    if how != "captionless":
        yield Member(f"{key}.txt", "txt", pair.caption.text.encode())
    yield Member(f"{key}.json", "json", json.dumps(_fields(key, seed, pair)).encode())


def _fields(key: str, seed: str, pair: Drawn) -> dict[str, Any]:
    said = pair.caption
    return {
        "key": key,
        "uid": hashlib.sha256(seed.encode()).hexdigest()[:32],
        "url": f"https://example.org/{key}.jpg",
        "status": "success",
        "caption": said.text,
        "sha256": hashlib.sha256(pair.image).hexdigest(),
        "score": said.score,
        "otherwise": said.otherwise,
        "defects": said.defects,
        "justification": said.justification,
        MARK: asdict(pair.scene),
    }
