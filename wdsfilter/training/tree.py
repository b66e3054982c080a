"""One forward pass over pictures with several captions each: the tokens that they share are computed once.

A pack holds the shared starts of all pictures (system text, picture, instruction), then the captions'
branches in groups of about the same length. A branch sees its own picture's start and itself, exactly
as if it stood alone: the numbers are those of the stock model (tested).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import AttentionInterface

from wdsfilter.engine.layout import Layout
from wdsfilter.engine.positions import Row, positions
from wdsfilter.training.lessons import IGNORE, OF_A_WORD, Lesson

NAME = "wdsfilter_flash_tree"

# transformers 4.57 takes a pack of pictures apart by itself
_ONE_BY_ONE = importlib.util.find_spec("transformers.vision_utils") is None

TREES = {"": "sdpa", "text_config": NAME, "vision_config": NAME}
"""Attention implementations of a network that takes packs of this module."""

_GROUPS = 8


@dataclass(frozen=True, slots=True)
class Group:
    """Branches of one padded ``length``; ``pictures`` [branches] says to which start each belongs."""

    pictures: Tensor
    length: int


@dataclass(frozen=True, slots=True)
class Tree:
    """Where a pack's tokens stand: ``starts`` shared starts of ``start`` tokens, then the groups."""

    starts: int
    start: int
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """Pictures of one grid: ``patches`` [pictures * patches, 588]; labels ``tokens`` [5, visual tokens] and
    ``picture`` [4, pictures]."""

    tree: Tree
    patches: Tensor
    grid: Tensor
    tokens: Tensor
    picture: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures with captions. ``ids``, ``positions`` [4, 1, L] and ``words`` [12, L] follow the pack's order.

    ``labels`` [L] is the next token where it counts; ``grade`` [L] marks those of the grade itself.
    """

    look: Look
    tree: Tree
    ids: Tensor
    positions: Tensor
    labels: Tensor
    grade: Tensor
    words: Tensor
    visual: Tensor


def look_at(lessons: Sequence[Lesson]) -> Look:
    """The pictures of lessons, which have one grid."""
    (grid,) = {lesson.grid for lesson in lessons}
    return Look(
        tree=Tree(len(lessons), 0, ()),
        patches=torch.from_numpy(np.concatenate([lesson.patches for lesson in lessons])),
        grid=torch.tensor([[1, *grid]] * len(lessons)),
        tokens=torch.from_numpy(np.concatenate([lesson.tokens for lesson in lessons], axis=1)),
        picture=torch.from_numpy(np.stack([lesson.picture for lesson in lessons], axis=1)),
    )


def collate(lessons: Sequence[Lesson], layout: Layout) -> Batch:
    """Lessons with pictures of one grid -> a pack."""
    grid = lessons[0].grid
    visual = grid[0] * grid[1] // 4
    before = layout.plain.encode(layout.before, add_special_tokens=False).ids
    start = [*layout.head, *([layout.image_pad] * visual), layout.vision_end, *before]
    row = Row(len(layout.head), (grid[0] // 2, grid[1] // 2), 1 + len(before))
    start_positions = positions([row])[:, 0]

    branches = sorted(
        ((i, branch) for i, lesson in enumerate(lessons) for branch in lesson.branches),
        key=lambda item: len(item[1].ids),
    )
    ids, labels, grades, words, places, groups = [], [], [], [], [], []
    for part in np.array_split(np.arange(len(branches)), _GROUPS):
        if not len(part):
            continue
        members = [branches[i] for i in part]
        length = max(len(branch.ids) for _, branch in members)
        groups.append(Group(torch.tensor([i for i, _ in members]), length))
        steps = np.arange(length)
        mrope = start_positions[1, -1] + 1 + steps
        place = np.stack([len(start) + steps, mrope, mrope, mrope])
        for _, branch in members:
            fill = length - len(branch.ids)
            ids.append(np.pad(branch.ids, (0, fill)))
            following = np.full(length, IGNORE)
            following[branch.answer - 1 : len(branch.ids) - 1] = branch.ids[branch.answer :]
            labels.append(following)
            grade = np.zeros(length, dtype=bool)
            grade[branch.grade[0] - 1 : branch.grade[1] - 1] = True
            grades.append(grade)
            words.append(np.pad(branch.words, ((0, 0), (0, fill)), constant_values=IGNORE))
            places.append(place)
    count, width = len(lessons), len(start)
    all_ids = np.concatenate([*([np.array(start)] * count), *ids])
    return Batch(
        look=look_at(lessons),
        tree=Tree(count, width, tuple(groups)),
        ids=torch.from_numpy(all_ids),
        positions=torch.from_numpy(np.concatenate([*([start_positions] * count), *places], axis=1))[:, None],
        labels=torch.from_numpy(np.concatenate([np.full(count * width, IGNORE), *labels])),
        grade=torch.from_numpy(np.concatenate([np.zeros(count * width, dtype=bool), *grades])),
        words=torch.from_numpy(
            np.concatenate([np.full((len(OF_A_WORD), count * width), IGNORE), *words], axis=1)
        ),
        visual=torch.from_numpy(np.flatnonzero(all_ids == layout.image_pad)),
    )


def see(network: Any, look: Look, mean: Tensor, std: Tensor) -> Tensor:
    """Visual tokens of all pictures, [pictures * visual tokens, width]."""
    values = (look.patches.view(len(look.patches), -1, 3).float() / 255 - mean) / std
    seen = network.model.visual(values.flatten(1), grid_thw=look.grid, tree=look.tree)
    return getattr(seen, "pooler_output", seen)  # type: ignore[no-any-return]  # 4.57 returns it bare


def prepare_for_trees(network: Any) -> None:
    """Make a network take packs, and patches [patches, 588] of one frame too, as :mod:`wdsfilter.engine.pixels`
    cuts them: both frames of a still are equal."""
    embed = network.model.visual.patch_embed

    whole, frame = embed.forward, embed.proj.weight[0, :, 0].numel()

    def forward(patches: Tensor) -> Tensor:
        if patches.shape[-1] != frame:
            return whole(patches)  # type: ignore[no-any-return]
        return linear(patches, embed.proj.weight.sum(dim=2).movedim(1, -1).flatten(1))

    embed.forward = forward
    network.set_attn_implementation(TREES)


def read(network: Any, batch: Batch, visual: Tensor) -> Tensor:
    """Last hidden states of the pack, [L, width]."""
    model = network.model.language_model
    embedded = model.embed_tokens(batch.ids).index_copy(0, batch.visual, visual)
    return model(  # type: ignore[no-any-return]
        inputs_embeds=embedded[None],
        position_ids=batch.positions,
        attention_mask={"full_attention": None},
        use_cache=False,
        tree=batch.tree,
    ).last_hidden_state[0]


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Tree,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a pack, [1, heads, L, head] each; returns [1, L, heads, head] and no weights."""
    heads, length, width = query.shape[1:]
    if is_causal is False:  # the vision tower: pictures of one size, one after the other
        count = 1 if _ONE_BY_ONE else tree.starts

        def pictures(part: Tensor) -> Tensor:
            return part[0].reshape(heads, count, -1, width).transpose(0, 1)

        seen = scaled_dot_product_attention(pictures(query), pictures(key), pictures(value), scale=scaling)
        return seen.transpose(1, 2).reshape(1, length, heads, width), None

    repeat = heads // key.shape[1]
    k_all, v_all = (part[0].repeat_interleave(repeat, dim=0) for part in (key, value))
    shared = tree.starts * tree.start

    def rows(part: Tensor, first: int, count: int, each: int) -> Tensor:
        return part[:, first : first + count * each].reshape(heads, count, each, width).transpose(0, 1)

    k_start, v_start = (rows(part, 0, tree.starts, tree.start) for part in (k_all, v_all))
    out = scaled_dot_product_attention(
        rows(query[0], 0, tree.starts, tree.start), k_start, v_start, is_causal=True, scale=scaling
    )
    outputs = [out.transpose(1, 2).reshape(shared, heads, width)]
    at = shared
    for group in tree.groups:
        count, each = len(group.pictures), group.length
        k = torch.cat([k_start.index_select(0, group.pictures), rows(k_all, at, count, each)], dim=2)
        v = torch.cat([v_start.index_select(0, group.pictures), rows(v_all, at, count, each)], dim=2)
        mask = torch.ones(each, tree.start + each, dtype=torch.bool, device=query.device).tril(tree.start)
        out = scaled_dot_product_attention(
            rows(query[0], at, count, each), k, v, attn_mask=mask, scale=scaling
        )
        outputs.append(out.transpose(1, 2).reshape(count * each, heads, width))
        at += count * each
    return torch.cat(outputs)[None], None


AttentionInterface.register(NAME, tree_attention)
