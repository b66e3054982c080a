"""Small runs for tests: shards with known content, a scripted recipe, and what lies in an output folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from wdsfilter.judges import scripted

ROOT = Path(__file__).parent.parent
OUTSIDE = ("events", "claims", "tmp")
RECIPE = """
judges:
  - rules: {min_words: 2}
  - scripted: {seed: 7, at_least: 5}
guard: off
run: {stale_after: 2}
"""


def jpeg(number: int, side: int = 16) -> bytes:
    """A small picture that differs from every other number's."""
    buffer = io.BytesIO()
    color = (number * 37 % 256, number * 91 % 256, number % 256)
    Image.new("RGB", (side + number % 7, side), color).save(buffer, "JPEG")
    return buffer.getvalue()


def write_shard(path: Path, keys: Iterable[str], caption: str = "a picture of number {}") -> Path:
    """A shard with ``.jpg``, ``.txt``, ``.json`` and one more member for each key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, key in enumerate(keys):
            members = {
                "jpg": jpeg(number + len(key)),
                "txt": caption.format(number).encode(),
                "json": json.dumps({"uid": f"{number:032x}", "url": f"https://example.org/{key}"}).encode(),
                "bin": bytes([number % 256]) * 40,
            }
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size, info.mtime, info.uid = len(data), 1_600_000_000 + number, 1000
                tar.addfile(info, io.BytesIO(data))
    return path


def make_shards(folder: Path, shards: int = 5, samples: int = 12) -> str:
    """``shards`` shards, one of which keeps nothing; returns their brace pattern."""
    for shard in range(shards):
        caption = "short" if shard == 1 else "a picture of number {}"  # one word: rules drop all of shard 1
        write_shard(folder / f"s-{shard:04d}.tar", [f"{shard:04d}{i:05d}" for i in range(samples)], caption)
    return f"{folder}/s-{{0000..{shards - 1:04d}}}.tar"


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def tree(output: Path) -> dict[str, str]:
    """SHA-256 of every file that the promises speak of, by its path below ``output``."""
    found = {}
    outside = tuple(f"{run}wdsfilter/{o}/" for run in ("", "wdsfilter/fill/") for o in OUTSIDE)
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if path.is_file() and not name.startswith(outside):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def committed(output: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, modification time and SHA-256 of every committed file: none of them may ever change again."""
    names = [n for n in tree(output) if n.endswith((".tar", ".parquet", "run.json", "readout.json"))]
    return {
        name: (
            (output / name).stat().st_ino,
            (output / name).stat().st_mtime_ns,
            hashlib.sha256((output / name).read_bytes()).hexdigest(),
        )
        for name in names
    }


def forgetful(output: Path, copy: Path) -> Path:
    """A copy of a run's output that does not know where its input shards were."""
    shutil.copytree(output, copy, ignore=shutil.ignore_patterns("events"))
    return copy


@contextmanager
def sleepless() -> Iterator[None]:
    """The scripted judge takes no time in this process, whatever its recipe says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripted, "time", SimpleNamespace(sleep=lambda seconds: None))
        yield


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "wdsfilter", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without a launcher's variables, plus ``variables``."""
    launcher = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "WDSFILTER_FAILPOINT")
    return {k: v for k, v in os.environ.items() if k not in launcher} | {"PYTHONPATH": str(ROOT)} | variables


def start(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    """``wdsfilter ARGUMENTS`` in a process of its own."""
    return subprocess.Popen(
        command(*arguments),
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], timeout: float = 120) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that has to end by itself."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def members(path: Path) -> Mapping[str, bytes]:
    """Every member of a tar, by name, as Python's tarfile reads it."""
    found = {}
    with tarfile.open(path) as tar:
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None
            assert info.name not in found
            found[info.name] = file.read()
    return found
