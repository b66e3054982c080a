"""Plants bugs in a copy of the sources, one at a time, and shows that the tests catch each of them.

    python -m benchmarks.mutations            # all
    python -m benchmarks.mutations dropped    # those with this word in their names

Exits 1 when a bug is not caught, or when the tests fail without any.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_COPIED = ("wdsfilter", "recipes", "tests", "benchmarks")
_TIMEOUT = 600


@dataclass(frozen=True, slots=True)
class Edit:
    """In ``file``, below wdsfilter/, ``old`` (which stands there once) becomes ``new``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """A bug, and the tests that it must not get past."""

    name: str
    edits: tuple[Edit, ...]
    tests: str


MUTATIONS = (
    Mutation(
        "a shard's final name is opened directly",
        (
            Edit(
                "commit.py",
                "self._tar_path = folder.temporary()",
                "self._tar_path = folder.shard(shard.name)",
            ),
            Edit("commit.py", "        self._tar_path.unlink(missing_ok=True)\n", ""),
        ),
        "tests/test_kills.py -k 'commits and ledger.linked'",
    ),
    Mutation(
        "a finished file is copied to its name instead of linked",
        (
            Edit(
                "storage.py",
                "        os.link(temporary, final)\n",
                "        final.open('xb').write(temporary.read_bytes())\n",
            ),
        ),
        "tests/test_storage.py",
    ),
    Mutation(
        "rename instead of link",
        (Edit("storage.py", "        os.link(temporary, final)\n", "        os.rename(temporary, final)\n"),),
        "tests/test_storage.py",
    ),
    Mutation(
        "the ledger is linked before its shard's data is flushed",
        (Edit("shards/writer.py", "        os.fsync(self._file.fileno())\n", ""),),
        "tests/test_storage.py",
    ),
    Mutation(
        "the ledger is linked before it is flushed itself",
        (Edit("ledger.py", "            os.fsync(descriptor)\n", "            pass\n"),),
        "tests/test_storage.py",
    ),
    Mutation(
        "a new name is not flushed",
        (
            Edit(
                "storage.py",
                "            return False\n    sync_folder(final.parent)\n",
                "            return False\n",
            ),
        ),
        "tests/test_storage.py",
    ),
    Mutation(
        "the shard is linked before its ledger",
        (
            Edit(
                "commit.py",
                "        final = self._folder.ledger(self._shard.name)\n        if storage",
                "        if output is not None:\n"
                "            _link_shard(self._folder, self._tar_path, self._shard, output)\n"
                "        final = self._folder.ledger(self._shard.name)\n        if storage",
            ),
        ),
        "tests/test_kills.py -k 'commits and shard.linked'",
    ),
    Mutation(
        "one sample is dropped",
        (Edit("stages.py", "for item, _ in window]", "for item, _ in window[len(window) > 5 :]]"),),
        "tests/test_pipeline.py",
    ),
    Mutation(
        "one sample is doubled",
        (
            Edit(
                "committing.py",
                "    output.add(row, case.sample)\n",
                "    for _ in range(1 + row['key'].endswith('7')):\n        output.add(row, case.sample)\n",
            ),
        ),
        "tests/test_pipeline.py",
    ),
    Mutation(
        "samples are reordered",
        (
            Edit(
                "stages.py",
                "for item, _ in window]",
                "for item, _ in [*window[:-1][::-1], *window[-1:]]]",
            ),
        ),
        "tests/test_pipeline.py",
    ),
    Mutation(
        "a score is attached to its neighbour",
        (Edit("stages.py", "launched.outcomes(), strict=True", "[*launched.outcomes()][::-1], strict=True"),),
        "tests/test_pipeline.py",
    ),
    Mutation(
        "a resume skips a half shard",
        (
            Edit(
                "worklist.py",
                "if self._folder.ledger(shard.name).exists() and is_complete(self._folder, shard.name):",
                "if self._folder.ledger(shard.name).exists():",
            ),
        ),
        "tests/test_kills.py -k 'commits and ledger.linked'",
    ),
    Mutation(
        "who lost a race links a shard of its own scores",
        (Edit("commit.py", "if header.output == output:", "if output is not None:"),),
        "tests/test_pipeline.py",
    ),
    Mutation(
        "a derived file is written in place",
        (
            Edit(
                "output.py",
                "            storage.replace(temporary, final)\n",
                "            final.write_bytes(data)\n",
            ),
        ),
        "tests/test_storage.py",
    ),
    Mutation(
        "an end that comes too early is an end",
        (
            Edit(
                "storage.py",
                "if not got and self._size is not None and self._position != self._size:",
                "if False:",
            ),
        ),
        "tests/test_source.py",
    ),
    Mutation(
        "a resumed read goes on with another object",
        (
            Edit(
                "streams.py",
                "    if how := changed(expected, now):\n        raise Changed(how)\n    return begin",
                "    return begin",
            ),
        ),
        "tests/test_http.py",
    ),
    Mutation(
        "a read error is damage",
        (Edit("stages.py", "yield ShardEnds(shard, error=error)", "yield ShardEnds(shard, source)"),),
        "tests/test_disk.py -k block",
    ),
    Mutation(
        "a failed batch keeps its memory",
        (Edit("scorer.py", "failure = error.with_traceback(None)", "failure = error"),),
        "tests/test_limits.py -k let_go",
    ),
    Mutation(
        "SIGTERM is looked at when a shard is done",
        (Edit("stages.py", "            self.check_stop()\n", ""),),
        "tests/test_limits.py -k sigterm",
    ),
    Mutation(
        "verify believes a shard's size",
        (Edit("verify.py", " or file_sha256(path) != header.output.sha256", ""),),
        "tests/test_verify.py",
    ),
)


def main(words: Sequence[str]) -> int:
    """Run those mutations whose names hold a word of ``words``, or all."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    controls = [Mutation("(no bug)", (), tests) for tests in sorted({m.tests for m in chosen})]
    missed = 0
    for mutation in [*controls, *chosen]:
        began = time.monotonic()
        caught, line = _try(mutation)
        missed += caught != bool(mutation.edits)
        verdict = "caught" if caught else "passed" if not mutation.edits else "NOT CAUGHT"
        print(
            f"{verdict:10} {mutation.name}: {mutation.tests} ({time.monotonic() - began:.0f} s) {line}",
            flush=True,
        )
    return int(missed > 0)


def _try(mutation: Mutation) -> tuple[bool, str]:
    """Whether a test fails, and the first that does."""
    with tempfile.TemporaryDirectory(prefix="wdsfilter-mutation-") as folder:
        for name in _COPIED:
            shutil.copytree(
                ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__", "results")
            )
        shutil.copy(ROOT / "pyproject.toml", folder)
        for edit in mutation.edits:
            path = Path(folder, "wdsfilter", edit.file)
            path.write_text(path.read_text().replace(edit.old, edit.new))
        done = subprocess.run(
            f"{sys.executable} -m pytest -x -p no:cacheprovider --tb=no {mutation.tests}",
            shell=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": folder},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutation.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 1, failed[0].split(" - ")[0] if failed else ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
