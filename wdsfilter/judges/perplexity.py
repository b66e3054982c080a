"""Perplexity: how well a caption reads, by what a causal language model expects. The image is not looked at.

Any causal model of transformers. What appendix D of arXiv 2507.20156 takes the mean of is ``loss``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from wdsfilter.engine.checkpoint import TOKENIZER_CONFIG, WEIGHTS, Checkpoint, locate
from wdsfilter.judges import JudgeOptions, Runtime, decides, locates
from wdsfilter.samples import Decision, Numbers

if TYPE_CHECKING:
    from wdsfilter.engine.fluency import Fluency

SCORING_VERSION = 2
"""Raised by whatever changes a score that options and weights do not show."""

_PROCESSOR = ("tokenizer.json", TOKENIZER_CONFIG)


class Options(JudgeOptions):
    """``at_most``: the perplexity up to which a pair stays; without it all pairs do, measured.

    ``start``: the model's own start token comes before a caption, so that its first token counts, too.
    """

    model: str = locates("openai-community/gpt2")
    revision: str | None = locates()
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    start: bool = True
    max_tokens: int = Field(default=1024, ge=2)
    max_tokens_per_batch: int = Field(default=4096, ge=1)
    window: int = Field(default=256, ge=1)
    at_most: float | None = decides(gt=1)


def resolve(options: Options) -> tuple[Options, Sequence[str]]:
    return options, ()


def fields(options: Options) -> Mapping[str, str]:
    """Ledger struct. ``loss`` is the mean cross-entropy in nats over ``tokens``, ``perplexity`` its exponential."""
    return {"loss": "float32", "perplexity": "float32", "tokens": "int32", "truncated": "bool"}


def decide(options: Options, numbers: Numbers) -> Decision | None:
    if options.at_most is None or numbers["perplexity"] <= options.at_most:
        return None
    return Decision("dropped", "at_most", f"perplexity {numbers['perplexity']:.4g} > {options.at_most:g}")


def identify(options: Options, runtime: Runtime) -> Mapping[str, Any]:
    from wdsfilter.engine.loading import identity

    checkpoint = _checkpoint(options)
    told = identity(checkpoint, checkpoint, _PROCESSOR, dtype=options.dtype, device=runtime.device)
    return {"scoring_version": SCORING_VERSION, **told}


def load(options: Options, runtime: Runtime) -> Fluency:
    from wdsfilter.engine.fluency import load_fluency

    return load_fluency(
        _checkpoint(options),
        start=options.start,
        max_tokens=options.max_tokens,
        device=runtime.device,
        dtype=options.dtype,
        window=options.window,
        batch_tokens=options.max_tokens_per_batch,
        threads=runtime.threads,
    )


def _checkpoint(options: Options) -> Checkpoint:
    return locate(options.model, options.revision, (*WEIGHTS, *_PROCESSOR))
