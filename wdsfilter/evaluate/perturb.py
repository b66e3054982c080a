"""Clean pairs -> labelled pairs: each as it is, and some versions of it with one defect each.

Seeded and deterministic: a version depends on the seed, its sample and the samples before it in its
shard. A version that changes the caption keeps its image byte for byte, and one that changes the
image keeps its caption.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from wdsfilter import images, rubric, storage
from wdsfilter.errors import BadImage, InputError, OutputError, UserError
from wdsfilter.evaluate import pixels, words
from wdsfilter.pairs import PairReader
from wdsfilter.recipe_errors import nearest
from wdsfilter.samples import Damage, Member, Pair, Sample, Unreadable
from wdsfilter.shards.compression import decompressed
from wdsfilter.shards.reader import read_samples
from wdsfilter.shards.source import Shard
from wdsfilter.shards.writer import ShardWriter

CAPTION_DEFECTS: Mapping[str, Callable[[str, random.Random], str | None]] = {
    "colour": words.colour,
    "count": words.count,
    "position": words.position,
    "cut": words.cut,
    "shuffled": words.shuffled,
    "boilerplate": words.boilerplate,
    "generic": words.generic,
    "file_name": words.file_name,
}
IMAGE_DEFECTS: Mapping[str, Callable[[Image.Image, random.Random], bytes | None]] = {
    "blur": pixels.blur,
    "noise": pixels.noise,
    "tiny": pixels.tiny,
}
DEFECTS = ("mismatch", *CAPTION_DEFECTS, *IMAGE_DEFECTS)
"""What can be put into a pair; each has its cap in :data:`wdsfilter.rubric.CAPS`."""

_IMAGES = ("jpg", "jpeg", "png", "webp")


def chosen(names: str | None) -> tuple[str, ...]:
    """The defects of a comma-separated list; all without one. Raises UserError."""
    if names is None:
        return DEFECTS
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in DEFECTS:
            raise UserError(f"--defects: no defect {name!r}{nearest(name, DEFECTS)}")
    if not found:
        raise UserError(f"--defects: none given; there are {', '.join(DEFECTS)}")
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Options:
    """``score`` is what clean pairs get; each gives ``per_sample`` versions with different ``defects``."""

    score: int = 9
    per_sample: int = 2
    defects: tuple[str, ...] = DEFECTS
    seed: int = 0
    caption: str = "txt"


@dataclass(slots=True)
class Tally:
    """What was written of a shard: clean pairs, versions by defect; what could not be read, by reason."""

    clean: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    damage: Damage | None = None


def write_perturbed(shard: Shard, folder: Path, options: Options) -> Tally:
    """Write the labelled shard of ``shard`` into ``folder``, under the same name.

    It is read twice, its captions first, so that memory stays bounded. Raises OutputError when the
    name is taken or the folder cannot be made, ReadError; nothing is left behind then.
    """
    if shard.url == storage.STDIN:
        raise InputError("standard input can be read once only; give files, folders or URLs")
    final = folder / shard.name
    if final.exists():
        raise OutputError(f"{final} is there already; choose another folder")
    captions = [_Caption.of(found) for found in _read(shard, options) if isinstance(found, Pair)]
    tally = Tally()
    taken: set[str] = set()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{final.parent}: {error.strerror}") from error
    temporary = final.with_name(f".{final.name}.{os.getpid()}")
    writer = ShardWriter(temporary)
    try:
        for found in _read(shard, options):
            if isinstance(found, Damage):
                tally.damage = found
            elif isinstance(found, Unreadable):
                tally.unreadable[found.reason] += 1
            else:
                for version in _versions(found, captions, f"{options.seed}/{shard.name}", options, tally):
                    writer.add(_members(version, found, storage.shown(shard.url), options.score, taken))
        writer.close()
        if not storage.put_if_absent(temporary, final):
            raise OutputError(f"{final} is there already; choose another folder")
    finally:
        writer.abandon()
        temporary.unlink(missing_ok=True)
    return tally


def _read(shard: Shard, options: Options) -> Iterator[Pair | Unreadable | Damage]:
    reader = PairReader(_IMAGES, options.caption)
    with storage.open_read(shard.url) as raw:
        for item in read_samples(decompressed(raw)):
            yield reader.read(item) if isinstance(item, Sample) else item


@dataclass(frozen=True, slots=True)
class _Caption:
    """A caption, and the hash of the image that it belongs to: an image may come with several."""

    text: str
    image: bytes

    @staticmethod
    def of(pair: Pair) -> _Caption:
        return _Caption(pair.caption, hashlib.blake2b(pair.image, digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class _Version:
    """A pair as it is written; ``defect`` is None for the clean one."""

    defect: str | None
    image: bytes | memoryview
    caption: str


def _versions(
    pair: Pair, captions: Sequence[_Caption], seed: str, options: Options, tally: Tally
) -> Iterator[_Version]:
    """The pair itself, then the defects that it takes, those first that were seldom possible before."""
    try:
        image = images.decode(pair.image)
    except BadImage as bad:
        tally.unreadable[bad.reason] += 1
        return
    tally.clean += 1
    yield _Version(None, pair.image, pair.caption)
    mixed = random.Random(f"{seed}/{pair.key}").sample(options.defects, len(options.defects))
    left = options.per_sample
    for defect in sorted(mixed, key=lambda defect: tally.versions[defect]):
        if not left:
            break
        version = _with(defect, pair, image, captions, random.Random(f"{seed}/{pair.key}/{defect}"))
        if version is not None:
            left -= 1
            tally.versions[defect] += 1
            yield version


def _with(
    defect: str, pair: Pair, image: Image.Image, captions: Sequence[_Caption], rng: random.Random
) -> _Version | None:
    """The pair with this defect; None where it cannot have it."""
    if defect in IMAGE_DEFECTS:
        data = IMAGE_DEFECTS[defect](image, rng)
        return None if data is None else _Version(defect, data, pair.caption)
    text = (
        _another(pair, captions, rng) if defect == "mismatch" else CAPTION_DEFECTS[defect](pair.caption, rng)
    )
    if text is None or not words.differs(text, pair.caption):
        return None
    return _Version(defect, pair.image, text)


def _another(pair: Pair, captions: Sequence[_Caption], rng: random.Random) -> str | None:
    """Another image's caption, one that shares little with the pair's own where there is one."""
    own = _Caption.of(pair)
    start = rng.randrange(len(captions))
    others = (caption for caption in (*captions[start:], *captions[:start]) if caption.image != own.image)
    second: str | None = None
    for other in others:
        if words.is_far(own.text, other.text):
            return other.text
        if second is None and words.differs(own.text, other.text):
            second = other.text
    return second


def _members(version: _Version, pair: Pair, shard: str, score: int, taken: set[str]) -> Iterator[Member]:
    """The version's members under a key of its own, which goes into ``taken``."""
    key = pair.key if version.defect is None else f"{pair.key}-{version.defect}"
    while key in taken:
        key += "-"
    taken.add(key)
    defects = [] if version.defect is None else [version.defect]
    label: dict[str, Any] = {
        "score": rubric.capped(score, defects),
        "otherwise": score,
        "defects": defects,
        "source": {"shard": shard, "key": pair.key},
    }
    if pair.fields:
        label["original"] = dict(pair.fields)
    extension = _extension(version.image)
    yield Member(f"{key}.{extension}", extension, version.image)
    yield Member(f"{key}.txt", "txt", version.caption.encode())
    yield Member(f"{key}.json", "json", json.dumps(label).encode())


def _extension(image: bytes | memoryview) -> str:
    """What its bytes are, whatever it was called."""
    return {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}.get(images.header(image).format, "jpg")
