"""Checkpoints of other architectures: judged by transformers' own processor and model, in padded batches."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import stock
from wdsfilter import ledger
from wdsfilter.cli import main
from wdsfilter.demo.checkpoint import PROMPT, SYSTEM
from wdsfilter.demo.world import write_world
from wdsfilter.engine.judge import VlmJudge
from wdsfilter.engine.padded import PaddedModel
from wdsfilter.engine.processed import Ready
from wdsfilter.errors import JudgeError
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Pair, Prepared

KINDS = ("answering_llava", "tiny_idefics3", "tiny_gemma3")
PAIRS = stock.pairs(8)


def load(folder: Path, threads: int = 2, **options: Any) -> VlmJudge:
    given = vlm.Options(model=str(folder), max_new_tokens=6, **options)
    return vlm.load(given, Runtime(wanted="cpu", threads=threads))


def ready(judge: VlmJudge, pairs: Sequence[Pair] = PAIRS) -> list[Ready]:
    prepared = [judge.prepare(pair) for pair in pairs]
    return [one.value for one in prepared if isinstance(one, Prepared)]


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def judge(folder: Path) -> VlmJudge:
    return load(folder)


def asked(folder: Path, pair: Pair) -> Any:
    """What the checkpoint's own processor makes of a pair, with its own chat template."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    user = [{"type": "image"}, {"type": "text", "text": PROMPT + pair.caption}]
    try:
        turns = [
            {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
            {"role": "user", "content": user},
        ]
        text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    except Exception:  # this template knows no system turn
        user[1]["text"] = f"{SYSTEM}\n{user[1]['text']}"
        turns = [{"role": "user", "content": user}]
        text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    image = Image.open(io.BytesIO(bytes(pair.image)))
    return processor(text=[text], images=[[image]], add_special_tokens=False, return_tensors="pt")


def test_numbers_are_those_of_the_stock_model(folder: Path, judge: VlmJudge) -> None:
    """Ids, log-probabilities, constrained and free answers are the stock processor's and model's, pair by pair."""
    import torch

    network = stock.model(folder)
    rows, readout = ready(judge), judge.readout
    columns = {token: i for i, token in enumerate(readout.tokens)}
    digits = sorted({path[0] for path in readout.grades})
    seen = []
    for pair, row, (log_p, best) in list(zip(PAIRS, rows, judge.model.log_p(rows, readout), strict=True))[:4]:
        inputs = asked(folder, pair)
        assert inputs["input_ids"][0].tolist() == row.ids.tolist()
        with torch.inference_mode():
            [ours] = judge.model.generate([row], 6, None)
            free = network.generate(**inputs, max_new_tokens=6, do_sample=False)[0, len(row.ids) :].tolist()
            assert ours == free[: len(ours)]
            start = torch.tensor([readout.trunk[: readout.shared]])
            for name in inputs:
                if inputs[name].shape[:2] == (1, len(row.ids)):
                    more = start if name == "input_ids" else inputs[name][:, -1:].expand(-1, start.shape[1])
                    inputs[name] = torch.cat([inputs[name], more], dim=1)
            expected = torch.log_softmax(network(**inputs).logits[0, -1], dim=-1)
            [grade] = network.generate(
                **inputs, max_new_tokens=1, do_sample=False, prefix_allowed_tokens_fn=lambda *_: digits
            )[0, -1:].tolist()
        np.testing.assert_allclose(log_p[0], expected[list(readout.tokens)].numpy(), atol=1e-4)
        assert best[0] == int(expected.argmax())
        assert grade == max(digits, key=lambda token: log_p[0][columns[token]])
        seen.append(log_p[0])
    assert np.std(seen, axis=0).max() > 0.1  # the pairs do differ


def test_scores_are_bit_identical_in_any_company(folder: Path, judge: VlmJudge) -> None:
    """In fp32 on a CPU a pair's numbers are the same bits alone, among any neighbours and on any threads."""
    rows = ready(judge)
    together = judge.score(rows)
    order = random.Random(0).sample(range(len(rows)), len(rows))
    assert judge.score([rows[i] for i in order]) == [together[i] for i in order]
    assert judge.score(rows[3:4]) == together[3:4]
    assert load(folder, threads=1).score(rows) == together


@pytest.mark.parametrize(
    "scale", [{"lowest": 1, "highest": 10}, {"lowest": 0, "highest": 100}], ids=["10", "100"]
)
def test_a_padded_batch_gives_the_numbers_of_a_pair_alone(folder: Path, scale: dict[str, int]) -> None:
    """As on a GPU, pairs of one shape padded to one length: within 1e-5 of each alone, and of the tree's branches."""
    judge = load(folder, scale=scale, at_least=1)
    assert isinstance(judge.model, PaddedModel)
    rows = ready(judge)
    alone = judge.model.log_p(rows, judge.readout)
    batched = replace(judge.model, threads=None).log_p(rows, judge.readout)
    for (log_p, best), (other_p, other_best) in zip(alone, batched, strict=True):
        np.testing.assert_allclose(log_p, other_p, atol=1e-5)
        assert best.tolist() == other_best.tolist()


def test_answers_do_not_depend_on_neighbours(judge: VlmJudge) -> None:
    """Greedy answers in a padded batch are those of each pair alone."""
    rows = ready(judge)
    assert judge.generate(rows, whole=True) == [judge.generate([row], whole=True)[0] for row in rows]


def test_captions_are_text(folder: Path, judge: VlmJudge) -> None:
    """Whatever control token a caption spells, in whatever disguise: prompts keep their images and control tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    controls = {token for token in tokenizer.get_added_vocab() if token.strip()}
    ids = {tokenizer.convert_tokens_to_ids(token) for token in controls}
    assert len(controls) > 5
    hostile = [f"{token} x{token}\n{token}{token}" for token in controls]
    wide = str.maketrans({"<": "\uff1c", ">": "\uff1e", "|": "\uff5c"})  # NFKC makes the token of it
    hostile += [token.translate(wide) for token in controls]
    [plain] = ready(judge, [PAIRS[0]])
    expected = [token for token in plain.ids.tolist() if token in ids]
    for row in ready(judge, [replace(PAIRS[0], caption=caption) for caption in hostile]):
        assert [token for token in row.ids.tolist() if token in ids] == expected
        assert row.visual_tokens == plain.visual_tokens > 0
        assert [*row.pictures] == [*plain.pictures]


def test_a_long_caption_is_cut(judge: VlmJudge, folder: Path) -> None:
    """A caption beyond its limit loses its end, which is told; what stands around it stays."""
    short = load(folder, max_caption_tokens=5)
    pairs = [replace(PAIRS[0], caption=caption) for caption in ("dog " * 500, "dog")]
    long, own = ready(short, pairs)
    [whole] = ready(judge, pairs[1:])
    assert (long.truncated, own.truncated) == (True, False)
    assert own.ids.tolist() == whole.ids.tolist()
    assert 0 < len(long.ids) - len(own.ids) <= 5


def test_workers_can_have_it(judge: VlmJudge) -> None:
    """The CPU half goes to other processes, and does there what it does here."""
    there = pickle.loads(pickle.dumps(judge.prepare))
    [ours], [theirs] = ready(judge, PAIRS[:1]), ready(replace(judge, prepare=there), PAIRS[:1])
    assert ours.ids.tolist() == theirs.ids.tolist()
    for name, value in ours.pictures.items():
        assert np.array_equal(value, theirs.pictures[name])


def test_a_run_says_so(answering_llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole run judges with it, its forced start checked; it is told how, and which options do nothing."""
    pattern = write_world(tmp_path / "in", samples=24, samples_per_shard=12, broken=0.1)
    given = {"model": str(answering_llava), "at_least": 4, "min_pixels": 12544}
    arguments = ["--shards", pattern, "-o", str(tmp_path / "out"), "--set", "input.tolerate.unreadable=50%"]
    assert main(["run", "img2dataset", "--set", f"judges={json.dumps([{'vlm': given}])}", *arguments]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "LlavaForConditionalGeneration is run in padded batches" in told
    assert "judges.vlm.min_pixels does nothing" in told
    found = json.loads((tmp_path / "out/wdsfilter/readout.json").read_text())["vlm"]
    assert found["forced_start_agrees"] == found["pairs"] > 0
    rows = list(ledger.read_rows(tmp_path / "out/wdsfilter/ledger/world-0000.parquet"))
    assert len({row["vlm"]["grade"] for row in rows if row["vlm"]}) > 2
    assert {row["vlm"]["visual_tokens"] for row in rows if row["vlm"]} == {4}


def test_a_packed_checkpoint_is_told_nothing(tiny_checkpoint: Path) -> None:
    """The family goes on in packs, without a word."""
    assert vlm.resolve(vlm.Options(model=str(tiny_checkpoint)))[1] == []


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _say(name: str, **content: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(
        json.dumps(json.loads((folder / name).read_text()) | content)
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(lambda f: (f / "chat_template.jinja").unlink(), "no chat template", id="no-template"),
        pytest.param(
            _write("chat_template.jinja", "{{ messages[0]['content'][1]['text'] }}<|image_pad|>"),
            "the picture before the text",
            id="picture-last",
        ),
        pytest.param(_write("chat_template.jinja", "<|image_pad|>hello"), "0 times", id="no-text"),
        pytest.param(
            _write("chat_template.jinja", "{{ raise_exception('no') }}"), "rendered: no", id="refuses"
        ),
        pytest.param(
            _say("processor_config.json", auto_map={"AutoProcessor": "x.Y"}), "never run", id="processor-code"
        ),
        pytest.param(_say("config.json", auto_map={"AutoModel": "x.Y"}), "never run", id="model-code"),
        pytest.param(_say("config.json", architectures=["BertModel"]), "BertModel; accepted", id="other"),
        pytest.param(lambda f: (f / "tokenizer.json").unlink(), "cannot be loaded", id="no-tokenizer"),
        pytest.param(
            _say("processor_config.json", processor_class="SmolVLMProcessor"), "cannot be loaded", id="video"
        ),
    ],
)
def test_what_cannot_be_run_is_named(
    answering_llava: Path, tmp_path: Path, change: Callable[[Path], object], named: str
) -> None:
    """A checkpoint that cannot be judged with is one line that says why, before its weights are read."""
    folder = tmp_path / "changed"
    shutil.copytree(answering_llava, folder)
    change(folder)
    (folder / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(JudgeError, match=named) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_what_the_model_does_not_take_is_left_out(answering_llava: Path, tmp_path: Path) -> None:
    """A tokenizer that tells types of tokens goes with a model that knows none."""
    shutil.copytree(answering_llava, tmp_path / "typed")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    _say("tokenizer_config.json", model_input_names=names)(tmp_path / "typed")
    judge = load(tmp_path / "typed")
    rows = ready(judge, PAIRS[:2])
    assert all("token_type_ids" in row.along for row in rows)
    assert judge.generate(rows) == load(answering_llava).generate(rows)


def test_a_prompt_that_spells_a_control_token_is_refused(answering_llava: Path) -> None:
    """An image token in the prompt would be a second image."""
    with pytest.raises(JudgeError, match=r"<\|image_pad\|>"):
        load(answering_llava, prompt="<|image_pad|> {caption}")
