"""Images that are in a run more than once, byte for byte, by the hashes of its ledgers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

_AT_ONCE = 8_000_000  # hashes in memory, 8 bytes each
_NONE = np.zeros(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """``images`` occur more than once; ``copies`` could go; ``most`` is how often one occurs.

    ``kept_copies`` are the copies that could go among the kept samples alone.
    """

    images: int = 0
    copies: int = 0
    most: int = 0
    kept_copies: int = 0


def count(ledgers: Iterable[Path], samples: int) -> Duplicates:
    """Counts of exact duplicates, by the first 64 bits of each SHA-256.

    Reads the hashes once for every eight million samples, so that memory stays bounded.
    """
    paths = list(ledgers)
    passes = samples // _AT_ONCE + 1
    images = copies = most = kept_copies = 0
    for turn in range(passes):
        parts = [_hashes(path, turn, passes) for path in paths] or [(_NONE, _NONE)]
        everything, kept = (np.concatenate(half) for half in zip(*parts, strict=True))
        _, times = np.unique(everything, return_counts=True)
        images += int((times > 1).sum())
        copies += len(everything) - len(times)
        most = max(most, int(times.max(initial=0)))
        kept_copies += len(kept) - len(np.unique(kept))
    return Duplicates(images, copies, most, kept_copies)


def _hashes(path: Path, turn: int, passes: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Hashes of one ledger's images that belong to this turn: of all samples, and of the kept ones."""
    table = pq.read_table(path, columns=["image_sha256", "status"])
    table = table.filter(pc.is_valid(table.column("image_sha256")))
    texts = pc.utf8_slice_codeunits(table.column("image_sha256"), 0, 16).to_pylist()
    found = np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64)
    kept = pc.equal(table.column("status"), "kept").to_numpy()
    here = found % np.uint64(passes) == turn
    return found[here], found[here & kept]
