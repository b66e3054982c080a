"""A judge of the small world from nothing: how the judge that comes with wdsfilter is made.

A tokenizer is trained on captions and answers, a network of the family's architecture begins with random
weights, and lessons (:mod:`wdsfilter.training.world`) do the rest. Everything follows from the recipe's seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from pydantic import Field

from wdsfilter.demo.captions import caption
from wdsfilter.demo.scene import draw_scene
from wdsfilter.demo.things import PICTURES
from wdsfilter.demo.world import draw_pair
from wdsfilter.engine.attention import PACKED
from wdsfilter.engine.checkpoint import Checkpoint
from wdsfilter.engine.contract import OwnContract
from wdsfilter.engine.layout import Layout, build_layout, end_tokens, full_tokenizer
from wdsfilter.engine.pixels import build_plan
from wdsfilter.engine.prepare import Prepare
from wdsfilter.engine.readout import build_readout
from wdsfilter.fingerprint import Record
from wdsfilter.samples import Pair, Unreadable
from wdsfilter.training import weights
from wdsfilter.training.answers import AnswerForm
from wdsfilter.training.folder import TrainingFolder
from wdsfilter.training.forward import Packer
from wdsfilter.training.heldout import HeldOutPairs
from wdsfilter.training.job import Job
from wdsfilter.training.lessons import Teacher
from wdsfilter.training.loop import Course, Task
from wdsfilter.training.nothing import Shape, build_network, build_tokenizer, save_processor
from wdsfilter.training.objective import AnswerObjective
from wdsfilter.training.options import Section, Training
from wdsfilter.training.ranks import Ranks
from wdsfilter.training.recipe import Judge
from wdsfilter.training.scored import ScoredPair
from wdsfilter.training.source import ExampleMaker
from wdsfilter.training.tree import TREES
from wdsfilter.training.world import World, WorldObjective, WorldSource

_TEXTS = 20_000  # captions and answers that the tokenizer is trained on
_UNIT = 28 * 28


class HeldOutWorld(Section):
    """Pairs of another seed, which are asked about ``every`` so many steps and at the end."""

    pairs: int = Field(default=512, ge=1)
    every: int = Field(default=300, ge=1)


class ScratchRun(Section):
    """How the work is done; nothing in here changes what is learnt."""

    checkpoint_every: int = Field(default=100, ge=1)
    trackers: list[str] = Field(default_factory=list)


class ScratchRecipe(Section):
    """A valid recipe of a judge from nothing: a train recipe with a section ``world``.

    Images get ``judge.min_pixels`` to ``judge.max_pixels`` pixels.
    """

    shape: Shape = Shape()
    judge: Judge = Judge(min_pixels=20 * _UNIT, max_pixels=25 * _UNIT, max_caption_tokens=256)
    world: World
    held_out: HeldOutWorld = HeldOutWorld()
    training: Training
    run: ScratchRun = ScratchRun()
    seed: int = 0


def prepare(
    recipe: ScratchRecipe, ranks: Ranks, beginning: Path, *, note: Callable[[str], None]
) -> tuple[Job, Callable[[], None]]:
    """The job, and what ends the process that makes its lessons. Processor files are written to ``beginning``.

    Raises JudgeError.
    """
    judge = recipe.judge
    contract = OwnContract(score_first=True, **judge.model_dump())
    tokenizer = build_tokenizer(_texts(recipe), recipe.shape.vocabulary)
    save_processor(tokenizer, beginning, min_pixels=judge.min_pixels, max_pixels=judge.max_pixels)
    processor = Checkpoint(beginning)
    layout = build_layout(
        processor,
        {"image_token_id": tokenizer.token_to_id("<|image_pad|>")},
        system=judge.system,
        prompt=judge.prompt,
        max_caption_tokens=judge.max_caption_tokens,
    )
    plan = build_plan(
        processor.image_processor(),
        {},
        min_pixels=judge.min_pixels,
        max_pixels=judge.max_pixels,
        resize="pillow",  # who makes lessons loads no torch
    )
    teacher = Teacher(layout, plan, recipe.world.justified)
    steps = recipe.training.all_steps(1)
    source = WorldSource(teacher, recipe.world, recipe.seed)

    def load() -> Task:
        torch.manual_seed(recipe.seed)
        network = build_network(tokenizer, recipe.shape).to(ranks.device)
        note(f"{sum(p.numel() for p in network.parameters()):,} weights, drawn from seed {recipe.seed}")
        objective = WorldObjective(network, teacher, recipe.world, steps)
        asked = _held_out(recipe, processor, layout, Prepare(layout, plan), ranks)

        def evaluate() -> dict[str, float]:
            network.set_attn_implementation(PACKED)
            try:
                return asked.figures(network, steps)
            finally:
                network.set_attn_implementation(TREES)

        return Task(network, source, objective, evaluate)

    def save(task: Task, folder: TrainingFolder) -> None:
        del task.network.model.visual.patch_embed.forward
        weights.save_checkpoint(task.network, processor, contract, folder.root, dtype=torch.float16)

    course = Course(
        steps=steps,
        batches=1,
        seed=recipe.seed,
        checkpoint_every=recipe.run.checkpoint_every,
        evaluate_every=recipe.held_out.every,
    )
    return Job(_record(recipe, contract), recipe.training, course, load, save), source.close


def _held_out(
    recipe: ScratchRecipe, processor: Checkpoint, layout: Layout, prepare: Prepare, ranks: Ranks
) -> HeldOutPairs:
    grades = recipe.judge.scale.grades()
    readout = build_readout(layout.continuation, recipe.judge.answer, list(grades))
    form = AnswerForm(
        encode=layout.continuation,
        readout=readout,
        grades=grades,
        start=recipe.judge.answer,
        closing="}",
        end=end_tokens(full_tokenizer(processor))[0],
        soft=0.0,
        grade_weight=1.0,
        max_tokens=128,
    )
    packer = Packer(layout, prepare.plan)
    pairs = WorldPairs(f"held-out/{recipe.seed}", recipe.held_out.pairs)
    make = ExampleMaker(prepare, form, _unexpected)
    return HeldOutPairs(pairs, make, AnswerObjective(packer), packer, readout, grades, ranks, size=32)


class WorldPairs:
    """Drawn pairs as a sequence: pair ``n`` of a seed."""

    def __init__(self, seed: str, count: int) -> None:
        self._seed, self._count = seed, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> ScoredPair:
        drawn = draw_pair(f"{self._seed}/{number}")
        said = drawn.caption
        return ScoredPair(Pair(str(number), drawn.image, said.text, {}), str(said.score), said.justification)


def _unexpected(bad: Unreadable) -> None:
    raise AssertionError(f"a drawn pair cannot be read: {bad}")


def _texts(recipe: ScratchRecipe) -> Iterator[str]:
    """What the tokenizer is to know: prompts and answers, of the shifted world's things too."""
    for number in range(_TEXTS):
        rng = random.Random(f"words/{recipe.seed}/{number}")
        said = caption(draw_scene(rng, names=PICTURES), rng, names=PICTURES)
        yield recipe.judge.prompt.replace("{caption}", said.text)
        yield f"{recipe.judge.answer}{said.score}}}\n{said.justification}"
        yield from (f"system\n{recipe.judge.system}", "user\n", "assistant\n")


def _record(recipe: ScratchRecipe, contract: OwnContract) -> Record:
    """What makes two trainings the same one."""
    learnt = recipe.model_dump(mode="json", include={"shape", "world", "training", "seed"})
    return {"wdsfilter": {"format": 1}, "recipe": learnt, "judge": contract.model_dump(mode="json")}
