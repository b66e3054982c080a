"""`wdsfilter train`: from scored pairs to a checkpoint that everything which reads the family reads."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import stock
from tests.runs import finished, start
from tests.test_ranks import launch
from tests.training import PIXELS, content, log, losses, parsed, score_pairs, scored_shard, write_recipe
from wdsfilter.cli import main
from wdsfilter.engine.contract import OwnContract, write_contract
from wdsfilter.errors import Interrupted
from wdsfilter.judges import Runtime, vlm
from wdsfilter.samples import Pair
from wdsfilter.stop import Stop
from wdsfilter.training import finetune, job
from wdsfilter.training.folder import TrainingFolder
from wdsfilter.training.loop import Listener
from wdsfilter.training.ranks import join
from wdsfilter.training.scored import find_pairs, split

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scored_shard(tmp_path_factory.mktemp("scored") / "s-0000.tar")


def trained(recipe: dict[str, Any], output: Path) -> Path:
    """Where a training of ``recipe`` has left its checkpoint."""
    assert main(["train", str(write_recipe(output.with_suffix(".recipe"), recipe)), "-o", str(output)]) == 0
    return output


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def loaded(folder: Path, **options: Any) -> Any:
    return vlm.load(vlm.Options(model=str(folder), **options), Runtime(wanted="cpu"))


@pytest.mark.parametrize(
    ("lora", "precision"),
    [
        pytest.param(None, "fp32", id="full"),
        pytest.param(None, "bf16", id="full-bf16"),
        pytest.param(LORA, "fp32", id="lora"),
    ],
)
def test_the_loss_falls(
    lora: dict[str, Any] | None, precision: str, tiny_checkpoint: Path, shard: Path, tmp_path: Path
) -> None:
    """All weights or adapters alone, in fp32 or bf16: the judge answers better than before, on held-out pairs too."""
    recipe = content(tiny_checkpoint, shard, lora=lora or "off", held_out={"every": 1})
    recipe["training"] |= {"steps": 8, "precision": precision}
    recipe["training"]["optimizer"] = {"learning_rate": 3e-2 if lora else 3e-3}
    output = trained(recipe, tmp_path / "out")
    by_step = losses(output)
    assert list(by_step) == list(range(1, 9))
    assert by_step[7] + by_step[8] < 0.9 * (by_step[1] + by_step[2])
    held_out = [line["held_out"] for line in log(output) if "held_out" in line]
    assert len(held_out) == 8
    assert held_out[-1]["loss"] < 0.9 * held_out[0]["loss"]
    assert {"loss", "mae", "spearman", "exact"} == held_out[-1].keys()


def test_adapters_leave_all_but_their_targets(tiny_checkpoint: Path, shard: Path, tmp_path: Path) -> None:
    """LoRA's output has the base's weights, by name and dtype, and only the targeted ones have moved."""
    recipe = content(tiny_checkpoint, shard, lora={"rank": 2, "targets": ["q_proj"]})
    before, after = weights(tiny_checkpoint), weights(trained(recipe, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert {a.dtype for a in after.values()} == {b.dtype for b in before.values()}
    moved = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert moved == {name for name in before if name.endswith("q_proj.weight")}


def test_a_bf16_base_stays_bf16(tiny_checkpoint: Path, shard: Path, tmp_path: Path) -> None:
    """A checkpoint stored in bf16 is adapted in bf16 and comes out in bf16, config and all."""
    import torch
    from safetensors.torch import load_file

    base = tmp_path / "base"
    shutil.copytree(tiny_checkpoint, base)
    stock.model(tiny_checkpoint).to(torch.bfloat16).save_pretrained(base)
    recipe = content(base, shard, lora={"rank": 2})
    recipe["training"]["precision"] = "bf16"
    output = trained(recipe, tmp_path / "out")
    assert {value.dtype for value in load_file(output / "model.safetensors").values()} == {torch.bfloat16}
    config = json.loads((output / "config.json").read_text())
    assert {config["dtype"], config["text_config"]["dtype"]} == {"bfloat16"}


def test_frozen_parts_stay(tiny_checkpoint: Path, shard: Path, tmp_path: Path) -> None:
    """`freeze: visual` leaves the vision tower's bytes, and the rest learns."""
    recipe = content(tiny_checkpoint, shard, freeze="visual", training={"steps": 1, "pairs_per_step": 4})
    before, after = weights(tiny_checkpoint), weights(trained(recipe, tmp_path / "out"))
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {name for name in before if "visual" in name}


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_stock_transformers_loads_it(
    lora: dict[str, Any] | None, tiny_checkpoint: Path, shard: Path, tmp_path: Path
) -> None:
    """Stock model, tokenizer and image processor load the folder, and `generate` answers `score: {N}`."""
    output = trained(content(tiny_checkpoint, shard, lora=lora or "off"), tmp_path / "out")
    processor = stock.processor(output, **PIXELS)
    inputs = stock.inputs(
        processor, stock.noise(70, 50), vlm.Options(model="x").prompt.replace("{caption}", "a dog")
    )
    answer = stock.model(output).generate(**inputs, max_new_tokens=16, do_sample=False)
    text = processor.tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :])
    assert text.startswith("score: {")
    # pixel bounds that nobody repeats are the judge's
    images = stock.image_processor().from_pretrained(output)
    assert (images.size["shortest_edge"], images.size["longest_edge"]) == (
        PIXELS["min_pixels"],
        PIXELS["max_pixels"],
    )
    # who may read one of its files may read all
    assert len({path.stat().st_mode for path in output.iterdir() if path.is_file()}) == 1


def test_held_out_figures_are_the_judges_own(tiny_checkpoint: Path, shard: Path, tmp_path: Path) -> None:
    """The last held-out figures are those of the checkpoint as `run` would read it."""
    recipe = content(tiny_checkpoint, shard)
    output = trained(recipe, tmp_path / "out")
    settings = parsed(recipe)
    pairs = find_pairs(settings.data, settings.judge.scale.grades())
    _, aside = split(pairs, 0.25, settings.seed)
    judge = loaded(output)
    scored = [aside[i] for i in range(len(aside))]
    numbers = judge.score([judge.prepare(one.pair).value for one in scored])
    found = log(output)[-1]["held_out"]
    errors = [abs(said["grade"] - int(one.grade)) for said, one in zip(numbers, scored, strict=True)]
    assert found["mae"] == pytest.approx(sum(errors) / len(errors))
    assert found["exact"] == pytest.approx(errors.count(0) / len(errors))


class Interrupter:
    """A listener that does something after a step."""

    def __init__(self, step: int, act: Any) -> None:
        self.at, self.act = step, act

    def start(self, done: int, steps: int) -> None: ...

    def step(self, step: int, figures: Any) -> None:
        if step == self.at:
            self.act()

    def held_out(self, step: int, figures: Any) -> None: ...


def run_job(recipe: dict[str, Any], output: Path, listener: Listener, stop: Stop) -> None:
    work = finetune.prepare(parsed(recipe), join(), note=lambda line: None, unreadable=lambda pair: None)
    job.run(work, TrainingFolder(output), ranks=join(), listener=listener, stop=stop)


class Killed(Exception):
    """The process is gone."""


@pytest.mark.parametrize(
    "method",
    [
        pytest.param({}, id="full"),
        pytest.param({"lora": LORA}, id="lora"),
        pytest.param({"optimizer": {"name": "muon", "learning_rate": 1e-3, "matrices": 1e-3}}, id="muon"),
    ],
)
@pytest.mark.parametrize("end", ["asked", "killed"])
def test_going_on_is_exact(
    method: dict[str, Any], end: str, tiny_checkpoint: Path, shard: Path, tmp_path: Path
) -> None:
    """A training that was stopped or killed, and started again, leaves the bytes of an unbroken one."""
    recipe = content(tiny_checkpoint, shard, lora=method.get("lora", "off"))
    recipe["training"]["optimizer"] = method.get("optimizer", {"learning_rate": 2e-3})
    unbroken = trained(recipe, tmp_path / "unbroken")

    stop = Stop()

    def die() -> None:
        raise Killed

    act, error = (stop.ask, Interrupted) if end == "asked" else (die, Killed)
    with pytest.raises(error):
        run_job(recipe, tmp_path / "broken", Interrupter(4, act), stop)
    state = tmp_path / "broken" / "training" / "state.pt"
    assert state.exists()
    broken = trained(recipe, tmp_path / "broken")
    first = next(line["step"] for line in log(broken) if "started" in line)
    assert first == {"asked": 5, "killed": 3}[end]  # after the step in hand; from the last checkpoint
    assert not state.exists()
    name = "model.safetensors"
    assert (broken / name).read_bytes() == (unbroken / name).read_bytes()
    again, once = losses(broken), losses(unbroken)
    assert again == {step: loss for step, loss in once.items() if step > first}


def test_a_finished_training_is_left_alone(
    tiny_checkpoint: Path, shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command again touches nothing; another recipe is refused, with the difference."""
    recipe = content(tiny_checkpoint, shard, training={"steps": 1, "pairs_per_step": 4, "precision": "fp32"})
    output = trained(recipe, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*")}
    trained(recipe, output)
    path = write_recipe(tmp_path / "other", recipe)
    capsys.readouterr()
    # what only says how the work is done may change
    assert main(["train", str(path), "-o", str(output), "--set", "run.pairs_at_once=2"]) == 0
    assert main(["train", str(path), "-o", str(output), "--set", "answers.soft=0.1"]) == 1
    said = capsys.readouterr().err
    assert "is the folder of another training" in said
    assert "recipe.answers.soft: 0.0 there, 0.1 now" in said
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*")} == before


def test_another_checkpoint_is_not_written_over(
    tiny_checkpoint: Path, shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that holds a checkpoint of another origin is refused."""
    shutil.copytree(tiny_checkpoint, tmp_path / "out")
    path = write_recipe(tmp_path, content(tiny_checkpoint, shard))
    assert main(["train", str(path), "-o", str(tmp_path / "out")]) == 1
    assert "holds a checkpoint that no training made" in capsys.readouterr().err


def test_a_folder_in_which_another_process_trains_is_refused(
    tiny_checkpoint: Path, shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second launch on one folder would write over the first one's state."""
    path = write_recipe(tmp_path, content(tiny_checkpoint, shard))
    with TrainingFolder(tmp_path / "out").held():
        assert main(["train", str(path), "-o", str(tmp_path / "out")]) == 1
    assert "another process trains in" in capsys.readouterr().err


def test_two_ranks_learn_what_one_does(tiny_checkpoint: Path, shard: Path, tmp_path: Path) -> None:
    """accelerate launch on two ranks, world size asserted, moves the weights as one process does, up to rounding."""
    recipe = content(tiny_checkpoint, shard, training={"steps": 2, "pairs_per_step": 8, "precision": "fp32"})
    alone = trained(recipe, tmp_path / "alone")
    path, output = write_recipe(tmp_path, recipe), tmp_path / "together"
    code, out, err = finished(launch("train", path, "-o", output), timeout=600)
    assert code == 0, err
    assert out.count("trained:") == 1
    assert [line["started"]["ranks"] for line in log(output) if "started" in line] == [2]
    np.testing.assert_allclose([*losses(output).values()], [*losses(alone).values()], rtol=1e-5)
    base = weights(tiny_checkpoint)
    one, two = weights(alone), weights(output)
    moved = np.mean([np.abs(one[name] - base[name]).mean() for name in base])
    apart = np.mean([np.abs(one[name] - two[name]).mean() for name in base])
    assert apart < 0.05 * moved
    assert log(output)[-1]["held_out"] == pytest.approx(log(alone)[-1]["held_out"], rel=1e-3)


def test_a_question_of_ones_own(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Prompt, scale and answer come from the train recipe: a judge learns yes or no, and `run`'s judge obeys it."""
    shard = scored_shard(
        tmp_path / "s.tar",
        count=160,
        change=lambda fields, caption: {"long": "yes" if len(caption.split()) > 5 else "no"},
    )
    judge = {
        "prompt": "Is this caption long?\n{caption}",
        "answer": "long: ",
        "pattern": r"long: (yes|no)",
        "scale": {"values": {"yes": 1, "no": 0}},
    }
    judge |= {"answer": "long: (", "pattern": r"long: \((\w+)\)", "answers_for": "captions in English"}
    answers = {"closing": ")", "grade_weight": 10.0}
    recipe = content(tiny_checkpoint, shard, judge=judge, answers=answers, held_out={"every": 80})
    recipe["data"]["score"] = "long"
    recipe["training"] |= {"steps": 80, "optimizer": {"learning_rate": 8e-3}, "schedule": {"hold": 0.6}}
    recipe["run"] |= {"pairs_at_once": 8, "gradient_checkpointing": False}
    output = trained(recipe, tmp_path / "out")
    assert log(output)[-1]["held_out"]["exact"] > 0.7

    options, remarks = vlm.resolve(vlm.Options(model=str(output), at_least=vlm.AtLeast(grade=1)))
    assert options.scale.grades() == {"no": 0, "yes": 1}
    assert options.prompt == judge["prompt"]
    assert any("captions in English" in remark for remark in remarks)
    read = loaded(output, at_least={"grade": 1})
    right = 0
    for key, image, caption, _ in score_pairs(20, seed=1):
        (numbers,) = read.score([read.prepare(Pair(key, image, caption, {})).value])
        right += numbers["grade"] == (len(caption.split()) > 5)
    assert right >= 16


def test_a_base_hands_its_contract_on(tiny_checkpoint: Path, shard: Path, tmp_path: Path) -> None:
    """What a train recipe leaves unsaid is the base's own contract, where it has one."""
    base = tmp_path / "base"
    shutil.copytree(tiny_checkpoint, base)
    own = OwnContract(score_first=True, system="Be brief.", answers_for="drawings", **PIXELS)
    write_contract(base, own)
    silent = finetune.find_base(parsed({**content(base, shard), "judge": {}}))
    assert silent.contract == own
    louder = finetune.find_base(parsed({**content(base, shard), "judge": {"system": "Be kind."}}))
    assert louder.contract == own.model_copy(update={"system": "Be kind."})


def test_a_signal_stops_it(tiny_checkpoint: Path, shard: Path, tmp_path: Path) -> None:
    """SIGTERM ends a training after the step in hand with exit code 75, and the same command goes on."""
    recipe, output = content(tiny_checkpoint, shard, held_out="off"), tmp_path / "out"
    recipe["training"] |= {"steps": 100_000, "pairs_per_step": 4}
    path = write_recipe(tmp_path, recipe)
    process = start("train", path, "-o", output)
    record = output / "training" / "log.jsonl"
    while process.poll() is None and not (record.exists() and '"loss"' in record.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code, _, err = finished(process)
    assert code == 75, err
    assert "Run the same command again to go on" in err
    assert (output / "training" / "state.pt").exists()


def test_missing_extras_are_named(
    tiny_checkpoint: Path,
    shard: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """LoRA without peft is one line that says what to install."""
    monkeypatch.setitem(sys.modules, "peft", None)
    path = write_recipe(tmp_path, content(tiny_checkpoint, shard, lora=LORA))
    assert main(["train", str(path), "-o", str(tmp_path / "out")]) == 1
    assert "pip install 'wdsfilter[train]'" in capsys.readouterr().err


def test_mistakes_are_one_line(
    tiny_checkpoint: Path, shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a user got wrong is told in a line that names the key, before anything is trained."""
    good = write_recipe(tmp_path, content(tiny_checkpoint, shard))

    def said(*overrides: str) -> str:
        arguments = [argument for override in overrides for argument in ("--set", override)]
        assert main(["train", str(good), "-o", str(tmp_path / "out"), *arguments]) == 1
        lines = capsys.readouterr().err.splitlines()
        return "\n".join(line for line in lines if "pairs to train on" not in line)

    for override, named in {
        "model=/no/such": "no checkpoint at",
        "data.shards=/no/such.tar": "no shard matches",
        "data.score=grade": "no_score",
        "data.dataset=/also": "give either shards or dataset",
        "judge.scale={lowest: 1, highest: 5}": "not_on_the_scale",
        r"judge.pattern=score (\d+)": "does not read the grade '1'",
        "answers.closing=5": "answers.closing",
        "lora={rank: 2, targets: [nowhere]}": "lora.targets",
        "freeze=tower": "no module 'tower'",
        "run.trackers=[nosuch]": "nosuch is not installed",
        "run.pairs_at_once=3": "no multiple",
        "held_out.share=100%": "no pair to train on",
    }.items():
        message = said(override)
        assert named in message, (override, message)
        assert message.count("\n") <= 2, message
    assert "s3://x: the output has to be" in _output(good, "s3://x", capsys)
    assert not (tmp_path / "out" / "config.json").exists()


def _output(recipe: Path, output: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["train", str(recipe), "-o", output]) == 1
    return capsys.readouterr().err


def test_a_loss_that_is_no_number_stops(
    tiny_checkpoint: Path, shard: Path, tmp_path: Path, capsys: Any
) -> None:
    """A training that diverges says so and what may help, and leaves no checkpoint."""
    recipe = content(tiny_checkpoint, shard)
    recipe["training"] |= {"optimizer": {"learning_rate": 1e30}, "schedule": {"warmup": 0.0}}
    path = write_recipe(tmp_path, recipe)
    assert main(["train", str(path), "-o", str(tmp_path / "out")]) == 1
    assert "a smaller learning rate" in capsys.readouterr().err
    assert not (tmp_path / "out" / "judge.json").exists()
