"""The loop knows neither pairs nor prompts: it takes any source and any objective, and goes on exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from wdsfilter.errors import Interrupted, OutputError, UserError
from wdsfilter.stop import Stop
from wdsfilter.training.loop import Course, Task, train
from wdsfilter.training.optimizers import build_optimizers, set_rates
from wdsfilter.training.options import Optimizer, Schedule, Training
from wdsfilter.training.ranks import Ranks, join
from wdsfilter.training.state import StateFile


@dataclass
class Numbers:
    """Batch ``n`` is drawn from ``n``; remembers which were asked for."""

    asked: list[int] = field(default_factory=list)

    def batch(self, number: int) -> torch.Tensor:
        self.asked.append(number)
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(number))


class Fit:
    """Learns a sum with dropout, and a throw-away head beside it; remembers the steps it was told."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        self.head = torch.nn.Linear(2, 1)
        self.steps: list[int] = []

    def modules(self) -> Mapping[str, torch.nn.Module]:
        return {"head": self.head}

    def loss(self, network: Any, batch: torch.Tensor, step: int) -> tuple[torch.Tensor, Mapping[str, Any]]:
        self.steps.append(step)
        hidden = torch.nn.functional.dropout(network(batch), 0.5, training=network.training)
        loss = (self.head(hidden)[:, 0] - batch.sum(1)).pow(2).mean()
        return loss, {"twice": 2 * loss.detach(), "one": 1.0}


@dataclass
class Told:
    """A listener that remembers, and acts at a step."""

    at: int = 0
    act: Any = None
    started: list[int] = field(default_factory=list)
    figures: dict[int, Mapping[str, float]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def start(self, done: int, steps: int) -> None:
        self.started.append(done)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        self.figures[step] = figures
        if step == self.at:
            self.act()

    def held_out(self, step: int, figures: Mapping[str, float]) -> None:
        self.asked.append(step)


def task() -> Task:
    torch.manual_seed(3)
    return Task(torch.nn.Linear(3, 2), Numbers(), Fit())


TRAINING = Training(steps=8, precision="fp32", optimizer=Optimizer(learning_rate=0.1))


def go(
    work: Task,
    folder: Path,
    told: Told,
    *,
    training: Training = TRAINING,
    stop: Stop | None = None,
    ranks: Ranks | None = None,
    **course: Any,
) -> None:
    train(
        work,
        training,
        Course(**{"steps": 8, "batches": 2, "checkpoint_every": 3, "evaluate_every": 3, **course}),
        ranks=ranks or join(),
        state=StateFile(folder / "state.pt"),
        listener=told,
        stop=stop or Stop(),
    )


@pytest.mark.parametrize("stopping", [2, 3, 7])
def test_going_on_is_a_jump(stopping: int, tmp_path: Path) -> None:
    """A stopped training reads no batch again, tells no step twice, and ends in the unbroken one's bits."""
    unbroken, told = task(), Told()
    go(unbroken, tmp_path / "none", told, checkpoint_every=100)
    stop, first = Stop(), Told(stopping - 1)
    first.act = stop.ask
    with pytest.raises(Interrupted):
        go(task(), tmp_path, first, stop=stop)
    again, second = task(), Told()
    go(again, tmp_path, second)
    assert second.started == [stopping]
    assert again.source.asked == list(range(2 * stopping, 16))  # type: ignore[attr-defined]
    assert {**first.figures, **second.figures} == told.figures
    assert not first.figures.keys() & second.figures.keys()
    for one, other in zip(
        (*unbroken.network.parameters(), *unbroken.objective.head.parameters()),  # type: ignore[attr-defined]
        (*again.network.parameters(), *again.objective.head.parameters()),  # type: ignore[attr-defined]
        strict=True,
    ):
        assert torch.equal(one, other)


def test_a_step_is_its_batches(tmp_path: Path) -> None:
    """Batches of one step share its number, their figures are averaged, and heads are trained along."""
    work, told = task(), Told()
    before = work.objective.head.weight.detach().clone()  # type: ignore[attr-defined]
    go(work, tmp_path, told)
    assert work.objective.steps == [step for step in range(8) for _ in range(2)]  # type: ignore[attr-defined]
    assert work.source.asked == list(range(16))  # type: ignore[attr-defined]
    assert told.figures[1]["twice"] == pytest.approx(2 * told.figures[1]["loss"])
    assert told.figures[1]["one"] == 1.0
    assert not torch.equal(before, work.objective.head.weight)  # type: ignore[attr-defined]
    assert not (tmp_path / "state.new").exists()


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    """The gradient of a step is the mean over its batches: two batches and their union move the weights alike."""

    @dataclass
    class Halves:
        size: int

        def batch(self, number: int) -> torch.Tensor:
            rows = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
            return rows[number * self.size : (number + 1) * self.size]

    class Sum(Fit):
        def loss(self, network: Any, batch: torch.Tensor, step: int) -> Any:
            return (self.head(network(batch))[:, 0] - batch.sum(1)).pow(2).mean(), {}

    ends = []
    for size, batches in ((10, 1), (5, 2)):
        torch.manual_seed(3)
        work = Task(torch.nn.Linear(3, 2), Halves(size), Sum())
        go(work, tmp_path / str(size), Told(), batches=batches, checkpoint_every=100)
        ends.append(work.network.weight)
    torch.testing.assert_close(*ends)


def test_evaluation_sees_the_network_at_rest(tmp_path: Path) -> None:
    """Held-out figures are asked for every so often and at the end, without gradients, and change no step."""
    work, quiet, told = task(), Told(), Told()
    go(work, tmp_path / "quiet", quiet, checkpoint_every=100)
    modes: list[tuple[bool, bool]] = []
    measured = task()

    def evaluate() -> dict[str, float]:
        torch.rand(5)  # what an evaluation draws must not reach the next step
        modes.append((measured.network.training, torch.is_grad_enabled()))
        return {"loss": 1.0}

    go(Task(measured.network, measured.source, measured.objective, evaluate), tmp_path, told)
    assert told.asked == [3, 6, 8]
    assert modes == [(False, False)] * 3
    assert told.figures == quiet.figures


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    """A state with other weights, or one that is no state, is an error in one line."""
    go(task(), tmp_path, Told())
    with pytest.raises(OutputError, match="holds other weights"):
        go(Task(torch.nn.Linear(3, 2, bias=False), Numbers(), Fit()), tmp_path, Told())
    (tmp_path / "state.pt").write_bytes(b"torn")
    with pytest.raises(OutputError, match="cannot be read") as caught:
        go(task(), tmp_path, Told())
    assert "\n" not in str(caught.value)


def test_ranks_have_to_share_evenly(tmp_path: Path) -> None:
    """A step's batches that the ranks cannot share are refused before anything is trained."""

    class Accelerator:
        num_processes, process_index, device = 2, 0, torch.device("cpu")

    with pytest.raises(UserError, match="3 batches make a step, which 2 ranks cannot share"):
        go(task(), tmp_path, Told(), ranks=Ranks(Accelerator()), batches=3)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        pytest.param({"warmup": 0.0, "decay": "none"}, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1], id="constant"),
        pytest.param({"warmup": 0.4, "decay": "none"}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1], id="warmup"),
        pytest.param(
            {"warmup": 0.0, "decay": "linear"}, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], id="linear"
        ),
        pytest.param(
            {"warmup": 0.0, "hold": 0.6, "decay": "linear"},
            [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25],
            id="constant-then-linear",
        ),
        pytest.param(
            {"warmup": 0.2, "hold": 0.6, "decay": "cosine", "floor": 0.2},
            [0.5, 1, 1, 1, 1, 1, 1, 0.882843, 0.6, 0.317157],
            id="all-of-it",
        ),
    ],
)
def test_schedules(schedule: dict[str, Any], factors: list[float]) -> None:
    """Rates rise, stay and fall as the recipe says, as a function of the step alone."""
    found = [Schedule(**schedule).factor(step, 10) for step in range(10)]
    assert found == pytest.approx(factors, abs=1e-6)


def test_muon_takes_matrices_and_adamw_the_rest() -> None:
    """Muon moves the network's own matrices; tables, vectors and an objective's heads are AdamW's, and decay is
    for what has two dimensions."""

    def weight(*shape: int) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.zeros(shape))

    weights = {
        "network.layers.0.q_proj.weight": weight(4, 4),
        "network.layers.0.q_proj.bias": weight(4),
        "network.embed_tokens.weight": weight(8, 4),
        "network.patch_embed.proj.weight": weight(4, 3, 2, 14, 14),
        "heads.color.weight": weight(4, 4),
    }
    options = Optimizer(name="muon", learning_rate=1.0, matrices=2.0, weight_decay=0.1)
    muon, adamw = build_optimizers(weights, options)
    names = {id(parameter): name for name, parameter in weights.items()}

    def held(group: Mapping[str, Any]) -> set[str]:
        return {names[id(parameter)] for parameter in group["params"]}

    assert held(muon.param_groups[0]) == {"network.layers.0.q_proj.weight"}
    decayed, bare = adamw.param_groups
    assert held(bare) == {"network.layers.0.q_proj.bias"}
    assert held(decayed) == weights.keys() - held(bare) - held(muon.param_groups[0])
    assert (decayed["weight_decay"], bare["weight_decay"]) == (0.1, 0.0)
    for factor in (0.5, 0.25):  # of the recipe's rates, not of the last ones
        set_rates([muon, adamw], factor)
    assert (muon.param_groups[0]["lr"], decayed["lr"]) == (0.5, 0.25)
    (only,) = build_optimizers(weights, Optimizer())
    assert sum(len(group["params"]) for group in only.param_groups) == len(weights)
