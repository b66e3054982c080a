"""Several captions behind one picture in one forward pass: the numbers are those of the stock model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wdsfilter.demo.world import draw_pair
from wdsfilter.engine.checkpoint import Checkpoint
from wdsfilter.engine.layout import Layout, build_layout
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.training.lessons import IGNORE, OF_A_WORD, Lesson, Teacher, tokens_shown
from wdsfilter.training.muon import Muon, orthogonal
from wdsfilter.training.nothing import Shape, build_network, build_tokenizer, mrope_section, save_processor
from wdsfilter.training.tree import collate, prepare_for_trees, read, see

SYSTEM = "You are helpful AI assistant"
PROMPT = "Analyze and assess the quality of following image-caption pair:\n{caption}"
SHAPE = Shape(
    vocabulary=700, width=64, layers=3, heads=2, key_value_heads=1, mlp=96, vision_width=64, vision_layers=2
    , vision_heads=2
)  # fmt: skip


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Teacher]:
    """Tokenizer, network and teacher of a judge before its first lesson."""
    folder: Path = tmp_path_factory.mktemp("nothing")
    texts = [PROMPT.replace("{caption}", draw_pair(str(n)).caption.text) for n in range(300)]
    tokenizer = build_tokenizer(
        [*texts, "system\n", SYSTEM, "user\n", "assistant\n", "score: {"], SHAPE.vocabulary
    )
    save_processor(tokenizer, folder, min_pixels=20 * 784, max_pixels=25 * 784)
    layout: Layout = build_layout(
        Checkpoint(folder),
        {"image_token_id": tokenizer.token_to_id("<|image_pad|>")},
        system=SYSTEM,
        prompt=PROMPT,
        max_caption_tokens=200,
    )
    torch.manual_seed(3)
    network = build_network(tokenizer, SHAPE).eval()
    return tokenizer, network, Teacher(layout, PatchPlan(20 * 784, 25 * 784))


@pytest.mark.parametrize("form", [(1, 1), (4, 3)])
def test_packs_give_the_stock_models_numbers(
    beginning: tuple[Any, Any, Teacher], form: tuple[int, int]
) -> None:
    """Each caption's logits in a pack are those of the stock model that sees its row alone."""
    _, network, teacher = beginning
    lessons = [teacher.lesson(f"tree/{n}", form, 5) for n in range(3)]
    batch = collate(lessons, teacher.layout)
    mean, std = (torch.tensor(numbers) for numbers in (teacher.plan.mean, teacher.plan.std))
    network.set_attn_implementation("eager")
    alone = {}
    with torch.no_grad():
        for lesson in lessons:
            for branch in lesson.branches:
                logits, ids = _alone(network, teacher.layout, lesson, branch.ids, mean, std)
                alone[tuple(ids[-len(branch.ids) :]), lesson.patches.tobytes()] = logits[-len(branch.ids) :]
        prepare_for_trees(network)
        hidden = read(network, batch, see(network, batch.look, mean, std))
        at = (batch.labels != IGNORE).nonzero()[:, 0]
        packed = network.lm_head(hidden[at])
    del network.model.visual.patch_embed.forward
    expected = []
    order = sorted(
        ((lesson, branch) for lesson in lessons for branch in lesson.branches),
        key=lambda pair: len(pair[1].ids),
    )
    for lesson, branch in order:
        logits = alone[tuple(branch.ids), lesson.patches.tobytes()]
        expected.append(logits[branch.answer - 1 : -1])
    torch.testing.assert_close(packed, torch.cat(expected), rtol=1e-4, atol=1e-5)
    wanted = np.concatenate([branch.ids[branch.answer :] for _, branch in order])
    assert batch.labels[at].tolist() == wanted.tolist()


def _alone(
    network: Any, layout: Layout, lesson: Lesson, branch: Any, mean: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, list[int]]:
    visual = len(lesson.patches) // 4
    before = layout.plain.encode(layout.before, add_special_tokens=False).ids
    ids = [*layout.head, *([layout.image_pad] * visual), layout.vision_end, *before, *branch.tolist()]
    one = torch.from_numpy(lesson.patches).view(len(lesson.patches), 196, 3).float() / 255
    pixels = ((one - mean) / std).mT[:, :, None].expand(-1, -1, 2, -1).reshape(len(lesson.patches), -1)
    rows = torch.tensor([ids])
    logits = network(
        input_ids=rows,
        pixel_values=pixels,
        image_grid_thw=torch.tensor([[1, *lesson.grid]]),
        mm_token_type_ids=(rows == layout.image_pad).int(),
    ).logits[0]
    return logits, ids


def test_lessons_are_the_prompts_of_inference(beginning: tuple[Any, Any, Teacher]) -> None:
    """Start and branch of a lesson are the ids that the judge is asked with, then the answer."""
    _, _, teacher = beginning
    layout = teacher.layout
    lesson = teacher.lesson("prompt", (1, 1), 5)
    before = layout.plain.encode(layout.before, add_special_tokens=False).ids
    for branch in lesson.branches:
        text = layout.plain.decode(branch.ids[: branch.answer - len(layout.tail)].tolist())
        row, cut = layout.row(text, 25)
        assert not cut
        start = [*layout.head, *([layout.image_pad] * 25), layout.vision_end, *before]
        assert row.tolist() == [*start, *branch.ids[: branch.answer].tolist()]
        assert layout.plain.decode(branch.ids[branch.answer :].tolist()).startswith("score: {")


def test_words_are_labelled_where_they_stand(beginning: tuple[Any, Any, Teacher]) -> None:
    """A label stands on the last token of the words that it speaks of, and only within the caption."""
    _, _, teacher = beginning
    seen = set()
    for number in range(20):
        for branch in teacher.lesson(f"words/{number}", (1, 1), 5).branches:
            assert (branch.words[:, branch.answer - len(teacher.layout.tail) :] == IGNORE).all()
            there = [*OF_A_WORD].index("there")
            for token in np.flatnonzero(branch.words[there] != IGNORE):
                seen.add(teacher.layout.plain.decode([int(branch.ids[token])]).strip())
    assert {"heart", "square"} & {word.rstrip("s") for word in seen}


def test_visual_tokens_are_labelled_by_what_they_show() -> None:
    """A thing labels the visual tokens where it stands and no others."""
    scene = draw_pair("a").scene
    names, _, _, rows, columns = tokens_shown(scene, 5, 5).reshape(5, 5, 5)
    assert rows[0].tolist() == [0] * 5
    assert columns[:, 4].tolist() == [2] * 5
    assert (names != names.max()).sum() >= 1


def test_axes_take_turns(beginning: tuple[Any, Any, Teacher]) -> None:
    """Rotary sections fill half a head, and their number is a multiple of three."""
    for heads in (2, 4, 8):
        sections = mrope_section(Shape(width=192, heads=heads))
        assert sum(sections) == 192 // heads // 2
        assert len(sections) % 3 == 0


def test_muon_makes_steps_orthogonal() -> None:
    """The step of every matrix has singular values near 1, tall or wide, whatever its gradient's scale."""
    torch.manual_seed(0)
    for shape in ((3, 24, 8), (2, 8, 24)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape) * 1e-4))
        assert 0.6 < values.min() < values.max() < 1.3


def test_muon_learns() -> None:
    """A linear map is found again from its outputs."""
    torch.manual_seed(0)
    truth, matrix = torch.randn(8, 6), torch.nn.Parameter(torch.zeros(8, 6))
    optimizer = Muon([matrix], lr=0.1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        loss = (matrix - truth).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.01
