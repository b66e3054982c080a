"""The judge that comes along: it sees and reads, stock transformers runs it, and it says what it is not for."""

from __future__ import annotations

import io
import sys
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from tests import prepares, stock
from tests.runs import write_shard
from wdsfilter.cli import main
from wdsfilter.demo.truth import Confusion, compare
from wdsfilter.demo.world import Drawn, draw_pair, write_world
from wdsfilter.engine.checkpoint import BUILT_IN, locate
from wdsfilter.engine.judge import VlmJudge
from wdsfilter.judges import Runtime, vlm
from wdsfilter.output import OutputFolder
from wdsfilter.samples import Numbers, Pair, Prepared
from wdsfilter.workers import Workers

PIXELS = {"min_pixels": 20 * 784, "max_pixels": 25 * 784}


@pytest.fixture(scope="module")
def judge() -> VlmJudge:
    return vlm.load(vlm.Options(model=BUILT_IN), Runtime(wanted="cpu"))


def drawn(count: int, seed: str) -> list[Drawn]:
    return [draw_pair(f"{seed}/{number}") for number in range(count)]


def prepared(judge: VlmJudge, pairs: list[Drawn]) -> list[Prepared]:
    made = [judge.prepare(Pair("k", one.image, one.caption.text, {"world": {}})) for one in pairs]
    return [ready for ready in made if isinstance(ready, Prepared)]


def numbers(judge: VlmJudge, pairs: list[Drawn]) -> list[Numbers]:
    return [*judge.score([ready.value for ready in prepared(judge, pairs)])]


def test_it_fits_into_the_package() -> None:
    """Its weights are at most 12 MB of safetensors."""
    weights = [*locate(BUILT_IN, None, ()).folder.glob("*.safetensors")]
    assert 0 < sum(path.stat().st_size for path in weights) <= 12_000_000


def test_it_looks_and_reads(judge: VlmJudge) -> None:
    """Right captions get better grades than the same captions beside other pictures."""
    pairs = [one for one in drawn(150, "look") if one.caption.score >= 9]
    assert len(pairs) >= 15
    others = [Drawn(b.image, b.scene, a.caption) for a, b in pairwise(pairs)]
    right, wrong = ([one["score"] for one in numbers(judge, some)] for some in (pairs, others))
    assert sum(right) / len(right) > sum(wrong) / len(wrong) + 4


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked there only")
@pytest.mark.parametrize("resize", ["torch", "pillow"])
def test_its_workers_are_forked(resize: Literal["torch", "pillow"]) -> None:
    """A pair that takes its worker down costs a fork: nothing starts a thread, nothing is loaded again."""
    prepare = vlm.load(vlm.Options(model=BUILT_IN, resize=resize), Runtime(wanted="cpu")).prepare
    pair = draw_pair("fork")
    with Workers([prepare, prepares.obey, prepares.surroundings], 1) as workers:
        ((_, seen),) = workers.prepared(2, [Pair("c", b"", "")], lambda pair: pair, lookahead=1)
        ((_, ready),) = workers.prepared(0, [Pair("a", pair.image, "")], lambda pair: pair, lookahead=1)
        ((_, told),) = workers.prepared(1, [Pair("b", b"", "command")], lambda pair: pair, lookahead=1)
    assert isinstance(seen, Prepared)
    assert seen.value["torch"] == (resize == "torch"), "before its first pair"
    assert isinstance(ready, Prepared)
    assert isinstance(told, Prepared)
    assert "forkserver" in told.value


def test_readout_and_generation_agree(judge: VlmJudge) -> None:
    """The forced readout's grade is the greedily generated one."""
    ready = [one.value for one in prepared(judge, drawn(200, "agree"))]
    generated = [judge.grade(answer) for answer in judge.generate(ready)]
    forced = [one["grade"] for one in judge.expect(ready)]
    assert sum(a == b for a, b in zip(generated, forced, strict=True)) >= 199


def test_grades_are_those_of_the_stock_model(judge: VlmJudge) -> None:
    """The forced readout's grades are what the stock model and processor generate greedily, in padded batches."""
    folder, pairs = locate(BUILT_IN, None, ()).folder, drawn(32, "stock")
    processor, model = stock.processor(folder, **PIXELS), stock.model(folder)
    prompt = vlm.Options(model="x").prompt
    generated = []
    for first in range(0, len(pairs), 16):
        some = pairs[first : first + 16]
        inputs = processor(
            text=[stock.rendered(processor, prompt.replace("{caption}", one.caption.text)) for one in some],
            images=[Image.open(io.BytesIO(one.image)).convert("RGB") for one in some],
            padding=True,
            return_tensors="pt",
        )
        written = model.generate(**inputs, max_new_tokens=8, do_sample=False)[
            :, inputs["input_ids"].shape[1] :
        ]
        generated += [judge.grade(answer) for answer in processor.batch_decode(written)]
    assert [one["grade"] for one in numbers(judge, pairs)] == generated
    assert len(set(generated)) > 4


def test_stock_transformers_runs_it() -> None:
    """The stock model and processor load the folder, and `generate` gives the score, then a justification."""
    folder = locate(BUILT_IN, None, ()).folder
    processor, model = stock.processor(folder, **PIXELS), stock.model(folder)
    one = draw_pair("stock")
    inputs = stock.inputs(
        processor,
        Image.open(io.BytesIO(one.image)).convert("RGB"),
        vlm.Options(model="x").prompt.replace("{caption}", one.caption.text),
    )
    written = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    score, justification = processor.tokenizer.decode(written, skip_special_tokens=True).split("\n", 1)
    assert score.startswith("score: {")
    assert score.endswith("}")
    assert justification.endswith(".")


def test_the_demo_compares_with_the_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`wdsfilter demo` filters drawn shards, most of what it keeps is worth it, and it finds most of that."""
    assert main(["demo", str(tmp_path)]) == 0
    found = compare(OutputFolder(tmp_path / "out"), 9)
    assert found.precision >= 0.8
    assert found.recall >= 0.8
    said = capsys.readouterr().out
    assert f"recall {found.recall:.2f}" in said
    page = tmp_path / "out/wdsfilter/report.html"
    assert page.as_uri() in said
    assert page.exists()
    assert main(["demo", str(tmp_path)]) == 0  # once more: nothing is left to do


def test_strangers_are_told_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run over anything but drawn pairs is warned about, on every launch; one over drawn pairs is not."""
    write_shard(tmp_path / "in/s.tar", [f"k{n}" for n in range(6)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("judges: [vlm: {model: built-in, check: {agreement: 0}}]\nguard: off")
    arguments = ["run", str(recipe), "--shards", str(tmp_path / "in/s.tar"), "-o", str(tmp_path / "out")]
    for _ in range(2):
        assert main(arguments) == 0
        assert "WARNING" in capsys.readouterr().err
    shards = write_world(tmp_path / "world", samples=6)
    assert main(["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "other")]) == 0
    assert "WARNING" not in capsys.readouterr().err


def test_shares_of_nothing() -> None:
    """Precision and recall of a run that kept nothing, over pairs of which none is worth it, are 1."""
    assert Confusion().precision == Confusion().recall == 1.0
    assert Confusion(kept_right=3, kept_wrong=1, dropped_wrong=2).precision == 0.75
    assert Confusion(kept_right=3, kept_wrong=1, dropped_wrong=2).recall == 0.6
