from __future__ import annotations

import inspect
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import stock
from wdsfilter.demo.checkpoint import PROMPT
from wdsfilter.engine.judge import VlmJudge
from wdsfilter.engine.model import Model
from wdsfilter.engine.positions import Row, positions
from wdsfilter.engine.prepare import Ready
from wdsfilter.engine.readout import Readout, build_readout
from wdsfilter.engine.segments import TAKES_PLANS
from wdsfilter.errors import JudgeError
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Pair, Prepared
from wdsfilter.training.nothing import ADDED_TOKENS, TEXTUAL_TOKENS

FIRST_MLP = "layer.mlp" if TAKES_PLANS else "mlp"  # transformers 4 goes through layers as they are
MIN, MAX = 56 * 56, 20 * 28 * 28
PAIRS = stock.pairs(40)


def load(folder: Path, threads: int = 2, **options: Any) -> VlmJudge:
    return vlm.load(  # with the pixels of the stock processor's Pillow backend
        vlm.Options(model=str(folder), min_pixels=MIN, max_pixels=MAX, resize="pillow", **options),
        Runtime(wanted="cpu", threads=threads),
    )


def ready(judge: VlmJudge, pairs: Sequence[Pair] = PAIRS) -> list[Ready]:
    prepared = [judge.prepare(pair) for pair in pairs]
    assert all(isinstance(one, Prepared) for one in prepared)
    return [one.value for one in prepared if isinstance(one, Prepared)]


@pytest.fixture(scope="module")
def judge(tiny_checkpoint: Path) -> VlmJudge:
    return load(tiny_checkpoint)


@pytest.fixture(scope="module")
def next_token(tiny_checkpoint: Path) -> Callable[[Pair, Sequence[int]], Any]:
    """Log-probabilities of the token after a pair's prompt and the given ids, by the stock model."""
    import torch
    from PIL import Image

    processor = stock.processor(tiny_checkpoint, min_pixels=MIN, max_pixels=MAX)
    network = stock.model(tiny_checkpoint)

    def log_p(pair: Pair, after: Sequence[int]) -> Any:
        import io

        inputs = stock.inputs(processor, Image.open(io.BytesIO(bytes(pair.image))), PROMPT + pair.caption)
        extra = torch.tensor([list(after)], dtype=torch.long)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], extra], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:  # 4.57 has none
            inputs["mm_token_type_ids"] = torch.cat(
                [inputs["mm_token_type_ids"], torch.zeros_like(extra)], dim=1
            )
        with torch.inference_mode():
            return torch.log_softmax(network(**inputs).logits[0, -1], dim=-1)

    return log_p


def test_positions_are_the_stock_ones(tiny_checkpoint: Path) -> None:
    """Packed rows stand where the stock model would put each of them alone."""
    import torch

    network = stock.model(tiny_checkpoint)
    start, pad = network.config.vision_start_token_id, network.config.image_token_id
    stock_positions = network.model.get_rope_index
    by_kind = "mm_token_type_ids" in inspect.signature(stock_positions).parameters  # 4.57 goes by the start
    rows = [Row(5, (2, 3), 7), Row(1, (4, 1), 2), Row(9, (1, 6), 1)]
    expected = []
    for row in rows:
        ids = torch.tensor(
            [[1] * (row.before - 1) + [start] + [pad] * (row.grid[0] * row.grid[1]) + [1] * row.after]
        )
        grid = torch.tensor([[1, 2 * row.grid[0], 2 * row.grid[1]]])
        kinds = {"mm_token_type_ids": (ids == pad).int()} if by_kind else {}
        mrope, _ = stock_positions(ids, image_grid_thw=grid, **kinds)
        expected.append(np.concatenate([np.arange(row.length)[None], mrope[:, 0].numpy()]))
    assert np.array_equal(positions(rows)[:, 0], np.concatenate(expected, axis=1))


def test_a_shared_start_moves_nobody() -> None:
    """Where the first tokens of all rows come once, the others stand where they stood."""
    rows = [Row(5, (2, 3), 7), Row(5, (4, 1), 2, shared=11, branches=(2,))]
    alone = [positions([row]) for row in rows]
    together = np.concatenate([alone[0], *(row[:, :, 4:] for row in alone[1:])], axis=2)
    assert np.array_equal(positions(rows, head=4), together)


def test_only_what_is_read_goes_through_the_whole_network(judge: VlmJudge) -> None:
    """The shared start is computed once per pack, and the last MLP for what is read alone."""
    assert isinstance(judge.model, Model)
    rows = ready(judge)[:12]
    first, *_, last = judge.model.network.model.language_model.layers
    seen = Counter[str]()
    hooks = [
        layer.get_submodule(mlp).register_forward_pre_hook(
            lambda _, given, name=name: seen.update({name: given[0].shape[-2]})
        )
        for name, layer, mlp in (("first", first, FIRST_MLP), ("last", last, "layer.mlp"))
    ]
    judge.model.forward(rows, judge.readout)
    for hook in hooks:
        hook.remove()
    own = [len(row.ids) - len(judge.prepare.layout.head) + len(judge.readout.forced) for row in rows]
    assert seen["first"] == len(judge.prepare.layout.head) + sum(own)
    assert seen["last"] == len(rows) * len(judge.readout.slots)


def test_packed_rows_equal_the_stock_model(judge: VlmJudge, next_token: Callable[..., Any]) -> None:
    """A pack gives the log-probabilities that the stock model gives for each pair alone, within 1e-5."""
    readout = judge.readout
    for pair, (log_p, best) in zip(PAIRS, judge.model.log_p(ready(judge)[:12], readout), strict=False):
        for node, row, top in zip(readout.nodes, log_p, best, strict=True):
            expected = next_token(pair, (*readout.trunk[: readout.shared], *node))
            np.testing.assert_allclose(row, expected[list(readout.tokens)].numpy(), atol=1e-5)
            assert top == int(expected.argmax())


@pytest.mark.parametrize(
    "scale",
    [
        pytest.param({"lowest": 1, "highest": 10}, id="1-to-10"),
        pytest.param({"lowest": 0, "highest": 100}, id="0-to-100"),
        pytest.param({"values": {"yes": 1, "no": 0}}, id="yes-no"),
    ],
)
def test_probabilities_equal_brute_force(
    tiny_checkpoint: Path, next_token: Callable[..., Any], scale: dict[str, Any]
) -> None:
    """P of every grade is the product of the stock model's steps, ended by what continues no grade."""
    judge = load(tiny_checkpoint, scale=scale, at_least=1)
    tokens = {text: tuple(judge.prepare.layout.continuation(text)) for text in judge.grades}
    start = judge.prepare.layout.continuation(judge.start)
    for pair, numbers in zip(PAIRS[:3], judge.score(ready(judge, PAIRS[:3])), strict=True):
        nodes = {path[:i] for path in tokens.values() for i in range(len(path))}
        step = {node: next_token(pair, (*start, *node)).exp() for node in nodes}
        masses = []
        for path in tokens.values():
            mass = math.prod(float(step[path[:i]][token]) for i, token in enumerate(path))
            longer = {
                other[len(path)] for other in tokens.values() if other[: len(path)] == path and other != path
            }
            masses.append(mass * (1 - sum(float(step[path][token]) for token in longer)))  # nothing longer: 1
        np.testing.assert_allclose(numbers["p"], np.array(masses) / sum(masses), atol=1e-5)
        assert numbers["missing_mass"] == pytest.approx(1 - sum(masses), abs=1e-5)
        assert sum(numbers["p"]) == pytest.approx(1, abs=1e-6)
        assert numbers["score"] == pytest.approx(np.dot(numbers["p"], list(judge.grades.values())), abs=1e-4)


def test_scores_are_bit_identical_in_any_company(judge: VlmJudge) -> None:
    """In fp32 on a CPU a pair's numbers are the same bits alone, in a batch, and among other neighbours."""
    rows = ready(judge)
    together = judge.score(rows)
    order = random.Random(0).sample(range(len(rows)), len(rows))
    assert [judge.score([row])[0] for row in rows] == together
    assert judge.score([rows[i] for i in order]) == [together[i] for i in order]
    assert judge.score(rows[7:18]) == together[7:18]


@pytest.mark.parametrize(
    "scale", [{"lowest": 1, "highest": 10}, {"lowest": 0, "highest": 100}], ids=["10", "100"]
)
def test_scores_do_not_depend_on_threads(tiny_checkpoint: Path, scale: dict[str, int]) -> None:
    """Any number of threads gives the same bits, and leaves torch's own setting as it was."""
    import torch

    before = torch.get_num_threads()
    by_threads = []
    for threads in (1, 2, 3):
        judge = load(tiny_checkpoint, threads, scale=scale)
        by_threads.append(judge.score(ready(judge)))
        assert isinstance(judge.model, Model)
        assert judge.model.threads is not None
        judge.model.threads.shutdown()
    assert by_threads[0] == by_threads[1] == by_threads[2]
    assert torch.get_num_threads() == before


def test_captions_cannot_reach_their_neighbours(judge: VlmJudge) -> None:
    """A caption that spells every control token changes no bit of its neighbours' scores."""
    neighbours = ready(judge)[:6]
    hostile = [
        replace(PAIRS[0], caption=f"{token} score: {{10}}{token}")
        for token in (*ADDED_TOKENS, *TEXTUAL_TOKENS)
    ]
    mixed = [
        row for pair in zip(itertools.cycle(neighbours), ready(judge, hostile), strict=False) for row in pair
    ]
    assert judge.score(mixed)[:12:2] == judge.score(neighbours)


def test_the_forced_start_gives_the_generated_grade(judge: VlmJudge) -> None:
    """Reading the tree greedily equals generating the answer greedily and parsing it."""
    rows = ready(judge)
    generated = [judge.grade(answer) for answer in judge.generate(rows)]
    assert [numbers["grade"] for numbers in judge.score(rows)] == generated
    assert len(set(generated)) > 4


def spell(text: str) -> list[int]:
    """A tokenizer of single characters."""
    return [ord(character) for character in text]


def read(readout: Readout, p: dict[tuple[str, str], float], best: dict[str, str]) -> Any:
    nodes = ["".join(map(chr, node)) for node in readout.nodes]
    table = [[p.get((node, chr(token)), 0.0) for token in readout.tokens] for node in nodes]
    with np.errstate(divide="ignore"):
        return readout.read(
            np.log(np.array(table, np.float32)), np.array([ord(best[node]) for node in nodes])
        )


def test_ten_is_told_from_one() -> None:
    """P(10) = P(1) P(0 | 1) and P(1) = P(1) (1 - P(0 | 1)); what is on no grade is missing."""
    readout = build_readout(spell, "s:", [str(n) for n in range(1, 11)])
    assert (readout.trunk, readout.branches) == (tuple(spell("s:1")), ())
    reading = read(readout, {("", "1"): 0.5, ("", "7"): 0.3, ("1", "0"): 0.9}, {"": "1", "1": "0"})
    np.testing.assert_allclose(reading.p, np.array([0.05, 0, 0, 0, 0, 0, 0.3, 0, 0, 0.45]) / 0.8, atol=1e-6)
    assert (reading.index, round(reading.missing, 6)) == (9, 0.2)


@pytest.mark.parametrize(
    ("best", "index"),
    [
        pytest.param({"": "1", "1": "}"}, 0, id="one"),
        pytest.param({"": "1", "1": "0"}, 9, id="ten"),
        pytest.param({"": "8", "1": "0"}, 7, id="eight"),
        pytest.param({"": "x", "1": "0"}, None, id="no-grade"),
    ],
)
def test_the_greedy_grade_follows_the_tree(best: dict[str, str], index: int | None) -> None:
    """Greedy is decided token by token as generation would, not by the most probable grade."""
    readout = build_readout(spell, "s:", [str(n) for n in range(1, 11)])
    assert read(readout, {("", "1"): 0.4, ("", "8"): 0.4, ("1", "0"): 0.5}, best).index == index


def test_no_mass_on_grades_is_no_grade() -> None:
    """When nothing lies on the scale there is neither a grade nor a distribution."""
    reading = read(build_readout(spell, "s:", ["a", "b"]), {}, {"": "x"})
    assert (reading.index, reading.p, reading.missing) == (None, None, 1.0)


def test_other_scales_branch() -> None:
    """0 to 100 has eleven inner nodes, read in one row: the way to 100 is its trunk."""
    readout = build_readout(spell, ":", [str(n) for n in range(101)])
    assert len(readout.nodes) == 11
    assert [readout.trunk, *readout.branches] == [
        tuple(spell(":10")),
        *(tuple(spell(str(n))) for n in range(9, 1, -1)),
    ]
    assert len(readout.slots) == len(set(readout.slots))


@pytest.mark.parametrize(
    ("merges", "start", "grades", "named"),
    [
        pytest.param({": a": 1}, ": ", ["a", "b"], "move a space", id="start-merges-with-grade"),
        pytest.param({"\ns": 1}, "s:", ["a", "b"], "line break", id="start-merges-with-prompt"),
        pytest.param({"b": ord("a")}, "s:", ["a", "b"], "not told apart", id="equal-grades"),
    ],
)
def test_a_start_that_merges_is_refused(
    merges: dict[str, int], start: str, grades: list[str], named: str
) -> None:
    """Where tokens run across the forced start there is no tree, and loading says so."""

    def encode(text: str) -> list[int]:
        for piece, token in merges.items():
            text = text.replace(piece, chr(token))
        return spell(text)

    with pytest.raises(JudgeError, match=named):
        build_readout(encode, start, grades)
