"""A training from start to end: what it is, whether it may begin, its steps, and the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from wdsfilter.stop import Stop
from wdsfilter.training.folder import TrainingFolder
from wdsfilter.training.loop import Course, Listener, Task, train
from wdsfilter.training.options import Training
from wdsfilter.training.ranks import Ranks
from wdsfilter.training.state import StateFile


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be trained.

    ``record`` identifies it. ``load`` makes the task (all that is slow belongs there), ``save`` writes a
    checkpoint into a folder, ``judge.json`` last.
    """

    record: dict[str, Any]
    training: Training
    course: Course
    load: Callable[[], Task]
    save: Callable[[Task, TrainingFolder], None]


def run(job: Job, folder: TrainingFolder, *, ranks: Ranks, listener: Listener, stop: Stop) -> None:
    """Train from where ``folder`` stands to the end, and leave a checkpoint in it.

    Nothing happens where that is there already. Raises OutputError for another training's folder and for
    one in which another process trains, Interrupted when somebody asked to stop.
    """
    folder.check(job.record)
    if folder.is_done:
        return
    with folder.held() if ranks.rank == 0 else nullcontext():
        _run(job, folder, ranks, listener, stop)


def _run(job: Job, folder: TrainingFolder, ranks: Ranks, listener: Listener, stop: Stop) -> None:
    task = job.load()
    ranks.wait()
    if ranks.rank == 0:
        folder.claim(job.record)
    ranks.wait()
    state = StateFile(folder.state)
    train(task, job.training, job.course, ranks=ranks, state=state, listener=listener, stop=stop)
    if ranks.rank == 0:
        job.save(task, folder)
        state.remove()
    ranks.wait()
