"""A train recipe -> the job of fine-tuning a Qwen2-VL checkpoint on scored pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from wdsfilter.counted import counted
from wdsfilter.engine.checkpoint import PROCESSOR, WEIGHTS, Checkpoint, locate, model_config
from wdsfilter.engine.contract import FILE, Contract, OwnContract, read_contract
from wdsfilter.engine.layout import build_layout, end_tokens, full_tokenizer
from wdsfilter.engine.pixels import build_plan
from wdsfilter.engine.prepare import Prepare
from wdsfilter.engine.readout import build_readout
from wdsfilter.errors import InputError, RecipeError
from wdsfilter.fingerprint import Record
from wdsfilter.samples import Unreadable
from wdsfilter.training import weights
from wdsfilter.training.answers import AnswerForm
from wdsfilter.training.folder import TrainingFolder
from wdsfilter.training.forward import Packer
from wdsfilter.training.heldout import HeldOutPairs
from wdsfilter.training.job import Job
from wdsfilter.training.loop import Course, Task
from wdsfilter.training.objective import AnswerObjective
from wdsfilter.training.ranks import Ranks
from wdsfilter.training.recipe import Judge, TrainRecipe
from wdsfilter.training.scored import Found, Subset, find_pairs, split
from wdsfilter.training.source import ExampleMaker, PairSource, order

_GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Base:
    """What a training starts from: the model's folder and the processor's, and the contract to be learnt."""

    model: Checkpoint
    processor: Checkpoint
    contract: OwnContract


def find_base(recipe: TrainRecipe) -> Base:
    """Where the recipe's checkpoint lies, and the contract: the recipe's, else its own, else the published one.

    Raises JudgeError, and RecipeError for an answer whose pattern does not read it.
    """
    one_folder = recipe.processor is None
    patterns = (*WEIGHTS, _GENERATION, FILE, *(weights.COPIED if one_folder else ()))
    model = locate(recipe.model, recipe.revision, patterns)
    processor = (
        model
        if recipe.processor is None
        else locate(recipe.processor, recipe.processor_revision, weights.COPIED)
    )
    own = read_contract(model.folder)
    said = recipe.judge.model_dump(exclude_unset=True)
    if own is not None:
        said = {**own.contract().model_dump(), "answers_for": own.answers_for, "mark": own.mark, **said}
    judge = Judge.model_validate(said)
    _check_pattern(judge, recipe.answers.closing)
    return Base(model, processor, OwnContract(score_first=True, **judge.model_dump()))


def _check_pattern(contract: Contract, closing: str) -> None:
    pattern, grades = re.compile(contract.pattern), contract.scale.grades()
    for grade in grades:
        answer = f"{contract.answer}{grade}{closing}"
        found = pattern.search(answer)
        if found is None or grades.get(found.group(1).strip()) != grades[grade]:
            raise RecipeError(
                f"judge.pattern {contract.pattern!r} does not read the grade {grade!r} of the answer {answer!r} "
                "(judge.answer + grade + answers.closing)"
            )


def prepare(
    recipe: TrainRecipe,
    ranks: Ranks,
    *,
    note: Callable[[str], None],
    unreadable: Callable[[Unreadable], None],
) -> Job:
    """Find the checkpoint and the pairs, and check everything that can be checked without weights.

    ``note`` is told what was found. Raises JudgeError, InputError, RecipeError, ReadError, MissingExtra.
    """
    base = find_base(recipe)
    size = recipe.run.pairs_at_once
    make = _example_maker(recipe, base, unreadable)
    readout, grades = make.form.readout, base.contract.scale.grades()
    found, trained, held_out = _pairs(recipe, grades, note)
    packer = Packer(make.prepare.layout, make.prepare.plan)
    objective = AnswerObjective(packer)
    course = Course(
        steps=recipe.training.all_steps(len(trained)),
        batches=recipe.training.pairs_per_step // size,
        seed=recipe.seed,
        checkpoint_every=recipe.run.checkpoint_every,
        evaluate_every=1 if recipe.held_out is None else recipe.held_out.every,
    )
    stored = weights.stored_dtype(base.model)
    adapted: list[Any] = []

    def load() -> Task:
        torch.manual_seed(recipe.seed)
        # What only adapters learn from may stay in bf16; what learns itself would lose small steps there.
        lean = recipe.lora is not None and recipe.training.precision == "bf16" and stored is torch.bfloat16
        network = weights.load_network(
            base.model, weights=stored if lean else torch.float32, device=ranks.device
        )
        if recipe.lora is not None:
            adapted.append(weights.add_adapters(network, recipe.lora))
        weights.freeze(network, recipe.freeze)
        if recipe.run.gradient_checkpointing:
            weights.checkpoint_activations(network)
        moved = sum(p.numel() for p in network.parameters() if p.requires_grad)
        note(f"{moved:,} of {sum(p.numel() for p in network.parameters()):,} weights learn")
        asked = HeldOutPairs(held_out, make, objective, packer, readout, grades, ranks, size)
        return Task(
            network,
            PairSource(trained, make, size, recipe.seed),
            objective,
            partial(asked.figures, network, course.steps) if len(held_out) else None,
        )

    def save(task: Task, folder: TrainingFolder) -> None:
        network = adapted[0].merge_and_unload() if adapted else task.network
        weights.save_checkpoint(network, base.processor, base.contract, folder.root, dtype=stored)

    return Job(_record(recipe, base, found, len(trained)), recipe.training, course, load, save)


def _example_maker(recipe: TrainRecipe, base: Base, unreadable: Callable[[Unreadable], None]) -> ExampleMaker:
    """How a pair becomes an example, by the contract. Raises JudgeError where tokens do not allow it."""
    contract, config = base.contract, model_config(base.model)
    layout = build_layout(
        base.processor,
        config,
        system=contract.system,
        prompt=contract.prompt,
        max_caption_tokens=contract.max_caption_tokens,
    )
    plan = build_plan(
        base.processor.image_processor(),
        config.get("vision_config", {}),
        min_pixels=contract.min_pixels,
        max_pixels=contract.max_pixels,
    )
    grades = contract.scale.grades()
    form = AnswerForm(
        encode=layout.continuation,
        readout=build_readout(layout.continuation, contract.answer, list(grades)),
        grades=grades,
        start=contract.answer,
        closing=recipe.answers.closing,
        end=end_tokens(full_tokenizer(base.processor))[0],
        soft=recipe.answers.soft,
        grade_weight=recipe.answers.grade_weight,
        max_tokens=recipe.answers.max_tokens,
    )
    return ExampleMaker(Prepare(layout, plan), form, unreadable)


def _pairs(
    recipe: TrainRecipe, grades: dict[str, int], note: Callable[[str], None]
) -> tuple[Sequence[Found], Subset, Subset]:
    """All that was found, what is trained on, and what is asked about."""
    found = [find_pairs(recipe.data, grades)]
    held_out = recipe.held_out
    if held_out is None or held_out.data is None:
        trained, aside = split(found[0], 0.0 if held_out is None else held_out.share, recipe.seed)
    else:
        found.append(find_pairs(held_out.data, grades))
        trained = Subset(found[0].pairs, range(len(found[0].keys)))
        aside = Subset(found[1].pairs, range(len(found[1].keys)))
    if not len(trained):
        raise InputError("held_out.share leaves no pair to train on")
    note(f"{counted(len(trained), 'pair')} to train on, {len(aside):,} held out")
    for some in found:
        for reason in sorted({bad.reason for bad in some.unusable}):
            bad = [one for one in some.unusable if one.reason == reason]
            note(f"unusable: {len(bad):,} {reason}, such as {bad[0].key} ({bad[0].detail})")
    if held_out is not None and len(aside) > held_out.pairs:
        chosen = sorted(order(len(aside), recipe.seed, 0)[: held_out.pairs])
        aside = Subset(aside.pairs, [aside.numbers[number] for number in chosen])
    return found, trained, aside


def _record(recipe: TrainRecipe, base: Base, found: Sequence[Found], trained: int) -> Record:
    """What makes two trainings the same one: no path, no time, nothing that only says how the work is done."""
    learnt = recipe.model_dump(mode="json", include={"answers", "lora", "freeze", "training", "seed"})
    return {
        "wdsfilter": {"format": 1},
        "recipe": learnt,
        "judge": base.contract.model_dump(mode="json"),
        "model": base.model.digests(WEIGHTS),
        "processor": base.processor.digests(PROCESSOR),
        "pairs": {
            "trained": trained,
            "held_out": 0.0 if recipe.held_out is None else recipe.held_out.share,
            "digests": [some.digest for some in found],
        },
    }
