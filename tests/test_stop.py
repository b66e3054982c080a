"""Stopping when a signal asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_INTERRUPTED = """
import sys
from wdsfilter.stop import Stop

stop = Stop()
try:
    with stop.on_signals():
        exec("import os, signal; os.kill(os.getpid(), signal.SIGINT); signal.pause()")
except KeyboardInterrupt:
    sys.exit(75)
"""


def test_an_interrupt_that_was_handled_leaves_the_exit_code_alone(tmp_path: Path) -> None:
    """Also where it came while a string was executed, which CPython remembers of a plain KeyboardInterrupt."""
    (tmp_path / "interrupted.py").write_text(_INTERRUPTED)
    process = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, timeout=60)
    assert process.returncode == 75
