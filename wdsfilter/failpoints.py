"""Places where a test may kill the process: every step of a commit has a name.

``WDSFILTER_FAILPOINT=ledger.linked:3`` kills the process with SIGKILL the third time it comes past
``ledger.linked``; ``:1`` may be left out. ``WDSFILTER_FAILPOINT_ACTION=stop`` stops it (SIGSTOP)
instead, as a scheduler or a debugger would. Without the variable a failpoint costs a look-up.
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "file.written",
    "run.committed",
    "readout.committed",
    "claim.taken",
    "shard.begun",
    "shard.written",
    "ledger.written",
    "ledger.linked",
    "shard.rebuilt",
    "shard.linked",
    "temporaries.removed",
    "claim.released",
    "replacement.written",
    "index.replaced",
    "summary.replaced",
)
"""All failpoints, in the order in which a run comes past them."""

_hits: dict[str, int] = {}


def hit(name: str) -> None:
    """Die here, if this is the place and the time that the environment names."""
    armed = os.environ.get("WDSFILTER_FAILPOINT")
    if not armed:
        return
    place, _, count = armed.partition(":")
    if place not in NAMES:
        raise ValueError(f"no failpoint {place!r}; there are: {', '.join(NAMES)}")
    if place != name:
        return
    _hits[name] = _hits.get(name, 0) + 1
    if _hits[name] == int(count or 1):
        stop = os.environ.get("WDSFILTER_FAILPOINT_ACTION") == "stop"
        os.kill(os.getpid(), signal.SIGSTOP if stop else signal.SIGKILL)
