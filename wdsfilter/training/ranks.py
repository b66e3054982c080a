"""The ranks of a training: they add up gradients and figures, and otherwise do the same thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wdsfilter.errors import UserError
from wdsfilter.trackers import PROJECT, check_installed

_BUCKET = 1 << 26  # values that travel together

Figures = Mapping[str, "float | Tensor"]


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together, by accelerate's account."""

    accelerator: Any

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def world_size(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    def mean(self, figures: Figures) -> dict[str, float]:
        """The mean over all ranks of each figure; every rank gives the same names."""
        names = sorted(figures)
        given = [torch.as_tensor(figures[name], dtype=torch.float32, device=self.device) for name in names]
        means = self.accelerator.reduce(torch.stack(given), "mean").tolist()
        return dict(zip(names, means, strict=True))

    def average_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give every rank the mean gradient; one that no rank has stays None.

        Done here and not by a wrapper around the network, so that an objective may call any part of it.
        """
        if self.world_size == 1:
            return
        had = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        gradients = []
        for parameter, ranks in zip(parameters, self.accelerator.reduce(had, "sum").tolist(), strict=True):
            if ranks and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in bucket]), "mean")
            for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def share_weights(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give every rank the first one's weights."""
        if self.world_size == 1:
            return
        from accelerate.utils import broadcast

        for parameter in parameters:
            parameter.data.copy_(broadcast(parameter.data))

    def gathered(self, rows: Sequence[Any]) -> list[Any]:
        """The rows of all ranks, one rank's after the other's."""
        if self.world_size == 1:
            return list(rows)
        from accelerate.utils import gather_object

        together: list[Any] = gather_object(list(rows))
        return together

    def track(self, values: Mapping[str, float], step: int) -> None:
        """Tell the trackers, which begin to write when there is something to write."""
        if self.accelerator.log_with and not self.accelerator.trackers:
            self.accelerator.init_trackers(PROJECT)
        self.accelerator.log(dict(values), step=step)

    def wait(self) -> None:
        """Until every rank is here."""
        self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        """Part from the other ranks, and end the trackers."""
        self.accelerator.end_training()


def join(trackers: Sequence[str] = (), folder: Path | None = None) -> Ranks:
    """Meet the other ranks that the launcher started; trackers that write files do it in ``folder``.

    Raises UserError for what is not supported.
    """
    from accelerate import Accelerator

    check_installed(trackers)
    accelerator = Accelerator(mixed_precision="no", log_with=list(trackers) or None, project_dir=folder)
    kind = accelerator.distributed_type.value
    if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA", "TP"):
        raise UserError(f"training under {kind} is not supported: every rank needs the whole model")
    return Ranks(accelerator)


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(g.numel() for g in bucket) + gradient.numel() > _BUCKET
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
