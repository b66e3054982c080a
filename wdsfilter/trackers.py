"""Experiment trackers (tensorboard, wandb, ...), through accelerate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wdsfilter.errors import UserError

Track = Callable[[Mapping[str, float], int], None]
"""What a tracker is told: values by name, and the step."""

PROJECT = "wdsfilter"


def check_installed(names: Sequence[str]) -> None:
    """Raise UserError where a tracker cannot be used here."""
    if not names:
        return
    from accelerate.tracking import get_available_trackers

    installed = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in installed:
            listed = ", ".join(installed) or "none"
            raise UserError(
                f"run.trackers: {name} is not installed here (pip install {name}); installed: {listed}"
            )


@contextmanager
def tracking(names: Sequence[str], folder: Path, tell: Callable[[str], object]) -> Iterator[Track]:
    """A function that tells all these trackers, from this process alone: no process group is made.

    Trackers that write files do it in ``folder``. One that fails later is told once and left alone: a run does
    not stop for it. Raises UserError.
    """
    check_installed(names)
    open_ones = {name: _start(name, folder) for name in names}

    def track(values: Mapping[str, float], step: int) -> None:
        for name, tracker in list(open_ones.items()):
            try:
                tracker.log(dict(values), step=step)
            except Exception as error:
                del open_ones[name]
                tell(f"tracker {name} failed and is told nothing more: {error!r}")

    try:
        yield track
    finally:
        for tracker in open_ones.values():
            tracker.finish()


def _start(name: str, folder: Path) -> Any:
    from accelerate import tracking as trackers

    known: Any = trackers.LOGGER_TYPE_TO_CLASS[name]
    # what is left to the main process asks accelerate's state, which makes a process group under a launcher;
    # so does its own kind of logger, which raises where there is no state
    alone = type(known.__name__, (known,), {"main_process_only": False})
    trackers.logger = logging.getLogger(trackers.__name__)
    try:
        tracker = alone(PROJECT, folder) if known.requires_logging_directory else alone(PROJECT)
        if hasattr(tracker, "start"):
            tracker.start()
    except Exception as error:
        raise UserError(f"run.trackers: {name} cannot be started: {error}") from error
    return tracker
