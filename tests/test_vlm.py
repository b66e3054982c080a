from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests import stock
from wdsfilter.engine.budget import largest
from wdsfilter.engine.checkpoint import Checkpoint, model_config
from wdsfilter.errors import JudgeError
from wdsfilter.judges import JudgeModule, Runtime, is_deciding, is_location, vlm
from wdsfilter.samples import Decision, Prepared, Unreadable

CPU = Runtime(wanted="cpu")
SMALL = {"min_pixels": 56 * 56, "max_pixels": 20 * 28 * 28}
PAIRS = stock.pairs(32)


def options(folder: Path | str = "any", **others: Any) -> vlm.Options:
    return vlm.Options.model_validate({"model": str(folder), **SMALL, **others})


def ready(judge: Any, pairs: Any = PAIRS) -> list[Any]:
    return [judge.prepare(pair).value for pair in pairs]


def test_importing_it_loads_no_engine() -> None:
    """A recipe can name this judge, and be checked, without torch or transformers."""
    code = "import sys, wdsfilter.judges.vlm; print({'torch', 'transformers', 'tokenizers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("resize", "loaded"), [("torch", ["torch"]), ("pillow", [])])
def test_preparing_loads_no_model(
    tiny_checkpoint: Path, tmp_path: Path, resize: str, loaded: list[str]
) -> None:
    """A worker process unpickles and runs the prepare half without transformers, and without torch where nothing
    is to be resized by it."""
    judge = vlm.load(options(tiny_checkpoint, resize=resize), CPU)
    (tmp_path / "work").write_bytes(pickle.dumps((judge.prepare, PAIRS[0])))
    code = (
        "import pickle, sys; prepare, pair = pickle.load(open(sys.argv[1], 'rb')); "
        "print(prepare(pair).cost, sorted({'torch', 'transformers'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "work")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{len(ready(judge)[0].ids)} {loaded}"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        pytest.param({"prompt": "no place"}, "exactly once", id="prompt-without-caption"),
        pytest.param({"prompt": "{caption}{caption}"}, "exactly once", id="prompt-with-two"),
        pytest.param({"pattern": "score"}, "one group", id="pattern-without-group"),
        pytest.param({"pattern": "("}, "regular expression", id="pattern-broken"),
        pytest.param({"scale": {"lowest": 3}}, "both be given", id="half-a-scale"),
        pytest.param({"scale": {"lowest": 3, "highest": 3}}, "lower one", id="one-grade"),
        pytest.param({"scale": {"values": {"a": 1, "b": 1}}}, "number of its own", id="equal-values"),
        pytest.param({"scale": {"lowest": 1, "highest": 2, "values": {"a": 1}}}, "either", id="two-scales"),
        pytest.param({"at_least": {"grade": 9, "score": 8.5}}, "either grade or score", id="two-rules"),
        pytest.param(
            {"at_least": {"score": 9, "with_probability": 0.5}}, "goes with grade", id="score-probability"
        ),
        pytest.param(
            {"readout": "generate", "at_least": {"grade": 9, "with_probability": 0.5}},
            "needs readout",
            id="no-p",
        ),
        pytest.param({"min_pixels": 10**6, "max_pixels": 10**5}, "more than max_pixels", id="pixel-bounds"),
        pytest.param({"at_last": 9}, "at_last", id="unknown-key"),
        pytest.param({"at_least": True}, "at_least", id="yes-as-a-grade"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(given: dict[str, Any], named: str) -> None:
    """Every contradiction in a recipe is found before a model loads."""
    with pytest.raises(ValidationError, match=named):
        options(**given)


def test_only_the_threshold_decides_and_only_names_locate() -> None:
    """Fingerprints leave out exactly what changes no score: the threshold, and where files lie."""
    declared = vlm.Options.model_fields
    assert {name for name, field in declared.items() if is_deciding(field)} == {"at_least"}
    located = {name for name, field in declared.items() if is_location(field)}
    assert located == {"model", "revision", "processor", "processor_revision"}


NUMBERS = {"grade": 8, "score": 8.4, "p": [0, 0, 0, 0, 0, 0, 0.1, 0.4, 0.3, 0.2], "justification": None}


@pytest.mark.parametrize(
    ("at_least", "decision"),
    [
        pytest.param(8, None, id="grade-reached"),
        pytest.param(9, Decision("dropped", "at_least", "grade 8 < 9"), id="grade-missed"),
        pytest.param({"grade": 8}, None, id="grade-spelled-out"),
        pytest.param({"score": 8.25}, None, id="score-reached"),
        pytest.param({"score": 8.5}, Decision("dropped", "at_least", "score 8.4 < 8.5"), id="score-missed"),
        pytest.param({"grade": 9, "with_probability": 0.5}, None, id="probability-reached"),
        pytest.param(
            {"grade": 10, "with_probability": 0.5},
            Decision("dropped", "at_least", "P(grade >= 10) = 0.200 < 0.5"),
            id="probability-missed",
        ),
    ],
)
def test_decisions(at_least: Any, decision: Decision | None) -> None:
    """A pair stays by its greedy grade, its expected score or the probability of a grade, as asked."""
    assert vlm.decide(options(at_least=at_least), NUMBERS) == decision


def test_a_bare_number_is_a_grade() -> None:
    """However a recipe spells the same rule, it is the same options."""
    assert options(at_least=7) == options(at_least={"grade": 7})


def test_the_published_rule_is_the_default() -> None:
    """Without a word about it, what is graded 9 or more is kept."""
    assert vlm.decide(options(), {**NUMBERS, "grade": 9}) is None
    assert vlm.decide(options(), NUMBERS) == Decision("dropped", "at_least", "grade 8 < 9")


def test_no_grade_is_no_rejection() -> None:
    """An answer without a grade is counted as unparsable, not as dropped, and shown."""
    numbers = {"grade": None, "score": None, "p": None, "justification": "a nice dog"}
    assert vlm.decide(options(), numbers) == Decision("unparsable", "no_grade", "answered 'a nice dog'")


@pytest.mark.parametrize("readout", ["expected", "generate"])
def test_scores_are_the_declared_fields(tiny_checkpoint: Path, readout: str) -> None:
    """Numbers have exactly the declared fields, and every float is a float32 value."""
    import numpy as np

    settings = options(tiny_checkpoint, readout=readout, max_new_tokens=16)
    module: JudgeModule = vlm  # type: ignore[assignment]  # a module as a protocol's implementer
    judge = vlm.load(settings, CPU)
    rows = ready(judge)
    for row, numbers in zip(rows, judge.score(rows), strict=True):
        assert set(numbers) == set(module.fields(settings))
        floats = [numbers["score"], numbers["missing_mass"], *(numbers["p"] or ())]
        assert all(value is None or float(np.float32(value)) == value for value in floats)
        assert (numbers["tokens"], numbers["truncated"]) == (len(row.ids), False)
        assert 1 <= numbers["grade"] <= 10
        assert numbers["justification"] is None
        assert (numbers["p"] is None) == (readout == "generate")


def test_justifications_are_written_for_whom_they_are_wanted(tiny_checkpoint: Path) -> None:
    """Nobody, the kept or all get a justification, the same one whichever way their grade was read."""
    by_wish: dict[tuple[str, str], list[Any]] = {}
    for readout in ("expected", "generate"):
        judge = vlm.load(options(tiny_checkpoint, readout=readout, at_least=6, max_new_tokens=16), CPU)
        rows = ready(judge)[:12]
        for wish in ("none", "kept", "all"):
            numbers = replace(judge, justify=wish).score(rows)
            by_wish[readout, wish] = [n["justification"] for n in numbers]
            kept = [n["grade"] >= 6 for n in numbers]
    assert 0 < sum(kept) < len(kept)
    whole = by_wish["generate", "all"]
    assert all("caption" in text and "score" not in text for text in whole)
    for readout in ("expected", "generate"):
        assert by_wish[readout, "none"] == [None] * len(kept)
        assert by_wish[readout, "all"] == whole
        assert by_wish[readout, "kept"] == [
            text if is_kept else None for text, is_kept in zip(whole, kept, strict=True)
        ]


def test_an_answer_ends_with_its_grade(tiny_checkpoint: Path, score_last_checkpoint: Path) -> None:
    """Generation stops at the closing brace, with the whole answer's grade; what names none is kept whole."""
    judge = vlm.load(options(tiny_checkpoint, readout="generate", max_new_tokens=16), CPU)
    rows = ready(judge)[:8]
    whole, short = judge.generate(rows, whole=True), judge.generate(rows)
    assert [text.partition("}")[0] + "}" for text in whole] == [text.rstrip() for text in short]
    assert any(len(text) > len(cut.rstrip()) + 5 for text, cut in zip(whole, short, strict=True))
    lost = replace(judge, grades={})
    assert [n["justification"] for n in lost.score(rows)] == short
    last = vlm.load(options(score_last_checkpoint, readout="generate", max_new_tokens=24), CPU)
    assert [last.grade(text) for text in last.generate(rows)] == [
        last.grade(text) for text in last.generate(rows, whole=True)
    ]


@pytest.mark.parametrize(
    ("pattern", "said", "certain"),
    [
        pytest.param(r"score:\s*\{(\d+)\}", "score: {1", False, id="open"),
        pytest.param(r"score:\s*\{(\d+)\}", "score: {1}", True, id="closed"),
        pytest.param(r"quality (\d+)", "quality 1", False, id="may-go-on"),
        pytest.param(r"quality (\d+)", "quality 1.", True, id="went-on"),
    ],
)
def test_a_grade_is_certain_when_something_follows(
    tiny_checkpoint: Path, pattern: str, said: str, certain: bool
) -> None:
    """An answer is not ended between the 1 and the 0 of a 10."""
    judge = vlm.load(options(tiny_checkpoint, pattern=pattern), CPU)
    assert judge._names_a_grade(judge.answers.encode(said).ids) == certain


@pytest.mark.parametrize(
    ("most", "budget"),
    [
        pytest.param(0, 4096, id="nothing-fits"),
        pytest.param(41_000, 32768, id="room-for-a-margin"),
        pytest.param(40_000, 16384, id="no-room-for-a-margin"),
        pytest.param(10**9, 131072, id="enough-is-enough"),
    ],
)
def test_the_budget_is_the_largest_that_fits_with_a_margin(most: int, budget: int) -> None:
    """`auto` doubles until a quarter more would not fit, and tries nothing beyond."""
    tried = []

    def fits(tokens: int) -> bool:
        tried.append(tokens)
        return tokens <= most

    assert largest(fits) == budget
    assert max(tried) <= 131072 * 1.25


def test_the_budget_is_found_on_a_gpu(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs out of memory does not fit; the finding is committed, and a judge takes it up from there."""
    import torch

    judge = vlm.load(options(tiny_checkpoint, check={"first": 0}), CPU)
    rows = ready(judge)[:3]
    sizes = []

    class Gpu:
        device = torch.device("cuda")

        def log_p(self, batch: Any, readout: Any) -> Any:
            sizes.append(sum(len(pair.ids) for pair in batch))
            if sizes[-1] > 12_000:
                raise torch.OutOfMemoryError
            return []

        def generate(self, *_: Any) -> Any:
            raise AssertionError("not checked")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    findings = replace(judge, model=Gpu()).check(rows)
    assert findings == {"max_tokens_per_batch": 8192}
    assert 8192 * 1.25 <= sizes[0] < 8192 * 1.25 + 100
    assert (judge.batch_cost, judge.adjusted(findings).batch_cost) == (16384, 8192)
    given = vlm.load(options(tiny_checkpoint, check={"first": 0}, max_tokens_per_batch=99), CPU)
    assert given.check(rows) == {}
    assert given.adjusted({}).batch_cost == 99


def test_a_cut_caption_is_recorded(tiny_checkpoint: Path) -> None:
    """A caption longer than its limit is cut, and its row says so."""
    judge = vlm.load(options(tiny_checkpoint, max_caption_tokens=3), CPU)
    long, short = ready(judge, [replace(PAIRS[0], caption="dog " * 99), replace(PAIRS[0], caption="dog")])
    assert [numbers["truncated"] for numbers in judge.score([long, short])] == [True, False]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"image": b"<html>"}, "image_format", id="no-image"),
        pytest.param({"image": stock.png(stock.noise(300, 1))}, "image_aspect", id="ribbon"),
        pytest.param({"caption": "\udc80"}, "caption_not_utf8", id="no-text"),
    ],
)
def test_what_cannot_be_read_is_a_value(tiny_checkpoint: Path, change: dict[str, Any], reason: str) -> None:
    """A bad image or caption costs its own pair, with a reason."""
    judge = vlm.load(options(tiny_checkpoint), CPU)
    outcome = judge.prepare(replace(PAIRS[0], **change))
    assert isinstance(outcome, Unreadable)
    assert (outcome.key, outcome.reason) == (PAIRS[0].key, reason)
    assert isinstance(judge.prepare(PAIRS[0]), Prepared)


def test_the_check_passes_where_the_score_comes_first(tiny_checkpoint: Path) -> None:
    """On a checkpoint that answers in form the forced start agrees, and the findings are plain JSON."""
    judge = vlm.load(options(tiny_checkpoint), CPU)
    findings = judge.check(ready(judge))
    assert json.loads(json.dumps(findings)) == findings
    counts = ("pairs", "starting_with_the_score", "naming_a_grade", "forced_start_agrees")
    assert [findings[name] for name in counts] == [32, 32, 32, 32]
    assert findings["score_first"] is True
    with pytest.raises(JudgeError, match="cannot be checked"):
        judge.check([])  # a check that saw nothing must not pass for one
    unchecked = vlm.load(options(tiny_checkpoint, check={"first": 0}), CPU)
    assert unchecked.check(ready(judge)) == {"max_tokens_per_batch": 16384}


def test_the_check_stops_where_it_does_not(score_last_checkpoint: Path) -> None:
    """On a checkpoint that justifies first, the forced start is refused with what generating would cost."""
    judge = vlm.load(options(score_last_checkpoint), CPU)
    with pytest.raises(JudgeError, match=r"0 start with 'score: \{'.*hours per million pairs"):
        judge.check(ready(judge))
    generating = vlm.load(options(score_last_checkpoint, readout="generate"), CPU)
    assert generating.check(ready(generating))["score_first"] is False


def test_the_check_stops_where_no_answer_names_a_grade(tiny_checkpoint: Path) -> None:
    """Generating is no way out when answers do not match the pattern at all."""
    judge = vlm.load(options(tiny_checkpoint, readout="generate", pattern=r"quality (\d)"), CPU)
    with pytest.raises(JudgeError, match="name no grade"):
        judge.check(ready(judge))


def test_identity_is_content(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The same files elsewhere are the same judge, no path shows, and any other byte is another judge."""
    moved = tmp_path / "moved"
    shutil.copytree(tiny_checkpoint, moved)
    identity = vlm.identify(options(moved), Runtime("cpu"))
    assert identity == vlm.identify(options(tiny_checkpoint), Runtime("cpu"))
    assert identity["dtype"] == "fp32"
    assert vlm.identify(options(moved, dtype="bf16"), Runtime("cpu"))["dtype"] == "bf16"
    assert identity["scoring_version"] == vlm.SCORING_VERSION
    assert str(tmp_path) not in json.dumps(identity)
    with (moved / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert vlm.identify(options(moved), Runtime("cpu")) != identity


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def _only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _torn_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _fewer_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("model.language_model.norm.weight", None) or weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(
            _config(architectures=["LlamaForCausalLM"]), "LlamaForCausalLM; accepted", id="other-family"
        ),
        pytest.param(_config(auto_map={"AutoModel": "x.Y"}), "never run", id="remote-code"),
        pytest.param(_config(quantization_config={"bits": 4}), "quantized", id="quantized"),
        pytest.param(lambda f: (f / "config.json").unlink(), "no config.json", id="no-config"),
        pytest.param(lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json", id="no-tokenizer"),
        pytest.param(
            lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON", id="torn-config"
        ),
        pytest.param(lambda f: (f / "model.safetensors").unlink(), "found no weights", id="no-weights"),
        pytest.param(_only_pickles, "only pytorch_model.bin; accepted", id="pickles"),
        pytest.param(_torn_weights, "cannot be loaded", id="torn-weights"),
        pytest.param(_fewer_weights, "weights are missing", id="fewer-weights"),
    ],
)
def test_wrong_checkpoints_are_named(
    tiny_checkpoint: Path, tmp_path: Path, change: Callable[[Path], Any], named: str
) -> None:
    """A checkpoint that cannot be right is one line that says what was found and what is accepted."""
    folder = tmp_path / "changed"
    shutil.copytree(tiny_checkpoint, folder)
    change(folder)
    with pytest.raises(JudgeError, match=named) as caught:
        vlm.load(options(folder), CPU)
    assert "\n" not in str(caught.value)


def test_what_transformers_4_has_saved_is_known(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """4.57 saves the architecture's name inside `text_config`: its checkpoints are accepted."""
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["text_config"]["architectures"] = config.pop("architectures", ["Qwen2VLForConditionalGeneration"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    assert model_config(Checkpoint(tmp_path)) == config


@pytest.mark.parametrize(
    ("given", "named"),
    [
        pytest.param({"model": "/no/such/folder"}, "a folder, or a hub name", id="no-folder"),
        pytest.param({"model": "owner/name"}, "cannot be had from the hub", id="no-hub"),
    ],
)
def test_missing_checkpoints_are_named(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
) -> None:
    """A model that is neither a folder nor to be had is one line."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(JudgeError, match=named) as caught:
        vlm.identify(options(**given), Runtime("cpu"))
    assert "\n" not in str(caught.value)


def test_a_folder_has_no_revision(tiny_checkpoint: Path) -> None:
    """Asking for a revision of a local folder is an error rather than ignored."""
    with pytest.raises(JudgeError, match="revision"):
        vlm.identify(options(tiny_checkpoint, revision="main"), Runtime("cpu"))
