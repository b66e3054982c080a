"""A checkpoint -> what the vision-language judge runs of it: its half for workers, its half for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from wdsfilter.engine.checkpoint import Checkpoint, model_config, stock_config
from wdsfilter.engine.layout import build_layout, end_tokens, full_tokenizer
from wdsfilter.engine.loading import load_model
from wdsfilter.engine.padded import load_padded
from wdsfilter.engine.pixels import build_plan
from wdsfilter.engine.prepare import Prepare
from wdsfilter.engine.processed import build_prepare
from wdsfilter.engine.readout import Readout, build_readout
from wdsfilter.errors import JudgeError
from wdsfilter.judges import Runtime

if TYPE_CHECKING:
    from wdsfilter.judges.vlm import Options


class Halves(NamedTuple):
    """``prepare`` for workers, ``model`` for the device; ``readout`` reads grades, ``answers`` decodes text."""

    model: Any
    prepare: Any
    readout: Readout
    answers: Any


def packed(
    options: Options, runtime: Runtime, model: Checkpoint, processor: Checkpoint, mark: str | None
) -> Halves:
    """Both halves of a checkpoint that the engine runs in packs, without padding."""
    config = model_config(model)
    layout = build_layout(
        processor,
        config,
        system=options.system,
        prompt=options.prompt,
        max_caption_tokens=options.max_caption_tokens,
    )
    plan = build_plan(
        processor.image_processor(),
        config.get("vision_config", {}),
        min_pixels=options.min_pixels,
        max_pixels=options.max_pixels,
        resize=options.resize,
    )
    readout = build_readout(layout.continuation, options.answer, list(options.scale.grades()))
    answers = full_tokenizer(processor)
    loaded = load_model(
        model,
        plan,
        image_pad=layout.image_pad,
        end_tokens=end_tokens(answers),
        device=runtime.device,
        dtype=options.dtype,
        threads=runtime.threads,
        weights=options.weights,
    )
    prepare = Prepare(layout, plan, mark, options.scaled_decoding)
    return Halves(loaded, prepare, readout, answers)


def padded(
    options: Options, runtime: Runtime, model: Checkpoint, processor: Checkpoint, mark: str | None
) -> Halves:
    """Both halves of any other checkpoint, as transformers runs it."""
    config = stock_config(model)
    if options.weights != "stored":
        raise JudgeError(
            f"{model.folder}: weights: {options.weights} is for Qwen2-VL and Qwen2.5-VL; accepted: stored"
        )
    prepare = build_prepare(
        processor,
        system=options.system,
        prompt=options.prompt,
        max_caption_tokens=options.max_caption_tokens,
        image_token=config.get("image_token_id", config.get("image_token_index")),
        mark=mark,
    )
    continued = prepare.prompt.continuation
    readout = build_readout(continued, options.answer, list(options.scale.grades()), line="")
    tokenizer = prepare.processor.tokenizer
    loaded = load_padded(
        model, tokenizer, device=runtime.device, dtype=options.dtype, threads=runtime.threads
    )
    return Halves(loaded, prepare, readout, tokenizer.backend_tokenizer)
