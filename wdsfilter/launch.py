"""Which of how many processes this is, and what it may run on: read from the launcher's environment.

``accelerate launch`` (torchrun), tasks of Slurm's ``srun`` and plain starts are understood. No process
group is created: ranks never talk to each other.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from wdsfilter.background import start_thread
from wdsfilter.errors import UserError


@dataclass(frozen=True, slots=True)
class Place:
    """This process among the launch's: global and local rank, and how many there are of each.

    ``launched``: by a launcher that stops the other ranks when one exits with a code other than 0.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    launched: bool = False


def place() -> Place:
    """Where this process stands. Raises UserError when the launcher's variables make no sense."""
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    if launched:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    else:  # a task's share of its node's cores shows in its affinity
        names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "")
    try:
        rank, local_rank, world_size, local_world_size = (
            int(os.environ.get(name, default)) for name, default in zip(names, (0, 0, 1, 1), strict=True)
        )
    except ValueError as error:
        raise UserError(f"{', '.join(filter(None, names))} have to be numbers: {error}") from error
    return Place(rank, local_rank, world_size, local_world_size, launched)


def pick_device(wanted: str | None, local_rank: int) -> str:
    """``wanted``, or this rank's accelerator, or ``cpu``; as torch names it. Raises UserError."""
    if wanted is not None:
        import torch

        try:
            torch.empty(1, device=wanted)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"run.device: {wanted!r} is no device that torch has here: {reason}") from error
        return wanted
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    import torch
    from accelerate.utils import parse_flag_from_env, set_numa_affinity

    if torch.cuda.is_available():
        if parse_flag_from_env("ACCELERATE_CPU_AFFINITY", False):
            set_numa_affinity(local_rank)
        return f"cuda:{local_rank % torch.cuda.device_count()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def versions() -> dict[str, str]:
    """Versions of what may move the last bits of a score, without importing any of it."""
    found = {"python": platform.python_version()}
    for name in ("wdsfilter", "torch", "transformers", "tokenizers", "pillow", "numpy", "pyarrow"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def launcher_identity() -> str:
    """The same for all ranks that one launcher started on this host, and for no others."""
    parent = os.getppid()
    return f"{platform.node()}.{parent}.{process_state(parent)[1]}"


def process_state(pid: int) -> tuple[str, str]:
    """State letter and start time (kernel ticks) of a process; empty where the system does not tell.

    The start time tells a process from a later one of the same number.
    """
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return values[0], values[19]
    except (OSError, IndexError):
        return "", ""


def is_running(pid: object, started: object = None) -> bool:
    """Whether a process of this host runs; ``started`` tells it from a later one of the same number."""
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    state, start = process_state(pid)
    return not state or (state not in "ZX" and started in (None, start))


@cache
def host_identity() -> str:
    """What two processes share exactly when each can see the other's process number."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def process_name() -> str:
    """``HOST-DIGEST.PID``: no other process that is there has it, in another container or on another host."""
    digest = hashlib.sha256(host_identity().encode()).hexdigest()[:8]
    return f"{platform.node()}-{digest}.{os.getpid()}"


def exit_with_parent(seconds: float = 1.0) -> None:
    """End this process when its launcher dies, so that no orphaned rank goes on working."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    start_thread(watch, "parent")
